"""300-VW in records: whole clips; a frame without an annotation is not valid."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data.builders.trees import LANDMARKS, names, read_back
from numpy.typing import NDArray
from PIL import Image

from rednet_jax.data.builders.clips_300vw import EncodedFrames
from rednet_jax.data.builders.trees import read_list
from rednet_jax.data.prepare import find_prepared
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.pts import write_pts
from rednet_jax.media.video import write_video

FRAMES = 6


def shifted(t: int) -> NDArray[np.float32]:
    return LANDMARKS + np.array([t, 0], np.float32)


def add_clip(root: Path, name: str, labelled=range(1, FRAMES + 1)) -> Path:
    """Writes a grey clip that becomes lighter; landmarks of frame t are t pixels to the right."""
    (root / name / "annot").mkdir(parents=True)
    with write_video(root / name / "vid.mp4", 25, (64, 48)) as write:
        for t in range(FRAMES):
            write(np.full((48, 64, 3), 40 * t, np.uint8))
    for t in labelled:
        write_pts(root / name / f"annot/{t:06d}.pts", shifted(t))
    return root / name


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "300vw"
    for name in ("001", "Video_14", "114", "203", "410", "mine"):
        add_clip(root, name)
    (root / "extra").mkdir()
    (root / "readme.txt").touch()
    return root


def test_clips_are_split_by_list(tree, build) -> None:
    prepared = build("300vw", tree)
    assert prepared.left_out == prepared.skipped == ()
    assert {split: names(clips) for split, clips in read_back(prepared).items()} == {
        "train": ["001", "mine"],
        "validation": ["Video_14"],
        "a": ["114"],
        "b": ["203"],
        "c": ["410"],
    }


def test_a_clip_has_all_frames_with_their_labels(tmp_path, build) -> None:
    add_clip(tmp_path / "300vw", "mine", labelled=(2, 5))
    prepared = build("300vw", tmp_path / "300vw")
    assert f"{tmp_path}/300vw: no clip of a" in prepared.left_out
    clip = read_back(prepared)["train"][0]
    assert [image.shape for image in clip["image"]] == [(48, 64, 3)] * FRAMES
    for t, image in enumerate(clip["image"]):
        np.testing.assert_allclose(image, 40.0 * t, atol=3)
    assert clip["valid"].tolist() == [False, True, False, False, True, False]
    np.testing.assert_array_equal(clip["labelled"], np.repeat(clip["valid"][:, None], 68, 1))
    for t in (2, 5):
        np.testing.assert_allclose(clip["landmarks"][t - 1], shifted(t), atol=1e-3)
        np.testing.assert_array_equal(clip["box"][t - 1, :2], clip["landmarks"][t - 1].min(0))
        np.testing.assert_array_equal(clip["box"][t - 1, 2:], clip["landmarks"][t - 1].max(0))
    assert not clip["landmarks"][~clip["valid"]].any() and not clip["box"][~clip["valid"]].any()


def test_frames_can_stay_encoded(tmp_path, build) -> None:
    add_clip(tmp_path / "300vw", "mine")
    builder = tfds.builder_from_directory(build("300vw", tmp_path / "300vw").folder)
    encoded = builder.as_data_source("train", decoders={"image": EncodedFrames()})[0]["image"]
    decoded = builder.as_data_source("train")[0]["image"]
    for data, image in zip(encoded, decoded, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), image)


def test_bad_clips_are_reported_and_left_out(tree, tmp_path, build) -> None:
    for i in range(100):
        (tree / f"{i:03d}x").symlink_to(tree / "mine")
    past = add_clip(tree, "past", labelled=(1, FRAMES + 1))
    text = add_clip(tree, "text")
    (text / "vid.mp4").write_text("no video")
    none = add_clip(tree, "none")
    (none / "vid.mp4").unlink()
    bare = add_clip(tree, "bare", labelled=())
    out = add_clip(tree, "out")
    (out / "vid.mp4").rename(tmp_path / "vid.mp4")
    (out / "vid.mp4").symlink_to(tmp_path / "vid.mp4")
    prepared = build("300vw", tree)
    causes = [
        f"{bare}: no labelled frame",
        f"{none}: has no video vid.EXT",
        f"{out}/vid.mp4: leads outside {tree}",
        f"{past}/vid.mp4: ends after {FRAMES} frames, annotated from 1 to {FRAMES + 1}",
        f"{text}/vid.mp4: cannot be decoded (",
    ]
    assert len(prepared.skipped) == len(causes)
    for line, cause in zip(prepared.skipped, causes, strict=True):
        assert line.startswith(cause)
    assert prepared.samples["train"] == 102


def test_a_frame_with_a_bad_annotation_is_unlabelled(tree, build) -> None:
    annot = tree / "001/annot"
    write_pts(annot / "000003.pts", LANDMARKS[:7])
    prepared = build("300vw", tree)
    assert prepared.skipped == (f"{annot}/000003.pts: 7 points, 300-VW has 68",)
    clip = read_back(prepared)["train"][0]
    assert clip["valid"].tolist() == [True, True, False, True, True, True]


def test_annotations_may_count_from_zero(tmp_path, build) -> None:
    annot = add_clip(tmp_path / "300vw", "mine") / "annot"
    for t in range(1, FRAMES + 1):
        (annot / f"{t:06d}.pts").rename(annot / f"{t - 1:06d}.pts")
    (annot / "000003.pts").unlink()
    prepared = build("300vw", tmp_path / "300vw")
    assert prepared.skipped == ()
    clip = read_back(prepared)["train"][0]
    assert clip["valid"].tolist() == [True, True, True, False, True, True]
    for t in np.flatnonzero(clip["valid"]):
        np.testing.assert_allclose(clip["landmarks"][t], shifted(t + 1), atol=1e-3)
        np.testing.assert_allclose(clip["image"][t], 40.0 * t, atol=3)


def test_a_clip_annotated_from_zero_past_its_end_is_left_out(tree, build) -> None:
    """Seven annotations of six frames do not fit, whether they count from 0 or from 1."""
    for i in range(100):
        (tree / f"{i:03d}x").symlink_to(tree / "mine")
    both = add_clip(tree, "both")
    write_pts(both / "annot/000000.pts", LANDMARKS)
    prepared = build("300vw", tree)
    assert prepared.skipped == (
        f"{both}/vid.mp4: ends after {FRAMES} frames, annotated from 0 to {FRAMES}",
    )


def test_ambiguous_frame_numbers_are_reported(tmp_path, build) -> None:
    folder = add_clip(tmp_path / "300vw", "mine", labelled=(2, 5))
    add_clip(tmp_path / "300vw", "first", labelled=(1, 3))
    add_clip(tmp_path / "300vw", "last", labelled=(3, 6))
    prepared = build("300vw", tmp_path / "300vw")
    lines = [line for line in prepared.left_out if "no clip of" not in line]
    assert lines == [
        f"{folder}: annotated from 2 to 5 of 6 frames: numbers are assumed to start at 1"
    ]
    by_name = {clip["name"]: clip for clip in read_back(prepared)["train"]}
    assert np.flatnonzero(by_name[b"mine"]["valid"]).tolist() == [1, 4]


def test_names_in_another_case_and_second_files(tree, build) -> None:
    (tree / "001/annot").rename(tree / "001/Annot")
    (tree / "001/vid.mp4").rename(tree / "001/Vid.MP4")
    (tree / "001/Annot/000002.pts").rename(tree / "001/Annot/000002.PTS")
    (tree / "mine/annot/3.pts").write_bytes((tree / "mine/annot/000003.pts").read_bytes())
    (tree / "mine/annot/._000004.pts").write_bytes(b"\0\1")
    (tree / "mine/annot/Thumbs.db").touch()
    prepared = build("300vw", tree)
    assert prepared.samples["train"] == 2
    assert prepared.skipped == (f"{tree}/mine/annot/3.pts: a second annotation of frame 3",)
    assert prepared.unread == {".txt": 1, "hidden files": 1, ".db": 1}
    for clip in read_back(prepared)["train"]:
        assert clip["valid"].all()


def test_a_clip_with_two_videos_is_left_out(tree, build) -> None:
    for i in range(100):
        (tree / f"{i:03d}x").symlink_to(tree / "mine")
    (tree / "001/vid.avi").touch()
    prepared = build("300vw", tree)
    assert prepared.skipped == (f"{tree}/001: has 2 files (.avi and .mp4) for its video vid.EXT",)


def test_annotations_of_another_scale_are_skipped(tree, build) -> None:
    write_pts(tree / "001/annot/000003.pts", LANDMARKS * 4)
    prepared = build("300vw", tree)
    (line,) = prepared.skipped
    assert line.startswith(f"{tree}/001/annot/000003.pts: ")
    assert line.endswith(" of 68 points lie in the image of 64 x 48 pixels")
    clip = read_back(prepared)["train"][0]
    assert clip["valid"].tolist() == [True, True, False, True, True, True]


def test_too_many_bad_annotations_stop_the_build(tree, tmp_path, build) -> None:
    for name in ("first.pts", "-1.pts"):
        write_pts(tree / "001/annot" / name, LANDMARKS)
    with pytest.raises(RednetError, match=r"2 of 38 annotations are bad, more than 5%: .*number"):
        build("300vw", tree)
    assert find_prepared("300vw", tmp_path / "prepared") is None


def test_lists_have_the_official_sizes_and_are_disjoint() -> None:
    lists = {split: set(read_list(f"300vw_{split}")) for split in ("a", "b", "c", "validation")}
    assert {split: len(clips) for split, clips in lists.items()} == {
        "a": 31,
        "b": 19,
        "c": 14,
        "validation": 14,
    }
    assert not any(a & b for a, b in combinations(lists.values(), 2))


@pytest.mark.slow
def test_the_real_clips(real_data, build) -> None:
    prepared = build("300vw", real_data / "clips")
    assert prepared.samples == {"train": 20, "validation": 9} and prepared.skipped == ()
    assert prepared.left_out == (
        f"{real_data}/clips: no clip of a",
        f"{real_data}/clips: no clip of b",
        f"{real_data}/clips: no clip of c",
    )
    builder = tfds.builder_from_directory(prepared.folder)
    decoders = {"image": EncodedFrames()}
    sources = [builder.as_data_source(split, decoders=decoders) for split in prepared.samples]
    clips = [clip for source in sources for clip in source]
    assert sum(clip["valid"].sum() for clip in clips) == 6508
    assert all(len(clip["image"]) == len(clip["valid"]) for clip in clips)
