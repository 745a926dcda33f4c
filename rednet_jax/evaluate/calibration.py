"""Confidence that means what it says: fitted by Platt scaling, measured, folded into the weights.

Platt scaling (Platt 1999) is confidence = sigmoid(slope * logit + intercept), two numbers for all
points. The layer that makes the logits is affine, so it takes them in, and whatever is made of the
weights afterwards is calibrated by itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.builders.tree_300w import photo
from rednet_jax.data.samples import Sample
from rednet_jax.data.sources import Split, read_split
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.labels import face_labels
from rednet_jax.evaluate.metrics import point_errors
from rednet_jax.evaluate.protocols import Boxes, crop_split, in_image
from rednet_jax.evaluate.provenance import measured_on
from rednet_jax.evaluate.reliability import draw_reliability, reliability_bins, scores, sigmoid
from rednet_jax.files import write_text
from rednet_jax.inference.predict import predict_crops
from rednet_jax.landmarks.normalisers import normaliser_text
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.heads import scale_confidence
from rednet_jax.weights.store import checkpoint_name, load, write_weights

Floats = NDArray[np.floating]

WITHIN = 5.0
"""Percent of the inter-ocular distance: a point nearer than this to its label is right."""

BOXES: tuple[Boxes, ...] = ("truth", "jitter")
"""In use crops lie around a detector's box, which errs about as 'jitter' does, and in video around
the face's own last landmarks, which is nearly 'truth'; one pair of numbers has to do for both."""

FOLDS = 5

SEED = 0
"""Of the order in which photos are dealt to the folds."""

_FOR_TESTING = ("test", "common", "challenging", "full", "a", "b", "c")

_PERCENTILES = (0, 1, 5, 25, 50)


class Platt(NamedTuple):
    """The map of confidence logits, logit -> slope * logit + intercept.

    Attributes:
        slope: above 0, so that no two points change their order.
        intercept: added.
    """

    slope: float
    intercept: float

    def __call__(self, logits: Floats) -> Floats:
        """Returns the calibrated logits, of any shape."""
        return self.slope * logits + self.intercept


class Answers(NamedTuple):
    """What a network said of the labelled points of a split, and whether that was so.

    Attributes:
        rows: boxes and K of each of R runs over the split.
        logits: float64 [R, P], of the confidence.
        right: bool [R, P], whether the point was within `WITHIN` percent.
        faces: int64 [P], number of the face that a point belongs to.
        photos: int64 [P], number of the person where the data set knows people, else of the photo.
    """

    rows: list[tuple[Boxes, int]]
    logits: NDArray[np.float64]
    right: NDArray[np.bool_]
    faces: NDArray[np.int64]
    photos: NDArray[np.int64]


def fit_platt(logits: Floats, right: NDArray[np.bool_]) -> Platt:
    """Returns the most likely scaling of logits [P], given which points [P] were right.

    As Platt did, a right point counts as right with probability (R + 1) / (R + 2), R being how many
    were right, and a wrong one likewise: the answer is finite even where a cut parts them.

    Raises:
        RednetError: all points are right, or all wrong, or the logits do not rise with being right.
    """
    count, positive = right.size, int(right.sum())
    if positive in (0, count):
        which = "right" if positive else "wrong"
        raise RednetError(f"all {count} points are {which}: confidence cannot be calibrated")
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (count - positive + 2))
    design: Floats = np.stack([np.asarray(logits, np.float64), np.ones(count)])

    def loss(parameters: Floats) -> float:
        scaled = parameters @ design
        return float(np.mean(np.logaddexp(0, scaled) - target * scaled))

    # Newton's method; a step that overshoots is halved.
    parameters: Floats = np.array([1.0, 0.0])
    while True:
        probability = sigmoid(parameters @ design)
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
        raise RednetError("points said to be surer are not right more often: nothing to calibrate")
    return Platt(slope, intercept)


def cross_validated(answers: Answers, fits: Sequence[Platt]) -> Floats:
    """Returns logits [R, P] of which each is calibrated by the fit that did not see its photo."""
    fold = photo_folds(answers.photos)
    held_out = np.stack([fit(answers.logits) for fit in fits])
    chosen: Floats = held_out[fold, :, np.arange(fold.size)].T
    return chosen


