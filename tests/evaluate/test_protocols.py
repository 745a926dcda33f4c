"""Evaluation of a checkpoint on a split: boxes, counts, and figures computed by hand."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
import skimage.data
from evaluate.faces import sample, split_of
from PIL import Image
from train.miniature_300w import draw_300w, draw_face, prepare_300w

from rednet_jax.data.builders.tree_300w import validation_names
from rednet_jax.data.prepare import find_prepared, prepare
from rednet_jax.data.sources import read_split
from rednet_jax.detection.detector import POINTS, Detection, upright_box
from rednet_jax.detection.yunet import YuNet
from rednet_jax.errors import RednetError
from rednet_jax.evaluate import protocols
from rednet_jax.evaluate.protocols import crop_split, evaluate_split
from rednet_jax.inference.predict import align_crops
from rednet_jax.landmarks.boxes import whole_face_box
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.crops import crop_transform
from rednet_jax.landmarks.pts import read_pts, write_pts
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.model.rednet import init
from rednet_jax.weights.store import fingerprint, write_weights

FACE, SIDE = np.array([222.0, 125.0]), 110.0
"""Centre and size of the face in scikit-image's astronaut, pixels."""


@pytest.fixture(scope="module")
def network(narrow):
    config = narrow("compact")
    return config, init(config, jax.random.key(0))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The folder of prepared data; the source folder is tree/ beside it."""
    return prepare_300w(tmp_path_factory.mktemp("300w"), train=1, validation=3)


def prepare_astronaut(folder, *, labelled_at):
    """Prepares two validation faces: the astronaut's, and one on a grey image."""
    tree = draw_300w(folder / "tree", train=0, validation=2)
    name, plain = validation_names()[:2]
    Image.new("RGB", (64, 64), "grey").save(tree / f"{plain}.png")
    Image.fromarray(skimage.data.astronaut()).save(tree / f"{name}.png")
    write_pts(tree / f"{name}.pts", labelled_at + SIDE * IBUG68.shape)
    prepare("300w", tree, folder / "prepared")
    return folder / "prepared"


def scored_by_hand(path, data_dir):
    """Returns the NME in percent of each face of a predictions file, from the .pts files."""
    names, landmarks = read_landmarks_csv(path)
    errors = {}
    for name, predicted in zip(names, landmarks, strict=True):
        truth = read_pts(data_dir.parent / "tree" / f"{name}.pts")
        eyes = math.dist(truth[36], truth[45])
        distances = [math.dist(p, q) for p, q in zip(predicted, truth, strict=True)]
        errors[name] = 100 * sum(distances) / 68 / eyes
    return errors


def figures_of(row):
    """Returns the scalar figures of a row, and those of the parts of the face."""
    plain = {name: value for name, value in row.items() if not isinstance(value, dict)}
    plain.pop("nme_less_first", None)
    return {**plain, **row["groups"]}


@pytest.mark.parametrize("boxes", ["truth", "jitter"])
def test_reported_figures_equal_those_computed_by_hand(network, data_dir, tmp_path, boxes):
    csv = tmp_path / "predictions.csv"
    result = evaluate_split(
        network, "300w", "validation", data_dir=data_dir, boxes=boxes, predictions=csv
    )
    errors = scored_by_hand(csv, data_dir)
    assert sorted(errors) == sorted(validation_names()[:3])
    last = result["per_step"][-1]
    values = sorted(errors.values())
    assert last["feedback_steps"] == 3
    assert last["nme"] == pytest.approx(sum(values) / 3, rel=1e-4)
    assert last["median"] == pytest.approx(values[1], rel=1e-4)
    for cut in (8, 10):
        share = 100 * sum(value > cut for value in values) / 3
        assert last[f"failure_rate_{cut}"] == pytest.approx(share)
    area = 100 * sum(max(8 - value, 0) for value in values) / 3 / 8
    assert last["auc_8"] == pytest.approx(area, rel=1e-3)
    plain = {k: v for k, v in result.items() if k not in ("per_step", "provenance")}
    assert plain == {
        "split": "300w validation, used for selection",
        "images": 3,
        "missed": 0,
        "normaliser": "inter-ocular (outer eye corners)",
        "boxes": boxes,
        "crop_margin": 1.25,
        "interval": {"level": 0.95, "over": "photos", "count": 2},  # two of three share a photo
    }
    assert set(last["groups"]) == {"jaw", "brows", "nose", "eyes", "mouth"}
    for name in ("nme", "failure_rate_8", "failure_rate_10", "auc_8"):
        low, high = last["intervals"][name]
        assert low <= last[name] <= high


