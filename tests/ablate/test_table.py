"""Tables and verdicts from constructed measurements."""

import json
import re

import numpy as np
import pytest
from ablate.tiny import tiny, write_measured

from rednet_jax.ablate.folder import write_failure
from rednet_jax.ablate.page import page, write_results
from rednet_jax.ablate.plan import Arm, Cell, Claim, run_of
from rednet_jax.ablate.table import tabulate
from rednet_jax.errors import RednetError

# Four faces, K = 1 and 2, with seeds 0, 1, 2. Means over faces at K = 1: 3, 4, 5.
SHORT = [[[f + s for f in (0.0, 2.0, 4.0, 6.0)], [9.0] * 4] for s in range(3)]


def measure_all(ablation, runs_dir, errors):
    for arm in ablation.arms:
        for seed in ablation.seeds:
            write_measured(runs_dir, arm, seed, errors(arm.name, seed))


def shifted(by):
    """Returns a function to errors: those of the second arm are larger by `by` at K = 1."""

    def errors(arm, seed):
        first = SHORT[seed]
        return first if arm == "short" else [[e + by for e in first[0]], first[1]]

    return errors


def rows(result):
    return {(row["arm"], row["feedback_steps"]): row for row in result["rows"]}


def test_means_spreads_and_differences(tmp_path):
    measure_all(tiny(), tmp_path, shifted(-0.5))
    result = tabulate(tiny(), tmp_path, "rednet ablate tiny.py")
    short, long = rows(result)["short", 1], rows(result)["long", 1]
    assert short["by_seed"] == {"0": 3, "1": 4, "2": 5}
    assert (short["mean"], short["spread"]) == (4, 1)
    assert short["difference"] is None
    assert long["mean"] == 3.5
    assert long["difference"] == pytest.approx(-0.5)
    low, high = long["difference_interval"]
    assert low < -0.5 < high
    assert rows(result)["long", 2]["difference"] == 0
    assert result["data"] == {"300w/validation": 4}
    assert result["provenance"]["command"] == "rednet ablate tiny.py"
    json.dumps(result, allow_nan=False)


# Seeds differ by up to 2, so a difference of 0.5 is not significant.
@pytest.mark.parametrize(
    ("by", "verdict", "why"),
    [
        (-9, "supported", None),
        (9, "not supported", "the opposite holds"),
        (-0.5, "not supported", "the interval spans 0"),
    ],
)
def test_verdicts(tmp_path, by, verdict, why):
    measure_all(tiny(), tmp_path, shifted(by))
    result = tabulate(tiny(), tmp_path, "x")
    (claim,) = result["claims"]
    assert (claim["verdict"], claim["why"], claim["seeds"]) == (verdict, why, 3)
    assert claim["difference"] == pytest.approx(by)
    assert f"**{verdict}**" in page(result)


def test_passes_of_one_network_are_paired_by_seed(tmp_path):
    """Seeds differ by 2, and the error at K = 2 is lower by 0.1 to 0.4 for each of them."""
    less = (0.1, 0.2, 0.3, 0.4)
    ablation = tiny(claims=(Claim("K pays.", Cell("short", 2), Cell("short", 1)),))

    def errors(arm, seed):
        first = SHORT[seed][0]
        return [first, [e - by for e, by in zip(first, less, strict=True)]]

    measure_all(ablation, tmp_path, errors)
    (claim,) = tabulate(ablation, tmp_path, "x")["claims"]
    assert claim["difference"] == pytest.approx(-0.25)
    assert claim["verdict"] == "supported"
    assert -0.4 - 1e-9 <= claim["interval"][0] < claim["interval"][1] <= -0.1 + 1e-9


def test_with_a_missing_seed_claims_are_not_decided(tmp_path):
    ablation = tiny()
    measure_all(ablation, tmp_path, shifted(-9))
    (tmp_path / run_of(ablation.arm("long"), 2).folder / "measured.json").unlink()
    result = tabulate(ablation, tmp_path, "x")
    long = rows(result)["long", 1]
    assert (long["state"], long["mean"], long["difference"]) == ("not decided", -5.5, -9)
    (claim,) = result["claims"]
    assert (claim["verdict"], claim["why"]) == ("not decided", "seeds are missing")
    assert claim["interval"][1] < 0
    assert re.search(r"-5.50 ± \d.\d\d, 2 of 3 seeds \(-9.00, -10.00 to -8.00\)", page(result))


