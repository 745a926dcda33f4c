"""`bench startup` on a narrow network and the quickest start."""

from __future__ import annotations

import numpy as np
import pytest

from rednet_jax.bench import startup
from rednet_jax.bench.startup import bench_startup
from rednet_jax.errors import RednetError


def test_starts_and_programs_are_measured(narrow):
    config = narrow("compact")
    result = bench_startup(config, starts=["import rednet_jax"], passes=(5, 6), frames=(2, 3))
    (start,) = result["starts"]
    assert start["first_s"] > 0 and start["second_s"] > 0
    assert [row["K"] for row in result["passes"]] == [5, 6]
    assert [row["T"] for row in result["frames"]] == [2, 3]
    for table in result["passes"], result["frames"]:
        assert all(np.isfinite(list(row.values())).all() for row in table)
        # Passes beyond the unrolled ones do not increase the program's size.
        assert table[1]["instructions"] == pytest.approx(table[0]["instructions"], rel=0.02)


def test_the_time_ends_when_the_file_is_written(tmp_path):
    words = ["-c", "import pathlib, time; pathlib.Path('%s').write_text('x'); time.sleep(3)"]
    done = tmp_path / "done"
    assert startup._seconds(tmp_path, [words[0], words[1] % done]) > 3
    done.unlink()
    early = startup._seconds(tmp_path, [words[0], words[1] % done], until=done)
    late = startup._seconds(tmp_path, [words[0], words[1] % done])
    assert early < late - 1


def test_a_failing_process_raises(tmp_path):
    with pytest.raises(RednetError, match="no such thing"):
        startup._seconds(tmp_path, ["-c", "raise SystemExit('no such thing')"])
