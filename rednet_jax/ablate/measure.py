"""A run's best weights on its own validation faces and clips, face by face and clip by clip."""

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

from rednet_jax.ablate.plan import CLIPS, FEEDBACK_STEPS, IMAGES, Readout
from rednet_jax.data.sources import holds_clips, read_split
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.clips import ClipWindows, clip_windows, follow, track_of
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
"""Of percent: far below what faces differ by, and the files stay small."""

_STRIDE = dict(zip(CLIPS, (1, 2), strict=True))


def measure(
    experiment: Experiment, variables: dict[str, Any], data_dir: Path | None = None
) -> dict[str, Any]:
    """Measures weights on every validation split of an experiment's stages.

    Args:
        experiment: of the run.
        variables: its weights.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.

    Returns:
        Plain JSON: `normaliser`; `pictures`, with `data` (the splits), `names` of the N faces and
        `errors`, percent, by boxes, readout and K [N]; and of an experiment that ends with clips
        `clips`, with `data`, `names` of the N clips and `nme` and `jitter`, percent, by `clips` or
        `clips-halved` and K [N]. Faces that cannot be measured are left out.

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
    """What a stage is validated on, where that is images."""
    if isinstance(stage.data, GeneratedData):
        return stage.data
    return None if holds_clips(stage.data.validation.split("/")[0]) else stage.data.validation


def _clips(stage: Stage) -> str | None:
    """The validation split of clips that is a stage's own, or that of clips it is trained on."""
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
    # Generated faces are displaced as they are drawn; they have no box to displace.
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
            found = in_image(crops, points)
            shape = found.shape[:2]
            truth = np.broadcast_to(crops.landmarks, found.shape)
            labelled = np.broadcast_to(crops.labelled, (*shape, *crops.labelled.shape))
            face_boxes = np.broadcast_to(crops.boxes, (*shape, *crops.boxes.shape))
            errors_of = face_errors(found, truth, crops.scheme, labelled, boxes=face_boxes)
            parts.append(errors_of[..., known])
        both = _finite(np.concatenate(parts, axis=-1), f"points with boxes '{on}'")
        errors[on] = {"regression": both[0], "maps": both[1]}
    return {
        "data": [GENERATED if isinstance(s, GeneratedData) else s for s in splits],
        "names": names,
        "errors": {
            on: {readout: _plain(values) for readout, values in of.items()}
            for on, of in errors.items()
        },
    }


def _crops(
    experiment: Experiment, split: str | GeneratedData, on: Any, data_dir: Path | None
) -> Crops:
    if isinstance(split, GeneratedData):
        # The same faces for every seed: only then are arms compared face by face over seeds.
        return generated_crops(dataclasses.replace(experiment, seed=0), split, split.validation)
    name, part = split.split("/")
    boxes: Boxes = on
    return crop_split(read_split(name, part, data_dir), experiment.model, boxes)


def _map_landmarks(output: PassOutput, targets: None) -> jax.Array:
    del targets
    return on_image(output.crop, output.map_landmarks)


@functools.partial(jax.jit, static_argnums=(0, 3))
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
    """Points [2, K, N, L, 2] of each pass in crop pixels: of f_REG, and read off the maps."""
    batch = min(BATCH, len(crops))
    found = []
    for start in range(0, len(crops), batch):
        part = crops[start : start + batch]
        full = np.zeros((batch, *crops.shape[1:]), np.uint8)
        full[: len(part)] = part
        found.append(np.asarray(_per_step(config, variables, full, feedback_steps)))
    return np.concatenate(found, axis=2)[:, :, : len(crops)]


def _on_clips(
    experiment: Experiment, variables: dict[str, Any], place: str, data_dir: Path | None
) -> dict[str, Any]:
    model, data = experiment.model, experiment.stages[-1].data
    assert isinstance(data, DataConfig)
    name, split = place.split("/")
    margin, size = model.crop_margin * data.cover, data.cached_size
    windows = clip_windows(name, split, margin=margin, size=size, data_dir=data_dir)
    result: dict[str, Any] = {"data": [place], "nme": {}, "jitter": {}}
    for on in CLIPS:
        # The same stretches: a comparison of both is one of how fast heads move.
        some = ClipWindows(windows.faces, windows.frames[:, :: _STRIDE[on]])
        rows = [_by_clip(model, variables, some, steps) for steps in FEEDBACK_STEPS[on]]
        result["names"] = [f"{place}/{clip}" for clip in rows[0][0]]
        for number, figure in enumerate(("nme", "jitter"), 1):
            values = np.stack([row[number] for row in rows])
            result[figure][on] = _plain(_finite(values, f"{figure} of {on}"))
    return result


def _by_clip(
    config: RedNetConfig, variables: dict[str, Any], windows: ClipWindows, feedback_steps: int
) -> tuple[list[str], Floats, Floats]:
    """Names of the N clips, and NME and jitter [N] of each, percent, over all its stretches."""
    track = track_of(config, windows, follow(config, variables, windows, feedback_steps))
    clips = [windows.faces.names[first].rpartition("/")[0] for first in windows.frames[:, 0]]
    owner = np.repeat(clips, (windows.frames >= 0).sum(1))
    names = list(dict.fromkeys(clips))
    nme = [track.errors[track.known & (owner == clip)].mean() for clip in names]
    shake = [np.nanmean(track.jitters[np.asarray(clips) == clip]) for clip in names]
    return names, np.asarray(nme), np.asarray(shake)


def _finite(values: Floats, what: str) -> Floats:
    if not np.isfinite(values).all():
        raise RednetError(f"{what}: not finite")
    return values


def _plain(values: Floats) -> list[list[float]]:
    """[K, N] as lists."""
    rounded: list[list[float]] = np.round(values.astype(np.float64), _DIGITS).tolist()
    return rounded
