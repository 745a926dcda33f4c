"""Evaluation of a checkpoint on a split of images: placement of the crops, and the figures."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.samples import Sample
from rednet_jax.data.sources import Split, read_split
from rednet_jax.detection.detector import RIGHT_IOU, Detection, FaceDetector, upright_box
from rednet_jax.detection.yunet import YuNet
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.figures import figures
from rednet_jax.evaluate.labels import Labels, face_labels
from rednet_jax.evaluate.predictions import write_predictions
from rednet_jax.evaluate.provenance import eval_command, measured_on
from rednet_jax.inference.predict import MOST_STEPS, align_crops
from rednet_jax.landmarks.boxes import intersection_over_union, jitter_box, whole_face_box
from rednet_jax.landmarks.convert import convert, convert_labelled
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform
from rednet_jax.landmarks.normalisers import Normaliser, check_normaliser, default_normaliser
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import Checkpoint, checkpoint_name, name_in_command, network_of

Boxes = Literal["truth", "detector", "jitter", "jitter-hard"]

JITTER = {"jitter": (0.06, 0.10), "jitter-hard": (0.12, 0.20)}
"""Standard deviations of the box's centre, in sides, and of the logarithm of its size."""


class Crops(NamedTuple):
    """The crops of a split's faces, the network's input.

    Attributes:
        names: N paths relative to the source folder, without extension.
        images: uint8 [N, S, S, 3].
        affines: float64 [N, 2, 3], crop pixels -> image pixels.
        landmarks: float32 [N, L, 2], image pixels.
        labelled: bool [N, L].
        boxes: float32 [N, 4], of the faces, image pixels.
        missed: names of the faces that the detector did not find, which the arrays exclude.
        scheme: of the landmarks.
    """

    names: list[str]
    images: NDArray[np.uint8]
    affines: NDArray[np.float64]
    landmarks: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    missed: list[str]
    scheme: Scheme


def crop_split(
    samples: Split[Sample],
    config: RedNetConfig,
    boxes: Boxes = "truth",
    report: Callable[[int, int], None] = lambda done, total: None,
    *,
    detector: FaceDetector | None = None,
) -> Crops:
    """Crops every face of a split.

    Args:
        samples: the split.
        config: of the network; defines margin, size and landmarks.
        boxes: crops around `whole_face_box` of the labels ('truth'), around the detector's box,
            upright if it has points ('detector'), or around the labels' box with a random
            displacement ('jitter'; 'jitter-hard' doubles its deviations), which depends on the
            face's name only, not on K, the model or the order.
        report: called with (done, total) after each face.
        detector: required for boxes 'detector', not used for others.

    Raises:
        RednetError: no face is found.
    """
    if boxes == "detector" and detector is None:
        raise ValueError("boxes 'detector' need a detector")
    scheme = samples.scheme
    names, images, affines, landmarks, labelled, own_boxes = [], [], [], [], [], []
    missed: list[str] = []
    for done, sample in enumerate(samples, 1):
        report(done, len(samples))
        if boxes == "detector" and detector is not None:
            region = _detected(sample, scheme, detector)
        else:
            region = _box(sample, scheme, boxes), 0.0
        if region is None:
            missed.append(sample.name)
            continue
        box, roll = region
        affine = crop_transform(box, margin=config.input_margin, size=config.input_size, roll=roll)
        names.append(sample.name)
        images.append(crop_image(sample.image, affine, config.input_size))
        affines.append(affine)
        landmarks.append(convert(sample.landmarks, scheme, config.scheme))
        labelled.append(convert_labelled(sample.labelled, scheme, config.scheme))
        own_boxes.append(sample.box)
    if not names:
        raise RednetError(f"the detector found none of {len(samples)} faces")
    return Crops(
        names,
        np.stack(images),
        np.stack(affines),
        np.stack(landmarks),
        np.stack(labelled),
        np.stack(own_boxes),
        missed,
        config.scheme,
    )


def _truth(sample: Sample, scheme: Scheme) -> NDArray[np.floating]:
    """Returns the labels' box [4]; the whole image for a face without labels (not measured)."""
    if sample.labelled.any():
        return whole_face_box(sample.landmarks, scheme, sample.labelled, expected=sample.box)
    return sample.box


def _box(sample: Sample, scheme: Scheme, boxes: Boxes) -> NDArray[np.floating]:
    """Returns the box [4] of a face's crop if no detector is used."""
    truth = _truth(sample, scheme)
    if boxes in JITTER:
        rng = np.random.default_rng(zlib.crc32(sample.name.encode()))
        return jitter_box(rng, truth, *JITTER[boxes])
    return truth


