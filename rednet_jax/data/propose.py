"""Proposes a scheme for labelled faces: mean shape, mirror pairs, and a sheet to check them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.optimize import linear_sum_assignment

from rednet_jax.data.builders.label_files import read_labels
from rednet_jax.data.prepare import check_own_name
from rednet_jax.detection.detector import Detection, FaceDetector, upright_box
from rednet_jax.detection.yunet import YuNet
from rednet_jax.errors import RednetError
from rednet_jax.files import write_text
from rednet_jax.landmarks.boxes import intersection_over_union, landmark_box
from rednet_jax.landmarks.builtin import BUILTIN, IBUG68
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform, invert_affine
from rednet_jax.landmarks.drawing import COLOURS, contact_sheet, write_image
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.media.images import read_image

FACES = 200
"""Largest number of faces for the mean shape, evenly spaced over the labels."""

FEWEST = 5
"""Smallest number of faces that the detector must find."""

_SPANNING = 0.85
"""Landmarks span the face if the IoU of their box and that of a whole face is larger."""

_BORDER = tuple(range(27))
"""Landmarks of `ibug68` on the border of the face: jaw and brows."""

_FARTHEST_PAIR = 0.15
"""Largest distance of a landmark from its mirrored counterpart, in sides of the face's box."""

_EYE_CORNER = 0.06
"""Largest distance from the mean eye corner of a landmark that is used as one, in sides of the
face's box."""

_TILE, _COLUMNS, _SHOWN, _ROOM = 480, 4, 7, 1.4


class Proposal(NamedTuple):
    """Result of `propose_scheme`.

    Attributes:
        scheme: the proposal; check it on the sheet and correct the file if necessary.
        faces: number of faces that the mean shape is computed from.
        file: the scheme as JSON.
        sheet: the image that shows it.
    """

    scheme: Scheme
    faces: int
    file: Path
    sheet: Path


class _Face(NamedTuple):
    """A labelled and detected face; `shape` [L, 2] has its landmarks in sides of its box."""

    path: Path
    shape: NDArray[np.float64]
    box: NDArray[np.floating]
    roll: float


