"""Evaluation of a run's best weights on its validation data, per face and per clip."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rednet_jax.ablate.plan import (
    BURSTS,
    CLIPS,
    FEEDBACK_STEPS,
    IMAGES,
    VIDEOS,
    On,
    Readout,
    Video,
)
from rednet_jax.compiler_options import inference_options
from rednet_jax.data.sources import holds_clips, read_split
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.burst_windows import BurstWindows, burst_windows
from rednet_jax.evaluate.clips import (
    ClipWindows,
    Followed,
    Track,
    clip_windows,
    follow,
    smoothed,
    track_of,
)
from rednet_jax.evaluate.corrupt import BURST_KINDS
from rednet_jax.evaluate.metrics import face_errors
from rednet_jax.evaluate.protocols import Boxes, Crops, crop_split, in_image
from rednet_jax.inference.predict import BATCH
from rednet_jax.landmarks.normalisers import measurable, normaliser_text
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.network import PassOutput
from rednet_jax.model.recrop import on_image
from rednet_jax.train.experiment import DataConfig, Experiment, GeneratedData, Stage
from rednet_jax.train.inputs import generated_crops

Floats = NDArray[np.floating]

GENERATED = "generated faces"

_DIGITS = 4
"""Decimal digits of percent: far more precise than the differences of faces, for small files."""

_STRIDE = dict(zip(CLIPS, (1, 2), strict=True))


def measure(
    experiment: Experiment, variables: dict[str, Any], data_dir: Path | None = None
) -> dict[str, Any]:
    """Evaluates weights on every validation split of an experiment's stages.

    Args:
        experiment: of the run.
        variables: its weights.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.

    Returns:
        Plain JSON: `normaliser`; `pictures`, with `data` (the splits), `names` of the N faces and
        `errors`, percent, by boxes, readout and K [N]; and if the last stage has clips `clips`,
        with `data`, `names` of the N clips and, by `plan.Video`, `nme` and `jitter`, percent, by
        `plan.VIDEO` and K [N]; bursts have no jitter. Faces that cannot be measured are left out.

    Raises:
        RednetError: data that cannot be read, or points that are not finite.
    """
    result: dict[str, Any] = {"normaliser": normaliser_text(experiment.model.scheme)}
    stages = [_images(stage) for stage in experiment.stages]
    splits = list(dict.fromkeys(split for split in stages if split is not None))
    if splits:
        result["pictures"] = _on_images(experiment, variables, splits, data_dir)
    if (place := _clips(experiment.stages[-1])) is not None:
        result["clips"] = _on_clips(experiment, variables, place, data_dir)
    return result


def _images(stage: Stage) -> str | GeneratedData | None:
    """Returns the validation data of a stage if they are images, else None."""
    if isinstance(stage.data, GeneratedData):
        return stage.data
    return None if holds_clips(stage.data.validation.split("/")[0]) else stage.data.validation


def _clips(stage: Stage) -> str | None:
    """Returns the validation split of a stage's clips: its own, or that of its training clips."""
    if stage.clips is None or not isinstance(stage.data, DataConfig):
        return None
    for place in (stage.data.validation, *stage.data.train):
        if holds_clips(name := place.split("/")[0]):
            return stage.data.validation if place == stage.data.validation else f"{name}/validation"
    return None


