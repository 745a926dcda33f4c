"""What a run reads: batches to train on, and crops to validate on."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.crops import face_crops
from rednet_jax.data.pipeline import Batch, read_batches
from rednet_jax.data.sources import read_split
from rednet_jax.data.synthetic.generate import generate
from rednet_jax.evaluate.protocols import Crops, cut_split
from rednet_jax.landmarks.schemes import scheme
from rednet_jax.train.experiment import Experiment, GeneratedData


class GeneratedBatch(NamedTuple):
    """A batch that the step draws itself; a pytree.

    Attributes:
        row: int32 [B], place in the batch of all processes: what random draws come from.
    """

    row: NDArray[np.int32]


class BatchReader(Protocol):
    """An endless iterator of batches, whose place can be saved as plain JSON."""

    def __next__(self) -> Batch | GeneratedBatch:
        """Returns the next batch."""
        ...

    def names(self, batch: Any) -> list[str]:
        """Returns the names of a batch's faces."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Returns the place after the last batch handed out."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a place that was saved."""
        ...


class GeneratedReader(Iterator[GeneratedBatch]):
    """The rows of every batch: what is on them is drawn from (seed, step, row)."""

    def __init__(self, batch: int) -> None:
        """Of a batch's size B."""
        self._rows = np.arange(batch, dtype=np.int32)
        self._done = 0

    def __next__(self) -> GeneratedBatch:
        """Returns the next batch."""
        self._done += 1
        return GeneratedBatch(self._rows)

    def names(self, batch: GeneratedBatch) -> list[str]:
        """Returns the names of a batch's faces."""
        return [f"generated face {row}" for row in batch.row]

    def get_state(self) -> dict[str, Any]:
        """Returns how many batches were handed out."""
        return {"next_index": self._done}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a place that was saved."""
        self._done = state["next_index"]


def open_batches(experiment: Experiment, data_dir: Path | None = None) -> BatchReader:
    """Opens the training faces of an experiment; the first time they are cut.

    Args:
        experiment: the run.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.

    Raises:
        RednetError: a data set that is not prepared, or has no labelled faces.
    """
    data, model = experiment.data, experiment.model
    if isinstance(data, GeneratedData):
        return GeneratedReader(experiment.batch)
    crops = []
    for name, split in (part.split("/") for part in data.train):
        margin = model.crop_margin * data.cover
        faces = face_crops(name, split, margin=margin, size=data.cached_size, data_dir=data_dir)
        print(f"{name}/{split}: {len(faces)} faces", flush=True)
        crops.append(faces)
    return read_batches(
        list(zip(crops, data.weights, strict=True)),
        batch=experiment.batch,
        scheme=scheme(model.landmarks),
        seed=experiment.seed,
        styles=data.styles,
    )


def validation_crops(experiment: Experiment, data_dir: Path | None = None) -> Crops:
    """Returns the faces that checkpoints are chosen by, in truth boxes; arguments as above."""
    data, model = experiment.data, experiment.model
    if isinstance(data, GeneratedData):
        return _generated_crops(experiment, data)
    name, split = data.validation.split("/")
    return cut_split(read_split(name, split, data_dir), model)


def _generated_crops(experiment: Experiment, data: GeneratedData) -> Crops:
    """Generated faces that no step draws."""
    # 1 is for the draws of the steps.
    run = jax.random.fold_in(jax.random.key(experiment.seed), 2)
    draw = jax.jit(functools.partial(jax.lax.map, functools.partial(generate, data.faces)))
    images, landmarks = jax.device_get(draw(jax.random.split(run, data.validation)))
    landmarks = landmarks[:, list(scheme(experiment.model.landmarks).from_68)]
    return Crops(
        names=[f"generated face {i}" for i in range(data.validation)],
        images=np.round(255 * images).astype(np.uint8),
        affines=np.tile(np.eye(2, 3), (data.validation, 1, 1)),
        landmarks=landmarks,
        labelled=np.ones(landmarks.shape[:2], bool),
        missed=[],
    )
