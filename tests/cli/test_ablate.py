"""Command lines of `rednet ablate`: parts of the work, folders, limits, and the index."""

from __future__ import annotations

import json

import pytest
from ablate.tiny import FILE, tiny, write_measured

from rednet_jax.ablate import run as module


@pytest.fixture
def measured(here, monkeypatch):
    """A folder with an ablation, all of whose runs are measured in `runs`."""
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.02)
    (here / "tiny.py").write_text(FILE.format(name="tiny"))
    for arm in tiny().arms:
        for seed in tiny().seeds:
            write_measured(here / "runs", arm, seed, [[1.0, 2.0]] * 2)
    return here


OUT = ["out/tiny.json", "out/tiny.md", "out/tiny.png"]


def test_the_table_only(measured, run):
    words = "ablate", "tiny.py", "--table-only", "--runs-dir", "runs", "--out", "out"
    status, out, errors = run(*words)
    assert (status, out.splitlines(), errors) == (0, OUT, [])
    result = json.loads((measured / "out" / "tiny.json").read_text())
    assert [entry["state"] for entry in result["runs"]] == 6 * ["measured"]


def test_training_only(measured, run):
    status, out, errors = run("ablate", "tiny.py", "--train-only", "--runs-dir", "runs")
    assert (status, out, errors) == (0, "tiny: 6 runs, 6 already measured\n", [])
    assert sorted(path.name for path in measured.iterdir()) == ["runs", "tiny.py"]


def test_no_run_starts_after_the_minutes(measured, run):
    words = "ablate", "tiny.py", "--train-only", "--runs-dir", "other", "--minutes"
    status, out, errors = run(*words, "0")
    assert (status, errors) == (0, [])
    assert out.splitlines() == [
        "tiny: 6 runs, 0 already measured",
        "0 minutes have passed: 6 runs were not started",
    ]
    for minutes in ("-1", "nan"):
        status, out, errors = run(*words, minutes)
        message = f"rednet: --minutes must be a finite number of at least 0, not {minutes}"
        assert (status, out, errors) == (2, "", [message])


def test_the_index_has_the_new_table(measured, run):
    words = "ablate", "tiny.py", "--table-only", "--runs-dir", "runs", "--out", "out"
    status, out, errors = run(*words, "--index", "out")
    assert (status, out.splitlines(), errors) == (0, [*OUT, "out/README.md"], [])
    page = (measured / "out" / "README.md").read_text()
    assert "](tiny.md)" in page
    assert run("ablate", "--index", "out") == (0, "out/README.md\n", [])
    assert (measured / "out" / "README.md").read_text() == page


def test_a_page_of_another_origin_is_found_before_the_runs(measured, run):
    (measured / "README.md").write_text("# My project\n")
    words = "ablate", "tiny.py", "--table-only", "--runs-dir", "runs", "--out", "out"
    status, out, errors = run(*words, "--index", ".")
    assert (status, out) == (2, "")
    assert errors[0].startswith("rednet: README.md: would be replaced, but ")
    assert not (measured / "out").exists()
    assert (measured / "README.md").read_text() == "# My project\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--jobs", "3", "--minutes", "1"], "--jobs, --minutes"),
        (["--table-only", "--runs-dir", "runs"], "--runs-dir, --table-only"),
        (["--train-only", "--out", "out", "--data-dir", "d"], "--train-only, --data-dir, --out"),
        (["--steps=3"], "--steps"),
    ],
)
def test_options_of_runs_need_an_ablation(measured, run, words, named):
    status, out, errors = run("ablate", "--index", "runs", *words)
    assert (status, out, errors) == (2, "", [f"rednet: {named}: needs FILE, the ablation"])
