"""Calibration of the confidence by Platt scaling, which is folded into the weights.

Platt scaling (Platt 1999) is confidence = sigmoid(slope * logit + intercept), with two numbers for
all points. The layer that computes the logits is affine, so its weights absorb the scaling, and
everything exported from the weights is calibrated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from rednet_jax.data.builders.tree_300w import photo
from rednet_jax.data.samples import Sample
from rednet_jax.data.sources import Split, read_split
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.labels import face_labels
from rednet_jax.evaluate.metrics import point_errors
from rednet_jax.evaluate.protocols import Boxes, check_steps, crop_split, in_image
from rednet_jax.evaluate.provenance import measured_on
from rednet_jax.evaluate.reliability import draw_reliability, reliability_bins, scores
from rednet_jax.files import write_json
from rednet_jax.inference.predict import predict_crops
from rednet_jax.landmarks.normalisers import normaliser_text
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.heads import scale_confidence
from rednet_jax.weights.store import checkpoint_name, load, name_in_command, write_weights

Floats = NDArray[np.floating]

WITHIN = 5.0
"""Percent of the inter-ocular distance: a point closer to its label is correct."""

BOXES: tuple[Boxes, ...] = ("truth", "jitter")
"""In use, crops are placed by a detector, whose error is similar to 'jitter', and in video by the
landmarks of the last frame, which is close to 'truth'; one pair of numbers serves both."""

FOLDS = 5

SEED = 0
"""Of the random assignment of photos to folds."""

_FOR_TESTING = ("test", "common", "challenging", "full", "a", "b", "c")

_PERCENTILES = (0, 1, 5, 25, 50)


class Platt(NamedTuple):
    """The map of confidence logits, logit -> slope * logit + intercept.

    Attributes:
        slope: above 0, so that the order of points is preserved.
        intercept: offset of the logit.
    """

    slope: float
    intercept: float

    def __call__(self, logits: Floats) -> Floats:
        """Returns the calibrated logits, of any shape."""
        return self.slope * logits + self.intercept


class Answers(NamedTuple):
    """A network's confidence in the labelled points of a split, and whether they are correct.

    Attributes:
        rows: boxes and K of each of R runs over the split.
        logits: float64 [R, P], of the confidence.
        right: bool [R, P], whether the point's error is below `WITHIN` percent.
        faces: int64 [P], index of the point's face.
        photos: int64 [P], index of the person if the data set has identities, else of the photo.
    """

    rows: list[tuple[Boxes, int]]
    logits: NDArray[np.float64]
    right: NDArray[np.bool_]
    faces: NDArray[np.int64]
    photos: NDArray[np.int64]


def fit_platt(logits: Floats, right: NDArray[np.bool_]) -> Platt:
    """Returns the maximum-likelihood scaling of logits [P], from the mask of correct points [P].

    As in Platt (1999), the target of the R correct points is (R + 1) / (R + 2), and that of the W
    wrong points 1 / (W + 2): the solution is finite even for separable points.

    Raises:
        RednetError: all points are correct, or all wrong, or logits of correct points are not
            larger.
    """
    count, positive = right.size, int(right.sum())
    if positive in (0, count):
        which = "correct" if positive else "wrong"
        raise RednetError(f"all {count} points are {which}: confidence cannot be calibrated")
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (count - positive + 2))
    design: Floats = np.stack([np.asarray(logits, np.float64), np.ones(count)])

    def loss(parameters: Floats) -> float:
        scaled = parameters @ design
        return float(np.mean(np.logaddexp(0, scaled) - target * scaled))

    # Newton's method with step halving.
    parameters: Floats = np.array([1.0, 0.0])
    while True:
        probability = expit(parameters @ design)
        gradient = design @ (probability - target) / count
        curvature = (design * probability * (1 - probability)) @ design.T / count
        step: Floats = np.linalg.pinv(curvature) @ gradient
        if gradient @ step < 1e-12:
            break
        while loss(parameters - step) > loss(parameters):
            step = step / 2
        parameters = parameters - step
    slope, intercept = map(float, parameters)
    if slope <= 0 or np.ptp(logits) == 0:
        raise RednetError(
            "confidence cannot be calibrated: points with higher confidence are not correct more "
            "often"
        )
    return Platt(slope, intercept)


def cross_validated(answers: Answers, fits: Sequence[Platt]) -> Floats:
    """Returns logits [R, P], each calibrated by the fit that excludes its photo's fold."""
    fold = photo_folds(answers.photos)
    calibrated = np.stack([fit(answers.logits) for fit in fits])
    held_out: Floats = calibrated[fold, :, np.arange(fold.size)].T
    return held_out


