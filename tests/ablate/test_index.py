"""The page of all results."""

import json
from pathlib import Path

import pytest
from ablate.tiny import FILE, tiny, write_measured

from rednet_jax.ablate.index import write_index
from rednet_jax.ablate.page import write_results
from rednet_jax.ablate.table import tabulate
from rednet_jax.errors import RednetError

RESULTS = Path(__file__).parents[2] / "experiments" / "results"


def test_every_result_has_its_command(tmp_path):
    for arm in tiny().arms:
        for seed in range(3):
            write_measured(tmp_path / "runs", arm, seed, [[1.0, 2.0]] * 2)
    write_results(tabulate(tiny(), tmp_path / "runs", "rednet ablate tiny.py"), tmp_path / "out")
    old = {"command": "rednet bench scan", "git_commit": "0123456789"}
    (tmp_path / "out" / "old.json").write_text(json.dumps(old))
    (tmp_path / "out" / "notes.md").write_text("# What was seen\n\nMuch.\n")
    page = write_index(tmp_path / "out").read_text()
    assert "\n[What was seen](notes.md)\n" in page
    # Pages of results and this page itself are not listed as notes.
    assert page.count("](tiny.md)") == 2 and "README.md" not in page
    row = "| Long errs less. | ours | **not supported** (the interval spans 0) | +0.00, +0.00 to"
    assert row in page and "0 supported, 1 not supported, 0 not decided." in page
    assert "| 3 of 3 | [`rednet ablate tiny.py`](tiny.md) |" in page
    assert "![tiny](tiny.png)" in page
    assert "| [old.json](old.json) | `rednet bench scan` | 0123456 |" in page


def test_claims_without_runs_are_not_decided(tmp_path):
    (tmp_path / "ablation_tiny.py").write_text(FILE.format(name="ablation_tiny"))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "old.json").write_text(json.dumps({"command": "rednet bench scan"}))
    page = write_index(tmp_path / "results").read_text()
    row = "| Long errs less. | ours | **not decided** (no run yet) | - | 0 of 3 |"
    assert f"{row} `rednet ablate experiments/ablation_tiny.py` |" in page


def test_claims_of_papers_are_first(tmp_path):
    claim = {"difference": -0.02, "interval": [-0.03, -0.01], "unit": "of pairs", "seeds": 1}
    claim |= {"verdict": "supported", "why": None}
    first, second = ({**claim, "sentence": f"{by} says so.", "by": by} for by in ("ours", "ECCV"))
    probed = {"claims": [first, second], "provenance": {"command": "probe", "git_commit": "0"}}
    (tmp_path / "probed.json").write_text(json.dumps(probed))
    page = write_index(tmp_path).read_text()
    assert page.index("ECCV says so") < page.index("ours says so")
    assert "| -0.020, -0.030 to -0.010 of pairs | 1 | [`probe`](probed.md) |" in page


def test_missing_folders_and_unreadable_files_raise(tmp_path):
    with pytest.raises(RednetError, match="no such folder"):
        write_index(tmp_path / "none")
    (tmp_path / "one.json").write_text("{")
    with pytest.raises(RednetError, match=r"one\.json: cannot be read"):
        write_index(tmp_path)
    for result in ({"claims": [{"by": "ours"}]}, {"claims": 1}, {"arms": 1, "rows": 1}):
        (tmp_path / "one.json").write_text(json.dumps({"command": "rednet", **result}))
        with pytest.raises(RednetError, match=r"one\.json: not a result as a command writes it \("):
            write_index(tmp_path)


def test_a_page_of_another_origin_and_a_folder_without_results_raise(tmp_path):
    page = tmp_path / "README.md"
    with pytest.raises(RednetError, match="no JSON file of a result"):
        write_index(tmp_path)
    (tmp_path / "package.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(RednetError, match="no JSON file of a result"):
        write_index(tmp_path)
    assert not page.exists()
    (tmp_path / "old.json").write_text(json.dumps({"command": "rednet bench scan"}))
    page.write_text("# My project\n")
    with pytest.raises(RednetError, match=r"README\.md: would be replaced, but"):
        write_index(tmp_path)
    assert page.read_text() == "# My project\n"
    page.unlink()
    first = write_index(tmp_path).read_text()
    assert write_index(tmp_path).read_text() == first


@pytest.mark.skipif(not RESULTS.is_dir(), reason="no checkout")
def test_the_published_page_lists_the_published_results(tmp_path):
    page = (RESULTS / "README.md").read_text()
    assert "](tried.md)" in page
    for path in RESULTS.glob("*.json"):
        assert path.name in page or f"({path.stem}.md)" in page
    assert "not recorded" not in page
