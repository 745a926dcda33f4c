"""COFW: MATLAB files of versions 5 and 7.3 with the publisher's layout."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from rednet_jax.data.builders.trees import hash_share
from rednet_jax.data.prepare import prepare
from rednet_jax.data.sources import read_split
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import COFW29

FACE = COFW29.shape * 20 + [16, 12]

IMAGES = [
    np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8),
    np.random.default_rng(1).integers(0, 256, (30, 28), dtype=np.uint8),
]


def rows(count: int) -> np.ndarray:
    """Returns rows of all x, all y and all flags; MATLAB counts pixels from 1."""
    return np.tile(np.concatenate([*(FACE + 1).T, np.arange(29) % 2]), (count, 1))


def write_version_5(path: Path, images: list[np.ndarray], part: str) -> None:
    cells = np.empty((len(images), 1), object)
    cells[:, 0] = images
    scipy.io.savemat(path, {f"Is{part}": cells, f"phis{part}": rows(len(images))})


def write_version_73(path: Path, images: list[np.ndarray], part: str) -> None:
    """Writes HDF5 after MATLAB's header of 512 bytes, with the axes of each array reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        cells = file.create_dataset(f"Is{part}", (1, len(images)), h5py.ref_dtype)
        for number, image in enumerate(images):
            stored = file.create_dataset(f"#refs#/{number}", data=image.T)
            cells[0, number] = stored.ref
        file.create_dataset(f"phis{part}", data=rows(len(images)).T)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


@pytest.mark.parametrize("write", [write_version_5, write_version_73])
@pytest.mark.parametrize("colour", ["_color", ""])
def test_the_published_layouts(tmp_path: Path, write, colour: str) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    write(root / f"COFW_train{colour}.mat", [IMAGES[0]] * 20, "Tr")
    write(root / f"COFW_test{colour}.mat", IMAGES, "T")
    prepared = prepare("cofw", root, tmp_path / "data")
    held_out = sum(hash_share(f"train/{i + 1:04d}") < 0.1 for i in range(20))
    assert prepared.samples == {"train": 20 - held_out, "validation": held_out, "test": 2}
    assert prepared.scheme == COFW29 and not prepared.skipped
    test = read_split("cofw", "test", tmp_path / "data")
    assert [face.name for face in test] == ["test/0001", "test/0002"]
    np.testing.assert_array_equal(test[0].image, IMAGES[0])
    np.testing.assert_array_equal(test[1].image, np.repeat(IMAGES[1][..., None], 3, axis=2))
    np.testing.assert_allclose(test[1].landmarks, FACE, atol=1e-4)
    assert test[0].labelled.all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"MATLAB 5.0 MAT-file".ljust(126) + b"IM" + b"\x01" * 99, "cannot be read"),
        (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x01" * 99, "cannot be read"),
    ],
)
def test_an_unreadable_file_raises(tmp_path: Path, content: bytes, reason: str) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "COFW_test_color.mat").write_bytes(content)
    with pytest.raises(RednetError, match=rf"COFW_test_color.mat: {reason}"):
        prepare("cofw", root, tmp_path / "data")


def test_another_number_of_points_raises(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    cells = np.empty((1, 1), object)
    cells[0, 0] = IMAGES[0]
    scipy.io.savemat(root / "COFW_test.mat", {"IsT": cells, "phisT": np.ones((1, 57))})
    with pytest.raises(RednetError, match=r"phisT is \(1, 57\), not N x 87"):
        prepare("cofw", root, tmp_path / "data")
