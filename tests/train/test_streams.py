"""The random streams of a run have no key in common."""

from __future__ import annotations

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rednet_jax.train import streams
from rednet_jax.train.streams import Stream, root, row_keys

SEEDS, COUNT = 3, 40


def key_bytes(keys: jax.Array) -> list[bytes]:
    data = np.asarray(jax.random.key_data(keys))
    return [key.tobytes() for key in data.reshape(-1, data.shape[-1])]


def test_roots_and_keys_derived_from_them_are_distinct() -> None:
    """With the keys that each stream uses: a root, steps and rows, validation faces."""
    seen: list[bytes] = []
    for seed in range(SEEDS):
        seen += key_bytes(jax.random.key(seed))
        roots = {stream: root(seed, stream) for stream in Stream}
        for key in roots.values():
            seen += key_bytes(key)
        rows = jnp.arange(COUNT)
        for step in range(COUNT):
            for stream in (Stream.DRAWS, Stream.BURSTS):
                seen += key_bytes(jax.random.fold_in(roots[stream], step))
                seen += key_bytes(row_keys(roots[stream], jnp.int32(step), rows))
        seen += key_bytes(jax.random.split(roots[Stream.VALIDATION], COUNT))
    assert len(seen) == SEEDS * (1 + len(Stream) + COUNT * (2 * (1 + COUNT) + 1))
    assert len(set(seen)) == len(seen)


def test_roots_do_not_change_when_streams_are_added() -> None:
    """A run that is resumed by a later version continues with the same keys."""
    key = jax.random.key(5)
    for stream, number in itertools.zip_longest(Stream, (0, 1, 2, 3)):
        assert key_bytes(root(5, stream)) == key_bytes(jax.random.fold_in(key, number))


def test_training_creates_no_other_keys() -> None:
    files = {
        path.name
        for path in Path(streams.__file__).parent.glob("*.py")
        if "random.key(" in path.read_text() or "PRNGKey(" in path.read_text()
    }
    assert files == {"streams.py"}
