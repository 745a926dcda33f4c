"""Small files that declare huge contents are refused."""

from __future__ import annotations

from hostile.processes import failures


def test_bombs(tmp_path) -> None:
    assert failures(["bombs"], tmp_path) == []
