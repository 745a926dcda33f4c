"""Scheme files: valid files are read, invalid ones are an error with field and reason."""

from __future__ import annotations

import copy
import importlib.resources
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from any_scheme import SCHEMES
from hypothesis import given
from hypothesis import strategies as st

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import BUILTIN, IBUG68, load_scheme, plain_scheme, scheme_of
from rednet_jax.landmarks.schemes import Scheme

SCHEMA = json.loads(
    (importlib.resources.files("rednet_jax.landmarks") / "scheme.schema.json").read_text()
)

MINE: dict[str, Any] = {
    "name": "mine4",
    "count": 4,
    "mirror": [1, 0, 2, 3],
    "mean_shape": [[-0.25, -0.2], [0.25, -0.2], [0, 0.1], [0, 0.45]],
    "parts": [{"name": "eyes", "points": [0, 1]}, {"name": "nose", "points": [2]}],
    "normaliser": [[0], [1]],
    "outline": [[-0.48, -0.4], [0.48, -0.4], [0, 0.5]],
    "conversions": {"ibug68": [36, 45, 30, [[8, 0.5], [57, 0.5]]]},
}


def write(folder: Path, plain: Any) -> Path:
    path = folder / "mine.json"
    path.write_text(plain if isinstance(plain, str) else json.dumps(plain), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", BUILTIN.values(), ids=BUILTIN)
def test_builtin_schemes_are_read_back_from_files(scheme: Scheme, tmp_path: Path) -> None:
    plain = scheme.to_json()
    jsonschema.validate(plain, SCHEMA)
    assert load_scheme(write(tmp_path, plain)) == scheme
    assert load_scheme(scheme.name) is scheme
    assert plain_scheme(scheme) == scheme.name and scheme_of(scheme.name) is scheme


@given(SCHEMES)
def test_any_scheme_is_read_back_from_json(scheme: Scheme) -> None:
    plain = json.loads(json.dumps(scheme.to_json()))
    jsonschema.validate(plain, SCHEMA)
    back = Scheme.from_json(plain)
    assert back == scheme and hash(back) == hash(scheme)
    assert scheme_of(json.loads(json.dumps(plain_scheme(scheme)))) == scheme
    np.testing.assert_array_equal(back.shape, np.array(scheme.mean_shape, np.float32))


def test_the_scheme_of_a_user_is_read(tmp_path: Path) -> None:
    scheme = load_scheme(write(tmp_path, MINE))
    assert (scheme.name, scheme.count, scheme.groups) == ("mine4", 4, ((0,), (1,)))
    assert scheme.conversions[0].rows == (
        ((36, 1.0),),
        ((45, 1.0),),
        ((30, 1.0),),
        ((8, 0.5), (57, 0.5)),
    )
    assert scheme.regions == {"eyes": (0, 1), "nose": (2,)}
    assert scheme.shape.dtype == np.float32 and not scheme.shape.flags.writeable
    # The other fields are optional.
    required = {name: MINE[name] for name in ("name", "mirror", "mean_shape", "outline")}
    minimal = load_scheme(write(tmp_path, required))
    assert (minimal.normaliser, minimal.parts, minimal.conversions) == ("box", (), ())


def changed(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda plain: plain.update(changes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda plain: plain.pop("mirror"), "field 'mirror' is missing"),
        (lambda plain: plain.pop("name"), "field 'name' is missing"),
        (changed(colour="red"), "unknown field 'colour'; known: count, name, mirror"),
        (changed(name="my points"), "scheme.name: 'my points' is not letters"),
        (changed(name="ibug68"), "scheme.name: 'ibug68' is the name of a built-in"),
        (changed(name=7), "scheme.name: 7 is not a string"),
        (changed(count=5), "scheme.count: is 5, but mirror has 4 landmarks"),
        (changed(mirror=[1, 2, 0, 3]), "mirror: landmark 0 is mirrored to 1, but 1 to 2"),
        (changed(mirror=[1, 0, 2, 4]), "mirror: landmark 4 is not in 0 to 3"),
        (changed(mirror=[1, 0, 2, -1]), "mirror: landmark -1 is not in 0 to 3"),
        (changed(mirror=[1, 0, 2, 3.0]), r"scheme.mirror\[3\]: 3.0 is not a whole number"),
        (changed(mirror=[0, 1, 2, 3]), "mirror: landmarks 0 and 0 are a mirror pair, but"),
        (changed(mirror=[]), "mirror: has 0 landmarks"),
        (changed(mean_shape=[[0, 0]] * 3), "mean_shape: has 3 points, but mirror has 4"),
        (changed(mean_shape=[[-50, -20], [50, -20], [0, 10], [0, 45]]), r"mean_shape\[0\]"),
        (changed(mean_shape=[[0, 0, 0]] * 4), r"mean_shape\[0\]"),
        (changed(outline=[]), "mean_shape: its box, with outline"),
        (changed(outline=[[0, float("nan")]]), r"scheme.outline\[0\]"),
        (changed(normaliser=[[0]]), "normaliser: is neither 'box' nor two groups"),
        (changed(normaliser=[[0], []]), "normaliser: is neither 'box' nor two groups"),
        (changed(normaliser=[[0], [0]]), "normaliser: a landmark is in both groups"),
        (changed(normaliser=[[0], [9]]), "normaliser: landmark 9 is not"),
        (changed(normaliser="eyes"), "scheme.normaliser: 'eyes' is not"),
        (changed(parts=[{"name": "eyes", "points": [0, 4]}]), "parts: eyes: landmark 4 is not"),
        (changed(parts=[{"name": "eyes", "points": [0, 0]}]), "parts: eyes: has no landmark, or"),
        (changed(parts=[{"name": "a", "points": [0]}] * 2), "parts: two parts have the same"),
        (changed(parts=[{"name": "a"}]), r"scheme.parts\[0\]: missing 1 required"),
        (changed(parts=[{"name": "a", "points": [0], "x": 1}]), r"scheme.parts\[0\]: got an unex"),
        (changed(parts=[{"name": "a", "points": [0], "closed": 1}]), "closed: 1 is not true or"),
        (changed(parts={"a": [0]}), "scheme.parts: not a list of objects"),
        (changed(conversions={"ibug68": [36, 45, 30]}), "conversions: ibug68: has 3 rows"),
        (changed(conversions={"ibug68": [36, 45, 30, [[8, 0.7]]]}), "do not sum to 1"),
        (changed(conversions={"ibug68": [36, 45, 30, "chin"]}), "row 3: 'chin' is neither"),
        (changed(conversions=[1]), "scheme.conversions: not an object"),
    ],
)
def test_an_invalid_scheme_is_an_error_with_its_field(change, reason: str, tmp_path: Path) -> None:
    plain = copy.deepcopy(MINE)
    change(plain)
    path = write(tmp_path, plain)
    with pytest.raises(RednetError, match=reason) as error:
        load_scheme(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "not JSON"), ("[1]", "is not a JSON object"), ("[" * 100_000, "not JSON")],
)
def test_an_invalid_json_file_is_an_error(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(RednetError, match=reason):
        load_scheme(write(tmp_path, text))


def test_an_unknown_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RednetError, match=r"no such file or built-in scheme \(ibug68, "):
        load_scheme(tmp_path / "none.json")
    with pytest.raises(RednetError, match="no built-in scheme 'ibug69'"):
        scheme_of("ibug69")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 5000) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(st.sampled_from([*MINE]), JSON)
def test_any_value_of_a_field_is_accepted_or_is_an_error(field: str, value: Any) -> None:
    try:
        scheme = Scheme.from_json({**copy.deepcopy(MINE), field: value})
    except RednetError as error:
        assert "\n" not in str(error)
    else:
        assert scheme.count == 4


def test_the_builtin_schemes_are_as_published() -> None:
    counts = {name: scheme.count for name, scheme in BUILTIN.items()}
    assert counts == {
        "ibug68": 68,
        "rednet7": 7,
        "wflw98": 98,
        "cofw29": 29,
        "aflw19": 19,
        "head70": 70,
    }
    assert IBUG68.groups == ((36,), (45,))
    # Published errors are normalised by the outer eye corners, and for AFLW by the box.
    assert BUILTIN["wflw98"].groups == ((60,), (72,)) and BUILTIN["cofw29"].groups == ((8,), (9,))
    assert BUILTIN["aflw19"].groups is None
