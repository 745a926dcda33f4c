"""`Scheme`, the definition of a set of landmarks: a value in configs and in JSON files."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields, shown
from rednet_jax.reading import parse_json

LARGEST = 4096
"""Maximum number of landmarks of a scheme: a response map of each has to fit into memory."""

_FARTHEST = 2.0
_LEAST_SIDE, _LARGEST_SIDE = 0.8, 1.25
_FARTHEST_CENTRE = 0.2
_LEAST_SYMMETRY = 0.25


@dataclasses.dataclass(frozen=True)
class Part:
    """Landmarks on a curve.

    Attributes:
        name: such as `right_eye`.
        points: indices of its landmarks, in the order of the curve.
        closed: whether the curve connects the last landmark with the first.
        region: the region, such as `eyes`, to which the part belongs; errors are averaged over
            regions. The part's own name if empty.
    """

    name: str
    points: tuple[int, ...]
    closed: bool = False
    region: str = ""

    def __post_init__(self) -> None:
        """Checks the fields' types."""
        check_fields(self, f"scheme.parts: {shown(self.name)}: ")


@dataclasses.dataclass(frozen=True)
class Conversion:
    """The conversion of another scheme's landmarks to a scheme's own.

    Attributes:
        source: name of the other scheme.
        rows: for each landmark of this scheme, (index in the other scheme, weight) pairs with
            weights that sum to 1.
    """

    source: str
    rows: tuple[tuple[tuple[int, float], ...], ...]


