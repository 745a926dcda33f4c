"""Small files that promise what no machine holds."""

from __future__ import annotations

from hostile.processes import wrongs


def test_bombs(tmp_path) -> None:
    assert wrongs(["bombs"], tmp_path) == []
