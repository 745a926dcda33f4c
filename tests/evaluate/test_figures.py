"""Figures of landmarks with known errors, for images and for clips."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rednet_jax.data.samples import ClipSample, Sample
from rednet_jax.data.sources import Split
from rednet_jax.errors import RednetError
from rednet_jax.evaluate import figures as module
from rednet_jax.evaluate.bootstrap import bootstrap_interval, paired_interval
from rednet_jax.evaluate.figures import BLOCK, figures, figures_text
from rednet_jax.evaluate.labels import clip_labels, face_labels
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.builtin import IBUG68, REDNET7

FACE = IBUG68.shape * 200 + 150
EYES = float(np.linalg.norm(FACE[36] - FACE[45]))
IMAGE = np.zeros((1, 1, 3), np.uint8)


def sample(name, identity=-1, labelled=None):
    labelled = np.ones(68, bool) if labelled is None else labelled
    points = np.where(labelled[:, None], FACE, 0).astype(np.float32)
    return Sample(IMAGE, points, labelled, landmark_box(FACE), name, identity)


def clip(name, valid):
    valid = np.array(valid)
    labelled = np.repeat(valid[:, None], 68, axis=1)
    points = np.where(labelled[..., None], FACE, 0).astype(np.float32)
    return ClipSample([IMAGE] * len(valid), points, labelled, points[:, :2, 0], valid, name)


def split(samples):
    return Split("a", "split", "", samples, lambda sample: sample)


def off(percents):
    """Returns faces [N, 68, 2] with these NMEs, in percent; nan means no prediction."""
    return FACE + np.array(percents)[:, None, None] / 100 * EYES * np.array([0.6, 0.8])


def test_the_text_counts_missed_faces_as_failures():
    labels = face_labels("a split", split([sample(name) for name in "abcde"]), IBUG68)
    answers = [(k, off([1, 3, 9, 11, np.nan])) for k in (1, 2)]
    lines = figures_text(figures(labels, answers, boxes="detector")).splitlines()
    for k in (1, 2):
        (row,) = (i for i, line in enumerate(lines) if line.startswith(f"feedback_steps {k} "))
        assert "failure_rate" not in lines[row] and "auc" not in lines[row]
        assert lines[row + 1] == (
            "  1 missed counted as failures: failure_rate_8 60  failure_rate_10 40  auc_8 30"
        )
    text = figures_text(figures(labels, [(1, off([1, 3, 9, 11, 2]))]))
    assert "failure_rate_8 40 " in text and "counted as failures" not in text


def test_the_plot_counts_missed_faces_as_failures(monkeypatch, tmp_path):
    drawn = {}
    monkeypatch.setattr(module, "draw_cumulative", lambda *a, **k: drawn.update(arguments=a, **k))
    labels = face_labels("a split", split([sample(name) for name in "abcde"]), IBUG68)
    figures(labels, [(1, off([1, 3, 9, 11, np.nan]))], plot=tmp_path / "ced.png", name="net")
    ((name, errors),) = drawn["arguments"][0].items()
    assert name == "net, K = 1: NME 6.00 %, 40.0 % fail"
    assert drawn["title"] == "a split: 4 faces found, 1 missed"
    np.testing.assert_allclose(errors, [1, 3, 9, 11, np.nan], rtol=1e-4)


def test_images_counted_by_hand():
    labels = face_labels("a split", split([sample(name) for name in "abcde"]), IBUG68)
    result = figures(labels, [(1, off([1, 3, 9, 11, np.nan]))], boxes="truth", crop_margin=1.25)
    (row,) = result.pop("per_step")
    assert result == {
        "split": "a split",
        "images": 4,
        "missed": 1,
        "normaliser": "inter-ocular (outer eye corners)",
        "boxes": "truth",
        "crop_margin": 1.25,
        "interval": {"level": 0.95, "over": "photos", "count": 4},
    }
    assert row["nme"] == pytest.approx(6) and row["median"] == pytest.approx(6)
    assert (row["failure_rate_8"], row["failure_rate_10"]) == (50, 25)
    assert row["auc_8"] == pytest.approx(100 * (7 + 5) / 4 / 8)
    assert row["groups"] == pytest.approx(dict.fromkeys(row["groups"], 6))
    assert row["with_missed"] == pytest.approx(
        {"failure_rate_8": 60, "failure_rate_10": 40, "auc_8": 100 * (7 + 5) / 5 / 8}
    )
    known = [1, 3, 9, 11]
    assert row["intervals"]["nme"] == pytest.approx(list(bootstrap_interval(known)), abs=1e-4)
    assert row["intervals"]["groups"]["jaw"] == pytest.approx(row["intervals"]["nme"], abs=1e-4)
    share = bootstrap_interval([0, 0, 100, 100])
    assert row["intervals"]["failure_rate_8"] == pytest.approx(list(share))
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_owners_are_people_if_known_else_photos():
    known = face_labels(
        "a split", split([sample(name, i // 2) for i, name in enumerate("abcd")]), IBUG68
    )
    assert (known.over, len(set(known.owners))) == ("people", 2)
    photos = face_labels("a split", split([sample("x_1"), sample("x_2"), sample("y", 7)]), IBUG68)
    assert (photos.over, len(set(photos.owners))) == ("photos", 2)
    errors = [1.0, 2.0, 5.0, 8.0]
    (row,) = figures(known, [(1, off(errors))])["per_step"]
    interval = bootstrap_interval(errors, [0, 0, 1, 1])
    assert row["intervals"]["nme"] == pytest.approx(list(interval), abs=1e-4)
    alone = figures(face_labels("one", split([sample("a")]), IBUG68), [(1, off([2.0]))])[
        "per_step"
    ][0]
    assert alone["intervals"]["nme"] is None and alone["nme"] == pytest.approx(2, abs=1e-4)


def test_a_face_that_is_not_measurable_is_neither_measured_nor_missed():
    no_corner, unlabelled = np.ones(68, bool), np.zeros(68, bool)
    no_corner[36] = False
    faces = [sample("a"), sample("b", labelled=no_corner), sample("c", labelled=unlabelled)]
    labels = face_labels("a split", split(faces), IBUG68)
    result = figures(labels, [(1, off([2, 4, 6]))])
    assert (result["images"], result["missed"]) == (1, 0)
    assert result["per_step"][0]["nme"] == pytest.approx(2, abs=1e-4)
    diagonal = figures(labels, [(1, off([2, 4, 6]))], normaliser="box-diagonal")
    assert diagonal["images"] == 1
    assert diagonal["per_step"][0]["nme"] < 1
    result = figures(labels, [(1, off([2, np.nan, np.nan]))])
    # Face b has labels, but not those of its normaliser; face c has none.
    assert (result["images"], result["missed"]) == (1, 1)
    assert result["per_step"][0]["with_missed"]["failure_rate_8"] == 0


@pytest.mark.filterwarnings("error")
def test_means_over_frames_and_over_videos():
    clips = [clip("one", [False] + [True] * 3 + [False]), clip("two", [True] * 100)]
    labels = clip_labels("clips", split(clips), IBUG68)
    assert labels.names[:2] == ["one/1", "one/2"] and labels.names[-1] == "two/100"
    errors = np.concatenate([[50, 2, np.nan, 4, 50], np.tile([9.0, 11.0], 50)])
    result = figures(labels, [(1, off(errors)), (2, off(np.full(105, 1.0)))])
    assert (result["images"], result["missed"]) == (103, 0)  # of K = 2
    assert (result["clips"], result["frames"]) == (2, 105)
    assert result["interval"] == {"level": 0.95, "over": "clips", "count": 2}
    assert result["label_jitter"] == pytest.approx(0, abs=1e-4)
    row, still = result["per_step"]
    assert row["nme"] == pytest.approx((2 + 4 + 50 * 20) / 102, abs=1e-4)
    assert row["nme_of_videos"] == pytest.approx((3 + 10) / 2, abs=1e-4)
    assert row["with_missed"]["failure_rate_10"] == pytest.approx(100 * 51 / 103)
    one, two = row["per_video"]
    assert one["clip"] == "one" and (one["images"], one["missed"]) == (2, 1)
    assert one["nme"] == pytest.approx(3, abs=1e-4)
    # There are no three consecutive predictions; back and forth by 2 % gives 4 %.
    assert one["jitter"] is None and one["interval"] is None
    assert two["jitter"] == pytest.approx(4, abs=1e-3) and row["jitter"] == two["jitter"]
    assert still["jitter"] == pytest.approx(0, abs=1e-4)
    assert two["failure_rate_8"] == 100
    blocks = bootstrap_interval(errors[5:], np.arange(100) // BLOCK)
    assert two["interval"] == pytest.approx(list(blocks), abs=1e-4)
    assert row["intervals"]["nme_of_videos"] == pytest.approx([3, 10], abs=1e-4)
    assert row["intervals"]["jitter"] is None
    json.dumps(result, allow_nan=False)


def test_parts_of_clips_have_separate_figures():
    clips = [clip("one", [True] * 8), clip("two", [False] + [True] * 7)]
    labels = clip_labels("clips", split(clips), IBUG68)
    within = np.array([0, 0, 0, 1, 1, 1, 0, 0] * 2, bool)
    after = np.array([0, 0, 0, 0, 0, 0, 1, 1] * 2, bool)
    parts = {"within": within, "after": after, "outside": ~within & ~after}
    one, two = [1, 1, 1, 5, 7, 5, 2, 4], [90, 1, 1, 9, np.nan, 9, 4, 2]
    result = figures(labels, [(1, off([*one, *two]))], parts=parts)
    row = result["per_step"][0]
    by_part = row["parts"]
    assert {part: (n["images"], n["missed"]) for part, n in by_part.items()} == {
        "within": (5, 1),
        "after": (4, 0),
        "outside": (5, 0),
    }
    assert by_part["within"]["nme"] == pytest.approx((5 + 7 + 5 + 9 + 9) / 5, abs=1e-4)
    assert by_part["after"]["nme"] == pytest.approx(3, abs=1e-4)
    assert by_part["outside"]["nme"] == pytest.approx(1, abs=1e-4)
    assert by_part["within"]["intervals"]["nme"] == pytest.approx([17 / 3, 9], abs=1e-4)
    # |Second differences| of clip one: 0 4 2 4 1 5 in frames 1 to 6; of clip two: 89 8 only, since
    # frame 4 has no prediction and frame 7 no successor. Frame 1 has an unlabelled neighbour, which
    # is included in the jitter of the track but not in the error jitter.
    assert by_part["within"]["jitter"] == pytest.approx((2 + 4 + 1) / 3, abs=1e-3)
    assert by_part["after"]["jitter"] == pytest.approx((5 + 3) / 2, abs=1e-3)
    assert by_part["outside"]["jitter"] == pytest.approx((0 + 4 + 89 + 8) / 4, abs=1e-2)
    for part in ("within", "after"):
        assert by_part[part]["error_jitter"] == pytest.approx(by_part[part]["jitter"], abs=1e-3)
    assert by_part["outside"]["error_jitter"] == pytest.approx((0 + 4 + 8) / 3, abs=1e-3)
    assert row["per_video"][0]["error_jitter"] == pytest.approx(16 / 6, abs=1e-3)
    json.dumps(result, allow_nan=False)
    lines = figures_text({**result, "corruption": {"kind": "dark", "bursts": 2}}).splitlines()
    assert "corruption: kind dark  bursts 2" in lines
    (line,) = (line for line in lines if line.startswith("  within: "))
    assert line.startswith("  within: images 5  missed 1  nme 7 [5.667, 9]  jitter 2.333")


def test_a_part_without_frames_has_no_figures():
    labels = clip_labels("clips", split([clip("one", [True] * 4)]), IBUG68)
    empty = np.zeros(4, bool)
    result = figures(labels, [(1, off([1] * 4))], parts={"after": empty})
    row = result["per_step"][0]["parts"]["after"]
    assert (row["images"], row["missed"], row["nme"], row["intervals"]["nme"]) == (0, 0, None, None)


def test_faces_without_figures_raise():
    labels = face_labels("a split", split([sample("a"), sample("b")]), IBUG68)
    with pytest.raises(RednetError, match=r"^a split: no prediction for any of 2 labelled faces$"):
        figures(labels, [(1, off([np.nan, np.nan]))])
    few = np.ones(68, bool)
    few[40] = False
    labels = face_labels("a split", split([sample("a", labelled=few)]), IBUG68)
    for normaliser, needed in (
        ("inter-pupil", "all points of both eyes"),
        ("box-diagonal", "all points"),
    ):
        with pytest.raises(RednetError, match=f"^a split: no face has {needed} labelled$"):
            figures(labels, [(1, off([1]))], normaliser=normaliser)
    seven = face_labels("a split", split([sample("a")]), REDNET7)
    with pytest.raises(RednetError, match="landmarks of scheme rednet7 do not span the face's box"):
        figures(seven, [(1, np.zeros((1, 7, 2)))], normaliser="box-diagonal")


def test_padded_frames_are_excluded():
    padded = clip("one", [True] * 4 + [False] * 3)
    padded.landmarks[4:], padded.labelled[4:] = 1000, True
    labels = clip_labels("clips", split([padded]), IBUG68)
    result = figures(labels, [(1, off([1, 2, 3, 4, 90, 90, np.nan]))])
    assert (result["images"], result["missed"], result["frames"]) == (4, 0, 7)
    assert result["per_step"][0]["nme"] == pytest.approx(2.5, abs=1e-4)
    assert result["label_jitter"] == pytest.approx(0, abs=1e-4)


def test_rows_are_compared_with_the_first_row_per_face():
    labels = face_labels("a split", split([sample(name) for name in "abcd"]), IBUG68)
    one, two = [4, 6, 8, np.nan], [3, 4, 7, 1]
    first, second = figures(labels, [(1, off(one)), (2, off(two))])["per_step"]
    assert "nme_less_first" not in first
    assert second["nme_less_first"] == pytest.approx(-4 / 3, abs=1e-4)
    bounds = paired_interval(two, one)
    assert second["intervals"]["nme_less_first"] == pytest.approx(list(bounds), abs=1e-4)