def photo_folds(photos: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the fold [P], 0 to `FOLDS` - 1, of each point, from its photo's index [P].

    Raises:
        RednetError: fewer photos than folds.
    """
    count = int(photos.max()) + 1
    if count < FOLDS:
        raise RednetError(f"{count} photos are too few: cross-validation needs {FOLDS}")
    folds: NDArray[np.int64] = (np.random.default_rng(SEED).permutation(count) % FOLDS)[photos]
    return folds


def ask(
    config: RedNetConfig,
    variables: dict[str, Any],
    samples: Split[Sample],
    feedback_steps: Sequence[int],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Answers:
    """Runs a network over a split with each of `BOXES`.

    Args:
        config: of the network.
        variables: of the network.
        samples: the split.
        feedback_steps: all K to run.
        report: called with (done, total) after each cropped face.

    Raises:
        RednetError: no face can be measured.
    """
    rows: list[tuple[Boxes, int]] = []
    logits, errors = [], []
    for number, boxes in enumerate(BOXES):

        def cut(done: int, _: int, before: int = number * len(samples)) -> None:
            report(before + done, len(BOXES) * len(samples))

        crops = crop_split(samples, config, boxes, cut)
        landmarks, confidence = predict_crops(config, variables, crops.images, max(feedback_steps))
        landmarks = in_image(crops, landmarks)
        for steps in feedback_steps:
            rows.append((boxes, steps))
            logits.append(_logit(confidence[steps - 1]))
            errors.append(
                point_errors(
                    landmarks[steps - 1],
                    crops.landmarks,
                    crops.scheme,
                    crops.labelled,
                    boxes=crops.boxes,
                )
            )
    # nan if a point is unlabelled or its face has no eye corners: the same in every run.
    known = np.isfinite(errors[0])
    if not known.any():
        raise RednetError(f"{samples.data} {samples.split}: no face can be measured")
    faces = np.nonzero(known)[0]
    owners = [f"person {s.identity}" if s.identity >= 0 else photo(s.name) for s in samples]
    return Answers(
        rows,
        np.stack([of_run[known] for of_run in logits]),
        np.stack([of_run[known] < WITHIN for of_run in errors]),
        faces,
        np.unique(np.asarray(owners)[faces], return_inverse=True)[1],
    )


def calibrate(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    data: str = "300w",
    split: str = "validation",
    data_dir: Path | None = None,
    feedback_steps: Sequence[int] = (1, 2, 3),
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Writes OUT/NAME.safetensors with calibrated confidence, and the quality of the calibration.

    One pair of numbers is fitted to all K and `BOXES` jointly, since all passes and crops share the
    head that computes the confidence. OUT/reliability.png and OUT/calibration.json have the
    figures: 'before' are those of the checkpoint, 'after' is cross-validated, each photo (or
    person) by a fit to other photos. The weights contain the fit to all photos.

    Args:
        checkpoint: a released name, a safetensors file, or a run folder; NAME is its last part.
        out: folder, created if necessary.
        data: name of a data set of images.
        split: of the data set, not a test split.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        feedback_steps: all K to calibrate for.
        report: called with (done, total) after each cropped face.

    Returns:
        The content of calibration.json: provenance, `slope`, `intercept` and those of each fold
        (`folds`), `before` and `after` (`ece`, `brier`, `log_loss`, `bins`, and percentiles of
        a face's mean confidence), and `rows`, the scores for each boxes and K.

    Raises:
        RednetError: a K out of range, a test split, a data set that has clips or is not prepared, a
            bad checkpoint, too few photos, confidence that is unrelated to the error, or files that
            cannot be written.
    """
    check_steps(feedback_steps)
    if split in _FOR_TESTING:
        raise RednetError(f"{data} {split} is a test split: calibrate on another split")
    samples = read_split(data, split, data_dir)
    config, variables = load(checkpoint)
    name = checkpoint_name(checkpoint)
    file = Path(out) / f"{name}.safetensors"
    if file.resolve() == Path(checkpoint).resolve():
        raise RednetError(f"{file}: would replace the checkpoint itself")
    answers = ask(config, variables, samples, feedback_steps, report)
    fold = photo_folds(answers.photos)
    fits = [
        fit_platt(answers.logits[:, fold != left].ravel(), answers.right[:, fold != left].ravel())
        for left in range(FOLDS)
    ]
    chosen = fit_platt(answers.logits.ravel(), answers.right.ravel())
    logits = {"before": answers.logits, "after": cross_validated(answers, fits)}
    listed = ",".join(map(str, feedback_steps))
    options = (
        f"{name_in_command(checkpoint)} --data {data} --split {split} --feedback-steps {listed}"
    )
    result = {
        "name": name,
        **measured_on(
            f"rednet calibrate {options} --out DIR",
            samples,
            weights=variables,
            labels=face_labels(f"{data} {split}", samples, config.scheme),
            seed=SEED,
        ),
        "data": data,
        "split": f"{split}, used for selection",
        "within": WITHIN,
        "normaliser": normaliser_text(config.scheme),
        "crop_margin": config.crop_margin,
        "faces": len(np.unique(answers.faces)),
        "photos": int(answers.photos.max()) + 1,
        "after_is": f"cross-validated over {FOLDS} folds of photos",
        **chosen._asdict(),
        "folds": [fit._asdict() for fit in fits],
        **{
            when: {
                **scores(values, answers.right),
                "face_confidence_percentiles": _face_percentiles(values, answers.faces),
                "bins": reliability_bins(values, answers.right, answers.photos),
            }
            for when, values in logits.items()
        },
        "rows": [
            {
                "boxes": boxes,
                "feedback_steps": steps,
                "right": float(answers.right[i].mean()),
                **{when: scores(values[i], answers.right[i]) for when, values in logits.items()},
            }
            for i, (boxes, steps) in enumerate(answers.rows)
        ],
    }
    write_weights(file, config, scale_confidence(config, variables, *chosen))
    draw_reliability(result, Path(out) / "reliability.png")
    write_json(Path(out) / "calibration.json", result)
    return result


def _face_percentiles(logits: Floats, faces: NDArray[np.int64]) -> dict[str, float]:
    """Returns percentiles of the mean confidence of a face, over all faces and runs."""
    _, places, counts = np.unique(faces, return_inverse=True, return_counts=True)
    means = [np.bincount(places, expit(row)) / counts for row in logits]
    values = np.percentile(means, _PERCENTILES)
    return {str(which): float(value) for which, value in zip(_PERCENTILES, values, strict=True)}


def _logit(confidence: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the logits of float32 confidences, clipped to 1e-7 from 0 and 1, their precision."""
    clipped = np.clip(np.asarray(confidence, np.float64), 1e-7, 1 - 1e-7)
    logits: NDArray[np.float64] = logit(clipped)
    return logits
