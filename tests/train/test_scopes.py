"""The scopes of operations name their part of the network or of the training step."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
from train.test_step import drawn

from rednet_jax.model import rednet
from rednet_jax.train.parallel import Sharded

NETWORK = {"encoder", "recurrent", "decoder", "heads", "feedback", "recrop"}


def scopes(text: str, pattern: str) -> set[str]:
    """Returns all parts of the operations' names, without the names of transforms."""
    parts = {part for name in re.findall(pattern, text) for part in name.split("/")}
    return {re.sub(r"^(\w+\()*|\)*$", "", part) for part in parts}


def test_scopes_of_the_compiled_network(narrow):
    config = narrow("compact", recrop="similarity", context=1.5)
    variables = jax.eval_shape(lambda: rednet.init(config, jax.random.key(0)))
    state = jax.eval_shape(lambda: rednet.initial_state(config, 1))
    size = config.input_size
    frames = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    lowered = rednet.step.lower(config, variables, state, frames, feedback_steps=1)
    # Otherwise a program from the compilation cache may have the names of an earlier version.
    names_in_key = "jax_compilation_cache_include_metadata_in_key"
    jax.config.update(names_in_key, True)
    try:
        text = lowered.compile().as_text()
    finally:
        jax.config.update(names_in_key, False)
    assert scopes(text, r'op_name="([^"]*)"') >= NETWORK


def test_scopes_of_the_training_step(experiment):
    data, model = experiment.stages[0].data, experiment.model
    faces = drawn(4, side=data.cached_size, margin=model.crop_margin * data.cover)
    text = Sharded(experiment).lowered(0, 1, faces).as_text(debug_info=True)
    parts = {"draw", "encoder", "decoder", "heads", "losses", "optimiser"}
    assert scopes(text, r'loc\("([^"]*)"') >= parts
