"""Cached crops of faces: the crop rule, the data folder, and invalidation."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from data.miniature_300vw import prepare_300vw
from train.miniature_300w import draw_300w, prepare_300w

from rednet_jax.data import crops
from rednet_jax.data import prepare as preparing
from rednet_jax.data.crops import face_crops
from rednet_jax.data.prepare import prepare
from rednet_jax.data.samples import Sample
from rednet_jax.data.sources import Split, read_clips, read_split
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform

SPLIT = {"margin": 2.0, "size": 80}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return prepare_300w(tmp_path, train=3, validation=1)


def test_faces_are_cut_by_the_crop_rule(data_dir: Path) -> None:
    cut = face_crops("300w", "train", **SPLIT, data_dir=data_dir)
    assert len(cut) == 3 and list(cut.starts) == [0, 1, 2, 3]
    assert cut.images.shape == (3, 80, 80, 3) and cut.images.dtype == np.uint8
    assert cut.landmarks.dtype == cut.affines.dtype == np.float32
    for i, sample in enumerate(read_split("300w", "train", data_dir)):
        affine = crop_transform(sample.box, **SPLIT)
        assert (cut.names[i], cut.styles[i], cut.identities[i]) == (sample.name, "300w", -1)
        np.testing.assert_array_equal(cut.images[i], crop_image(sample.image, affine, 80))
        np.testing.assert_allclose(cut.affines[i], affine, rtol=1e-6)
        in_image = apply_affine(cut.affines[i], cut.landmarks[i])
        np.testing.assert_allclose(in_image, sample.landmarks, atol=1e-3)
        low, high = cut.landmarks[i].min(0), cut.landmarks[i].max(0)
        np.testing.assert_allclose((low + high) / 2, 39.5, atol=1e-4)
        np.testing.assert_allclose((high - low).max(), 40, atol=1e-4)


def tree(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_cached_crops_are_read_without_writing(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data folder may be read-only: no lock and no file is created in it."""
    cut = face_crops("300w", "train", **SPLIT, data_dir=data_dir)
    before = tree(data_dir)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    for module in (crops, preparing):
        monkeypatch.setattr(module, "locked_folder", read_only)
        monkeypatch.setattr(module, "write_text", read_only)
    again = face_crops("300w", "train", **SPLIT, data_dir=data_dir)
    np.testing.assert_array_equal(again.images, cut.images)
    assert not prepare("300w", data_dir.parent / "tree", data_dir).built
    assert tree(data_dir) == before
    advice = r"90px-2: cannot be written \(\[Errno 30\] Read-only .*--data-dir"
    with pytest.raises(RednetError, match=advice):
        face_crops("300w", "train", margin=2.0, size=90, data_dir=data_dir)


