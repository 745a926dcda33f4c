"""Detection and alignment rates of rolled, small and dark faces, and false detections."""

from __future__ import annotations

import contextlib
import csv
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.builders.trees import files_by_name
from rednet_jax.data.samples import Sample
from rednet_jax.data.sources import read_split
from rednet_jax.detection.detector import RIGHT_IOU, Detection, FaceDetector
from rednet_jax.detection.yunet import YuNet, model_bytes
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.metrics import face_errors
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.inference.aligner import Aligner
from rednet_jax.inference.face import Face
from rednet_jax.landmarks.boxes import intersection_over_union, landmark_box
from rednet_jax.landmarks.crops import apply_affine, crop_image, invert_affine
from rednet_jax.landmarks.pts import read_pts
from rednet_jax.media.images import read_image
from rednet_jax.weights.store import Checkpoint

SIDE = 640
"""Sides of a composite, pixels."""

FACE = 160
"""Larger side of the landmarks' box in composites, pixels, unless the size varies."""

UPRIGHT_DEGREES = 30
"""A detection is upright if its roll differs less from that of the labels."""

WITHOUT_FACES = 200
"""Number of generated images without a face."""

TIMED = 20
"""Number of timed calls on an image of 640 x 480."""

LARGE = (4000, 3000)
"""Width and height of large composites: 12 megapixels."""

LARGE_FACES = (32, 28, 24, 20)
"""Larger sides of the landmarks' box in large composites, pixels."""

LARGE_IMAGES = 10
"""Largest number of images for each of these sides."""

Labelled = tuple[NDArray[np.uint8], NDArray[np.float32]]


class _RecordingDetector:
    """A detector that stores its last result in `found`."""

    def __init__(self, detector: FaceDetector) -> None:
        self._detector = detector
        self.found: list[Detection] = []

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        self.found = self._detector.detect(image)
        return self.found


