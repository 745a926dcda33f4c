"""Every part of the library with random schemes of 1 to 200 landmarks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from any_scheme import SCHEMES, random_scheme
from hypothesis import given, settings
from PIL import Image

import rednet_jax
from rednet_jax.data.builders.own_folder import OwnData
from rednet_jax.data.prepare import prepare
from rednet_jax.detection.detector import Detection
from rednet_jax.evaluate.predictions import score_predictions
from rednet_jax.evaluate.protocols import evaluate_split
from rednet_jax.export.stablehlo import export_stablehlo
from rednet_jax.export.web import _page_config
from rednet_jax.inference.appearance import thumbnail
from rednet_jax.landmarks.boxes import face_roll, turned_face_box, whole_face_box
from rednet_jax.landmarks.crops import apply_affine, invert_affine
from rednet_jax.landmarks.drawing import coloured_parts, draw_landmarks
from rednet_jax.landmarks.pts import read_pts, write_pts
from rednet_jax.landmarks.schemes import Scheme, mirror_landmarks
from rednet_jax.landmarks.table import read_landmarks_csv, write_landmarks_csv
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.recrop import next_crop
from rednet_jax.train.experiment import DataConfig, OptimiserConfig
from rednet_jax.train.loop import train
from rednet_jax.train.terms import Targets, face_unit

EXPECTED = np.array([100.0, 100.0, 180.0, 180.0])


def face_of(scheme: Scheme, roll: float = 0.0, noise: float = 0.5) -> np.ndarray:
    turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    rng = np.random.default_rng(scheme.count)
    return scheme.shape @ turn * 80 + 140 + rng.normal(0, noise, (scheme.count, 2))


@given(SCHEMES)
def test_boxes_and_roll(scheme: Scheme) -> None:
    """The box and roll of a face do not depend on which landmarks are known."""
    face = face_of(scheme, noise=0).astype(np.float32)
    box = whole_face_box(face, scheme, expected=EXPECTED)
    border = np.concatenate([scheme.shape, scheme.outline_shape]) * 80 + 140
    np.testing.assert_allclose(box, [*border.min(0), *border.max(0)], atol=0.02)
    half = np.arange(scheme.count) < max(1, scheme.count // 2)
    box_of_half = whole_face_box(np.where(half[:, None], face, 0), scheme, half, expected=EXPECTED)
    np.testing.assert_allclose(box_of_half, box, atol=0.02)
    turned = face_of(scheme, roll=0.7, noise=0).astype(np.float32)
    if len(np.unique(scheme.shape, axis=0)) > 1:
        assert face_roll(turned, scheme) == pytest.approx(0.7, abs=1e-3)
        upright = turned_face_box(turned, scheme, 0.7, expected=EXPECTED)
        np.testing.assert_allclose(upright[2:] - upright[:2], box[2:] - box[:2], atol=0.02)


@settings(max_examples=20)
@given(SCHEMES)
def test_files_drawings_and_the_page(tmp_path_factory: pytest.TempPathFactory, scheme: Scheme):
    folder = tmp_path_factory.mktemp("files")
    face = face_of(scheme)
    write_pts(folder / "a.pts", face)
    np.testing.assert_allclose(read_pts(folder / "a.pts"), face, atol=1e-3)
    write_landmarks_csv(folder / "a.csv", ["a", "b"], np.stack([face, face * np.nan]))
    names, back = read_landmarks_csv(folder / "a.csv")
    assert names == ["a", "b"] and back.shape == (2, scheme.count, 2) and np.isnan(back[1]).all()
    np.testing.assert_allclose(back[0], face, atol=1e-3)
    grey = np.full((280, 280, 3), 90, np.uint8)
    drawn = draw_landmarks(grey, face, scheme)
    for index in range(scheme.count):
        x, y = np.round(face[index]).astype(int)
        assert (drawn[y - 1 : y + 2, x - 1 : x + 2] != 90).any()
    members = {index for part, _ in coloured_parts(scheme) for index in part.points}
    assert members == set(range(scheme.count))
    twice = mirror_landmarks(mirror_landmarks(face, 280, scheme), 280, scheme)
    np.testing.assert_allclose(twice, face, atol=1e-3)
    config = RedNetConfig.preset("compact", scheme=scheme)
    page = json.loads(json.dumps(_page_config(config)))
    assert np.shape(page["shape"]["mean_shape"]) == (scheme.count, 2)
    ramp = grey + np.arange(280, dtype=np.uint8)[:, None]
    assert np.isfinite(thumbnail(ramp, face, scheme, EXPECTED)).all()


@settings(max_examples=15)
@given(SCHEMES)
def test_configs_and_crops_of_the_network(scheme: Scheme) -> None:
    config = RedNetConfig.preset("compact", scheme=scheme, recrop="similarity", context=1.5)
    plain = json.loads(json.dumps(config.to_json()))
    assert RedNetConfig.from_json(plain) == config
    assert config.feedback_channels == scheme.count + 1
    # For the mean face in its canonical position, the next crop is the first crop.
    size, margin = config.image_size, config.recrop_margin
    offset = (config.input_size - size) / 2
    points = scheme.shape * (size / margin) + (size - 1) / 2 + offset
    crop = np.asarray(next_crop(config, jnp.asarray(points[None], jnp.float32))[0])
    np.testing.assert_allclose(crop, [[1, 0, offset], [0, 1, offset]], atol=1e-3)
    # A scaled and shifted mean face is in its canonical position in the next crop; a single
    # landmark is only shifted.
    moved = points.mean(0) + 2 * (points - points.mean(0)) + [5, -7]
    crop = np.asarray(next_crop(config, jnp.asarray(moved[None], jnp.float32))[0])
    back = apply_affine(invert_affine(crop), moved)
    np.testing.assert_allclose(back, points - offset, atol=1e-2)


@settings(max_examples=15)
@given(SCHEMES)
def test_the_unit_of_losses(scheme: Scheme) -> None:
    face = jnp.asarray(face_of(scheme)[None], jnp.float32)
    targets = Targets(face, jnp.ones(face.shape[:2], bool), jnp.zeros(1, jnp.int32))
    length, known = face_unit(targets, scheme, 80.0)
    if scheme.groups is None:
        expected = 80.0
    else:
        first, second = (np.asarray(face)[0, list(group)].mean(0) for group in scheme.groups)
        expected = max(np.linalg.norm(first - second), 1.0)
    assert float(length[0]) == pytest.approx(expected, rel=1e-5) and bool(known[0])
    unlabelled = targets._replace(labelled=jnp.zeros_like(targets.labelled))
    assert not bool(face_unit(unlabelled, scheme, 80.0)[1][0])


class CentreDetector:
    """A detector that finds a face in the centre of any image."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        height, width = image.shape[:2]
        side = min(height, width)
        return [Detection(np.array([0.2, 0.2, 0.8, 0.8], np.float32) * side, 0.9)]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 37, 200])
