"""Measurements equal the results of evaluation, per face and per clip."""

import dataclasses

import jax
import numpy as np
import pytest
from data.miniature_300vw import prepare_300vw
from train.miniature_300w import prepare_300w

from rednet_jax.ablate import measure as measure_module
from rednet_jax.ablate.measure import _both_readouts, measure
from rednet_jax.data.pipeline import ClipConfig
from rednet_jax.errors import RednetError
from rednet_jax.evaluate import burst_windows as windows_with_bursts
from rednet_jax.evaluate import clips
from rednet_jax.evaluate.clips import clip_windows, follow, smoothed, track_of
from rednet_jax.evaluate.corrupt import BURST_KINDS
from rednet_jax.evaluate.protocols import evaluate_split
from rednet_jax.landmarks.heatmaps import soft_argmax, to_crop_pixels
from rednet_jax.model.rednet import align_image, init
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage

CLIPS = Stage(
    data=DataConfig(train=("300vw/train",), validation="300vw/train", cached_size=96),
    clips=ClipConfig(frames=2),
    optimiser=OptimiserConfig(warmup_steps=1),
    steps=2,
    batch=2,
)


@pytest.fixture(scope="module")
def network(narrow):
    config = narrow("compact")
    return config, init(config, jax.random.key(0))


def test_images(network, tmp_path):
    data_dir = prepare_300w(tmp_path, train=1, validation=3)
    experiment = Experiment("pictures", network[0], (Stage(steps=600),))
    measured = measure(experiment, network[1], data_dir)
    assert set(measured) == {"normaliser", "pictures"}
    part = measured["pictures"]
    assert part["data"] == ["300w/validation"]
    assert len(part["names"]) == 3
    assert part["names"][0].startswith("300w/validation/")
    for boxes in ("truth", "jitter", "jitter-hard"):
        result = evaluate_split(
            network, "300w", "validation", data_dir=data_dir, boxes=boxes, feedback_steps=(1, 4)
        )
        errors = part["errors"][boxes]["regression"]
        assert np.shape(errors) == (4, 3)
        for row, steps in zip(result["per_step"], (1, 4), strict=True):
            assert np.mean(errors[steps - 1]) == pytest.approx(row["nme"], rel=1e-4)
        assert np.shape(part["errors"][boxes]["maps"]) == (4, 3)
        assert part["errors"][boxes]["maps"] != errors


def test_clips(network, tmp_path):
    data_dir = prepare_300vw(tmp_path)
    measured = measure(Experiment("clips", network[0], (CLIPS,)), network[1], data_dir)
    assert set(measured) == {"normaliser", "clips"}
    part = measured["clips"]
    assert part["names"] == ["300vw/train/one", "300vw/train/two"]
    margin = network[0].crop_margin * CLIPS.data.cover
    windows = clip_windows("300vw", "train", margin=margin, size=96, data_dir=data_dir)
    assert len(windows.frames) == 2
    for on, stride in (("clips", 1), ("clips-halved", 2)):
        strided = windows._replace(frames=windows.frames[:, ::stride])
        for steps in (1, 3):
            alone = follow(*network, strided, steps, carry="nothing")
            for video, followed in (
                ("carried", follow(*network, strided, steps)),
                ("alone", alone),
                ("smoothed", smoothed(network[0], strided, alone)),
            ):
                track = track_of(network[0], strided, followed)
                frames = [track.known[slice_].sum() for slice_ in halves(strided)]
                nme, jitters = (part[video][figure][on][steps - 1] for figure in ("nme", "jitter"))
                assert np.average(nme, weights=frames) == pytest.approx(track.nme, rel=1e-4)
                assert np.mean(jitters) == pytest.approx(track.jitter, rel=1e-4)
    # The clips are too short for a burst.
    assert set(part["carried"]["nme"]) == {"clips", "clips-halved"}


