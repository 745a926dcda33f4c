"""WFLW: its lists, subsets by attribute, several faces of one image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data.builders.trees import save_image

from rednet_jax.data.builders.trees import hash_share
from rednet_jax.data.builders.wflw import ATTRIBUTES, LISTS, RednetWFLW
from rednet_jax.data.prepare import prepare
from rednet_jax.data.sources import read_split
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import WFLW98

FACE = WFLW98.shape * 20 + [16, 12]


def image_of(split: str, skip: int = 0) -> str:
    files = (f"0--Parade/0_Parade_{i}.jpg" for i in range(1000))
    return [file for file in files if (hash_share(file) < 0.1) == (split == "validation")][skip]


def line(file: str, attributes: str = "000000", points: np.ndarray = FACE) -> str:
    """Returns a line: 98 points, a detector's box, six attributes and the image, by spaces."""
    numbers = [f"{value:.6f}" for value in points.ravel()]
    return " ".join([*numbers, "3", "2", "30", "22", *attributes, file])


def write_wflw(root: Path, train: list[str], test: list[str]) -> Path:
    (root / LISTS).mkdir(parents=True)
    for part, lines in {"train": train, "test": test}.items():
        path = root / LISTS / f"list_98pt_rect_attr_{part}.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        for row in lines:
            save_image(root / "WFLW_images" / row.split(" ")[-1])
    return root


def test_the_published_layout(tmp_path: Path) -> None:
    first, second, held_out = image_of("train"), image_of("train", 1), image_of("validation")
    root = write_wflw(
        tmp_path / "tree",
        [line(first), line(first, points=FACE + 1), line(second), line(held_out)],
        [line("1--Hand/a.jpg", "100001"), line("1--Hand/b.jpg", "000010"), line("1--Hand/c.jpg")],
    )
    prepared = prepare("wflw", root, tmp_path / "data")
    assert prepared.samples == {
        "train": 3,
        "validation": 1,
        "test": 3,
        "test_largepose": 1,
        "test_occlusion": 1,
        "test_blur": 1,
    }
    assert prepared.scheme == WFLW98 and not prepared.skipped and not prepared.unread
    train = read_split("wflw", "train", tmp_path / "data")
    assert [face.name for face in train] == [
        f"train/{first[:-4]}",
        f"train/{first[:-4]}_1",
        f"train/{second[:-4]}",
    ]
    np.testing.assert_allclose(train[1].landmarks, FACE + 1, atol=1e-4)
    assert train[0].labelled.all() and train.scheme == WFLW98
    occluded = read_split("wflw", "test_occlusion", tmp_path / "data")
    assert [face.name for face in occluded] == ["test/1--Hand/b"]
    with pytest.raises(RednetError, match="without wflw test_makeup"):
        read_split("wflw", "test_makeup", tmp_path / "data")
    with pytest.raises(RednetError, match="no split 'test_pose'; known: train, validation, test"):
        read_split("wflw", "test_pose", tmp_path / "data")
    assert RednetWFLW.subsets == tuple(f"test_{name}" for name in ATTRIBUTES)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda text: text.rsplit(" ", 1)[0], "206 columns instead of 207"),
        (lambda text: text.replace(" 3 2 ", " 3 two "), "could not convert"),
        (lambda text: text.replace(" 0 0 0 0 0 0 ", " 0 0 0 0 0 5 "), "an attribute is neither"),
        (lambda text: "nan" + text[text.index(" ") :], "a coordinate is out of range"),
    ],
)
def test_an_invalid_line_raises(tmp_path: Path, broken, reason: str) -> None:
    root = write_wflw(tmp_path / "tree", [], [line(f"a/{i}.jpg") for i in range(2)])
    path = root / LISTS / "list_98pt_rect_attr_test.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([broken(lines[0]), *lines[1:]]) + "\n")
    with pytest.raises(RednetError, match=rf"rect_attr_test.txt: line 1: {reason}"):
        prepare("wflw", root, tmp_path / "data")
