"""Readers either accept any text or value, or refuse it with one line."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import BUILTIN, scheme_of
from rednet_jax.landmarks.pts import read_pts
from rednet_jax.landmarks.schemes import scheme_of_text
from rednet_jax.landmarks.table import read_boxes_csv, read_landmarks_csv
from rednet_jax.model.config import RedNetConfig
from rednet_jax.reading import parse_json

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=30,
)
rows = st.lists(st.sampled_from(["name", "x0", "y0", "1", "-2.5", "nan", "inf", "", '"', "a,b"]))
tables = st.lists(rows.map(",".join)).map("\n".join)


def refused_or_read(call: Any, *args: Any) -> Any:
    try:
        return call(*args)
    except RednetError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 1600
        return None


@hypothesis.given(st.text(max_size=300) | anything.map(json.dumps))
def test_json(text: str) -> None:
    try:
        parse_json(text)
    except ValueError:
        with pytest.raises(RednetError):
            scheme_of_text(text)


@hypothesis.given(st.sampled_from(sorted(BUILTIN)), st.data())
def test_a_scheme_with_a_field_replaced(name: str, data: st.DataObject) -> None:
    plain = BUILTIN[name].to_json()
    plain[data.draw(st.sampled_from(sorted(plain)))] = data.draw(anything)
    if (scheme := refused_or_read(scheme_of, plain)) is not None:
        assert scheme_of(scheme.to_json()) == scheme


@hypothesis.given(st.sampled_from(["compact", "eccv_vgg", "ijcv_resnet"]), st.data())
def test_a_config_with_a_field_replaced(name: str, data: st.DataObject) -> None:
    plain = RedNetConfig.preset(name).to_json()
    plain[data.draw(st.sampled_from(sorted(plain)))] = data.draw(anything)
    if (config := refused_or_read(RedNetConfig.from_json, plain)) is not None:
        assert RedNetConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@hypothesis.given(st.text(max_size=200) | tables)
def test_tables_and_points(text: str) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_text(text, "utf-8", "surrogatepass")
        for read in (read_landmarks_csv, read_boxes_csv, read_pts):
            refused_or_read(read, path)
