"""Checkpoints: saving, resuming, damaged files, and full disks."""

import re
import resource
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils

from rednet_jax.errors import RednetError
from rednet_jax.train import checkpoints as checkpoints_module
from rednet_jax.train.checkpoints import DIGESTS, WENT_BACK, Checkpoints
from rednet_jax.train.state import TrainState

POSITION = {"next_index": 7}


def some_state(value=0.0, size=1000):
    params = {"kernel": jnp.full((size, 3), value), "scale": jnp.arange(5.0)}
    average = {"params": jax.tree.map(jnp.copy, params), "batch_stats": {}}
    return TrainState(jnp.int32(value), params, {}, average, ())


def shapes_of(state):
    return jax.eval_shape(lambda: state)


def like(step):
    return shapes_of(some_state())


def same(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def test_a_state_that_is_donated_during_the_write_is_saved_unchanged(tmp_path):
    add_one = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = add_one(some_state(size=300_000))
    expected = jax.tree.map(np.array, state)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(1, state, POSITION, nme=3.0)
        for _ in range(30):
            state = add_one(state)
        jax.block_until_ready(state)
        assert not same(state, expected)
        loaded, position = checkpoints.load(checkpoints.latest, shapes_of(state))
        assert same(loaded, expected) and position == POSITION


def test_the_latest_and_the_best_are_kept(tmp_path):
    nme = {5: 4.0, 10: 3.0, 15: 3.5, 20: 5.0, 25: 4.5}
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest is None
        for step, value in nme.items():
            checkpoints.save(step, some_state(step), {"next_index": step}, value)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [10, 20, 25]
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest == 25
        best, position = checkpoints.load(10, shapes_of(some_state()))
        assert position == {"next_index": 10}
        assert int(best.step) == 10 and same(best, some_state(10.0))


def test_an_incomplete_checkpoint_is_ignored(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(5, some_state(5.0), POSITION, 1.0)
    (tmp_path / "5").rename(tmp_path / "10.orbax-checkpoint-tmp")
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest is None


@pytest.mark.parametrize("name", ["007", "\u0667", "7.copy", "-7", "notes"])
def test_a_folder_without_the_name_of_a_step_is_ignored(tmp_path, name):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(5, some_state(5.0), POSITION, 1.0)
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.latest == 5
        resumed = checkpoints.resume(like)
        assert resumed is not None and resumed.step == 5
        for step in (6, 8):
            checkpoints.save(step, some_state(float(step)), {"next_index": step}, 2.0)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.latest == 8
    assert (tmp_path / name / "mine.txt").read_text() == "mine"


def test_the_error_for_another_network_is_one_line(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(5, some_state(5.0), POSITION, 1.0)
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
    """Truncates every file to half of its size."""
    for path in files(folder):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_digests(folder):
    """Truncates data to half, and removes the digests, which earlier versions did not write."""
    for path in (folder / "state" / "d").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (folder / DIGESTS).unlink()


def nested(folder):
    """Nests Orbax's metadata too deeply for Python's reader of JSON, and removes the digests."""
    (folder / "state" / "_METADATA").write_text("[" * 100_000)
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
        "metrics/metrics has no nme",
    ),
    "empty digests": (
        lambda folder: (folder / DIGESTS).write_text(""),
        f"{DIGESTS} has no digests",
    ),
    "old, data truncated": (without_digests, "state/d/.*: OUT_OF_RANGE"),
    "old, metadata nested": (nested, "maximum recursion depth exceeded"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_newest_checkpoint_is_set_aside(two, capfd, name):
    apply_damage, cause = DAMAGES[name]
    apply_damage(two / "6")
    before = [path.read_bytes() for path in files(two / "6")]
    with Checkpoints(two, keep=2) as checkpoints:
        step, state, position = checkpoints.resume(like)
        assert (step, position) == (5, {"next_index": 5}) and same(state, some_state(5.0))
        (line,) = stderr_lines(capfd)
        pattern = rf"rednet: warning: {two}/6: damaged \(.*{cause}.*\); kept as 6.damaged; "
        assert re.fullmatch(pattern + "the run resumes from step 5", line)
        checkpoints.save(6, some_state(6.0), POSITION, 1.0)
        assert checkpoints.latest == 6
    assert names(two) == ["5", "6", "6.damaged"]
    assert [path.read_bytes() for path in files(two / "6.damaged")] == before
    with Checkpoints(two, keep=2) as checkpoints:
        assert checkpoints.resume(like).step == 6
    assert stderr_lines(capfd) == []


def stderr_lines(capfd):
    """Lines on stderr without Orbax's warning about missing shardings."""
    return [
        line
        for line in capfd.readouterr().err.splitlines()
        if "Sharding info not provided" not in line and line.strip() != "warnings.warn("
    ]


@pytest.mark.parametrize("name", DAMAGES)
def test_if_all_are_damaged_none_is_renamed(two, name):
    """Otherwise the run would start from scratch the next time."""
    apply_damage, cause = DAMAGES[name]
    for step in ("5", "6"):
        apply_damage(two / step)
    with Checkpoints(two, keep=2) as checkpoints, pytest.raises(RednetError) as caught:
        checkpoints.resume(like)
    pattern = rf"{two}/6: damaged \(.*{cause}.*\), and no other checkpoint of the run can be loaded"
    assert re.fullmatch(pattern, str(caught.value)) and len(str(caught.value)) < 500
    assert names(two) == ["5", "6"]


def test_a_damaged_older_checkpoint_is_set_aside(two, capfd):
    (two / "5" / "metrics" / "metrics").write_text("")
    with Checkpoints(two, keep=2) as checkpoints:
        assert checkpoints.resume(like).step == 6
        checkpoints.save(7, some_state(7.0), POSITION, 1.0)
    assert names(two) == ["5.damaged", "6", "7"]


def test_every_flipped_bit_is_detected_or_harmless(two):
    """A flipped bit in a file raises an error, or state and position are those that were saved."""
    rng = np.random.default_rng(0)
    for path in files(two / "6"):
        name, whole = path.relative_to(two / "6").as_posix(), path.read_bytes()
        for _ in range(6):
            flipped = bytearray(whole)
            flipped[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
            with Checkpoints(two, keep=2) as checkpoints:
                try:
                    state, position = checkpoints.load(6, shapes_of(some_state()))
                except RednetError as error:
                    assert f"{two}/6: " in str(error) and "\n" not in str(error)
                    continue
            # Orbax's metadata: times, and the process that wrote the checkpoint.
            assert name in ("_CHECKPOINT_METADATA", "commit_success.txt")
            assert same(state, some_state(6.0)) and position == {"next_index": 6}
        path.write_bytes(whole)
    with Checkpoints(two, keep=2) as checkpoints:
        assert same(checkpoints.load(6, shapes_of(some_state()))[0], some_state(6.0))


def test_checkpoints_of_earlier_versions_without_digests_are_loaded(two, capfd):
    (two / "6" / DIGESTS).unlink()
    with Checkpoints(two, keep=2) as checkpoints:
        step, state, _ = checkpoints.resume(like)
        assert step == 6 and same(state, some_state(6.0))
    assert stderr_lines(capfd) == []


def test_a_run_is_taken_back_once(two, capfd):
    with Checkpoints(two, keep=2) as checkpoints:
        with pytest.raises(RednetError, match="no checkpoint of step 4; there are: 5, 6"):
            checkpoints.resume(like, from_step=4)
        assert checkpoints.resume(like, from_step=5).step == 5
        (line,) = stderr_lines(capfd)
        assert line.endswith("/6: superseded; kept as 6.superseded; the run resumes from step 5")
        checkpoints.save(7, some_state(7.0), POSITION, 1.0)
    # The same command again resumes from the newest; without the file, it goes back again.
    with Checkpoints(two, keep=2) as checkpoints:
        assert checkpoints.resume(like, from_step=5).step == 7
        assert f"delete {two / WENT_BACK} to" in stderr_lines(capfd)[0]
        (two / WENT_BACK).unlink()
        assert checkpoints.resume(like, from_step=5).step == 5
    assert names(two) == ["5", "6.superseded", "7.superseded", WENT_BACK]


def test_processes_agree_on_the_checkpoints_that_are_set_aside(two, monkeypatch):
    """Process 0 may rename them before another process lists the folder. All must wait for it."""
    (two / "6").rename(two / "6.superseded")
    waits = []
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(checkpoints_module, "result_of_process_0", lambda function: [5, 6])
    monkeypatch.setattr(multihost_utils, "sync_global_devices", waits.append)
    monkeypatch.setattr(Checkpoints, "load", lambda *_: (some_state(5.0), POSITION))
    assert Checkpoints(two, keep=2).resume(like, from_step=5).step == 5
    assert waits == ["checkpoints set aside"]


def test_a_run_cannot_be_taken_back_to_a_damaged_checkpoint(two):
    data_gone(two / "5")
    message = r"5: damaged \(state/d/.* is missing\)"
    with Checkpoints(two, keep=2) as checkpoints, pytest.raises(RednetError, match=message):
        checkpoints.resume(like, from_step=5)
    assert names(two) == ["5", "6"]


def test_a_full_disk_is_a_one_line_error_and_earlier_checkpoints_remain(tmp_path, capfd):
    """A limit on file sizes simulates a full disk, also for Orbax's threads."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(5, some_state(5.0), POSITION, 1.0)
        assert checkpoints.latest == 5
        # TensorStore would compress constant values.
        noise = jax.random.normal(jax.random.key(0), (100_000, 3))
        large = some_state(6.0, size=100_000)._replace(params={"kernel": noise})
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
            checkpoints.save(6, large, POSITION, 1.0)
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


def test_unraisable_errors_of_unfinished_writes_are_not_printed():
    """After a failed write, TensorStore calls callbacks of an event loop that is closed."""
    code = (
        "import asyncio, functools, weakref, rednet_jax.train.checkpoints\n"
        "loop = asyncio.new_event_loop()\n"
        "loop.close()\n"
        "late = functools.partial(loop.call_soon_threadsafe, print)\n"
        "other = lambda gone: late(gone)\n"
        # C calls them, so their exceptions cannot be caught.
        "one, two = set(), set()\n"
        "references = weakref.ref(one, late), weakref.ref(two, other)\n"
        "del one, two\n"
    )
    errors = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert errors.startswith("Exception ignored in: <function <lambda>")
    assert errors.count("Event loop is closed\n") == 1