@dataclasses.dataclass(frozen=True)
class Scheme:
    """A set of L landmarks. Right and left are the person's own; indices count from 0.

    Attributes:
        name: letters, digits, `_` and `-`.
        mirror: [L], for each landmark the one that replaces it in the mirrored image.
        mean_shape: [L], (x, y) of the mean face, y down. The origin is the centre of a face's
            bounding box, the unit is the larger side of that box.
        parts: for drawing and for errors by part; a landmark may be in several parts or in none.
        normaliser: the length by which errors are divided: the distance between the centres of two
            groups of landmarks, such as ((36,), (45,)), or 'box', the geometric mean of the box's
            sides.
        outline: additional points of the mean face on the border of the face's bounding box.
            Required if the landmarks do not span the face.
        conversions: from other schemes.

    Raises:
        RednetError: invalid or inconsistent fields.
    """

    name: str
    mirror: tuple[int, ...]
    mean_shape: tuple[tuple[float, ...], ...]
    parts: tuple[Part, ...] = ()
    normaliser: tuple[tuple[int, ...], ...] | Literal["box"] = "box"
    outline: tuple[tuple[float, ...], ...] = ()
    conversions: tuple[Conversion, ...] = ()

    def __post_init__(self) -> None:
        """Raises RednetError with the field and the reason if the fields are not a valid scheme."""
        check_fields(self, "scheme.")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", self.name):
            raise RednetError(f"scheme.name: {shown(self.name)} is not letters, digits, _ and -")
        if not 1 <= self.count <= LARGEST:
            self._refuse("mirror", f"has {self.count} landmarks; 1 to {LARGEST} are possible")
        for index, partner in enumerate(self.mirror):
            self._check_index("mirror", partner)
            if self.mirror[partner] != index:
                self._refuse(
                    "mirror",
                    f"landmark {index} is mirrored to {partner}, but {partner} to "
                    f"{self.mirror[partner]}",
                )
        self._check_shape()
        self._check_parts()
        for conversion in self.conversions:
            self._check_conversion(conversion)
        sources = [conversion.source for conversion in self.conversions]
        if len(set(sources)) < len(sources):
            self._refuse("conversions", "a scheme occurs twice")

    @property
    def count(self) -> int:
        """Number of landmarks, L."""
        return len(self.mirror)

    @functools.cached_property
    def shape(self) -> NDArray[np.float32]:
        """The mean shape as an array [L, 2], float32, read-only."""
        return _read_only(self.mean_shape)

    @functools.cached_property
    def outline_shape(self) -> NDArray[np.float32]:
        """The outline as an array [P, 2], float32, read-only."""
        return _read_only(self.outline)

    @functools.cached_property
    def regions(self) -> dict[str, tuple[int, ...]]:
        """The landmarks of each region, by name, in the order of the parts."""
        regions: dict[str, dict[int, None]] = {}
        for part in self.parts:
            regions.setdefault(part.region or part.name, {}).update(dict.fromkeys(part.points))
        return {name: tuple(points) for name, points in regions.items()}

    @property
    def groups(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The two groups of landmarks of the normaliser; None if it is the box."""
        if isinstance(self.normaliser, str):
            return None
        first, second = self.normaliser
        return first, second

    def part(self, name: str) -> Part | None:
        """Returns the part with a name, or None."""
        return next((part for part in self.parts if part.name == name), None)

    @classmethod
    def from_json(cls, plain: Any) -> Self:
        """Returns the scheme of a JSON object, as `to_json` returns it.

        Raises:
            RednetError: an unknown, missing or invalid field.
        """
        if not isinstance(plain, Mapping):
            raise RednetError(f"scheme: {shown(plain)} is not a JSON object")
        fields = dict(plain)
        count = fields.pop("count", None)
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := [name for name in fields if name not in known]:
            raise RednetError(
                f"scheme: unknown field {shown(unknown[0])}; known: count, {', '.join(known)}"
            )
        if missing := [n for n in ("name", "mirror", "mean_shape") if n not in fields]:
            raise RednetError(f"scheme: field '{missing[0]}' is missing")
        if "parts" in fields:
            fields["parts"] = _parts_of(fields["parts"])
        if "conversions" in fields:
            fields["conversions"] = _conversions_of(fields["conversions"])
        scheme = cls(**{name: _tuples(value) for name, value in fields.items()})
        if count is not None and count != scheme.count:
            raise RednetError(
                f"scheme.count: is {shown(count)}, but mirror has {scheme.count} landmarks"
            )
        return scheme

    def to_json(self) -> dict[str, Any]:
        """Returns the scheme as a JSON object; a row with one landmark is only its index."""
        return {
            "name": self.name,
            "count": self.count,
            "mirror": list(self.mirror),
            "mean_shape": [list(point) for point in self.mean_shape],
            "parts": [
                {**dataclasses.asdict(part), "points": [*part.points]} for part in self.parts
            ],
            "normaliser": (
                "box" if self.normaliser == "box" else [list(group) for group in self.normaliser]
            ),
            "outline": [list(point) for point in self.outline],
            "conversions": {
                conversion.source: [
                    row[0][0] if len(row) == 1 else [list(term) for term in row]
                    for row in conversion.rows
                ]
                for conversion in self.conversions
            },
        }

    def _check_shape(self) -> None:
        if len(self.mean_shape) != self.count:
            self._refuse(
                "mean_shape",
                f"has {len(self.mean_shape)} points, but mirror has {self.count} landmarks",
            )
        for field, points in (("mean_shape", self.mean_shape), ("outline", self.outline)):
            for index, point in enumerate(points):
                if len(point) != 2 or max(map(abs, point)) > _FARTHEST:
                    self._refuse(
                        f"{field}[{index}]",
                        f"{shown(point)} is not (x, y) relative to the centre of the face's box, "
                        "in sides of the box",
                    )
        face = np.array([*self.mean_shape, *self.outline])
        low, high = face.min(0), face.max(0)
        side, centre = (high - low).max(), np.abs(low + high).max() / 2
        if not _LEAST_SIDE <= side <= _LARGEST_SIDE or centre > _FARTHEST_CENTRE:
            self._refuse(
                "mean_shape",
                f"its box, with outline, has side {side:.2f} and is centred {centre:.2f} from the "
                "origin; it must have side 1 and be centred at the origin. Add points of the "
                "face's border that are not landmarks as outline",
            )
        apart = np.abs(self.shape[list(self.mirror)] * [-1, 1] - self.shape).max(-1)
        if apart.max() > _LEAST_SYMMETRY:
            index = int(apart.argmax())
            self._refuse(
                "mirror",
                f"landmarks {index} and {self.mirror[index]} are a mirror pair, but are not "
                "symmetric in mean_shape",
            )

    def _check_parts(self) -> None:
        for part in self.parts:
            for index in part.points:
                self._check_index(f"parts: {part.name}", index)
            if not part.points or len(set(part.points)) < len(part.points):
                self._refuse(f"parts: {part.name}", "has no landmark, or a landmark twice")
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            self._refuse("parts", "two parts have the same name")
        if self.normaliser == "box":
            return
        if len(self.normaliser) != 2 or not all(self.normaliser):
            self._refuse("normaliser", "is neither 'box' nor two groups of landmarks")
        for index in (index for group in self.normaliser for index in group):
            self._check_index("normaliser", index)
        if set(self.normaliser[0]) & set(self.normaliser[1]):
            self._refuse("normaliser", "a landmark is in both groups")

    def _check_conversion(self, conversion: Conversion) -> None:
        field = f"conversions: {conversion.source}"
        if len(conversion.rows) != self.count:
            self._refuse(
                field, f"has {len(conversion.rows)} rows, but mirror has {self.count} landmarks"
            )
        for number, row in enumerate(conversion.rows):
            if not row or any(index < 0 or index >= LARGEST for index, _ in row):
                self._refuse(
                    f"{field}: row {number}", f"has no landmark, or one not in 0 to {LARGEST - 1}"
                )
            if abs(sum(weight for _, weight in row) - 1) > 1e-6:
                self._refuse(f"{field}: row {number}", "its weights do not sum to 1")

    def _check_index(self, field: str, index: int) -> None:
        if not 0 <= index < self.count:
            self._refuse(field, f"landmark {index} is not in 0 to {self.count - 1}")

    def _refuse(self, field: str, reason: str) -> None:
        raise RednetError(f"scheme {self.name}: {field}: {reason}")


def mirror_landmarks(landmarks: Any, width: int, scheme: Scheme) -> Any:
    """Returns the landmarks of the mirrored image.

    Args:
        landmarks: [..., L, 2], NumPy or JAX array, pixels.
        width: of the image, pixels; column x becomes width - 1 - x.
        scheme: of the landmarks.

    Returns:
        [..., L, 2], NumPy or JAX array like `landmarks`.
    """
    flip, shift = np.asarray([[-1, 1], [width - 1, 0]], np.float32)
    return landmarks[..., np.asarray(scheme.mirror), :] * flip + shift


def scheme_of_text(text: str) -> Scheme:
    """Returns the scheme of a JSON text.

    Raises:
        RednetError: the text is not JSON, or not a valid scheme.
    """
    try:
        plain = parse_json(text)
    except ValueError as error:
        raise RednetError(f"not JSON ({error})") from None
    return Scheme.from_json(plain)


def _read_only(points: tuple[tuple[float, ...], ...]) -> NDArray[np.float32]:
    array = np.array(points, np.float32).reshape(-1, 2)
    array.flags.writeable = False
    return array


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _parts_of(plain: Any) -> Any:
    if not isinstance(plain, list) or not all(isinstance(part, Mapping) for part in plain):
        raise RednetError("scheme.parts: not a list of objects")
    parts = []
    for number, part in enumerate(plain):
        fields = {name: _tuples(value) for name, value in part.items()}
        try:
            parts.append(Part(**fields))
        except TypeError as error:
            reason = re.sub(r"^.*__init__\(\) ", "", str(error))
            raise RednetError(f"scheme.parts[{number}]: {reason}") from None
    return tuple(parts)


def _conversions_of(plain: Any) -> Any:
    if not isinstance(plain, Mapping):
        raise RednetError("scheme.conversions: not an object with a list of rows for each scheme")
    return tuple(Conversion(source, _rows_of(source, rows)) for source, rows in plain.items())


def _rows_of(source: str, plain: Any) -> tuple[tuple[tuple[int, float], ...], ...]:
    rows = []
    for number, row in enumerate(plain if isinstance(plain, list) else [None]):
        terms = [[row, 1.0]] if type(row) is int else row
        if not (isinstance(terms, list) and all(map(_is_term, terms))):
            raise RednetError(
                f"scheme.conversions: {source}: row {number}: {shown(row)} is neither an index nor "
                "a list of [index, weight]"
            )
        rows.append(tuple((index, float(weight)) for index, weight in terms))
    return tuple(rows)


def _is_term(term: Any) -> bool:
    return (
        isinstance(term, list)
        and len(term) == 2
        and type(term[0]) is int
        and type(term[1]) in (int, float)
        and math.isfinite(term[1])
    )
