"""Linear probes of the two halves of the code, C_id and C_pe, on held-out people.

The papers split the code C: C_id should encode identity, C_pe pose and expression. The network is
frozen, and a linear map is fitted on each half alone. The pose and expression of generated faces
are known exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.sources import read_split
from rednet_jax.data.synthetic.generate import SyntheticConfig, generate
from rednet_jax.data.synthetic.head import Motion
from rednet_jax.data.synthetic.scene import Scene, draw_scene
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.bootstrap import bootstrap_interval, paired_interval
from rednet_jax.evaluate.figures import LEVEL
from rednet_jax.landmarks.boxes import whole_face_box
from rednet_jax.landmarks.crops import crop_image, crop_transform
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import Checkpoint, network_of

Floats = NDArray[np.float64]

HALVES = ("C_id", "C_pe")
TARGETS = ("yaw", "pitch", "roll", "open", "smile", "pucker", "brows", "eyes closed")
"""Targets on generated faces: angles of the head, then expressions as in `head.Motion`."""

MEANS = {"pose": TARGETS[:3], "expression": TARGETS[3:]}
"""Means over several targets, which are reported as further rows."""

PEOPLE, FACES = 240, 6
SEED = 4
"""Of the people; other evaluations on generated faces use 0 to 3."""

_ANGLES = (40.0, 20.0, 20.0)
_LOW, _HIGH = (0.0, -0.5, 0.0, -0.5, 0.0), (1.0, 1.0, 1.0, 1.0, 1.0)
_PENALTIES = 10.0 ** np.arange(-3, 4)
_SHRINKAGE = 0.1
_BATCH = 32


def measure_probes(
    checkpoint: Checkpoint,
    *,
    people: int = PEOPLE,
    faces: int = FACES,
    data_dir: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Fits and scores the probes of a checkpoint.

    Each half of the code of the first pass is averaged over space, as f_CLS takes C_id.

    Pose and expression: ridge regression, fitted on two thirds of the generated people and scored
    on the others; the penalty is chosen on a part of the former.

    Identity: verification whether two faces show one person, by the cosine similarity of their
    halves, which are centred and whitened by the covariance within people. The whitening is fitted
    on LFW's training people (two photographs each) and scored on its validation people, and
    likewise on generated people.

    Args:
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        people: number of generated people, at least 6.
        faces: number of faces per person, at least 2.
        data_dir: the folder of prepared data, which must contain lfw; None for $REDNET_JAX_DATA or
            ~/.cache/rednet_jax.
        report: called with (done, total) after each of three steps.

    Returns:
        `level` of the intervals, `people`, `faces`, `seed`. `regression`, a row for each of
        `TARGETS` and `MEANS`: `target`, `unexplained` by half (the squared error on held-out people
        divided by the target's variance: 0 is exact, 1 is the error of the mean), `intervals`, and
        `difference`, the interval of C_pe's minus C_id's. `verification`, a row for each of `lfw`
        and `generated`: `faces_of`, `people`, `pairs`, and by half `equal_error_rate` and
        `confusion` (fraction of pairs of two people with a higher similarity than a pair of one
        person: 0 is perfect, 0.5 is chance) with `intervals`, and `difference`, the interval of
        C_id's minus C_pe's.

    Raises:
        RednetError: a checkpoint that cannot be read, too few people or faces, or lfw is not
            prepared.
    """
    if people < 6 or faces < 2:
        raise RednetError(f"{people} people with {faces} faces each cannot be split; 6 with 2 can")
    config, variables = network_of(checkpoint)
    photographs = {part: _photographs(config, part, data_dir) for part in ("train", "validation")}
    crops, targets = draw_people(config, people, faces)
    report(1, 3)
    owner = np.repeat(np.arange(people), faces)
    fitted = owner < people * 2 // 3
    generated = halves_of_codes(config, variables, crops)
    errors = {
        name: _regression_errors(generated, targets[:, i], owner, fitted)
        for i, name in enumerate(TARGETS)
    }
    for name, parts in MEANS.items():
        errors[name] = {
            half: np.mean([errors[part][half] for part in parts], axis=0) for half in HALVES
        }
    regression = [_regressed(name, values, owner[~fitted]) for name, values in errors.items()]
    report(2, 3)
    codes = {
        part: (halves_of_codes(config, variables, images), names)
        for part, (images, names) in photographs.items()
    }
    drawn = {
        part: ({half: rows[which] for half, rows in generated.items()}, owner[which])
        for part, which in (("train", fitted), ("validation", ~fitted))
    }
    verification = [_verified("lfw", **codes), _verified("generated", **drawn)]
    report(3, 3)
    return {
        "level": LEVEL,
        "people": people,
        "faces": faces,
        "seed": SEED,
        "regression": regression,
        "verification": verification,
    }


