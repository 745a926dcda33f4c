"""Contact sheets show the expected samples, with points at the labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from data.builders.trees import write_labels
from numpy.typing import NDArray
from PIL import Image

from rednet_jax import cli
from rednet_jax.data import show
from rednet_jax.data.augment import Augmentation, Drift
from rednet_jax.data.prepare import prepare
from rednet_jax.data.show import show_split
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.drawing import draw_landmarks
from rednet_jax.landmarks.pts import write_pts
from rednet_jax.media.video import write_video

SIDE = 240
LANDMARKS = (IBUG68.shape * 100 + 120).astype(np.float32)
CENTRE = (LANDMARKS.min(0) + LANDMARKS.max(0)) / 2
FACE = np.ptp(LANDMARKS, axis=0).max()
TILE = 256


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), (level,) * 3)


def tile(sheet: Path, column: int, row: int = 0, above: int = 0) -> NDArray[np.uint8]:
    """Returns a tile: `row` counts all rows of the sheet, `above` the captions above its own."""
    x, y = 4 + 260 * column, 20 * (above + 1) + 260 * row
    with Image.open(sheet) as image:
        return np.asarray(image)[y : y + TILE, x : x + TILE]


def drawn(level: int, margin: float, labelled: NDArray[np.bool_] | None = None):
    """Returns the expected tile that shows `margin` times the face's box."""
    points = (LANDMARKS - CENTRE) * (TILE / margin / FACE) + (TILE - 1) / 2
    return draw_landmarks(np.full((TILE, TILE, 3), level, np.uint8), points, IBUG68, labelled)


