"""Labelled images of a user's folder: endings in any case, and files that are not the user's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rednet_jax.data.builders.label_files import read_labels
from rednet_jax.data.builders.own_folder import OwnData
from rednet_jax.data.prepare import prepare
from rednet_jax.landmarks.builtin import REDNET7
from rednet_jax.landmarks.pts import write_pts

POINTS = REDNET7.shape * 60 + [70, 64]
NAMES = ["a0", "in/a1", "in/Anna.B"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images NAME.JPG with NAME.PTS, and the files that macOS adds to them."""
    for name in NAMES:
        path = tmp_path / "mine" / f"{name}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (140, 128)).save(path, "JPEG")
        write_pts(path.with_name(f"{path.stem}.PTS"), POINTS)
        for ending in ("JPG", "PTS", "pts"):
            path.with_name(f"._{path.stem}.{ending}").write_bytes(b"\x00\x05\x16\x07\xff")
    return tmp_path / "mine"


def table(path: Path, names: list[str]) -> Path:
    header = [f"{axis}{i}" for i in range(len(POINTS)) for axis in "xy"]
    cells = [f"{value:.2f}" for value in POINTS.ravel()]
    rows = [",".join(["name", *header]), *(",".join([name, *cells]) for name in names)]
    path.write_text("\n".join(rows) + "\n")
    return path


def coco(path: Path, names: list[str]) -> Path:
    keypoints = np.insert(POINTS, 2, 2, axis=1).ravel().tolist()
    plain = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [{"image_id": i, "keypoints": keypoints} for i, _ in enumerate(names)],
    }
    path.write_text(json.dumps(plain))
    return path


@pytest.mark.parametrize("ending", ["", ".JPG", ".jpg"])
@pytest.mark.parametrize("kind", [None, table, coco])
def test_endings_are_found_in_any_case(root: Path, tmp_path: Path, kind, ending: str) -> None:
    listed = [f"{name}{ending}" for name in NAMES]
    labels = kind and kind(tmp_path / f"labels.{'json' if kind is coco else 'csv'}", listed)
    pairs = read_labels(root, labels, None)
    files = {f"{name}.JPG" for name in NAMES}
    assert {path.relative_to(root).as_posix() for path, _ in pairs} == files
    np.testing.assert_allclose(pairs[0][1], POINTS, atol=0.01)
    split = tmp_path / "train.txt"
    split.write_text("\n".join(listed))
    own = OwnData(REDNET7, labels=labels, lists=(("train", split),))
    prepared = prepare("mine", root, tmp_path / "data", own=own)
    assert (prepared.samples, prepared.skipped) == ({"train": 3}, ())


def test_a_listed_name_may_be_any_text(root: Path, tmp_path: Path) -> None:
    odd = ["/", "..", "", ".", "none/a0", "a0/none", "\x00", "x" * 300, "/none/a0"]
    pairs = read_labels(root, table(tmp_path / "labels.csv", [*odd[:-1], "./a0", odd[-1]]), None)
    assert [path for path, _ in pairs] == [root / "a0.JPG"]
