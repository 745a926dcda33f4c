"""Calibration of the confidence: the fit, the scaled weights, and the command."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from scipy.special import expit
from train.miniature_300w import prepare_300w

from rednet_jax import cli
from rednet_jax.data.sources import read_split
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.calibration import (
    Answers,
    Platt,
    ask,
    calibrate,
    cross_validated,
    fit_platt,
    photo_folds,
)
from rednet_jax.evaluate.reliability import scores
from rednet_jax.inference.predict import predict_crops
from rednet_jax.model.heads import PeakReadout, scale_confidence
from rednet_jax.model.rednet import init
from rednet_jax.weights.store import fingerprint, load, write_weights


def drawn(slope, intercept, count=200_000):
    rng = np.random.default_rng(0)
    logits = rng.normal(1, 2, count)
    return logits, rng.random(count) < expit(slope * logits + intercept)


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -1.0), (3.0, 0.7), (0.02, 2.0)])
def test_the_fit_recovers_the_true_scaling(slope, intercept):
    logits, right = drawn(slope, intercept)
    fit = fit_platt(logits, right)
    assert fit == pytest.approx((slope, intercept), abs=0.03)
    after, before = scores(fit(logits), right), scores(logits, right)
    assert after["ece"] < 0.005
    assert all(after[score] < before[score] for score in before)


def test_calibrated_logits_are_nearly_unchanged():
    assert fit_platt(*drawn(1, 0)) == pytest.approx((1, 0), abs=0.02)


def test_separable_points_have_a_finite_fit():
    fit = fit_platt(np.array([-2.0, -1, 1, 2]), np.array([False, False, True, True]))
    assert 0 < fit.slope < 10 and fit.intercept == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("logits", "right", "message"),
    [
        ([1.0, 2], [True, True], "all 2 points are correct"),
        ([1.0, 2], [False, False], "all 2 points are wrong"),
        ([1.0, 2, 3, 4], [True, True, False, False], "are not correct more often"),
        ([1.0, 1, 1], [True, False, True], "are not correct more often"),
    ],
)
def test_points_that_cannot_be_fitted_raise(logits, right, message):
    with pytest.raises(RednetError, match=message) as caught:
        fit_platt(np.array(logits), np.array(right))
    assert "\n" not in str(caught.value)


def test_cross_validation_uses_the_fit_that_excludes_the_photo():
    photos = np.repeat(np.arange(10), 3)
    logits = np.arange(60.0).reshape(2, 30)
    answers = Answers([], logits, np.zeros((2, 30), bool), photos, photos)
    fold = photo_folds(photos)
    assert sorted(np.bincount(fold)) == [6] * 5
    assert all(len(set(fold[photos == photo])) == 1 for photo in range(10))
    calibrated = cross_validated(answers, [Platt(1.0, 1000.0 * number) for number in range(5)])
    np.testing.assert_array_equal(calibrated, logits + 1000 * fold)
    with pytest.raises(RednetError, match="4 photos are too few"):
        photo_folds(np.arange(4))


def test_scaled_weights_scale_the_confidence_and_keep_landmarks(narrow):
    config = narrow("compact")
    variables = jax.tree.map(np.asarray, init(config, jax.random.key(0)))
    shape = (2, config.image_size, config.image_size, 3)
    crops = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    landmarks, confidence = predict_crops(config, variables, crops, 2)
    kept = jax.tree.map(np.copy, variables)
    scaled = scale_confidence(config, variables, 0.6, -0.3)
    jax.tree.map(np.testing.assert_array_equal, variables, kept)
    same, after = predict_crops(config, scaled, crops, 2)
    np.testing.assert_array_equal(same, landmarks)
    p = confidence.astype(np.float64)
    np.testing.assert_allclose(after, expit(0.6 * np.log(p / (1 - p)) - 0.3), rtol=1e-5)


def test_the_peak_readout_is_scaled(narrow):
    config = narrow("ijcv_resnet")
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=68).astype(np.float32) for name in ("gain", "offset")}
    scaled = scale_confidence(config, {"params": {"readout": weights}}, 0.6, -0.3)

    def read(weights):
        readout = PeakReadout(config)
        readout.gain[...], readout.offset[...] = weights["gain"], weights["offset"]
        return readout(logits)

    logits = jax.numpy.asarray(rng.normal(size=(2, 32, 32, 68)), np.float32)
    points, confidence = read(weights)
    same, after = read(scaled["params"]["readout"])
    np.testing.assert_array_equal(same, points)
    np.testing.assert_allclose(after, 0.6 * confidence - 0.3, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["compact", "eccv_vgg", "ijcv_resnet"])
def test_every_preset_has_one_bias_per_point(narrow, architecture):
    config = narrow(architecture)
    shapes = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    shifted = jax.tree.leaves(scale_confidence(config, blank, 2.0, 3.0))
    assert sum(leaf.sum() for leaf in shifted) == 3 * 68


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return prepare_300w(tmp_path_factory.mktemp("300w"), train=1, validation=9)


@pytest.fixture(scope="module")
def checkpoint(narrow, data_dir, tmp_path_factory):
    """Predicts the mean shape, with confidence logits twice as large as they should be."""
    config = narrow("compact")
    variables = jax.tree.map(np.array, init(config, jax.random.key(0)))
    dense, points = variables["params"]["regression"]["points"]["dense"], 2 * config.scheme.count
    dense["kernel"][:] = 0
    answers = ask(config, variables, read_split("300w", "validation", data_dir), [1])
    each = answers.right.reshape(-1, config.scheme.count).mean(0)
    better = each > each.mean()
    often = np.where(better, each[better].mean(), each[~better].mean())
    dense["bias"][points:] = 2 * np.log(often / (1 - often))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_weights(path, config, variables)
    return path


def test_the_command_writes_calibrated_weights_a_plot_and_figures(
    checkpoint, data_dir, tmp_path, capsys
):
    words = ["calibrate", checkpoint, "--data-dir", data_dir, "--out", tmp_path]
    assert cli.main([*map(str, words), "--feedback-steps", "1,2"]) == 0
    assert str(tmp_path / "tiny.safetensors") in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {
        "tiny.safetensors",
        "reliability.png",
        "calibration.json",
    }
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((tmp_path / "calibration.json").read_text())
    assert result["slope"] == pytest.approx(0.5, abs=0.02)
    assert result["split"] == "validation, used for selection"
    assert result["weights"] == fingerprint(load(checkpoint)[1])
    assert len(result["labels"]) == 64 and result["command"].startswith("rednet calibrate tiny ")
    assert result["faces"] == 9 and len(result["folds"]) == 5
    assert [(row["boxes"], row["feedback_steps"]) for row in result["rows"]] == [
        (boxes, steps) for boxes in ("truth", "jitter") for steps in (1, 2)
    ]
    assert result["after"]["log_loss"] < result["before"]["log_loss"]
    config, variables = load(tmp_path / "tiny.safetensors")
    again = ask(config, variables, read_split("300w", "validation", data_dir), [1, 2])
    fit = fit_platt(again.logits.ravel(), again.right.ravel())
    assert fit == pytest.approx((1, 0), abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feedback_steps": (0,)}, "1 or more, not 0"),
        ({"feedback_steps": (1, 101)}, "at most 100, not 1,101"),
        ({"split": "nowhere"}, "'nowhere'"),
        ({"data": "300vw"}, "300vw contains clips"),
        ({"checkpoint": "absent"}, "absent"),
    ],
)
def test_invalid_arguments_raise(checkpoint, data_dir, tmp_path, changes, message):
    arguments = {"checkpoint": checkpoint, "out": tmp_path, "data_dir": data_dir, **changes}
    with pytest.raises(RednetError, match=message) as caught:
        calibrate(**arguments)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_test_split_and_overwriting_the_checkpoint_are_refused(checkpoint, data_dir, tmp_path):
    with pytest.raises(RednetError, match="300w common is a test split: calibrate on"):
        calibrate(checkpoint, tmp_path, split="common", data_dir=data_dir)
    with pytest.raises(RednetError, match="would replace the checkpoint itself"):
        calibrate(checkpoint, checkpoint.parent, data_dir=data_dir)