def assert_alike(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> None:
    """Compares up to rounding; points that are half a pixel off give a difference of 0.7."""
    assert np.abs(a.astype(int) - b).mean() < 0.5


@pytest.fixture
def no_augmentation(monkeypatch) -> None:
    """Disables all draws of the augmentation."""
    disabled = {
        field.name: 0.0
        for field in dataclasses.fields(Augmentation)
        if not field.name.endswith("quality")
    }
    monkeypatch.setattr(show, "Augmentation", lambda: Augmentation(**disabled))
    monkeypatch.setattr(show, "Drift", lambda: Drift(0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """Nine faces of 300-W, face i in an image of level 25 i."""
    root = tmp_path_factory.mktemp("300w")
    (root / "tree/afw").mkdir(parents=True)
    for i in range(9):
        grey(25 * i).save(root / f"tree/afw/{i}.png")
        write_pts(root / f"tree/afw/{i}.pts", LANDMARKS)
    prepare("300w", root / "tree", root / "prepared")
    return root / "prepared"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A clip of 30 frames, frame i of level 8 i; only frame 17 is labelled."""
    root = tmp_path_factory.mktemp("300vw")
    (root / "tree/mine/annot").mkdir(parents=True)
    with write_video(root / "tree/mine/vid.mp4", 25, (SIDE, SIDE)) as write:
        for i in range(30):
            write(np.asarray(grey(8 * i)))
    write_pts(root / "tree/mine/annot/000018.pts", LANDMARKS)
    prepare("300vw", root / "tree", root / "prepared")
    return root / "prepared"


@pytest.mark.parametrize(("count", "shown"), [(3, [0, 4, 8]), (1, [0]), (400, list(range(9)))])
def test_faces_are_spread_over_the_split(count, shown, faces, tmp_path) -> None:
    done: list[tuple[int, int | None]] = []
    sheet = show_split(
        "300w",
        "train",
        count=count,
        out=tmp_path / "a.png",
        data_dir=faces,
        report=lambda *state: done.append(state),
    )
    assert done == [(i + 1, len(shown)) for i in range(len(shown))]
    for place, face in enumerate(shown):
        row, column = divmod(place, 8)
        assert_alike(tile(sheet, column, row, above=row), drawn(25 * face, margin=2))
    with Image.open(sheet) as image:
        assert image.size == (4 + 260 * min(len(shown), 8), 280 * -(-len(shown) // 8))


def test_augmented_points_move_with_the_image(faces, tmp_path, no_augmentation) -> None:
    """With all draws disabled the tile is the network's crop, enlarged."""
    options = {"count": 2, "augmented": True, "out": tmp_path / "a.png", "data_dir": faces}
    sheet = show_split("300w", "train", **options)
    for column, face in enumerate((0, 8)):
        assert_alike(tile(sheet, column), drawn(25 * face, margin=2))
        for row in (1, 2):
            assert_alike(tile(sheet, column, row), drawn(25 * face, margin=1.25))


def test_unlabelled_points_are_not_drawn(tmp_path, no_augmentation) -> None:
    """A face without labels has no augmented tile, since training leaves it out."""
    tree = tmp_path / "lfw"
    for number in (1, 2):
        (tree / "Ann").mkdir(parents=True, exist_ok=True)
        grey(100 * number).save(tree / f"Ann/Ann_{number:04d}.jpg", quality=100)
    outside = LANDMARKS.copy()
    outside[8, 1] += SIDE / 2
    write_labels(tree / "labels_300w_style.csv", {"Ann/Ann_0001.jpg": 1}, outside)
    prepare("lfw", tree, tmp_path / "prepared")
    options = {"augmented": True, "out": tmp_path / "a.png", "data_dir": tmp_path / "prepared"}
    sheet = show_split("lfw", "train", **options)
    labelled = np.arange(68) != 8
    assert_alike(tile(sheet, 0), drawn(100, 2, labelled))
    assert_alike(tile(sheet, 0, 2), drawn(100, 1.25, labelled))
    assert np.abs(tile(sheet, 1)[4:-4, 4:-4].astype(int) - 200).max() <= 1
    assert len(np.unique(tile(sheet, 1, 2))) == 1


def assert_frames(sheet: Path, row: int, frames: Iterable[int], margin: float) -> None:
    """Asserts that a row of tiles shows these frames of `clip`, with points only in frame 17."""
    for column, frame in enumerate(frames):
        shown = tile(sheet, column, row)
        # Video compression changes the level slightly.
        level = int(shown[0, 0, 0])
        assert abs(level - 8 * frame) < 4
        bare = np.full_like(shown, level)
        assert_alike(shown, drawn(level, margin) if frame == 17 else bare)


def test_frames_are_spread_over_a_clip(clip, tmp_path) -> None:
    sheet = show_split("300vw", "train", out=tmp_path / "a.png", data_dir=clip)
    assert_frames(sheet, 0, (0, 4, 8, 12, 17, 21, 25, 29), margin=2)


def test_augmented_frames_are_close_in_time(clip, tmp_path, no_augmentation) -> None:
    options = {"augmented": True, "out": tmp_path / "a.png", "data_dir": clip}
    sheet = show_split("300vw", "train", **options)
    assert_frames(sheet, 0, range(7, 22, 2), margin=2)
    for row in (1, 2):
        assert_frames(sheet, row, range(7, 22, 2), margin=1.25)


def test_the_command(faces, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDNET_JAX_DATA", str(faces))
    assert cli.main(["data", "show", "300w", "--count", "1"]) == 0
    assert capfd.readouterr().out == "300w_train.png\n"
    assert_alike(tile(tmp_path / "300w_train.png", 0), drawn(0, margin=2))
    assert cli.main(["data", "show", "300w", "--split", "train", "--out", "b/a.png"]) == 0
    assert capfd.readouterr().out == "b/a.png\n"
    assert (tmp_path / "b/a.png").is_file()


@pytest.mark.parametrize(
    ("data", "count", "most"), [("300w", 0, 400), ("300w", 401, 400), ("300vw", 51, 50)]
)
def test_a_count_out_of_range_is_refused(data, count, most) -> None:
    with pytest.raises(RednetError, match=f"{data} has 1 to {most} samples, not {count}"):
        show_split(data, "train", count=count)
