"""Checkpoints hold what was saved, whatever happens to the state afterwards."""

import re
import resource
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.train.checkpoints import DIGESTS, WENT_BACK, Checkpoints
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


@pytest.fixture
def two(tmp_path):
    """Checkpoints 5 and 6."""
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (5, 6):
            checkpoints.save(step, some_state(float(step)), {"next_index": step}, 1.0)
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def truncated(folder):
    """Half of every file."""
    for path in files(folder):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_digests(folder):
    """As older versions wrote it, half of its data gone."""
    for path in (folder / "state" / "d").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (folder / DIGESTS).unlink()


def data_gone(folder):
    next((folder / "state" / "d").iterdir()).unlink()


DAMAGES = {
    "truncated": (truncated, "_CHECKPOINT_METADATA is not JSON"),
    "data gone": (data_gone, "state/d/.* is missing"),
    "empty folder": (
        lambda folder: (shutil.rmtree(folder), folder.mkdir()),
        "_CHECKPOINT_METADATA is missing",
    ),
    "empty metrics": (
        lambda folder: (folder / "metrics" / "metrics").write_text(""),
        "metrics/metrics is not JSON",
    ),
    "metrics without nme": (
        lambda folder: (folder / "metrics" / "metrics").write_text("{}"),
        "metrics/metrics does not say nme",
    ),
    "empty digests": (
        lambda folder: (folder / DIGESTS).write_text(""),
        f"{DIGESTS} holds no digests",
    ),
    "old, data truncated": (without_digests, "state/d/.*: OUT_OF_RANGE"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_newest_checkpoint_is_set_aside_for_the_one_before(two, capfd, name):
    damage_it, cause = DAMAGES[name]
    damage_it(two / "6")
    before = [path.read_bytes() for path in files(two / "6")]
    with Checkpoints(two, keep=2) as checkpoints:
        step, state, place = checkpoints.resume(shapes_of(some_state()))
        assert (step, place) == (5, {"next_index": 5}) and same(state, some_state(5.0))
        (line,) = told_on_stderr(capfd)
        pattern = rf"rednet: warning: {two}/6: damaged \(.*{cause}.*\); kept as 6.damaged; "
        assert re.fullmatch(pattern + "the run resumes from step 5", line)
        checkpoints.save(6, some_state(6.0), PLACE, 1.0)
        assert checkpoints.latest == 6
    assert names(two) == ["5", "6", "6.damaged"]
    assert [path.read_bytes() for path in files(two / "6.damaged")] == before
    with Checkpoints(two, keep=2) as checkpoints:
        assert checkpoints.resume(shapes_of(some_state())).step == 6
    assert told_on_stderr(capfd) == []


def told_on_stderr(capfd):
    """Without Orbax's remark that tests name no shardings."""
    return [
        line
        for line in capfd.readouterr().err.splitlines()
        if "Sharding info not provided" not in line and line.strip() != "warnings.warn("
    ]


@pytest.mark.parametrize("name", DAMAGES)
def test_where_all_are_damaged_nothing_is_renamed(two, name):
    """Else the run would begin from scratch when it is started again."""
    damage_it, cause = DAMAGES[name]
    for step in ("5", "6"):
        damage_it(two / step)
    with Checkpoints(two, keep=2) as checkpoints, pytest.raises(RednetError) as caught:
        checkpoints.resume(shapes_of(some_state()))
    pattern = rf"{two}/6: damaged \(.*{cause}.*\), and no other checkpoint of the run can be loaded"
    assert re.fullmatch(pattern, str(caught.value)) and len(str(caught.value)) < 500
    assert names(two) == ["5", "6"]


def test_a_damaged_older_checkpoint_does_not_hinder(two, capfd):
    (two / "5" / "metrics" / "metrics").write_text("")
    with Checkpoints(two, keep=2) as checkpoints:
        assert checkpoints.resume(shapes_of(some_state())).step == 6
        checkpoints.save(7, some_state(7.0), PLACE, 1.0)
    assert names(two) == ["5.damaged", "6", "7"]


def test_every_bit_counts(two):
    """A flipped bit in a file is noticed, or the state and place are what was saved."""
    rng = np.random.default_rng(0)
    for path in files(two / "6"):
        name, whole = path.relative_to(two / "6").as_posix(), path.read_bytes()
        for _ in range(6):
            flipped = bytearray(whole)
            flipped[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
            with Checkpoints(two, keep=2) as checkpoints:
                try:
                    state, place = checkpoints.load(6, shapes_of(some_state()))
                except RednetError as error:
                    assert f"{two}/6: " in str(error) and "\n" not in str(error)
                    continue
            # Orbax's own words about the checkpoint: times, and who wrote it.
            assert name in ("_CHECKPOINT_METADATA", "commit_success.txt")
            assert same(state, some_state(6.0)) and place == {"next_index": 6}
        path.write_bytes(whole)
    with Checkpoints(two, keep=2) as checkpoints:
        assert same(checkpoints.load(6, shapes_of(some_state()))[0], some_state(6.0))


def test_checkpoints_of_older_versions_have_no_digests(two, capfd):
    (two / "6" / DIGESTS).unlink()
    with Checkpoints(two, keep=2) as checkpoints:
        step, state, _ = checkpoints.resume(shapes_of(some_state()))
        assert step == 6 and same(state, some_state(6.0))
    assert told_on_stderr(capfd) == []


def test_a_run_is_taken_back_once(two, capfd):
    like = shapes_of(some_state())
    with Checkpoints(two, keep=2) as checkpoints:
        with pytest.raises(RednetError, match="no checkpoint of step 4; there are: 5, 6"):
            checkpoints.resume(like, from_step=4)
        assert checkpoints.resume(like, from_step=5).step == 5
        (line,) = told_on_stderr(capfd)
        assert line.endswith("/6: superseded; kept as 6.superseded; the run resumes from step 5")
        checkpoints.save(7, some_state(7.0), PLACE, 1.0)
    # The same command, queued again, goes on; without its file the run is taken back again.
    with Checkpoints(two, keep=2) as checkpoints:
        assert checkpoints.resume(like, from_step=5).step == 7
        assert f"delete {two / WENT_BACK} to" in told_on_stderr(capfd)[0]
        (two / WENT_BACK).unlink()
        assert checkpoints.resume(like, from_step=5).step == 5
    assert names(two) == ["5", "6.superseded", "7.superseded", WENT_BACK]


def test_a_run_is_not_taken_back_to_a_damaged_checkpoint(two):
    data_gone(two / "5")
    told = r"5: damaged \(state/d/.* is missing\)"
    with Checkpoints(two, keep=2) as checkpoints, pytest.raises(RednetError, match=told):
        checkpoints.resume(shapes_of(some_state()), from_step=5)
    assert names(two) == ["5", "6"]


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


def test_what_orbax_left_unfinished_is_not_told_when_it_ends():
    """Where a write fails, TensorStore has callbacks for an event loop that is closed by then."""
    code = (
        "import asyncio, functools, weakref, rednet_jax.train.checkpoints\n"
        "loop = asyncio.new_event_loop()\n"
        "loop.close()\n"
        "late = functools.partial(loop.call_soon_threadsafe, print)\n"
        "other = lambda gone: late(gone)\n"
        # C calls them, and nobody can catch what they raise.
        "one, two = set(), set()\n"
        "references = weakref.ref(one, late), weakref.ref(two, other)\n"
        "del one, two\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert told.startswith("Exception ignored in: <function <lambda>")
    assert told.count("Event loop is closed\n") == 1
