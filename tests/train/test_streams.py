"""Random streams of a run share no key."""

from __future__ import annotations

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rednet_jax.train import streams
from rednet_jax.train.streams import Stream, root, row_keys

SEEDS, COUNT = 3, 40


def names(keys: jax.Array) -> list[bytes]:
    data = np.asarray(jax.random.key_data(keys))
    return [key.tobytes() for key in data.reshape(-1, data.shape[-1])]


def test_no_two_roots_and_nothing_derived_from_them_are_equal() -> None:
    """As each stream is used: the first whole, steps and rows, validation faces."""
    seen: list[bytes] = []
    for seed in range(SEEDS):
        seen += names(jax.random.key(seed))
        roots = {stream: root(seed, stream) for stream in Stream}
        for key in roots.values():
            seen += names(key)
        rows = jnp.arange(COUNT)
        for step in range(COUNT):
            for stream in (Stream.DRAWS, Stream.BURSTS):
                seen += names(jax.random.fold_in(roots[stream], step))
                seen += names(row_keys(roots[stream], jnp.int32(step), rows))
        seen += names(jax.random.split(roots[Stream.VALIDATION], COUNT))
    assert len(seen) == SEEDS * (1 + len(Stream) + COUNT * (2 * (1 + COUNT) + 1))
    assert len(set(seen)) == len(seen)


def test_roots_stay_what_they_are_when_streams_are_added() -> None:
    """A run that is resumed by a later version draws on."""
    key = jax.random.key(5)
    for stream, number in itertools.zip_longest(Stream, (0, 1, 2, 3)):
        assert names(root(5, stream)) == names(jax.random.fold_in(key, number))


def test_training_has_no_other_roots() -> None:
    found = {
        path.name
        for path in Path(streams.__file__).parent.glob("*.py")
        if "random.key(" in path.read_text() or "PRNGKey(" in path.read_text()
    }
    assert found == {"streams.py"}
