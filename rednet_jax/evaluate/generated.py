"""The error on generated faces by pose, light and exposure, which are set exactly.

Each face is drawn once for every setting: the same person with the same expression and camera,
frontal except for the one property that the setting changes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.builders.synthetic import config as synthetic_config
from rednet_jax.data.samples import Sample
from rednet_jax.data.sources import Split
from rednet_jax.data.synthetic.generate import generate
from rednet_jax.data.synthetic.head import Motion
from rednet_jax.data.synthetic.scene import Scene
from rednet_jax.evaluate.bootstrap import bootstrap_interval
from rednet_jax.evaluate.figures import LEVEL
from rednet_jax.evaluate.labels import face_labels
from rednet_jax.evaluate.metrics import face_errors
from rednet_jax.evaluate.protocols import answer_split
from rednet_jax.evaluate.slices import estimated_yaw
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.builtin import HEAD70
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform, invert_affine
from rednet_jax.landmarks.drawing import contact_sheet, draw_landmarks, write_image
from rednet_jax.landmarks.normalisers import Normaliser, normaliser_text
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.weights.store import Checkpoint, network_of

FACES = 60

SEED = 2
"""Of the faces; the prepared splits use 0 and 1."""

_HARD = (0.2, 1.2, 0.0)
"""Ambient light, main light and its wrap-around for a set light: the hardest that is drawn."""

_MIDDLE_EXPOSURE, _EXPOSURES, _DARKEST = 0.355, 0.35, 0.18
"""The generator's exposure is _DARKEST + _EXPOSURES * u, with u in [0, 1]."""

_TILE, _TILE_MARGIN, _COLUMNS = 128, 1.7, 8


class Setting(NamedTuple):
    """A property of generated faces and its value.

    Attributes:
        varied: 'yaw', 'pitch', 'roll', 'light', 'exposure', or 'nothing'.
        value: degrees, stops, or a name of the light's direction.
        angles: yaw, pitch and roll, degrees; positive turns the nose to the image's right, the face
            upwards, and the head clockwise in the image.
        light: direction towards a hard light (x to the right, y down, z to the camera), any length;
            None for the drawn light.
        stops: exposure above the middle of the generator's range; None for the drawn exposure.
    """

    varied: str
    value: float | str
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0)
    light: tuple[float, float, float] | None = None
    stops: float | None = None


LIGHTS = {
    "the front": (0.0, -0.3, 1.0),
    "above": (0.0, -1.0, 0.2),
    "below": (0.0, 1.0, 0.2),
    "the side": (1.0, -0.2, 0.1),
    "behind": (0.6, -0.5, -0.6),
}

SETTINGS = (
    Setting("nothing", 0),
    *(Setting("yaw", a, (a, 0, 0)) for a in (-60, -45, -30, -15, 15, 30, 45, 60)),
    *(Setting("pitch", a, (0, a, 0)) for a in (-45, -30, -15, 15, 30, 45)),
    *(Setting("roll", a, (0, 0, a)) for a in (15, 30, 45, 60, 90, 180)),
    *(Setting("light", name, light=light) for name, light in LIGHTS.items()),
    *(Setting("exposure", stops, stops=stops) for stops in (-10, -8, -6, -4, -2, 2, 4)),
)


def draw_setting(setting: Setting, faces: int = FACES) -> Split[Sample]:
    """Returns a split of generated faces, the same people for every setting."""
    unset = (np.nan,) * 3
    images, landmarks = _drawn(
        np.radians(np.array(setting.angles, np.float32)),
        np.array(setting.light or unset, np.float32),
        np.float32(np.nan if setting.stops is None else setting.stops),
        faces,
    )
    pixels = np.rint(np.asarray(images) * 255).astype(np.uint8)
    points = np.asarray(landmarks)

    def sample(face: int) -> Sample:
        return Sample(
            image=pixels[face],
            landmarks=points[face],
            labelled=np.ones(len(points[face]), bool),
            box=landmark_box(points[face]),
            name=f"{face:05d}",
        )

    return Split("synthetic", f"{setting.varied} {setting.value}", "", range(faces), sample, HEAD70)