def test_provenance_identifies_weights_and_labels(network, data_dir, tmp_path):
    config, variables = network
    path = tmp_path / "tiny.safetensors"
    write_weights(path, config, variables)
    options = {"data_dir": data_dir, "feedback_steps": (2, 1), "boxes": "jitter"}
    origin = evaluate_split(path, "300w", "validation", **options)["provenance"]
    assert origin["command"] == (
        "rednet eval tiny --data 300w --split validation --normaliser inter-ocular "
        "--feedback-steps 2,1 --boxes jitter"
    )
    assert origin["prepared_from"] == find_prepared("300w", data_dir).source
    assert origin["versions"]["jax"] == jax.__version__ and origin["git_commit"]
    # The fingerprint does not depend on the file.
    assert origin["weights"] == fingerprint(variables)
    same = evaluate_split(network, "300w", "validation", **options)["provenance"]
    assert {**same, "command": ""} == {**origin, "command": ""}
    changed = jax.tree.map(lambda leaf: leaf, variables)
    changed["params"]["encoder"] = jax.tree.map(lambda a: a + 1e-6, changed["params"]["encoder"])
    moved = evaluate_split((config, changed), "300w", "validation", **options)["provenance"]
    assert moved["weights"] != origin["weights"] and moved["labels"] == origin["labels"]
    train = evaluate_split(network, "300w", "train", **options)["provenance"]
    assert train["labels"] != origin["labels"] and train["weights"] == origin["weights"]


def test_rows_are_in_the_requested_order_and_equal_single_runs(network, data_dir):
    def rows(*steps):
        result = evaluate_split(
            network, "300w", "validation", data_dir=data_dir, feedback_steps=steps, boxes="jitter"
        )
        return result["per_step"]

    both = rows(3, 1)
    assert [row["feedback_steps"] for row in both] == [3, 1]
    for row in both:
        (alone,) = rows(row["feedback_steps"])
        assert figures_of(alone) == pytest.approx(figures_of(row), rel=1e-5)


def test_truth_is_the_box_of_the_labels(network, data_dir):
    config, _ = network
    samples = read_split("300w", "validation", data_dir)
    crops = crop_split(samples, config)
    for face, affine in zip(samples, crops.affines, strict=True):
        x0, y0, x1, y1 = face.box
        side = config.crop_margin * max(x1 - x0, y1 - y0)
        assert affine[0, 0] == pytest.approx(side / config.image_size)
        middle = affine @ [(config.image_size - 1) / 2, (config.image_size - 1) / 2, 1]
        np.testing.assert_allclose(middle, [(x0 + x1) / 2, (y0 + y1) / 2], atol=1e-4)


def test_a_face_without_jaw_labels_is_cropped_as_a_whole_face(network):
    """The box of the labelled points alone would be a fifth smaller."""
    config, _ = network
    labelled = np.arange(68) >= 17
    whole, part = (
        crop_split(split_of([sample("a", 0, mask)]), config) for mask in (None, labelled)
    )
    np.testing.assert_allclose(part.affines, whole.affines, rtol=0.05, atol=1)
    partly = sample("a", 0, labelled)
    box = whole_face_box(partly.landmarks, IBUG68, labelled)
    expected = crop_transform(box, margin=config.input_margin, size=config.input_size)
    np.testing.assert_array_equal(part.affines[0], expected)
    assert max(box[2:] - box[:2]) > 1.15 * max(partly.box[2:] - partly.box[:2])


