"""Random outputs of a pass of a network with seven landmarks, and targets for them."""

import jax
import jax.numpy as jnp
import numpy as np

from rednet_jax.model.network import PassOutput
from rednet_jax.train.terms import Targets

CROP, MAP = 32, 8
RNG = np.random.default_rng(0)
LABELLED = np.ones((3, 7), bool)
LABELLED[1, [1, 4]] = False
LABELLED[2] = False
TRUTH = RNG.uniform(4, 28, (3, 7, 2))
TRUTH[0, 5] = -3, 40  # beyond the crop
PEOPLE = jnp.asarray([1, -1, 0])
TARGETS = Targets(jnp.asarray(TRUTH, jnp.float32), jnp.asarray(LABELLED), PEOPLE)


def some_output(dtype=np.float32, batch=3, points=7):
    rng = np.random.default_rng(1)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=(batch, *shape)), dtype)

    logits = normal(MAP, MAP, points + 1)
    return PassOutput(
        logits=logits,
        response_maps=jax.nn.softmax(logits),
        map_landmarks=16 + 6 * normal(points, 2),
        landmarks=16 + 6 * normal(points, 2),
        confidence_logits=3 * normal(points),
        identity_logits=normal(2),
        coarse_logits=None,
        crop=jnp.tile(jnp.eye(2, 3), (batch, 1, 1)),
        coarse_crop=jnp.tile(jnp.eye(2, 3), (batch, 1, 1)),
    )