def test_bursts_are_measured_on_their_frames(network, tmp_path, monkeypatch):
    """Two windows of 6 frames a clip, with a burst in the third and fourth."""
    data_dir = prepare_300vw(tmp_path)
    monkeypatch.setattr(clips, "FRAMES", 6)
    for name, value in {
        "EARLIEST": 2,
        "LATEST": 2,
        "SHORTEST": 2,
        "LONGEST": 2,
        "AFTER": 1,
    }.items():
        monkeypatch.setattr(windows_with_bursts, name, value)
    part = measure(Experiment("clips", network[0], (CLIPS,)), network[1], data_dir)["clips"]
    margin = network[0].crop_margin * CLIPS.data.cover
    windows = clip_windows("300vw", "train", margin=margin, size=96, data_dir=data_dir)
    assert windows.frames.shape == (4, 6)
    for on, frames in (("bursts", [2, 3]), ("after-bursts", [4])):
        errors = []
        for kind in BURST_KINDS:
            burst = windows_with_bursts.burst_windows(windows, kind, margin=margin)
            track = track_of(network[0], burst.windows, follow(*network, burst.windows, 1))
            some, known = (
                values.reshape(2, 2, 6)[:, :, frames] for values in (track.errors, track.known)
            )
            errors.append([some[clip][known[clip]].mean() for clip in range(2)])
        assert part["carried"]["nme"][on] == [pytest.approx(np.mean(errors, axis=0), rel=1e-4)]
    assert part["smoothed"]["nme"]["bursts"] != part["alone"]["nme"]["bursts"]
    assert set(part["carried"]["jitter"]) == {"clips", "clips-halved"}


def test_bursts_are_left_out_if_a_clip_has_no_label_within(network, tmp_path, monkeypatch):
    data_dir = prepare_300vw(tmp_path)
    monkeypatch.setattr(clips, "FRAMES", 6)
    for name in ("EARLIEST", "LATEST", "SHORTEST", "LONGEST"):
        monkeypatch.setattr(windows_with_bursts, name, 2)
    monkeypatch.setattr(windows_with_bursts, "AFTER", 1)

    def unlabelled_within(windows, kind, **options):
        burst = windows_with_bursts.burst_windows(windows, kind, **options)
        labelled = burst.windows.faces.labelled.copy()
        labelled[burst.windows.frames[:2][burst.within[:2]]] = False
        faces = dataclasses.replace(burst.windows.faces, labelled=labelled)
        return burst._replace(windows=burst.windows._replace(faces=faces))

    monkeypatch.setattr(measure_module, "burst_windows", unlabelled_within)
    part = measure(Experiment("clips", network[0], (CLIPS,)), network[1], data_dir)["clips"]
    assert set(part["carried"]["nme"]) == {"clips", "clips-halved"}


def halves(windows):
    """Returns the slices of the first clip's frames and of the second's."""
    first = int((windows.frames[0] >= 0).sum())
    return slice(0, first), slice(first, None)


def test_both_readouts_are_in_pixels_of_the_crop(narrow):
    """The first pass sees the central 64 of 96 pixels, from pixel 16."""
    config = narrow("compact", recrop="shift_scale", context=1.5)
    variables = init(config, jax.random.key(0))
    crops = np.random.default_rng(0).integers(0, 255, (2, 96, 96, 3), np.uint8)
    ((regressed,), (mapped,)) = _both_readouts(config, variables, crops, 1)
    images = crops.astype(np.float32) / 255
    out, _ = align_image(config, variables, images, feedback_steps=1)
    np.testing.assert_allclose(regressed, out.landmarks, atol=1e-3)
    on_crop = to_crop_pixels(soft_argmax(out.response_maps[..., 1:]), 64, config.map_size)
    np.testing.assert_allclose(mapped, on_crop + 16, atol=1e-3)


def test_points_that_are_not_finite_raise(network, tmp_path):
    data_dir = prepare_300w(tmp_path, train=1, validation=1)
    broken = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan), network[1])
    experiment = Experiment("pictures", network[0], (Stage(steps=600),))
    with pytest.raises(RednetError, match="points with boxes 'truth': not finite"):
        measure(dataclasses.replace(experiment), broken, data_dir)