def bench_detect(
    detector: FaceDetector | None = None,
    checkpoint: Checkpoint = "compact",
    *,
    data_dir: Path | None = None,
    infants: Path | None = None,
    without_faces: Path | None = None,
    images: int | None = None,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Runs a detector, and `Aligner` with it, on 300-W's validation images and composites of them.

    Args:
        detector: `YuNet()` if None.
        checkpoint: as in `Aligner`, of the scheme `ibug68`; with three passes.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        infants: a folder of NAME.jpg, NAME.pts and groups.csv (columns name, and 1 where a face is
            of a group); left out if None.
        without_faces: a folder of .jpg and .png images without a face, beside those generated.
        images: largest number from each set, evenly spaced; all if None.
        report: called with (done, None) after each image.

    Returns:
        `faces`, a row for each kind: `kind`, `images`; `found`, `upright` and `aligned` (percent of
        the images: the labelled face is detected; with the correct roll; and returned by
        `Aligner`); `nme` (mean over the aligned faces, percent of the inter-ocular distance) and
        `median`; `without_faces` (number of images), `answered` and `aligned` (number of these with
        a detection, and with a face from `Aligner`); `times` in one thread, ms: `detect` (median
        for an image of 640 x 480 with one face), `network` (YuNet's network alone on the same
        image, for any detector, as a measure of the machine's speed) and `detect_over_network`;
        `large`, the detector on one face in a textured image of `pixels` (width, height): rows of
        `side` (pixels of the landmarks' box), `images`, `found` (percent) and `ms` (median), and
        `empty_ms` for an image without a face; and `provenance`.

    Raises:
        RednetError: 300-W is not prepared, a folder lacks the files, `images` is below 1, or a
            checkpoint of another scheme.
    """
    if images is not None and images < 1:
        raise RednetError(f"images: {images} is below 1")
    recorder = _RecordingDetector(detector := detector or YuNet())
    aligner = Aligner(checkpoint, detector=recorder, feedback_steps=3)
    split = read_split("300w", "validation", data_dir)
    if aligner.config.scheme != split.scheme:
        raise RednetError(
            f"detection is measured on landmarks of {split.scheme.name}, but the network's are "
            f"{aligner.config.scheme.name}"
        )
    samples = [split[i] for i in _spread(len(split), images)]
    kinds: dict[str, Iterable[Labelled]] = {
        "300w validation": ((s.image, s.landmarks) for s in samples)
    }
    for degrees in range(0, 360, 45):
        kinds[f"roll {degrees}"] = _composites(samples, roll=math.radians(degrees))
    for side in (40, 28):
        kinds[f"{side} px"] = _composites(samples, side=side)
    kinds["brightness x0.12"] = _composites(samples, brightness=0.12)
    if infants is not None:
        kinds.update(_infants(infants, images))
    done = 0
    times = _times(detector, samples[0])
    large = _large(detector, samples)
    rows = []
    for kind, labelled in kinds.items():
        outcomes, errors = [], []
        for image, landmarks in labelled:
            face = _face_at(aligner(image), landmarks)
            outcomes.append((*outcome(recorder.found, landmarks), face is not None))
            if face is not None:
                errors.append(float(face_errors(face.landmarks, landmarks, face.scheme)))
            report(done := done + 1, None)
        found, upright, aligned = 100 * np.mean(outcomes, axis=0)
        row = {"kind": kind, "images": len(outcomes), "found": found, "upright": upright}
        row |= {"aligned": aligned, "nme": np.mean(errors) if errors else None}
        rows.append(row | {"median": np.median(errors) if errors else None})
    answered = aligned = empty = 0
    for image in _without_faces(without_faces, images):
        aligned += bool(aligner(image))
        answered += bool(recorder.found)
        empty += 1
        report(done := done + 1, None)
    command = "rednet bench detect" + "".join(
        f" {option} {text}"
        for option, value, text in (
            ("--infants", infants, "INFANTS"),
            ("--without-faces", without_faces, "WITHOUT_FACES"),
            ("--images", images, images),
        )
        if value is not None
    )
    return {
        "faces": rows,
        "without_faces": empty,
        "answered": answered,
        "aligned": aligned,
        "times": times,
        "large": large,
        "provenance": provenance(command, seed=0),
    }


def outcome(faces: Sequence[Detection], landmarks: NDArray[np.floating]) -> tuple[bool, bool]:
    """Returns whether the labelled face [68, 2] is detected, and whether its roll is correct."""
    truth = landmark_box(landmarks)
    right = [face for face in faces if intersection_over_union(face.box, truth) > RIGHT_IOU]
    if not right:
        return False, False
    eyes = landmarks[42:48].mean(0) - landmarks[36:42].mean(0)
    error = math.remainder(right[0].roll - math.atan2(eyes[1], eyes[0]), 2 * math.pi)
    return True, abs(error) < math.radians(UPRIGHT_DEGREES)


def _face_at(faces: Sequence[Face], landmarks: NDArray[np.floating]) -> Face | None:
    """Returns the first face with an IoU above `RIGHT_IOU` with the labels [68, 2], or None."""
    truth = landmark_box(landmarks)
    right = (face for face in faces if intersection_over_union(face.box, truth) > RIGHT_IOU)
    return next(right, None)


def composite(
    sample: Sample,
    number: int,
    *,
    size: tuple[int, int] = (SIDE, SIDE),
    side: float = FACE,
    roll: float = 0.0,
    brightness: float = 1.0,
) -> Labelled:
    """Places an image on a canvas, which is plain for even numbers and textured for odd ones.

    Args:
        sample: image and labels.
        number: seed of the canvas and the position.
        size: width and height of the canvas.
        side: larger side of the landmarks' box on the canvas, pixels.
        roll: clockwise rotation of the image, radians.
        brightness: factor of all values.

    Returns:
        The canvas uint8 [H, W, 3], and the landmarks float32 [68, 2] on it.
    """
    rng = np.random.default_rng(number)
    width, height = size
    box = landmark_box(sample.landmarks)
    scale = float((box[2:] - box[:2]).max()) / side
    reach = np.minimum(side, np.array(size) / 2)
    place = rng.uniform(reach, np.array(size) - reach)
    cosine, sine = scale * math.cos(roll), scale * math.sin(roll)
    linear = np.array([[cosine, sine], [-sine, cosine]])
    to_image = np.column_stack([linear, (box[:2] + box[2:]) / 2 - linear @ place])
    longer = max(size)
    shown = crop_image(sample.image, to_image, longer)[:height, :width]
    inside = crop_image(np.full_like(sample.image, 255), to_image, longer)[:height, :width]
    canvas = np.where(inside > 250, shown, _canvas(rng, size, textured=bool(number % 2)))
    landmarks = apply_affine(invert_affine(to_image), sample.landmarks.astype(np.float64))
    return (canvas * brightness).astype(np.uint8), landmarks.astype(np.float32)


def _composites(
    samples: Sequence[Sample], *, side: float = FACE, roll: float = 0.0, brightness: float = 1.0
) -> Iterator[Labelled]:
    for number, sample in enumerate(samples):
        yield composite(sample, number, side=side, roll=roll, brightness=brightness)


def _canvas(
    rng: np.random.Generator, size: tuple[int, int], *, textured: bool
) -> NDArray[np.uint8]:
    """Returns uint8 [H, W, 3] of one colour, or of blurred noise of several scales."""
    width, height = size
    canvas = np.full((height, width, 3), rng.uniform(40, 215, 3), np.float32)
    if textured:
        for cell in (4, 16, 64):
            shape = (height // cell + 2, width // cell + 2, 3)
            noise = rng.normal(0, 14, shape).astype(np.float32)
            canvas += np.asarray(cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC))
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _infants(folder: Path, images: int | None) -> dict[str, Iterable[Labelled]]:
    try:
        with (folder / "groups.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        groups = [name for name in rows[0] if name != "name"]
        names = {"": [row["name"] for row in rows]}
        names |= {g: [row["name"] for row in rows if row[g] == "1"] for g in groups}
    except (OSError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise RednetError(f"{folder / 'groups.csv'}: cannot be read ({error!r})") from error
    return {
        f"infants {group}".strip(): (
            (read_image(folder / f"{n}.jpg", upright=False), read_pts(folder / f"{n}.pts"))
            for n in [members[i] for i in _spread(len(members), images)]
        )
        for group, members in names.items()
        if members
    }


def _without_faces(folder: Path | None, images: int | None) -> Iterator[NDArray[np.uint8]]:
    """Yields plain and textured canvases, some with shapes or text, then the folder's images."""
    for number in range(min(WITHOUT_FACES, images or WITHOUT_FACES)):
        rng = np.random.default_rng(number)
        image = _canvas(rng, (640, 480), textured=number % 4 > 0)
        if number % 4 == 2:
            for _ in range(40):
                place, radii = rng.integers(0, (640, 480)).tolist(), rng.integers(4, 90, 2).tolist()
                colour, turn = rng.integers(0, 256, 3).tolist(), float(rng.uniform(0, 180))
                cv2.ellipse(image, place, radii, turn, 0, 360, colour, -1)
        if number % 4 == 3:
            for y in range(30, 480, 28):
                text = "".join(chr(code) for code in rng.integers(33, 127, 36))
                cv2.putText(image, text, (8, y), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (20, 20, 20), 2)
        yield image
    if folder is None:
        return
    names = files_by_name(folder, ["."], (".jpg", ".png")).values()
    paths = sorted(folder / name for files in names for name in files)
    if not paths:
        raise RednetError(f"{folder}: has no .jpg or .png images")
    for i in _spread(len(paths), images):
        yield read_image(paths[i], upright=False)


def _spread(count: int, most: int | None) -> list[int]:
    """Returns at most `most` evenly spaced numbers below `count`."""
    taken = count if most is None else min(count, most)
    return [i * count // taken for i in range(taken)]


def _times(detector: FaceDetector, sample: Sample) -> dict[str, float]:
    image, _ = composite(sample, 0, size=(640, 480))
    network = cv2.FaceDetectorYN.create(
        "onnx", np.frombuffer(model_bytes(), np.uint8), np.empty(0, np.uint8), (640, 480)
    )
    with _one_thread():
        pairs = [
            (_milliseconds(detector.detect, image), _milliseconds(network.detect, image))
            for _ in range(TIMED + 1)
        ][1:]
    detect, alone = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    return {"detect": detect, "network": alone, "detect_over_network": ratio}


def _large(detector: FaceDetector, samples: Sequence[Sample]) -> dict[str, Any]:
    recorder = _RecordingDetector(detector)
    rows = []
    chosen = [samples[i] for i in _spread(len(samples), LARGE_IMAGES)]
    with _one_thread():
        for side in LARGE_FACES:
            found, times = [], []
            for number, sample in enumerate(chosen):
                # Odd numbers give textured canvases, which cause proposals to confirm.
                image, landmarks = composite(sample, 2 * number + 1, size=LARGE, side=side)
                times.append(_milliseconds(recorder.detect, image))
                found.append(outcome(recorder.found, landmarks)[0])
            row = {"side": side, "images": len(chosen), "found": 100 * np.mean(found)}
            rows.append(row | {"ms": statistics.median(times)})
        canvas = _canvas(np.random.default_rng(0), LARGE, textured=True)
        empty = _milliseconds(recorder.detect, canvas)
    return {"pixels": LARGE, "faces": rows, "empty_ms": empty}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Context in which OpenCV uses one thread."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _milliseconds(detect: Callable[[NDArray[np.uint8]], Any], image: NDArray[np.uint8]) -> float:
    begin = time.perf_counter()
    detect(image)
    return 1e3 * (time.perf_counter() - begin)