def test_the_detector_finds_the_astronaut_and_misses_are_counted(network, tmp_path):
    astronaut = prepare_astronaut(tmp_path, labelled_at=FACE)
    csv = tmp_path / "predictions.csv"
    result = evaluate_split(
        network, "300w", "validation", data_dir=astronaut, boxes="detector", predictions=csv
    )
    assert (result["images"], result["missed"], result["boxes"]) == (1, 1, "detector")
    found, missed = validation_names()[:2]
    names, landmarks = read_landmarks_csv(csv)
    assert names == [found, missed]
    assert np.isfinite(landmarks[0]).all() and np.isnan(landmarks[1]).all()
    assert result["per_step"][-1]["nme"] == pytest.approx(
        scored_by_hand(csv, astronaut)[found], rel=1e-4
    )
    samples = read_split("300w", "validation", astronaut)
    crops = crop_split(samples, network[0], "detector", detector=YuNet())
    assert crops.missed == [missed]
    middle = crops.affines[0] @ [31.5, 31.5, 1]
    assert math.dist(middle, FACE) < 0.2 * SIDE and not np.allclose(middle, FACE)


class RolledDetector:
    """Returns the face, rotated by 90 degrees, and a wrong face with a higher score."""

    def __init__(self, truth):
        eyes_nose_mouth = POINTS * 60 @ np.array([[0, 1], [-1, 0]])
        self.face = Detection(truth, 0.8, np.float32(eyes_nose_mouth + truth.reshape(2, 2).mean(0)))
        self.wrong = Detection(truth + np.float32(200), 0.9)

    def detect(self, image):
        return [self.wrong, self.face]


def test_crops_of_rolled_detections_are_upright(network, data_dir):
    config = network[0]
    samples = split_of([read_split("300w", "validation", data_dir)[0]])
    detector = RolledDetector(whole_face_box(samples[0].landmarks, IBUG68))
    crops = crop_split(samples, config, "detector", detector=detector)
    box, roll = upright_box(detector.face)
    assert roll == pytest.approx(np.pi / 2)
    expected = crop_transform(
        box, margin=config.input_margin, size=config.input_size, roll=np.pi / 2
    )
    np.testing.assert_allclose(crops.affines[0], expected, atol=1e-4)
    # To the right in the crop is down in the image.
    step = crops.affines[0][:, 0]
    assert abs(step[0]) < 1e-4 and step[1] > 0
    result = evaluate_split(
        network, "300w", "validation", data_dir=data_dir, boxes="detector", detector=detector
    )
    # All faces are drawn at the same position.
    assert (result["images"], result["missed"], result["boxes"]) == (3, 0, "detector")
    with pytest.raises(ValueError, match="need a detector"):
        crop_split(samples, config, "detector")


def test_full_is_common_and_challenging_together(network, tmp_path):
    names = "helen/testset/a", "helen/testset/b", "lfpw/testset/c", "ibug/d", "ibug/e_1", "ibug/e_2"
    for seed, name in enumerate(names):
        image, landmarks = draw_face(seed)
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"tree/{name}.png")
        write_pts(tmp_path / f"tree/{name}.pts", landmarks)
    prepare("300w", tmp_path / "tree", tmp_path / "prepared")
    plot = tmp_path / "ced.png"
    common, challenging, full = (
        evaluate_split(
            network, "300w", split, data_dir=tmp_path / "prepared", feedback_steps=[1], plot=plot
        )
        for split in ("common", "challenging", "full")
    )
    results = (common, challenging, full)
    assert [result["images"] for result in results] == [3, 3, 6]
    # Two faces of one photo are one group.
    assert [result["interval"]["count"] for result in results] == [3, 2, 5]
    first, second, both = (figures_of(result["per_step"][0]) for result in results)
    for name in ("nme", "failure_rate_8", "failure_rate_10", "auc_8", "jaw", "eyes"):
        assert both[name] == pytest.approx((first[name] + second[name]) / 2)
    assert Image.open(plot).width > 400


