"""Readers of prepared data sets, and errors for missing ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data.miniature_300vw import prepare_300vw
from PIL import Image
from train.miniature_300w import prepare_300w

from rednet_jax.data.sources import holds_clips, read_clips, read_split
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.pts import read_pts


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare_300w(folder, train=3, validation=1)
    prepare_300vw(folder)
    return folder / "prepared"


def test_samples_equal_the_source_files(data_dir: Path) -> None:
    split = read_split("300w", "train", data_dir)
    assert (len(split), split.data, split.split) == (3, "300w", "train")
    assert [sample.name for sample in split] == [f"helen/trainset/face{i}" for i in range(3)]
    sample, tree = split[1], data_dir.parent / "tree"
    with Image.open(tree / f"{sample.name}.png") as saved:
        np.testing.assert_array_equal(sample.image, np.asarray(saved))
    np.testing.assert_array_equal(sample.landmarks, read_pts(tree / f"{sample.name}.pts"))
    assert sample.labelled.all() and (sample.identity, sample.style) == (-1, "300w")
    low, high = sample.landmarks.min(0), sample.landmarks.max(0)
    np.testing.assert_array_equal(sample.box, [*low, *high])
    with pytest.raises(IndexError):
        split[3]


def test_frames_of_a_clip_are_decoded_on_access(data_dir: Path) -> None:
    clips = read_clips("300vw", "train", data_dir)
    assert [clip.name for clip in clips] == ["one", "two"]
    clip = clips[0]
    assert len(clip.images) == len(clip.valid) == 12
    assert clip.images[3].shape == (64, 64, 3)
    np.testing.assert_array_equal(clip.images[2:4][1], clip.images[3])
    np.testing.assert_array_equal(clip.labelled, np.repeat(clip.valid[:, None], 68, axis=1))


def test_the_data_folder_is_an_argument_or_an_environment_variable(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDNET_JAX_DATA", str(data_dir))
    assert len(read_split("300w", "validation")) == 1
    with pytest.raises(RednetError, match="300w is not prepared here; run `rednet data prepare"):
        read_split("300w", "validation", tmp_path)


def test_unknown_and_unprepared_data_raises(data_dir: Path) -> None:
    with pytest.raises(RednetError, match="no data set 'coco'; known: 300w"):
        read_split("coco", "train", data_dir)
    with pytest.raises(RednetError, match="300w has no split 'test'; known: train"):
        read_split("300w", "test", data_dir)
    with pytest.raises(RednetError, match="a folder without 300w challenging"):
        read_split("300w", "challenging", data_dir)
    assert holds_clips("300vw") and not holds_clips("300w")
    with pytest.raises(RednetError, match="300vw contains clips"):
        read_split("300vw", "train", data_dir)
    with pytest.raises(RednetError, match="300w contains single images"):
        read_clips("300w", "train", data_dir)