@functools.partial(jax.jit, static_argnums=3)
def _drawn(
    angles: jax.Array, light: jax.Array, stops: jax.Array, faces: int
) -> tuple[jax.Array, jax.Array]:
    """Returns images [N, S, S, 3] and landmarks [N, 70, 2]; nan keeps the drawn light or exposure.

    The settings are traced, so that all of them share one compiled program.
    """

    def arrange(motion: Motion, scene: Scene) -> tuple[Motion, Scene]:
        hard = scene.levels.at[jnp.array([0, 1, 3])].set(jnp.array(_HARD))
        is_set = jnp.isfinite(light).all()
        exposure = (_MIDDLE_EXPOSURE * 2**stops - _DARKEST) / _EXPOSURES
        scene = scene._replace(
            light=jnp.where(is_set, light / jnp.linalg.norm(light), scene.light),
            levels=jnp.where(is_set, hard, scene.levels),
            grade=scene.grade.at[0].set(jnp.where(jnp.isnan(stops), scene.grade[0], exposure)),
        )
        return motion._replace(angles=angles), scene

    def draw(face: jax.Array) -> tuple[jax.Array, jax.Array]:
        key = jax.random.fold_in(jax.random.key(SEED), face)
        return generate(synthetic_config(), key, arrange)

    drawn: tuple[jax.Array, jax.Array] = jax.lax.map(draw, jnp.arange(faces))
    return drawn


def measure_generated(
    checkpoint: Checkpoint,
    *,
    settings: Sequence[Setting] = SETTINGS,
    faces: int = FACES,
    feedback_steps: Sequence[int] = (1, 3),
    sheet: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Evaluates a checkpoint of 68 points on generated faces, with crops around their exact points.

    Args:
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        settings: to evaluate.
        faces: N, the same people for every setting.
        feedback_steps: all K to measure.
        sheet: PNG file with the face of the largest error of each setting, at the largest K.
        report: called with (done, total) after each setting.

    Returns:
        `faces`, `seed`, `level` of the intervals, `normalisers`, and `settings`: a row for each
        with `varied`, `value`, `estimated_yaw` (mean and standard deviation of `estimated_yaw` of
        the exact points, degrees) and `per_step`: for each K `feedback_steps`, `nme`
        (inter-ocular) with its `interval`, `above_10`, the percentage of faces above 10 %, and
        `nme_of_diagonal`, in percent of the box's diagonal, which does not shrink as a head turns.

    Raises:
        RednetError: a bad checkpoint, or a sheet that cannot be written.
    """
    config, variables = network_of(checkpoint)
    rows, captions, tiles = [], [], []
    for done, setting in enumerate(settings, 1):
        samples = draw_setting(setting, faces)
        labels = face_labels(samples.split, samples, config.scheme)
        answers = answer_split(config, variables, samples, labels, max(feedback_steps))

        def errors(landmarks: NDArray[np.floating], normaliser: Normaliser) -> Any:
            return face_errors(landmarks, labels.landmarks, config.scheme, None, normaliser)  # noqa: B023

        per_step = []
        for steps in feedback_steps:
            own = errors(answers[steps - 1], "inter-ocular")
            per_step.append(
                {
                    "feedback_steps": steps,
                    "nme": float(own.mean()),
                    "interval": list(bootstrap_interval(own, level=LEVEL)),
                    "above_10": float(100 * (own > 10).mean()),
                    "nme_of_diagonal": float(errors(answers[steps - 1], "box-diagonal").mean()),
                }
            )
        yaws = estimated_yaw(labels.landmarks)
        rows.append(
            {
                "varied": setting.varied,
                "value": setting.value,
                "estimated_yaw": [float(yaws.mean()), float(yaws.std())],
                "per_step": per_step,
            }
        )
        worst = int(np.argmax(own))
        captions.append(f"{samples.split}: {own[worst]:.0f} %")
        tiles.append(_tile(samples[worst], answers[-1, worst], config.scheme))
        report(done, len(settings))
    if sheet is not None:
        write_image(sheet, contact_sheet(captions, [tiles], _COLUMNS))
    return {
        "faces": faces,
        "seed": SEED,
        "level": LEVEL,
        "normalisers": [
            normaliser_text(config.scheme, name) for name in ("inter-ocular", "box-diagonal")
        ],
        "settings": rows,
    }


def _tile(sample: Sample, landmarks: NDArray[np.floating], scheme: Scheme) -> NDArray[np.uint8]:
    """Returns a tile [S, S, 3] of the face with landmarks [L, 2], in pixels of its image."""
    affine = crop_transform(sample.box, margin=_TILE_MARGIN, size=_TILE)
    points = apply_affine(invert_affine(affine), landmarks)
    return draw_landmarks(crop_image(sample.image, affine, _TILE), points, scheme)