@pytest.mark.parametrize("normaliser", ["inter-pupil", "box-diagonal"])
def test_other_normalisers(network, data_dir, tmp_path, normaliser):
    csv = tmp_path / "predictions.csv"
    result = evaluate_split(
        network,
        "300w",
        "validation",
        data_dir=data_dir,
        feedback_steps=[1],
        normaliser=normaliser,
        predictions=csv,
    )
    assert result["normaliser"].startswith(f"{normaliser} (")
    errors = []
    for name, predicted in zip(*read_landmarks_csv(csv), strict=True):
        truth = read_pts(data_dir.parent / "tree" / f"{name}.pts")
        length = math.dist(truth[36:42].mean(0), truth[42:48].mean(0))
        if normaliser == "box-diagonal":
            length = math.dist(truth.min(0), truth.max(0))
        errors.append(100 * np.linalg.norm(predicted - truth, axis=1).mean() / length)
    assert result["per_step"][0]["nme"] == pytest.approx(np.mean(errors), rel=1e-4)


def test_a_detection_without_overlap_is_a_miss(network, tmp_path):
    astronaut = prepare_astronaut(tmp_path, labelled_at=FACE + np.array([150, 200]))
    with pytest.raises(RednetError, match=r"^the detector found none of 2 faces$"):
        evaluate_split(network, "300w", "validation", data_dir=astronaut, boxes="detector")


def test_a_face_without_eye_corners_is_not_measured(network, monkeypatch):
    labelled = np.ones(68, bool)
    labelled[45] = False
    faces = [sample("a"), sample("b", 1, labelled)]
    split = split_of(faces)
    monkeypatch.setattr(protocols, "read_split", lambda *_: split)

    def measured():
        return evaluate_split(network, "any", "split", feedback_steps=[1])

    both = measured()
    assert both["images"] == 1
    faces.pop()
    assert figures_of(measured()["per_step"][0]) == pytest.approx(
        figures_of(both["per_step"][0]), rel=1e-5
    )
    faces[:] = [sample("b", 1, labelled)]
    with pytest.raises(RednetError, match="any split: no face has both outer eye corners"):
        measured()


def test_the_last_batch_is_padded(network, data_dir):
    config, variables = network
    crops = crop_split(read_split("300w", "validation", data_dir), config).images
    whole = align_crops(config, variables, crops, 2)
    assert whole.shape == (2, 3, 68, 2)
    np.testing.assert_allclose(align_crops(config, variables, crops, 2, batch=2), whole, atol=1e-3)


def test_progress_is_reported(network, data_dir):
    calls = []
    samples = read_split("300w", "validation", data_dir)
    crop_split(samples, network[0], report=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feedback_steps": (0,)}, "1 or more, not 0"),
        ({"feedback_steps": (1, 101)}, "at most 100, not 1,101"),
        ({"feedback_steps": (1, -2)}, "1 or more, not 1,-2"),
        ({"feedback_steps": ()}, "1 or more, not none"),
        ({"split": "test"}, "'test'"),
        ({"data": "500w"}, "'500w'"),
        (
            {"normaliser": "nose"},
            "no normaliser 'nose'; known: inter-ocular, inter-pupil, box, box-",
        ),
        ({"checkpoint": "absent"}, "absent"),
    ],
)
def test_invalid_arguments_raise(network, data_dir, changes, message):
    arguments = {"checkpoint": network, "data": "300w", "split": "validation", **changes}
    with pytest.raises(RednetError, match=message) as caught:
        evaluate_split(data_dir=data_dir, **arguments)
    assert "\n" not in str(caught.value)


def test_predictions_that_cannot_be_written_raise(network, data_dir, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RednetError, match=r"predictions.csv: cannot be written"):
        evaluate_split(
            network,
            "300w",
            "validation",
            data_dir=data_dir,
            predictions=tmp_path / "file" / "predictions.csv",
        )