def _on_images(
    experiment: Experiment,
    variables: dict[str, Any],
    splits: Sequence[str | GeneratedData],
    data_dir: Path | None,
) -> dict[str, Any]:
    model = experiment.model
    # The crops of generated faces are displaced when they are drawn, so boxes are not varied.
    drawn = any(isinstance(split, GeneratedData) for split in splits)
    names: list[str] = []
    errors: dict[str, dict[Readout, Floats]] = {}
    for on in IMAGES[:1] if drawn else IMAGES:
        names, parts = [], []
        for split in splits:
            crops = _crops(experiment, split, on, data_dir)
            known = measurable(crops.labelled, crops.scheme, boxed=True)
            place = GENERATED if isinstance(split, GeneratedData) else split
            names += [f"{place}/{n}" for n, k in zip(crops.names, known, strict=True) if k]
            points = _both_readouts(model, variables, crops.images, FEEDBACK_STEPS[on][-1])
            predicted = in_image(crops, points)
            shape = predicted.shape[:2]
            truth = np.broadcast_to(crops.landmarks, predicted.shape)
            labelled = np.broadcast_to(crops.labelled, (*shape, *crops.labelled.shape))
            face_boxes = np.broadcast_to(crops.boxes, (*shape, *crops.boxes.shape))
            nmes = face_errors(predicted, truth, crops.scheme, labelled, boxes=face_boxes)
            parts.append(nmes[..., known])
        both = _finite(np.concatenate(parts, axis=-1), f"points with boxes '{on}'")
        errors[on] = {"regression": both[0], "maps": both[1]}
    return {
        "data": [GENERATED if isinstance(s, GeneratedData) else s for s in splits],
        "names": names,
        "errors": {
            on: {readout: _plain(values) for readout, values in by_readout.items()}
            for on, by_readout in errors.items()
        },
    }


def _crops(
    experiment: Experiment, split: str | GeneratedData, on: Any, data_dir: Path | None
) -> Crops:
    if isinstance(split, GeneratedData):
        # The same faces for every seed, since arms are compared per face over seeds.
        return generated_crops(dataclasses.replace(experiment, seed=0), split, split.validation)
    name, part = split.split("/")
    boxes: Boxes = on
    return crop_split(read_split(name, part, data_dir), experiment.model, boxes)


def _map_landmarks(output: PassOutput, targets: None) -> jax.Array:
    del targets
    return on_image(output.crop, output.map_landmarks)


@functools.cache
def _compiled() -> jax.stages.Wrapped:
    return jax.jit(_per_step, static_argnums=(0, 3), compiler_options=inference_options())


def _per_step(
    config: RedNetConfig, variables: dict[str, Any], crops: jax.Array, feedback_steps: int
) -> jax.Array:
    images = crops.astype(jnp.float32) / 255
    out, _ = rednet.align_image(
        config, variables, images, feedback_steps=feedback_steps, loss=_map_landmarks
    )
    return jnp.stack([out.per_step.landmarks, out.per_step.losses])


def _both_readouts(
    config: RedNetConfig, variables: dict[str, Any], crops: NDArray[np.uint8], feedback_steps: int
) -> Floats:
    """Returns points [2, K, N, L, 2] of each pass, crop pixels: of f_REG, and of the maps."""
    batch = min(BATCH, len(crops))
    batches = []
    # Otherwise, every batch would copy the variables to the device.
    variables = jax.device_put(variables)
    for start in range(0, len(crops), batch):
        part = crops[start : start + batch]
        full = np.zeros((batch, *crops.shape[1:]), np.uint8)
        full[: len(part)] = part
        batches.append(np.asarray(_compiled()(config, variables, full, feedback_steps)))
    return np.concatenate(batches, axis=2)[:, :, : len(crops)]