def test_from_a_folder_to_an_export(count: int, narrow, tmp_path: Path) -> None:
    """Prepare, train with augmentation and re-crops, resume, evaluate, align, track, export."""
    scheme = random_scheme(count, seed=2)
    root, rng = tmp_path / "mine", np.random.default_rng(0)
    root.mkdir()
    columns = [f"{axis}{i}" for i in range(count) for axis in "xy"]
    lines = [",".join(["name", *columns, "box_x0", "box_y0", "box_x1", "box_y1", "identity"])]
    for number in range(10):
        points = scheme.shape * 60 + 64 + rng.normal(0, 1, (count, 2))
        pixels = rng.integers(0, 255, (128, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        cells = [f"{v:.3f}" for v in points.ravel()]
        lines.append(",".join([f"{number}.png", *cells, "34", "34", "94", "94", f"p{number}"]))
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    own = OwnData(scheme, tmp_path / "labels.csv", shares=(0.6, 0.4, 0.0))
    prepare("mine", root, tmp_path / "data", own=own)
    model = narrow("compact", scheme=scheme, recrop="similarity", context=1.5, feedback_steps=1)
    stage = rednet_jax.Stage(
        steps=3,
        batch=2,
        data=DataConfig(
            train=("mine/train",), validation="mine/validation", cached_size=128, cover=2.0
        ),
        optimiser=OptimiserConfig(warmup_steps=1),
    )
    experiment = rednet_jax.Experiment(
        name="any", model=model, stages=(stage,), evaluate_every=3, log_every=1
    )
    train(experiment, tmp_path / "run", data_dir=tmp_path / "data", stop_after=2)
    train(experiment, tmp_path / "run", data_dir=tmp_path / "data")
    rows = [json.loads(row) for row in (tmp_path / "run/metrics.jsonl").open()]
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)
    config, variables = rednet_jax.load(tmp_path / "run")
    assert config == model and config.scheme == scheme

    csv = tmp_path / "points.csv"
    result = evaluate_split(
        (config, variables),
        "mine",
        "validation",
        data_dir=tmp_path / "data",
        feedback_steps=(1,),
        predictions=csv,
    )
    again = score_predictions(csv, "mine", "validation", data_dir=tmp_path / "data")
    assert result["images"] == 4 and result["missed"] == 0
    assert again["per_step"][0]["nme"] == pytest.approx(result["per_step"][0]["nme"], rel=1e-3)
    assert set(result["per_step"][0]["groups"]) == set(scheme.regions)

    image = np.asarray(Image.open(root / "0.png"))
    aligner = rednet_jax.Aligner(
        (config, variables), detector=CentreDetector(), feedback_steps=1, min_confidence=0.0
    )
    (face,) = aligner(image)
    assert face.landmarks.shape == (count, 2) and face.scheme == scheme
    confident = jax.tree.map(np.asarray, variables)
    # With the low confidence of an untrained network, the tracker would lose the face.
    confident["params"]["regression"]["points"]["dense"]["bias"][2 * count :] = 9.0
    frames = rednet_jax.track([image] * 3, (config, confident), detector=CentreDetector())
    tracked = [frame.faces for frame in frames]
    assert all(faces[0].landmarks.shape == (count, 2) for faces in tracked)
    export_stablehlo(tmp_path / "run", tmp_path / "export", feedback_steps=1)
    exported = json.loads((tmp_path / "export/export.json").read_text())
    assert exported["scheme"] == scheme.to_json()


def test_coarse_maps_of_the_journal_version_are_of_the_scheme(narrow) -> None:
    config = narrow("ijcv_resnet", scheme=rednet_jax.load_scheme("wflw98"))
    assert config.coarse_landmarks == (60, 64, 68, 72, 54, 76, 82)
    assert config.feedback_channels == 7
    with pytest.raises(
        rednet_jax.errors.RednetError, match="scheme random9-0 does not contain them"
    ):
        dataclasses.replace(config, scheme=random_scheme(9, seed=0))