def halves_of_codes(
    config: RedNetConfig, variables: dict[str, Any], crops: NDArray[np.uint8]
) -> dict[str, Floats]:
    """Returns the spatial means of both halves of the code, float64 [N, code_width / 2] each.

    Args:
        config: of the network.
        variables: of the network.
        crops: uint8 [N, S, S, 3], S = config.input_size.
    """
    codes = []
    for start in range(0, len(crops), _BATCH):
        part = crops[start : start + _BATCH]
        full = np.zeros((_BATCH, *crops.shape[1:]), np.float32)
        full[: len(part)] = part / np.float32(255)
        code = rednet.encode(config, variables, jnp.asarray(full))
        codes.append(np.asarray(code.mean((1, 2)), np.float64)[: len(part)])
    first, second = np.split(np.concatenate(codes), 2, axis=1)
    return dict(zip(HALVES, (first, second), strict=True))


def draw_people(config: RedNetConfig, people: int, faces: int) -> tuple[NDArray[np.uint8], Floats]:
    """Returns generated faces, person by person.

    Every face has an independent pose, expression and scene. Crops are cut around the landmarks,
    without displacement.

    Returns:
        uint8 [people * faces, S, S, 3], S = config.input_size, and `TARGETS` float64 [..., 8]:
        angles in degrees.
    """
    drawn = SyntheticConfig(
        size=config.input_size, margin=config.input_margin, shift=0.0, log_scale=0.0
    )

    @functools.partial(jax.jit, static_argnums=1)
    def of_person(person: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        key = jax.random.fold_in(jax.random.key(SEED), person)
        who, how = jax.random.split(key)

        def face(index: jax.Array) -> tuple[jax.Array, jax.Array]:
            pose, mimic, where = jax.random.split(jax.random.fold_in(how, index), 3)
            angles = jax.random.uniform(pose, (3,), minval=-1) * jnp.array(_ANGLES)
            low, high = jnp.array(_LOW), jnp.array(_HIGH)
            expression = low + (high - low) * jax.random.uniform(mimic, (5,))

            def arrange(motion: Motion, scene: Scene) -> tuple[Motion, Scene]:
                del scene
                opened, smile, pucker, brows, closed = expression
                posed = motion._replace(
                    angles=jnp.radians(angles),
                    open=opened,
                    smile=smile,
                    pucker=pucker,
                    brows=brows,
                    closed=jnp.full(2, closed),
                )
                return posed, draw_scene(where, drawn.size, drawn.occlusion)

            image, _ = generate(drawn, who, arrange)
            pixels = jnp.round(255 * image).astype(jnp.uint8)
            return pixels, jnp.concatenate([angles, expression])

        rows: tuple[jax.Array, jax.Array] = jax.lax.map(face, jnp.arange(count))
        return rows

    parts = [of_person(jnp.int32(person), faces) for person in range(people)]
    images, targets = (np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(2))
    return images, targets.astype(np.float64)


def _photographs(
    config: RedNetConfig, part: str, data_dir: Path | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns crops and identities of fully labelled LFW faces, of people with at least two."""
    samples = read_split("lfw", part, data_dir)
    crops, names = [], []
    for sample in samples:
        if not sample.labelled.all():
            continue
        box = whole_face_box(sample.landmarks, samples.scheme)
        affine = crop_transform(box, margin=config.input_margin, size=config.input_size)
        crops.append(crop_image(sample.image, affine, config.input_size))
        names.append(sample.identity)
    owner = np.asarray(names, np.int64)
    people, counts = np.unique(owner, return_counts=True)
    kept = np.isin(owner, people[counts > 1])
    if kept.sum() < 6:
        raise RednetError(f"lfw/{part}: fewer than three people have two labelled photographs")
    return np.stack(crops)[kept], owner[kept]


def _regression_errors(
    codes: dict[str, Floats],
    target: Floats,
    owner: NDArray[np.int64],
    fitted: NDArray[np.bool_],
) -> dict[str, Floats]:
    """Returns squared errors by half on held-out faces, divided by the target's variance there."""
    variance = target[~fitted].var()
    # The penalty is chosen on the last third of the people for fitting.
    inner = fitted & (owner < owner[fitted].max() * 2 // 3)
    errors: dict[str, Floats] = {}
    for half, rows in codes.items():
        outer = fitted & ~inner
        validation = [
            _ridge(rows[inner], target[inner], rows[outer], penalty) - target[outer]
            for penalty in _PENALTIES
        ]
        losses = [np.square(difference).mean() for difference in validation]
        chosen = _PENALTIES[int(np.argmin(losses))]
        predicted = _ridge(rows[fitted], target[fitted], rows[~fitted], chosen)
        errors[half] = np.square(predicted - target[~fitted]) / variance
    return errors


def _regressed(name: str, errors: dict[str, Floats], groups: NDArray[np.int64]) -> dict[str, Any]:
    """Returns a row of `regression`; `groups` [N] are the people of the errors."""
    return {
        "target": name,
        "unexplained": {half: float(values.mean()) for half, values in errors.items()},
        "intervals": {
            half: list(bootstrap_interval(values, groups, level=LEVEL))
            for half, values in errors.items()
        },
        "difference": list(paired_interval(errors["C_pe"], errors["C_id"], groups, level=LEVEL)),
    }


def _ridge(rows: Floats, target: Floats, others: Floats, penalty: float) -> Floats:
    """Fits target [N] on rows [N, F] and returns the predictions [M] for others [M, F]."""
    mean, deviation = rows.mean(0), rows.std(0) + 1e-9
    scaled = (rows - mean) / deviation
    gram = scaled.T @ scaled + penalty * len(rows) * np.eye(rows.shape[1])
    weights = np.linalg.solve(gram, scaled.T @ (target - target.mean()))
    predicted: Floats = (others - mean) / deviation @ weights + target.mean()
    return predicted


def _verified(
    faces_of: str,
    train: tuple[dict[str, Floats], NDArray[np.int64]],
    validation: tuple[dict[str, Floats], NDArray[np.int64]],
) -> dict[str, Any]:
    """Returns a row of `verification`."""
    codes, owner = validation
    same = owner[:, None] == owner
    first, second = np.nonzero(np.triu(same, 1))
    confusion: dict[str, Floats] = {}
    error: dict[str, float] = {}
    for half, rows in codes.items():
        mean, whitening = _within_people(train[0][half], train[1])
        moved = (rows - mean) @ whitening
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        alike = moved @ moved.T
        others = np.sort(alike[np.triu(~same, 1)])
        pairs = alike[first, second]
        confusion[half] = 1 - np.searchsorted(others, pairs) / len(others)
        error[half] = _equal_error_rate(pairs, others)
    groups = owner[first]
    return {
        "faces_of": faces_of,
        "people": len(np.unique(owner)),
        "pairs": len(first),
        "equal_error_rate": error,
        "confusion": {half: float(values.mean()) for half, values in confusion.items()},
        "intervals": {
            half: list(bootstrap_interval(values, groups, level=LEVEL))
            for half, values in confusion.items()
        },
        "difference": list(
            paired_interval(confusion["C_id"], confusion["C_pe"], groups, level=LEVEL)
        ),
    }


def _within_people(rows: Floats, owner: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Returns the mean, and the whitening of the shrunk covariance within people."""
    centred = rows.copy()
    for person in np.unique(owner):
        centred[owner == person] -= rows[owner == person].mean(0)
    covariance = centred.T @ centred / len(rows)
    size = len(covariance)
    shrunk = (1 - _SHRINKAGE) * covariance
    shrunk += _SHRINKAGE * np.trace(covariance) / size * np.eye(size)
    values, vectors = np.linalg.eigh(shrunk)
    whitening: Floats = vectors / np.sqrt(values)
    return rows.mean(0), whitening


def _equal_error_rate(pairs: Floats, others: Floats) -> float:
    """Returns the error rate at the threshold where false rejections equal false acceptances.

    Args:
        pairs: similarities of pairs of one person.
        others: similarities of pairs of two people, ascending.
    """
    thresholds = np.sort(np.concatenate([pairs, others]))
    rejected = np.searchsorted(np.sort(pairs), thresholds) / len(pairs)
    accepted = 1 - np.searchsorted(others, thresholds) / len(others)
    best = int(np.argmin(np.abs(rejected - accepted)))
    return float((rejected[best] + accepted[best]) / 2)
