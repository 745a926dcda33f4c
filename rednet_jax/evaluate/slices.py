"""The error of a split's faces by skin tone, yaw, and subset of the data.

Skin tone is the individual typology angle of the cheek, ITA = atan((L* - 50) / b*), in degrees of
CIE L*a*b* under D65: above 55 very light, below -30 dark. It is measured in uncorrected
photographs. Light, exposure and white balance change it as much as people differ, so it orders
faces roughly and is not reliable for a single face.

Yaw is estimated from the labels: the offset of the tip of the nose from the middle of the outer eye
corners, along the line between them, is proportional to the tangent of the yaw. The depth of noses
differs, too, so degrees are approximate; thirds of |yaw| depend on the order only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage.color import rgb2lab

from rednet_jax.data.samples import Sample
from rednet_jax.data.sources import read_split
from rednet_jax.detection.detector import FaceDetector
from rednet_jax.detection.yunet import YuNet
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.bootstrap import bootstrap_interval
from rednet_jax.evaluate.figures import LEVEL
from rednet_jax.evaluate.labels import face_labels
from rednet_jax.evaluate.metrics import face_errors
from rednet_jax.evaluate.protocols import Boxes, answer_split
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.normalisers import measurable, normaliser_text
from rednet_jax.weights.store import Checkpoint, network_of

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]

_NOSE_TIP, _OUTER_EYES = 30, (36, 45)

NOSE_DEPTH = 0.72
"""Depth of the tip of the nose in front of the outer eye corners, in units of their distance, with
perspective at close range: calibrated to the known yaw of generated faces (`estimated_yaw` in
experiments/results/compact_slices.json)."""

# The cheek is between lower lid, wing of the nose, corner of the mouth and jaw.
_CHEEKS = ((41, 40, 31, 48, 4, 2), (46, 47, 35, 54, 12, 14))

_SHRUNK = 0.6
"""Scale of the measured part of a cheek, which excludes lids, nostrils, lips and outline."""

_FEWEST_PIXELS = 20

_LEAST_CHROMA = 2.0
"""Smallest chroma; with less, the image counts as black and white."""

_THIRDS = {
    "skin tone": ("darkest", "middle", "lightest"),
    "yaw": ("most frontal", "middle", "most turned"),
}


def typology_angle(colours: NDArray[np.uint8]) -> Floats:
    """Returns the angle ITA [...], degrees, of sRGB colours uint8 [..., 3].

    For b* below 0 the angle exceeds 90 degrees; it is continuous, unlike the plain arc tangent.
    """
    lab = rgb2lab(colours, illuminant="D65", observer="2")
    angle: Floats = np.degrees(np.arctan2(lab[..., 0] - 50, lab[..., 2]))
    return angle


def skin_tone(
    image: NDArray[np.uint8], landmarks: Floats, labelled: NDArray[np.bool_] | None = None
) -> float:
    """Returns the median ITA of the cheeks' pixels, degrees.

    Args:
        image: RGB uint8 [H, W, 3].
        landmarks: [68, 2], pixels of the image.
        labelled: bool [68]; a cheek with an unlabelled corner is left out. None means that all
            points are labelled.

    Returns:
        The angle; nan if no cheek has enough pixels in the image, or if they are grey.
    """
    colours = [
        _inside(image, landmarks[list(cheek)])
        for cheek in _CHEEKS
        if labelled is None or labelled[list(cheek)].all()
    ]
    pixels = np.concatenate(colours) if colours else np.empty((0, 3), np.uint8)
    if len(pixels) < _FEWEST_PIXELS:
        return float("nan")
    chroma = np.linalg.norm(rgb2lab(pixels)[:, 1:], axis=-1)
    if np.median(chroma) < _LEAST_CHROMA:
        return float("nan")
    return float(np.median(typology_angle(pixels)))


def _inside(image: NDArray[np.uint8], corners: Floats) -> NDArray[np.uint8]:
    """Returns the colours [P, 3] inside the polygon with corners [C, 2], shrunk by `_SHRUNK`."""
    middle = corners.mean(0)
    corners = middle + _SHRUNK * (corners - middle)
    mask = Image.new("1", (image.shape[1], image.shape[0]))
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in corners], fill=1)
    inside: NDArray[np.uint8] = image[np.asarray(mask)]
    return inside


def estimated_yaw(landmarks: Floats) -> Floats:
    """Returns the yaw [...], degrees, of faces [..., 68, 2] in any frame of pixels.

    If it is positive, the nose of an upright head points to the image's right.
    """
    right, left = _OUTER_EYES
    across = landmarks[..., left, :] - landmarks[..., right, :]
    middle = (landmarks[..., left, :] + landmarks[..., right, :]) / 2
    aside = np.sum((landmarks[..., _NOSE_TIP, :] - middle) * across, axis=-1)
    yaw: Floats = np.degrees(np.arctan2(aside, NOSE_DEPTH * np.sum(across**2, axis=-1)))
    return yaw


def thirds(values: Floats) -> list[Indices]:
    """Returns three sets of indices: the smallest, middle and largest of values [N].

    Their sizes differ by at most one; nan is in none of them.
    """
    order = np.argsort(values, kind="stable")
    known = order[: int(np.isfinite(values).sum())]
    return list(np.array_split(known, 3))


def slice_row(
    errors: Sequence[tuple[int, Floats]], members: Indices, owners: Sequence[str]
) -> dict[str, Any]:
    """Returns the figures of a subset of N faces.

    Args:
        errors: K and the NME [N] of every face, percent; nan means no prediction.
        members: indices of the subset.
        owners: N; groups of faces with correlated errors.

    Returns:
        `faces`, the number of measured faces; `missed`, the number without a prediction;
        `per_step`, for each K `feedback_steps`, `nme` and its `interval` [low, high]. Both are None
        for too few faces.
    """
    groups = [owners[member] for member in members]
    predicted = np.isfinite(errors[0][1][members])
    rows = []
    for steps, all_errors in errors:
        own = all_errors[members]
        bounds = bootstrap_interval(own, groups, level=LEVEL)
        rows.append(
            {
                "feedback_steps": steps,
                "nme": float(own[predicted].mean()) if predicted.any() else None,
                "interval": list(bounds) if np.isfinite(bounds).all() else None,
            }
        )
    faces = int(predicted.sum())
    return {"faces": faces, "missed": len(members) - faces, "per_step": rows}


def measure_slices(
    checkpoint: Checkpoint,
    data: str = "300w",
    split: str = "validation",
    *,
    data_dir: Path | None = None,
    feedback_steps: Sequence[int] = (1, 3),
    boxes: Sequence[Boxes] = ("truth", "detector"),
    detector: FaceDetector | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Evaluates a checkpoint of 68 points on thirds and subsets of a split of images.

    Args:
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        data: name of the data set.
        split: of the data set.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        feedback_steps: all K to measure.
        boxes: all placements of the crops, as in `crop_split`.
        detector: for boxes 'detector'; `YuNet()` if None.
        report: called with (done, total) after each cropped face, from 0 for each of `boxes`.

    Returns:
        `split`, `normaliser`, `level` and `over` (of the intervals), `without_tone` (the number of
        faces without a measurable skin tone, which are in no third of it), and `slices`: for each
        of `boxes` and each slice a row with `boxes`, `by` ('skin tone', 'yaw' or 'subset'),
        `slice`, its name, `range`, the smallest and largest value (degrees; None for a subset), and
        the result of `slice_row`. An empty third, of fewer than three faces, has no row.

    Raises:
        RednetError: an unknown data set or split, a bad checkpoint, a checkpoint of another scheme
            than `ibug68`, or no face is found.
    """
    config, variables = network_of(checkpoint)
    if config.scheme != IBUG68:
        raise RednetError(f"slices need landmarks of ibug68, not of {config.scheme.name}")
    samples = read_split(data, split, data_dir)
    labels = face_labels(f"{data} {split}", samples, IBUG68)
    known = np.flatnonzero(measurable(labels.labelled, IBUG68))
    tones = np.array([_tone(samples[int(place)]) for place in known])
    yaws = np.abs(estimated_yaw(labels.landmarks[known]))
    slices: list[tuple[str, str, list[float] | None, Indices]] = []
    for by, values in (("skin tone", tones), ("yaw", yaws)):
        for name, third in zip(_THIRDS[by], thirds(values), strict=True):
            if not len(third):
                continue
            ends = [float(end) for end in (values[third].min(), values[third].max())]
            slices.append((by, name, ends, known[third]))
    subsets = np.array([labels.names[place].split("/")[0] for place in known])
    slices += [("subset", str(name), None, known[subsets == name]) for name in np.unique(subsets)]
    if "detector" in boxes:
        detector = detector or YuNet()
    rows = []
    for placement in boxes:
        most = max(feedback_steps)
        answers = answer_split(
            config, variables, samples, labels, most, placement, report, detector=detector
        )
        errors = [
            (steps, face_errors(answers[steps - 1], labels.landmarks, IBUG68, labels.labelled))
            for steps in feedback_steps
        ]
        rows += [
            {
                "boxes": placement,
                "by": by,
                "slice": name,
                "range": ends,
                **slice_row(errors, members, labels.owners),
            }
            for by, name, ends, members in slices
        ]
    return {
        "split": labels.of + (", used for selection" if split == "validation" else ""),
        "normaliser": normaliser_text(labels.scheme),
        "level": LEVEL,
        "over": labels.over,
        "without_tone": int(np.isnan(tones).sum()),
        "slices": rows,
    }


def _tone(sample: Sample) -> float:
    return skin_tone(sample.image, sample.landmarks, sample.labelled)