def test_the_fingerprint_covers_labels_and_images(data_dir: Path, tmp_path: Path) -> None:
    cut = face_crops("300w", "train", **SPLIT, data_dir=data_dir)
    (file,) = (data_dir / "crops").glob("*/fingerprint.txt")
    assert file.read_text().strip() == cut.fingerprint
    other = prepare_300w(tmp_path / "again", train=3, validation=1)
    assert face_crops("300w", "train", **SPLIT, data_dir=other).fingerprint == cut.fingerprint
    # Crops of earlier versions have no such file.
    file.unlink()
    assert face_crops("300w", "train", **SPLIT, data_dir=data_dir).fingerprint == cut.fingerprint
    for name in ("images.u8", "labels.npz"):
        (path,) = (data_dir / "crops").glob(f"*/{name}")
        arrays = dict(np.load(path)) if name == "labels.npz" else None
        if arrays is None:
            images = np.memmap(path, np.uint8, mode="r+")
            images[len(images) // 2] ^= 1
            images.flush()
        else:
            arrays["landmarks"][0, 0] += 1
            np.savez(path, **arrays)
        file.unlink()
        changed = face_crops("300w", "train", **SPLIT, data_dir=data_dir).fingerprint
        assert changed != cut.fingerprint
        cut = face_crops("300w", "train", **SPLIT, data_dir=data_dir)


def test_a_face_with_one_label_is_left_out_and_a_partly_labelled_one_is_cropped_whole(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = read_split("300w", "train", data_dir)

    def part(number: int, known: slice) -> Sample:
        labelled = np.zeros(68, bool)
        labelled[known] = True
        whole = split[number]
        landmarks = np.where(labelled[:, None], whole.landmarks, 0)
        box = landmark_box(landmarks, labelled)
        return Sample(whole.image, landmarks, labelled, box, whole.name)

    samples = [part(0, slice(17, 68)), part(1, slice(30, 31))]
    partial = Split("", "", "", samples, lambda sample: sample)
    monkeypatch.setattr(crops, "read_split", lambda *_: partial)
    cut = face_crops("300w", "train", **SPLIT, data_dir=data_dir)
    assert list(cut.names) == ["helen/trainset/face0"]
    assert (cut.landmarks[0, :17] == 0).all() and cut.labelled[0].sum() == 51
    # The jaw is unlabelled but inside the crop, so the eyes are above its middle.
    assert cut.landmarks[0, 36:48, 1].mean() < 36


def test_frames_of_clips_follow_the_face(tmp_path: Path) -> None:
    """A frame without labels is cropped as the nearest labelled frame."""
    data_dir = prepare_300vw(tmp_path)
    cut = face_crops("300vw", "train", **SPLIT, data_dir=data_dir)
    assert list(cut.starts) == [0, 12, 19]
    assert (cut.names[0], cut.names[18]) == ("one/1", "two/7")
    valid = np.concatenate([clip.valid for clip in read_clips("300vw", "train", data_dir)])
    np.testing.assert_array_equal(cut.labelled.all(axis=1), valid)
    assert not valid[[0, 1, 5, 18]].any() and valid.sum() == 15
    shift = cut.affines[:, 0, 2]
    np.testing.assert_allclose(np.diff(shift[2:5]), 1, atol=1e-3)
    np.testing.assert_array_equal(shift[[0, 1, 5, 18]], shift[[2, 2, 4, 17]])
    labelled = cut.landmarks[:12][valid[:12]]
    np.testing.assert_allclose(labelled, np.broadcast_to(labelled[:1], labelled.shape), atol=1e-3)


def test_crops_are_cached_until_the_data_set_changes(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = face_crops("300w", "train", **SPLIT, data_dir=data_dir)
    with monkeypatch.context() as patch:
        patch.setattr(crops, "crop_image", None)
        again = face_crops("300w", "train", **SPLIT, data_dir=data_dir)
    np.testing.assert_array_equal(first.images, again.images)
    draw_300w(data_dir.parent / "tree", train=5, validation=1)
    prepare("300w", data_dir.parent / "tree", data_dir)
    assert len(face_crops("300w", "train", **SPLIT, data_dir=data_dir)) == 5
    folders = sorted(path.name for path in (data_dir / "crops").iterdir())
    assert folders == ["300w-train-80px-2"]


def test_incomplete_crops_are_not_used(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fails_at_the_third(*args: object) -> object:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return crop_image(*args)

    monkeypatch.setattr(crops, "crop_image", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        face_crops("300w", "train", **SPLIT, data_dir=data_dir)
    assert not any((data_dir / "crops").iterdir())
    # The files of a killed process are deleted by the next.
    left = data_dir / "crops" / ".300w-train-80px-2.partial" / "new"
    left.mkdir(parents=True)
    (left / "images.u8").write_bytes(b"half")
    monkeypatch.undo()
    assert len(face_crops("300w", "train", **SPLIT, data_dir=data_dir)) == 3
    assert not left.exists()


@pytest.mark.parametrize("damage", ["truncated", "an array is missing"])
def test_damaged_labels_are_an_error_in_one_line(data_dir: Path, damage: str) -> None:
    face_crops("300w", "train", **SPLIT, data_dir=data_dir)
    (labels,) = (data_dir / "crops").glob("*/labels.npz")
    if damage == "truncated":
        labels.write_bytes(labels.read_bytes()[:-100])
    else:
        np.savez(labels, landmarks=np.zeros((3, 68, 2)))
    with pytest.raises(RednetError, match=r"300w-train-80px-2: .*delete it to crop") as caught:
        face_crops("300w", "train", **SPLIT, data_dir=data_dir)
    assert "\n" not in str(caught.value)


def test_concurrent_calls_crop_once(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: object) -> object:
        calls.append(args)
        return crop_image(*args)

    monkeypatch.setattr(crops, "crop_image", counted)
    results = []

    def run() -> None:
        results.append(len(face_crops("300w", "train", **SPLIT, data_dir=data_dir)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [3] * 4 and len(calls) == 3


def test_a_split_without_labels_or_a_folder_that_is_not_writable_raises(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(crops, "read_split", lambda *_: Split("x", "y", "", [], lambda face: face))
        with pytest.raises(RednetError, match="x y: no face is labelled"):
            face_crops("300w", "train", **SPLIT, data_dir=data_dir)
    (data_dir / "crops").rmdir()
    (data_dir / "crops").write_text("in the way")
    with pytest.raises(RednetError, match="crops"):
        face_crops("300w", "train", **SPLIT, data_dir=data_dir)