def _on_clips(
    experiment: Experiment, variables: dict[str, Any], place: str, data_dir: Path | None
) -> dict[str, Any]:
    model, data = experiment.model, experiment.stages[-1].data
    assert isinstance(data, DataConfig)
    name, split = place.split("/")
    margin, size = model.crop_margin * data.cover, data.cached_size
    windows = clip_windows(name, split, margin=margin, size=size, data_dir=data_dir)
    clips = [windows.faces.names[first].rpartition("/")[0] for first in windows.frames[:, 0]]
    names = list(dict.fromkeys(clips))
    result: dict[str, Any] = {
        "data": [place],
        "names": [f"{place}/{clip}" for clip in names],
        **{video: {"nme": {}, "jitter": {}} for video in VIDEOS},
    }

    def note(figure: str, on: On, rows: dict[Video, list[Floats]]) -> None:
        for video, of_steps in rows.items():
            values = _finite(np.stack(of_steps), f"{figure} of {on}")
            result[video][figure][on] = _plain(values)

    for on in CLIPS:
        # The same windows at two strides, so that their difference is the speed of heads.
        strided = ClipWindows(windows.faces, windows.frames[:, :: _STRIDE[on]])
        nme: dict[Video, list[Floats]] = {video: [] for video in VIDEOS}
        jitters: dict[Video, list[Floats]] = {video: [] for video in VIDEOS}
        for steps in FEEDBACK_STEPS[on]:
            for video, track in _tracks(model, variables, strided, steps).items():
                nme[video].append(_by_clip(strided, clips, track))
                of_clips = [track.jitters[np.asarray(clips) == clip] for clip in names]
                jitters[video].append(np.array([np.nanmean(one) for one in of_clips]))
        note("nme", on, nme)
        note("jitter", on, jitters)
    if (windows.frames < 0).any():
        # A window that is cut off has no room for a burst.
        return result
    within: dict[Video, list[Floats]] = {video: [] for video in VIDEOS}
    after: dict[Video, list[Floats]] = {video: [] for video in VIDEOS}
    for kind in BURST_KINDS:
        burst = burst_windows(windows, kind, margin=margin)
        for video, track in _tracks(model, variables, burst.windows, 1).items():
            if not _all_labelled(burst, clips, track):
                return result
            within[video].append(_by_clip(burst.windows, clips, track, burst.within))
            after[video].append(_by_clip(burst.windows, clips, track, burst.after))
    # Means over the kinds.
    for on, rows in zip(BURSTS, (within, after), strict=True):
        note("nme", on, {video: [np.mean(kinds, axis=0)] for video, kinds in rows.items()})
    return result


def _tracks(
    config: RedNetConfig, variables: dict[str, Any], windows: ClipWindows, feedback_steps: int
) -> dict[Video, Track]:
    """Returns the track of each way of following the windows."""
    carried = follow(config, variables, windows, feedback_steps)
    alone = follow(config, variables, windows, feedback_steps, carry="nothing")
    ways: dict[Video, Followed] = {
        "carried": carried,
        "alone": alone,
        "smoothed": smoothed(config, windows, alone),
    }
    return {video: track_of(config, windows, followed) for video, followed in ways.items()}


def _all_labelled(burst: BurstWindows, clips: Sequence[str], track: Track) -> bool:
    """Whether every clip has labelled frames in its bursts and after them.

    Without them a clip has no error. Labels are the same for every arm, so all arms of an ablation
    are measured on bursts, or none.
    """
    owner = np.asarray(clips)
    known = track.known.reshape(burst.within.shape)
    return all(
        (known & part)[owner == clip].any()
        for clip in set(clips)
        for part in (burst.within, burst.after)
    )


def _by_clip(
    windows: ClipWindows,
    clips: Sequence[str],
    track: Track,
    part: NDArray[np.bool_] | None = None,
) -> Floats:
    """NME [N] of each clip, percent, over all its windows, or over a part [W, T] of their frames.

    `clips` [W] names the clip of each window.
    """
    there = windows.frames >= 0
    owner = np.repeat(clips, there.sum(1))
    counted = track.known if part is None else track.known & part[there]
    return np.array(
        [track.errors[counted & (owner == clip)].mean() for clip in dict.fromkeys(clips)]
    )


def _finite(values: Floats, what: str) -> Floats:
    if not np.isfinite(values).all():
        raise RednetError(f"{what}: not finite")
    return values


def _plain(values: Floats) -> list[list[float]]:
    """Returns [K, N] as rounded lists."""
    rounded: list[list[float]] = np.round(values.astype(np.float64), _DIGITS).tolist()
    return rounded
