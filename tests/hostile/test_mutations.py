"""Mutated inputs are read, or refused with one line, within the limits of `guard.py`."""

from __future__ import annotations

import pytest
from hostile.kinds import KINDS
from hostile.processes import failures

# Fewer of the slow kinds, which take up to a second each.
QUICK = {**dict.fromkeys(KINDS, 200), "videos": 120, "tables": 150, "runs": 8}
SLOW = {**dict.fromkeys(KINDS, 420), "runs": 250}


def test_mutations(tmp_path) -> None:
    """All kinds run in one process, since its start takes longer than most kinds."""
    assert failures(["0", *(f"{kind}={count}" for kind, count in QUICK.items())], tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_more_mutations(kind: str, tmp_path) -> None:
    """Together with the quick ones there are 5000 mutations."""
    assert failures(["1000", f"{kind}={SLOW[kind]}"], tmp_path) == []


def test_number_of_mutations() -> None:
    assert sum(QUICK.values()) + sum(SLOW.values()) >= 5000
