"""Batched tracking of clips during training."""

import dataclasses

import jax
import numpy as np
import pytest
from data.miniature_300vw import FRAMES, prepare_300vw

from rednet_jax.errors import RednetError
from rednet_jax.evaluate import clips
from rednet_jax.evaluate.metrics import face_errors, jitter
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.crops import (
    apply_affine,
    compose_affine,
    crop_image,
    crop_transform,
    invert_affine,
)
from rednet_jax.model import rednet


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    folder = prepare_300vw(tmp_path_factory.mktemp("clips"))
    return clips.clip_windows("300vw", "train", margin=2.0, size=96, data_dir=folder)


@pytest.fixture(scope="module")
def followed(narrow, windows):
    config = narrow("compact")
    variables = rednet.init(config, jax.random.key(0))
    # Both runs share one compilation, regardless of earlier tests in this process.
    clips._compiled_step().clear_cache()
    both = [clips.follow(config, variables, windows, steps) for steps in (1, 1)]
    assert clips._compiled_step()._cache_size() == 1
    np.testing.assert_array_equal(both[0].landmarks, both[1].landmarks)
    return config, clips.track_of(config, windows, both[0])


def test_a_short_clip_is_one_window_from_the_first_labelled_frame(windows):
    starts = windows.faces.starts
    assert len(windows.frames) == len(FRAMES) and (windows.faces.labelled.any(1)).sum() == 15
    for start, end, row in zip(starts[:-1], starts[1:], windows.frames, strict=True):
        valid = row[row >= 0]
        assert valid[-1] == end - 1 and (np.diff(valid) == 1).all()
        assert windows.faces.labelled[valid[0]].all()
        assert not windows.faces.labelled[start : valid[0]].any()


def test_a_clip_without_a_frame_that_can_be_measured_has_no_window(windows, monkeypatch):
    labelled = windows.faces.labelled.copy()
    faces = dataclasses.replace(windows.faces, labelled=labelled)
    monkeypatch.setattr(clips, "face_crops", lambda *_, **options: faces)
    labelled[: faces.starts[1], 36] = False
    second = clips.clip_windows("300vw", "train", margin=2.0, size=96)
    np.testing.assert_array_equal(second.frames, windows.frames[1:])
    labelled[:, 36] = False
    with pytest.raises(RednetError, match="300vw train: no face has both outer eye corners"):
        clips.clip_windows("300vw", "train", margin=2.0, size=96)


def test_the_variables_are_copied_to_the_device_once(narrow, windows, monkeypatch):
    config = narrow("compact")
    passed = []

    def step(config, variables, state, crops, *rest):
        passed.append(variables["params"])
        return np.tile(config.scheme.shape * 30 + 30, (len(crops), 1, 1)), state

    monkeypatch.setattr(clips, "_compiled_step", lambda: step)
    clips.follow(config, {"params": np.zeros(3, np.float32)}, windows, 1)
    assert isinstance(passed[0], jax.Array) and all(leaf is passed[0] for leaf in passed)


def test_crops_are_cut_around_the_landmarks_of_the_frame_before(windows, followed):
    config, track = followed
    crops = clips.frames_of(config, windows, track, np.arange(len(track.faces)))
    in_frames = apply_affine(track.affines, track.landmarks)
    firsts = np.cumsum([0, *(windows.frames >= 0).sum(1)])[:-1]
    for i, affine in enumerate(track.affines):
        around = crops.landmarks[i] if i in firsts else in_frames[i - 1]
        expected = crop_transform(
            landmark_box(around), margin=config.crop_margin, size=config.image_size
        )
        np.testing.assert_allclose(affine, expected, atol=1e-3)
    assert crops.images.shape == (len(track.faces), config.image_size, config.image_size, 3)
    faces, size = windows.faces, config.image_size
    for i in (0, len(track.faces) - 1):
        inside = compose_affine(invert_affine(faces.affines[track.faces[i]]), track.affines[i])
        seen = crop_image(faces.images[track.faces[i]], inside, size)
        np.testing.assert_array_equal(crops.images[i], seen)


def test_errors_of_labelled_frames_and_jitter_of_windows(windows, followed):
    config, track = followed
    crops = clips.frames_of(config, windows, track, np.arange(len(track.faces)))
    known = crops.labelled.all(1)
    assert len(known) == (windows.frames >= 0).sum() and 0 < known.sum() < len(known)
    in_frames = apply_affine(crops.affines, track.landmarks)
    errors = face_errors(in_frames[known], crops.landmarks[known], config.scheme)
    np.testing.assert_array_equal(track.known, known)
    assert track.nme == pytest.approx(errors.mean())
    (second,) = np.cumsum((windows.frames >= 0).sum(1))[:-1]
    shakes = [jitter(part, config.scheme) for part in (in_frames[:second], in_frames[second:])]
    assert track.jitter == pytest.approx(np.mean(shakes))