def _detected(
    sample: Sample, scheme: Scheme, detector: FaceDetector
) -> tuple[NDArray[np.floating], float] | None:
    """Returns box [4] and roll of the detection with the largest IoU; None if none is correct."""
    truth = _truth(sample, scheme)

    def overlap(face: Detection) -> float:
        return intersection_over_union(face.box, truth)

    best = max(detector.detect(sample.image), key=overlap, default=None)
    if best is None or overlap(best) <= RIGHT_IOU:
        return None
    return upright_box(best)


def in_image(crops: Crops, landmarks: NDArray[np.floating]) -> NDArray[np.floating]:
    """Maps landmarks [..., N, L, 2] from crop pixels to pixels of their images."""
    mapped: NDArray[np.floating] = apply_affine(crops.affines, landmarks)
    return mapped


def answer_split(
    config: RedNetConfig,
    variables: dict[str, Any],
    samples: Split[Sample],
    labels: Labels,
    feedback_steps: int,
    boxes: Boxes = "truth",
    report: Callable[[int, int], None] = lambda done, total: None,
    *,
    detector: FaceDetector | None = None,
) -> NDArray[np.floating]:
    """Returns the landmarks [K, N, L, 2] of a split's faces after each pass, image pixels.

    Args:
        config: of the network.
        variables: of the network.
        samples: the split.
        labels: of the same split; they define the order of the faces.
        feedback_steps: K.
        boxes: as in `crop_split`; a face that the detector did not find is nan.
        report: as in `crop_split`.
        detector: as in `crop_split`.

    Raises:
        RednetError: no face is found.
    """
    crops = crop_split(samples, config, boxes, report, detector=detector)
    predicted = in_image(crops, align_crops(config, variables, crops.images, feedback_steps))
    landmarks = np.full((feedback_steps, *labels.landmarks.shape), np.nan)
    places = {name: place for place, name in enumerate(labels.names)}
    landmarks[:, [places[name] for name in crops.names]] = predicted
    return landmarks


def evaluate_split(
    checkpoint: Checkpoint,
    data: str,
    split: str,
    *,
    data_dir: Path | None = None,
    feedback_steps: Sequence[int] = (1, 2, 3),
    boxes: Boxes = "truth",
    detector: FaceDetector | None = None,
    normaliser: Normaliser | None = None,
    predictions: Path | None = None,
    plot: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Evaluates a checkpoint on a split of single images.

    Args:
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        data: name of the data set.
        split: of the data set.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        feedback_steps: all K to measure.
        boxes: as in `crop_split`.
        detector: for boxes 'detector'; `YuNet()` if None.
        normaliser: of the errors; the scheme's own if None.
        predictions: CSV file for the landmarks at the largest K.
        plot: PNG file for the cumulative error distributions.
        report: called with (done, total) after each cropped face.

    Returns:
        The result of `figures`, with a row for each K, and `provenance` of `measured_on`. Missed
        faces are those that the detector did not find.

    Raises:
        RednetError: a K out of range, an unknown data set or split, a bad checkpoint, no face that
            can be measured, or a file that cannot be written.
    """
    check_steps(feedback_steps)
    config, variables = network_of(checkpoint)
    normaliser = normaliser or default_normaliser(config.scheme)
    check_normaliser(normaliser, config.scheme)
    samples = read_split(data, split, data_dir)
    labels = face_labels(f"{data} {split}", samples, config.scheme)
    most = max(feedback_steps)
    if boxes == "detector":
        detector = detector or YuNet()
    landmarks = answer_split(
        config, variables, samples, labels, most, boxes, report, detector=detector
    )
    if predictions is not None:
        write_predictions(predictions, labels, landmarks[-1])
    result = figures(
        labels,
        [(steps, landmarks[steps - 1]) for steps in feedback_steps],
        normaliser=normaliser,
        boxes=boxes,
        crop_margin=config.crop_margin,
        plot=plot,
        name=checkpoint_name(checkpoint),
    )
    command = eval_command(
        name_in_command(checkpoint),
        data,
        split,
        normaliser,
        feedback_steps=",".join(map(str, feedback_steps)),
        boxes=boxes,
    )
    origin = measured_on(command, samples, weights=variables, labels=labels)
    return {**result, "provenance": origin}


def check_steps(feedback_steps: Sequence[int]) -> None:
    """Raises RednetError unless there is at least one K, and all are 1 to `MOST_STEPS`."""
    listed = ",".join(map(str, feedback_steps))
    if not feedback_steps or min(feedback_steps) < 1:
        raise RednetError(f"feedback steps must be 1 or more, not {listed or 'none'}")
    if max(feedback_steps) > MOST_STEPS:
        raise RednetError(f"feedback steps must be at most {MOST_STEPS}, not {listed}")
