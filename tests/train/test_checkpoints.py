"""Checkpoints hold what was saved, whatever happens to the state afterwards."""

import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.train.checkpoints import Checkpoints
from rednet_jax.train.state import TrainState

PLACE = {"next_index": 7}


def some_state(value=0.0, size=1000):
    params = {"kernel": jnp.full((size, 3), value), "scale": jnp.arange(5.0)}
    average = {"params": jax.tree.map(jnp.copy, params), "batch_stats": {}}
    return TrainState(jnp.int32(value), params, {}, average, ())


def shapes_of(state):
    return jax.eval_shape(lambda: state)


def same(one, other):
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


def test_a_state_that_is_donated_while_it_is_written_is_saved_as_it_was(tmp_path):
    on = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = on(some_state(size=300_000))
    expected = jax.tree.map(np.array, state)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(1, state, PLACE, nme=3.0)
        for _ in range(30):
            state = on(state)
        jax.block_until_ready(state)
        assert not same(state, expected)
        loaded, place = checkpoints.load(checkpoints.latest, shapes_of(state))
        assert same(loaded, expected) and place == PLACE


def test_the_latest_and_the_best_are_kept(tmp_path):
    nme = {5: 4.0, 10: 3.0, 15: 3.5, 20: 5.0, 25: 4.5}
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest is None
        for step, value in nme.items():
            checkpoints.save(step, some_state(step), {"next_index": step}, value)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [10, 20, 25]
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest == 25
        best, place = checkpoints.load(10, shapes_of(some_state()))
        assert place == {"next_index": 10}
        assert int(best.step) == 10 and same(best, some_state(10.0))


def test_a_checkpoint_that_was_cut_short_is_not_seen(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(5, some_state(5.0), PLACE, 1.0)
    whole = tmp_path / "5"
    whole.rename(tmp_path / "10.orbax-checkpoint-tmp")
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest is None


def test_another_network_is_refused_in_one_line(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(5, some_state(5.0), PLACE, 1.0)
        with pytest.raises(RednetError, match=r"5: cannot be restored") as caught:
            checkpoints.load(checkpoints.latest, shapes_of(some_state(size=7)))
        assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(5, some_state(5.0), PLACE, 1.0)
    for path in (tmp_path / "5").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:500])
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        with pytest.raises(RednetError, match=r"5: cannot be restored") as caught:
            checkpoints.load(checkpoints.latest, shapes_of(some_state()))
        assert "\n" not in str(caught.value)


def test_a_full_disk_is_told_in_one_line_and_leaves_what_was_whole(tmp_path, capfd):
    """The limit on the size of files stands for the disk: Orbax's own threads meet it, too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(5, some_state(5.0), PLACE, 1.0)
        assert checkpoints.latest == 5
        # TensorStore packs what repeats itself.
        noise = jax.random.normal(jax.random.key(0), (100_000, 3))
        large = some_state(6.0, size=100_000)._replace(params={"kernel": noise})
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
            checkpoints.save(6, large, PLACE, 1.0)
            with pytest.raises(RednetError) as caught:
                _ = checkpoints.latest
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value) == f"{tmp_path}: cannot be written (File too large)"
    assert capfd.readouterr().err == ""
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest == 5
        assert same(checkpoints.load(5, shapes_of(some_state()))[0], some_state(5.0))
        assert not (tmp_path / "6").exists()