def photo_folds(photos: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the fold [P], 0 to `FOLDS` - 1, of points of these photos [P], numbered from 0.

    Raises:
        RednetError: fewer photos than folds.
    """
    count = int(photos.max()) + 1
    if count < FOLDS:
        raise RednetError(f"{count} photos are too few: the check of the fit needs {FOLDS}")
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
        feedback_steps: every K.
        report: called with the number of faces cut and in all.

    Raises:
        RednetError: no point can be measured.
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
    # nan where a point has no label or its face no eye corners: the same in every run.
    known = np.isfinite(errors[0])
    if not known.any():
        raise RednetError(f"{samples.data} {samples.split}: no face can be measured")
    faces = np.nonzero(known)[0]
    owners = [f"person {s.identity}" if s.identity >= 0 else photo(s.name) for s in samples]
    return Answers(
        rows,
        np.stack([one[known] for one in logits]),
        np.stack([one[known] < WITHIN for one in errors]),
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
    """Writes OUT/NAME.safetensors, its confidence calibrated, and how far that can be trusted.

    One pair of numbers is fitted to all K and `BOXES` at once, since the head that makes the
    confidence is one for all passes and does not know where its crop came from. Beside the weights
    lie OUT/reliability.png and OUT/calibration.json. Figures 'before' are the checkpoint's; those
    'after' are cross-validated, each photo (or person) by a fit to other photos. The weights hold
    the fit to all.

    Args:
        checkpoint: a released name, a safetensors file, or a run folder; NAME is its last part.
        out: folder, made if need be.
        data: name of a data set of images.
        split: of the data set, none that is for testing.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        feedback_steps: every K to calibrate for.
        report: called with the number of faces cut and in all.

    Returns:
        What calibration.json holds: where it comes from, `slope`, `intercept` and those of each
        fold (`folds`), `before` and `after` (`ece`, `brier`, `log_loss`, `bins`, and percentiles of
        a face's mean confidence), and `rows`, the scores for each boxes and K.

    Raises:
        RednetError: a K below 1, a split for testing, a data set of clips or one that is not
            prepared, a bad checkpoint, too few photos, confidence that tells nothing, or files that
            cannot be written.
    """
    if not feedback_steps or min(feedback_steps) < 1:
        listed = ",".join(map(str, feedback_steps))
        raise RednetError(f"feedback steps must be 1 or more, not {listed or 'none'}")
    if split in _FOR_TESTING:
        raise RednetError(f"{data} {split} is for testing: nothing is chosen on it")
    samples = read_split(data, split, data_dir)
    config, variables = load(checkpoint)
    name = checkpoint_name(checkpoint)
    file = Path(out) / f"{name}.safetensors"
    if file.resolve() == Path(checkpoint).resolve():
        raise RednetError(f"{file}: would replace the checkpoint itself")
    answers = ask(config, variables, samples, feedback_steps, report)
    fold = photo_folds(answers.photos)
    fits = [
        fit_platt(answers.logits[:, fold != one].ravel(), answers.right[:, fold != one].ravel())
        for one in range(FOLDS)
    ]
    chosen = fit_platt(answers.logits.ravel(), answers.right.ravel())
    logits = {"before": answers.logits, "after": cross_validated(answers, fits)}
    listed = ",".join(map(str, feedback_steps))
    asked = f"{name} --data {data} --split {split} --feedback-steps {listed}"
    result = {
        "name": name,
        **measured_on(
            f"rednet calibrate {asked} --out DIR",
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
                **scores(given, answers.right),
                "face_confidence_percentiles": _face_percentiles(given, answers.faces),
                "bins": reliability_bins(given, answers.right, answers.photos),
            }
            for when, given in logits.items()
        },
        "rows": [
            {
                "boxes": boxes,
                "feedback_steps": steps,
                "right": float(answers.right[i].mean()),
                **{when: scores(given[i], answers.right[i]) for when, given in logits.items()},
            }
            for i, (boxes, steps) in enumerate(answers.rows)
        ],
    }
    write_weights(file, config, scale_confidence(config, variables, *chosen))
    draw_reliability(result, Path(out) / "reliability.png")
    write_text(Path(out) / "calibration.json", json.dumps(result, indent=2) + "\n")
    return result


def _face_percentiles(logits: Floats, faces: NDArray[np.int64]) -> dict[str, float]:
    """Of the mean confidence that a face's points have, over all faces and runs."""
    _, places, counts = np.unique(faces, return_inverse=True, return_counts=True)
    means = [np.bincount(places, sigmoid(row)) / counts for row in logits]
    found = np.percentile(means, _PERCENTILES)
    return {str(which): float(value) for which, value in zip(_PERCENTILES, found, strict=True)}


def _logit(confidence: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of confidences as float32 has them, where those within 1e-7 of 0 and 1 are not told apart."""
    clipped = np.clip(np.asarray(confidence, np.float64), 1e-7, 1 - 1e-7)
    logits: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return logits
