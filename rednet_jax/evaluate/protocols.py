"""How a checkpoint is measured on a split: where the crops are cut, and what is reported."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.samples import Sample
from rednet_jax.data.sources import Split, read_split
from rednet_jax.detection.detector import Detection, FaceDetector, upright_box
from rednet_jax.detection.yunet import YuNet
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.figures import figures
from rednet_jax.evaluate.labels import Labels, face_labels
from rednet_jax.evaluate.predictions import write_predictions
from rednet_jax.evaluate.provenance import eval_command, measured_on
from rednet_jax.inference.predict import align_crops
from rednet_jax.landmarks.boxes import intersection_over_union, jitter_box, whole_face_box
from rednet_jax.landmarks.convert import convert, convert_labelled
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform
from rednet_jax.landmarks.normalisers import Normaliser, check_normaliser, default_normaliser
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import checkpoint_name, load

Boxes = Literal["truth", "detector", "jitter", "jitter-hard"]

JITTER = {"jitter": (0.06, 0.10), "jitter-hard": (0.12, 0.20)}
"""Deviations of a displaced box: of its centre in sides, of the logarithm of its size."""

RIGHT_IOU = 0.4
"""The detector has found a face where its box overlaps the landmarks' box by more than this."""


class Crops(NamedTuple):
    """The faces of a split as the network sees them.

    Attributes:
        names: N paths below the source folder, without extension.
        images: uint8 [N, S, S, 3].
        affines: float64 [N, 2, 3], crop pixels -> image pixels.
        landmarks: float32 [N, L, 2], image pixels.
        labelled: bool [N, L].
        boxes: float32 [N, 4], of the faces, image pixels.
        missed: names of the faces that the detector did not find; they are not in the arrays.
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
    """Cuts every face of a split by the one crop rule.

    Args:
        samples: the split.
        config: the network's: its margin, size and landmarks.
        boxes: crops around `whole_face_box` of the labels ('truth'), around the detector's box and
            upright where it gives points ('detector'), or around the labels' box displaced at
            random ('jitter'; 'jitter-hard' is the same twice as far): a draw of the face's name
            alone, so that it is the same for every K, every model and every order.
        report: called with the number of faces done and in all.
        detector: for boxes 'detector', which needs one.

    Raises:
        RednetError: not one face is left.
    """
    if boxes == "detector" and detector is None:
        raise ValueError("boxes 'detector' need a detector")
    scheme = samples.scheme
    names, images, affines, landmarks, labelled, own_boxes = [], [], [], [], [], []
    missed: list[str] = []
    for done, sample in enumerate(samples, 1):
        report(done, len(samples))
        if detector is not None:
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
    """The labels' box [4]; of a face without labels, which is not measured, the whole image."""
    if sample.labelled.any():
        return whole_face_box(sample.landmarks, scheme, sample.labelled, expected=sample.box)
    return sample.box


def _box(sample: Sample, scheme: Scheme, boxes: Boxes) -> NDArray[np.floating]:
    """The box [4] that a face is cut around without a detector."""
    truth = _truth(sample, scheme)
    if boxes in JITTER:
        rng = np.random.default_rng(zlib.crc32(sample.name.encode()))
        return jitter_box(rng, truth, *JITTER[boxes])
    return truth


def _detected(
    sample: Sample, scheme: Scheme, detector: FaceDetector
) -> tuple[NDArray[np.floating], float] | None:
    """Box [4] and roll of the detection that overlaps the labels most; None if none is right."""
    truth = _truth(sample, scheme)

    def overlap(face: Detection) -> float:
        return intersection_over_union(face.box, truth)

    best = max(detector.detect(sample.image), key=overlap, default=None)
    if best is None or overlap(best) <= RIGHT_IOU:
        return None
    return upright_box(best)


def in_image(crops: Crops, landmarks: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns landmarks [..., N, L, 2] of the crops in pixels of their images."""
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
    """Returns each pass's landmarks [K, N, L, 2] of a split's faces, image pixels.

    Args:
        config: of the network.
        variables: of the network.
        samples: the split.
        labels: of the same split; they say which face goes where.
        feedback_steps: K.
        boxes: as in `crop_split`; a face that the detector did not find is nan.
        report: as in `crop_split`.
        detector: as in `crop_split`.

    Raises:
        RednetError: not one face is found.
    """
    crops = crop_split(samples, config, boxes, report, detector=detector)
    found = in_image(crops, align_crops(config, variables, crops.images, feedback_steps))
    landmarks = np.full((feedback_steps, *labels.landmarks.shape), np.nan)
    places = {name: place for place, name in enumerate(labels.names)}
    landmarks[:, [places[name] for name in crops.names]] = found
    return landmarks


def evaluate_split(
    checkpoint: str | tuple[RedNetConfig, dict[str, Any]],
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
    """Measures a checkpoint on a split of single images.

    Args:
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        data: name of the data set.
        split: of the data set.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        feedback_steps: every K to measure.
        boxes: as in `crop_split`.
        detector: for boxes 'detector'; `YuNet()` if None.
        normaliser: what errors are in percent of; the scheme's own if None.
        predictions: CSV file for the landmarks at the largest K.
        plot: PNG file for the cumulative error distributions.
        report: called with the number of faces cut and in all.

    Returns:
        As `figures` does, a row for each K, and `provenance` as `measured_on` does. Missed is a
        face that the detector did not find.

    Raises:
        RednetError: a K below 1, an unknown data set or split, a bad checkpoint, no face that can
            be measured, a file that cannot be written.
    """
    check_steps(feedback_steps)
    config, variables = load(checkpoint) if isinstance(checkpoint, str) else checkpoint
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
    name = checkpoint_name(checkpoint) if isinstance(checkpoint, str) else config.architecture
    result = figures(
        labels,
        [(steps, landmarks[steps - 1]) for steps in feedback_steps],
        normaliser=normaliser,
        boxes=boxes,
        crop_margin=config.crop_margin,
        plot=plot,
        name=name,
    )
    listed = ",".join(map(str, feedback_steps))
    command = eval_command(name, data, split, normaliser, feedback_steps=listed, boxes=boxes)
    origin = measured_on(command, samples, weights=variables, labels=labels)
    return {**result, "provenance": origin}


def check_steps(feedback_steps: Sequence[int]) -> None:
    """Raises RednetError unless there is a K, and each is 1 or more."""
    if not feedback_steps or min(feedback_steps) < 1:
        listed = ",".join(map(str, feedback_steps))
        raise RednetError(f"feedback steps must be 1 or more, not {listed or 'none'}")
