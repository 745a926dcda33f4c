"""Landmarks in picture files: what `rednet align` does."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from rednet_jax.detection.dlib import FaceDetector
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.crops import apply_affine, crop_transform, cut_crop
from rednet_jax.landmarks.table import landmarks_csv, read_boxes_csv, write_text
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.tracking.overlay import draw_landmarks
from rednet_jax.weights.store import load

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
"""What counts as a picture in a folder; a file that is named may end as it likes."""

BATCH = 8


class Aligned(NamedTuple):
    """What `align_files` leaves.

    Attributes:
        names: of the pictures, in the order of the table.
        landmarks: float32 [N, L, 2], pixels of the upright picture; nan where there is no answer.
        failures: one line for each picture without an answer.
        csv: the table, where it was asked for as text.
    """

    names: list[str]
    landmarks: NDArray[np.float32]
    failures: list[str]
    csv: str


class _Face(NamedTuple):
    index: int
    image: NDArray[np.uint8]
    affine: NDArray[np.float64]
    crop: NDArray[np.uint8]


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture file as RGB uint8 [H, W, 3], turned upright as its EXIF data ask. Raises: RednetError."""
    if path.is_file() and path.stat().st_size == 0:
        raise RednetError(f"{path}: the file is empty")
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):
                # Pillow would clip 16 bits at 255 instead of scaling them.
                upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
            return np.array(upright.convert("RGB"))
    except UnidentifiedImageError as error:
        raise RednetError(f"{path}: not a picture") from error
    except OSError as error:
        raise RednetError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RednetError(f"{path}: not a picture that can be read ({error})") from error


def align_files(
    paths: Sequence[str | os.PathLike[str]],
    *,
    checkpoint: str | tuple[RedNetConfig, dict[str, Any]] = "compact",
    feedback_steps: int = 3,
    boxes: str | os.PathLike[str] | None = None,
    csv: str | os.PathLike[str] | None = None,
    overlay: str | os.PathLike[str] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Aligned:
    """Finds the landmarks of the most prominent face of each picture.

    Args:
        paths: picture files, and folders, which stand for all pictures below them.
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        feedback_steps: K, passes of the network.
        boxes: a CSV file name,x0,y0,x1,y1 of landmark boxes, instead of the detector.
        csv: where the table of landmarks goes.
        overlay: folder for a PNG of each picture with its landmarks drawn.
        report: called with the number of pictures done and in all.

    Raises: RednetError where nothing can be done: no picture can be read, a bad checkpoint or boxes file.
    """
    if feedback_steps < 1:
        raise RednetError(f"feedback steps must be 1 or more, not {feedback_steps}")
    files = _named(paths)
    box_of = None if boxes is None else read_boxes_csv(boxes)
    config, variables = load(checkpoint) if isinstance(checkpoint, str) else checkpoint
    landmarks = np.full((len(files), config.landmarks, 2), np.nan, np.float32)
    failures: list[str] = []
    unreadable = 0
    done = 0
    waiting: list[_Face] = []
    batch = min(BATCH, len(files))
    detector = FaceDetector()

    def finish() -> None:
        for face, points in zip(
            waiting, _align(config, variables, waiting, batch, feedback_steps), strict=True
        ):
            landmarks[face.index] = points
            if overlay is not None:
                drawn = draw_landmarks(face.image, points)
                _write_png(Path(overlay) / f"{files[face.index][0]}.png", drawn)
        waiting.clear()

    for index, (name, path) in enumerate(files):
        try:
            image = read_picture(path)
        except RednetError as error:
            failures.append(str(error))
            unreadable += 1
        else:
            box = _box(detector, image, name, box_of)
            if isinstance(box, str):
                failures.append(f"{path}: {box}")
            else:
                affine = crop_transform(box, margin=config.crop_margin, size=config.image_size)
                crop = cut_crop(image, affine, config.image_size)
                waiting.append(_Face(index, image, np.asarray(affine), crop))
        if len(waiting) == batch or (waiting and index + 1 == len(files)):
            finish()
        done += 1
        report(done, len(files))
    if unreadable == len(files):
        rest = f" (and {unreadable - 1} more)" if unreadable > 1 else ""
        raise RednetError(failures[0] + rest)
    names = [name for name, _ in files]
    text = landmarks_csv(names, landmarks)
    if csv is not None:
        write_text(csv, text)
    return Aligned(names, landmarks, failures, text)


def _box(
    detector: FaceDetector,
    image: NDArray[np.uint8],
    name: str,
    box_of: dict[str, NDArray[np.float32]] | None,
) -> NDArray[np.float32] | str:
    """The box [4] of the face, or why there is none."""
    if box_of is not None:
        return box_of.get(name, f"the boxes file has no row {name!r}")
    faces = detector.detect(image)
    return faces[0].box if faces else "no face found"


@functools.partial(jax.jit, static_argnames=("config", "feedback_steps"))
def _align_batch(
    variables: dict[str, Any], crops: jax.Array, *, config: RedNetConfig, feedback_steps: int
) -> jax.Array:
    images = crops.astype(jnp.float32) / 255
    out, _ = rednet.align_image(config, variables, images, feedback_steps=feedback_steps)
    return out.landmarks


def _align(
    config: RedNetConfig,
    variables: dict[str, Any],
    faces: Sequence[_Face],
    batch: int,
    feedback_steps: int,
) -> Iterator[NDArray[np.float32]]:
    """Landmarks [L, 2] in picture pixels for each face; the batch is filled up, so that one shape is compiled."""
    if not faces:
        return
    crops = np.zeros((batch, *faces[0].crop.shape), np.uint8)
    crops[: len(faces)] = [face.crop for face in faces]
    points = np.asarray(
        _align_batch(variables, crops, config=config, feedback_steps=feedback_steps)
    )
    for face, mine in zip(faces, points, strict=False):
        yield np.asarray(apply_affine(face.affine, mine), np.float32)


def _named(paths: Sequence[str | os.PathLike[str]]) -> list[tuple[str, Path]]:
    """Pictures with their names: the path below the folder they have in common, without extension."""
    if not paths:
        raise RednetError("no picture given")
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in PICTURES]
            if not inside:
                raise RednetError(f"{path}: no picture in this folder")
            files += inside
        else:
            files.append(path)
    folders = [Path(path).absolute() for path in paths]
    root = Path(os.path.commonpath([p if p.is_dir() else p.parent for p in folders]))
    named: dict[str, Path] = {}
    for file in files:
        name = file.absolute().relative_to(root).with_suffix("").as_posix()
        if named.setdefault(name, file) != file:
            raise RednetError(f"{file}: has the same name as {named[name]} but for its ending")
    return list(named.items())


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(partial, format="PNG")
        os.replace(partial, path)
    except OSError as error:
        raise RednetError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