def test_a_failed_run_is_reported(tmp_path):
    ablation = tiny()
    measure_all(ablation, tmp_path, shifted(-9))
    run = run_of(ablation.arm("long"), 2)
    (tmp_path / run.folder / "measured.json").unlink()
    write_failure(tmp_path, run, "loss is not finite")
    result = tabulate(ablation, tmp_path, "x")
    assert rows(result)["long", 1]["state"] == "failed"
    (claim,) = result["claims"]
    assert (claim["verdict"], claim["why"]) == ("not decided", "a run failed")
    assert "| long | failed | failed |" in page(result)
    assert "long, seed 2 failed: loss is not finite" in page(result)


def test_each_arm_uses_its_readout(tmp_path):
    ablation = tiny()
    both = (*ablation.arms, Arm("maps", ablation.arms[0].experiment, readout="maps"))
    claim = Claim("f_REG errs less.", Cell("short", 1), Cell("maps", 1))
    ablation = tiny(arms=both, claims=(claim,))
    for arm in both[:2]:
        for seed in ablation.seeds:
            errors = SHORT[seed]
            maps = [[e + 20 for e in errors[0]], errors[1]]
            write_measured(tmp_path, arm, seed, errors, maps)
    result = tabulate(ablation, tmp_path, "x")
    assert rows(result)["maps", 1]["mean"] == 24
    assert result["claims"][0]["verdict"] == "supported"
    assert "read from the maps in: maps" in page(result)


def test_clips_have_errors_and_jitter(tmp_path):
    ablation = tiny(
        on=("clips", "clips-halved"),
        claims=(
            Claim(
                "Steadier.",
                Cell("long", 1, "clips", "jitter"),
                Cell("short", 1, "clips", "jitter"),
            ),
        ),
    )
    for arm in ablation.arms:
        for seed in ablation.seeds:
            level = 1.0 if arm.name == "long" else 3.0
            figures = {on: [[level, level + 0.1]] * 3 for on in ("clips", "clips-halved")}
            clips = {
                "data": ["300vw/validation"],
                "names": ["300vw/validation/a_1", "300vw/validation/a_2"],
                "carried": {"nme": figures, "jitter": figures},
            }
            write_measured(tmp_path, arm, seed, SHORT[0], clips=clips)
    result = tabulate(ablation, tmp_path, "x")
    assert result["claims"][0]["difference"] == pytest.approx(-2)
    assert result["claims"][0]["verdict"] == "supported"
    assert page(result).count("| long |") == 4


def test_measurements_on_other_faces_or_experiments_are_refused(tmp_path):
    ablation = tiny()
    measure_all(ablation, tmp_path, shifted(0))
    path = tmp_path / run_of(ablation.arm("long"), 0).folder / "measured.json"
    measured = json.loads(path.read_text())
    changed = {**measured, "pictures": {**measured["pictures"], "names": list("abcd")}}
    path.write_text(json.dumps(changed))
    with pytest.raises(RednetError, match="different faces"):
        tabulate(ablation, tmp_path, "x")
    changed = json.loads(json.dumps(measured))
    changed["experiment"]["stages"][0]["batch"] = 64
    path.write_text(json.dumps(changed))
    with pytest.raises(RednetError, match=r"its stages\.0\.batch differs"):
        tabulate(ablation, tmp_path, "x")
    # Fields that were added after the measurement are not compared.
    del changed["experiment"]["stages"][0]["batch"]
    path.write_text(json.dumps(changed))
    tabulate(ablation, tmp_path, "x")


def test_a_table_without_runs_is_refused(tmp_path):
    with pytest.raises(RednetError, match="contains no measured run of tiny"):
        tabulate(tiny(), tmp_path, "x")


def test_files(tmp_path):
    measure_all(tiny(), tmp_path / "runs", shifted(-9))
    result = tabulate(tiny(), tmp_path / "runs", "x")
    files = write_results(result, tmp_path / "out")
    assert [file.name for file in files] == ["tiny.json", "tiny.md", "tiny.png"]
    assert json.loads(files[0].read_text()) == result
    assert files[2].read_bytes()[:4] == b"\x89PNG"
    assert np.isfinite([row["mean"] for row in result["rows"]]).all()
