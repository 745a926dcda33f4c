"""The checks of the arguments of the public functions."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

Narrow = Callable[..., RedNetConfig]


def test_wrong_shapes_types_and_passes_raise_errors(shallow: Narrow) -> None:
    config = shallow("compact")
    variables = rednet.init(config, jax.random.key(0))
    images = jnp.zeros((1, config.image_size, config.image_size, 3))
    with pytest.raises(RednetError, match="feedback_steps must be 1 or more, not 0"):
        rednet.align_image(config, variables, images, feedback_steps=0)
    with pytest.raises(RednetError, match="images are"):
        rednet.align_image(config, variables, images[:, 1:], feedback_steps=1)
    with pytest.raises(RednetError, match="images are uint8, not floating"):
        rednet.align_image(config, variables, images.astype(jnp.uint8), feedback_steps=1)
    with pytest.raises(RednetError, match="images are a list, not one array"):
        rednet.align_image(config, variables, list(images), feedback_steps=1)
    state = rednet.initial_state(config, 1)
    with pytest.raises(RednetError, match="images are bfloat16, not float32"):
        rednet.step(config, variables, state, images.astype(jnp.bfloat16), feedback_steps=1)
    with pytest.raises(RednetError, match="images are"):
        rednet.align_clip(config, variables, images, state, feedback_steps=1)


def test_errors_name_the_mismatch(shallow: Narrow) -> None:
    config = shallow("compact")
    variables = rednet.init(config, jax.random.key(0))
    size, state = config.image_size, rednet.initial_state(config, 1)
    images = jnp.zeros((2, size, size, 3))
    align, step = (
        functools.partial(call, config, feedback_steps=1)
        for call in (rednet.align_image, rednet.step)
    )
    message = f"{size}, 3); this compact takes [B, {size}, {size}, 3]: images[None] adds the batch"
    with pytest.raises(RednetError, match=re.escape(message)):
        align(variables, images[0])
    with pytest.raises(
        RednetError, match=r"state: feedback is float32 \(1, 16, 16, 69\), and 2 images"
    ):
        step(variables, state, images)
    without_memory = dataclasses.replace(config, recurrence="none")
    with pytest.raises(
        RednetError, match=r"state: memory/0 is .*, and 2 images of this config need"
    ):
        step(variables, rednet.initial_state(without_memory, 2), images)

    wider = dataclasses.replace(config, regression_width=9)
    wider_variables = rednet.init(wider, jax.random.key(0))
    message = r"not those of this config: \S+/regression/\S+ has shape .*, its config needs"
    with pytest.raises(RednetError, match=message):
        align(wider_variables, images)
    with pytest.raises(RednetError, match=r"batch_stats/\S+ is missing"):
        align(variables["params"], images)
    more = variables | {"more": jnp.zeros(3)}
    with pytest.raises(RednetError, match="more is not a variable of its config's network"):
        align(more, images)


def test_warps_of_another_shape_or_type_raise_errors(shallow: Narrow) -> None:
    """JAX clamps an index beyond the end, so a missing map would be replaced by the last one."""
    config = shallow("compact")
    variables, state = rednet.init(config, jax.random.key(0)), rednet.initial_state(config, 1)
    clips = jnp.zeros((1, 2, config.image_size, config.image_size, 3))
    clip = functools.partial(rednet.align_clip, config, variables, clips, state, feedback_steps=1)
    maps = jnp.broadcast_to(jnp.eye(2, 3), (1, 2, 2, 3))
    for wrong in (maps[:, :1], maps[:, :, :, :2], maps[0], maps.astype(int)):
        with pytest.raises(RednetError, match=r"warps are \S+ \(.*, not floating \(1, 2, 2, 3\)"):
            clip(warps=wrong)
    with pytest.raises(RednetError, match=r"warps are .*, not floating \(1, 2, 3\)"):
        rednet.step(config, variables, state, clips[:, 0], maps[0], feedback_steps=1)


def test_no_images_and_passes_that_are_no_integer_raise_errors(shallow: Narrow) -> None:
    config = shallow("compact")
    variables = rednet.init(config, jax.random.key(0))
    size = config.image_size
    with pytest.raises(RednetError, match="one or more"):
        rednet.align_image(config, variables, jnp.zeros((0, size, size, 3)), feedback_steps=1)
    state = rednet.initial_state(config, 1)
    with pytest.raises(RednetError, match="one or more"):
        clips = jnp.zeros((1, 0, size, size, 3))
        rednet.align_clip(config, variables, clips, state, feedback_steps=1)
    images = jnp.zeros((1, size, size, 3))
    for wrong in (1.5, True, "1"):
        with pytest.raises(RednetError, match=f"feedback_steps must be an integer, not {wrong!r}"):
            rednet.align_image(config, variables, images, feedback_steps=wrong)
    output, _ = rednet.align_image(config, variables, images, feedback_steps=np.int64(2))
    assert output.per_step.landmarks.shape[0] == 2
    floats = state._replace(passes=state.passes.astype(float))
    with pytest.raises(RednetError, match=r"state: passes is float32 \(1,\), and 1 images of"):
        rednet.step(config, variables, floats, images, feedback_steps=1)
