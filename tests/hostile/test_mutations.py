"""Mutated inputs: each is read or refused in one line, in time, in memory, and in its folder."""

from __future__ import annotations

import pytest
from hostile.kinds import KINDS
from hostile.processes import wrongs

# Of those that take longer, a checkpoint or a report a second, there are fewer.
QUICK = {**dict.fromkeys(KINDS, 200), "videos": 120, "tables": 150, "runs": 8}
SLOW = {**dict.fromkeys(KINDS, 420), "runs": 250}


def test_mutations(tmp_path) -> None:
    """In one process: its start takes longer than most kinds."""
    assert wrongs(["0", *(f"{kind}={count}" for kind, count in QUICK.items())], tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_more_mutations(kind: str, tmp_path) -> None:
    """With the quick ones, 5000 in all."""
    assert wrongs(["1000", f"{kind}={SLOW[kind]}"], tmp_path) == []


def test_there_are_five_thousand() -> None:
    assert sum(QUICK.values()) + sum(SLOW.values()) >= 5000