def propose_scheme(
    root: Path,
    name: str,
    *,
    labels: Path | None = None,
    out: Path | None = None,
    sheet: Path | None = None,
    detector: FaceDetector | None = None,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> Proposal:
    """Writes a scheme for labelled images, and a sheet that numbers its landmarks.

    The mean shape is the median of the faces in the upright frames of their detected boxes, so that
    crops of all schemes show the same part of a face. Mirror pairs are landmarks that are opposite
    each other in the mean shape. The normaliser is the distance between the outer eye corners if
    the scheme has them, else the box.

    Args:
        root: the folder of images.
        name: of the scheme.
        labels: a CSV file or COCO keypoints, as in `OwnData`; None for .pts files.
        out: the JSON file; NAME.json in the current folder if None.
        sheet: the PNG; NAME.png in the current folder if None.
        detector: finds the faces; `YuNet()` if None.
        report: called with (done, total) after each face.

    Raises:
        RednetError: labels that cannot be read, too few detected faces, a landmark without a
            counterpart on the other side, or a file that cannot be written.
    """
    check_own_name(name)
    if name in BUILTIN:
        raise RednetError(f"name: '{name}' is the name of a built-in scheme")
    detector = detector or YuNet()
    labelled = read_labels(root, labels, None)
    chosen = np.unique(np.linspace(0, len(labelled) - 1, FACES).round().astype(int))
    faces = []
    for done, place in enumerate(chosen, 1):
        path, points = labelled[place]
        if (face := _detect(path, points, detector)) is not None:
            faces.append(face)
        report(done, len(chosen))
    if len(faces) < FEWEST:
        raise RednetError(
            f"{labels or root}: the detector finds {len(faces)} of {len(chosen)} labelled faces; "
            f"the mean shape needs {FEWEST}"
        )
    scheme = scheme_of_shapes(name, np.stack([face.shape for face in faces]))
    file, drawn = out or Path(f"{name}.json"), sheet or Path(f"{name}.png")
    write_text(file, _lines(scheme))
    write_image(drawn, _sheet(scheme, faces))
    return Proposal(scheme, len(faces), file, drawn)


def scheme_of_shapes(name: str, shapes: NDArray[np.floating]) -> Scheme:
    """Returns the scheme of shapes [N, L, 2], nan where not labelled, in sides of the face's box.

    Raises:
        RednetError: a landmark that is labelled in no face, or that has no counterpart.
    """
    if missing := np.flatnonzero(np.isnan(shapes).all((0, 2))).tolist():
        raise RednetError(f"landmark {missing[0]} is not labelled in any of {len(shapes)} faces")
    mean = np.nanmedian(shapes, axis=0)
    mirror = mirror_pairs(mean)
    apart = np.linalg.norm(mean[list(mirror)] * [-1, 1] - mean, axis=1)
    if apart.max() > _FARTHEST_PAIR:
        raise RednetError(f"landmark {int(apart.argmax())} has no counterpart on the other side")
    mean = (mean + mean[list(mirror)] * [-1, 1]) / 2
    whole = landmark_box(IBUG68.shape)
    spans = len(mean) > 1 and intersection_over_union(landmark_box(mean), whole) > _SPANNING
    near = np.linalg.norm(mean - IBUG68.shape[36], axis=1) < _EYE_CORNER
    # Several points of an eye's outline may be near its corner, which is the outermost of them.
    corner = int(np.where(near, mean[:, 0], np.inf).argmin())
    has_corners = bool(near[corner]) and mirror[corner] != corner
    return Scheme(
        name=name,
        mirror=mirror,
        mean_shape=tuple((round(float(x), 5), round(float(y), 5)) for x, y in mean),
        normaliser=((corner,), (mirror[corner],)) if has_corners else "box",
        outline=() if spans else tuple(IBUG68.mean_shape[index] for index in _BORDER),
    )


def mirror_pairs(shape: NDArray[np.floating]) -> tuple[int, ...]:
    """Returns for each point [L, 2] its counterpart on the other side of x = 0.

    The assignment minimises the sum of squared distances between mirrored points and their
    counterparts, so adjacent points keep their order even if a part of the face is off the axis.
    """
    squares = (((shape * [-1, 1])[:, None] - shape[None]) ** 2).sum(-1)
    mirror = linear_sum_assignment(squares)[1]
    # The assignment may contain cycles of three or more points; these become the nearest pairs.
    free = {index for index in range(len(shape)) if mirror[mirror[index]] != index}
    pairs = itertools.combinations_with_replacement(sorted(free), 2)
    for a, b in sorted(pairs, key=lambda pair: squares[pair]):
        if a in free and b in free:
            mirror[a], mirror[b] = b, a
            free -= {a, b}
    return tuple(int(index) for index in mirror)


def _detect(path: Path, points: NDArray[np.floating], detector: FaceDetector) -> _Face | None:
    """Returns a labelled face in the frame of its detected box; None if it is not detected."""
    known = np.isfinite(points).all(axis=1)
    middle = points[known].mean(0) if known.any() else np.full(2, np.nan)

    def holds(face: Detection) -> bool:
        x0, y0, x1, y1 = face.box
        return bool(x0 <= middle[0] <= x1 and y0 <= middle[1] <= y1)

    around = [face for face in detector.detect(read_image(path, upright=False)) if holds(face)]
    if not around:
        return None
    box, roll = upright_box(max(around, key=lambda face: face.score))
    upright = apply_affine(invert_affine(crop_transform(box, margin=1, size=1, roll=roll)), points)
    return _Face(path, np.asarray(upright, np.float64), box, roll)


def _lines(scheme: Scheme) -> str:
    """Returns the scheme as JSON, with one field per line."""
    fields = (f"  {json.dumps(name)}: {json.dumps(v)}" for name, v in scheme.to_json().items())
    return "{\n" + ",\n".join(fields) + "\n}\n"


def _sheet(scheme: Scheme, faces: Sequence[_Face]) -> NDArray[np.uint8]:
    """Returns the mean shape with its mirror pairs, and faces, with all landmarks numbered."""
    blank = np.full((_TILE, _TILE, 3), 40, np.uint8)
    tiles = [_numbered(blank, scheme.shape, scheme)]
    captions = [f"{scheme.name}: mean of {len(faces)} faces, lines join mirror pairs"]
    for place in np.unique(np.linspace(0, len(faces) - 1, _SHOWN).round().astype(int)):
        face = faces[place]
        affine = crop_transform(face.box, margin=_ROOM, size=_TILE, roll=face.roll)
        image = crop_image(read_image(face.path, upright=False), affine, _TILE)
        tiles.append(_numbered(image, face.shape, None))
        captions.append(face.path.name)
    return contact_sheet(captions, [tiles], _COLUMNS)


def _numbered(
    image: NDArray[np.uint8], shape: NDArray[np.floating], pairs: Scheme | None
) -> NDArray[np.uint8]:
    """Returns an image with numbered landmarks; `shape` [L, 2] is in sides of the face's box."""
    points = shape * (_TILE / _ROOM) + (_TILE - 1) / 2
    drawn = Image.fromarray(image)
    draw, font = ImageDraw.Draw(drawn), ImageFont.load_default(11)
    for a, b in enumerate(() if pairs is None else pairs.mirror):
        if a < b:
            draw.line([tuple(points[a]), tuple(points[b])], fill="#707070")
    for index, (x, y) in enumerate(points):
        if np.isfinite(x + y):
            colour = COLOURS[index % len(COLOURS)]
            draw.circle((float(x), float(y)), 1.5, fill=colour)
            draw.text((float(x) + 2, float(y) - 6), str(index), fill=colour, font=font)
    return np.asarray(drawn)
