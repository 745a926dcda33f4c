"""The input data of a run: batches to train on, and faces to validate on."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.crops import FaceCrops, face_crops, fingerprint_arrays
from rednet_jax.data.pipeline import Batch, known_people, read_batches
from rednet_jax.data.sources import holds_clips, read_split
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.clips import ClipWindows, clip_windows
from rednet_jax.evaluate.protocols import Crops, crop_split
from rednet_jax.landmarks.builtin import HEAD70
from rednet_jax.landmarks.convert import convert
from rednet_jax.landmarks.normalisers import default_normaliser, measurable, needed
from rednet_jax.train.draw import GeneratedRows, generator
from rednet_jax.train.experiment import Experiment, GeneratedData, Stage
from rednet_jax.train.streams import Stream, root


class BatchReader(Protocol):
    """An endless iterator of batches with a position that can be saved as JSON."""

    def __next__(self) -> Batch | GeneratedRows:
        """Returns the next batch."""
        ...

    def names(self, batch: Any) -> list[str]:
        """Returns the names of a batch's faces."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Returns the position after the last returned batch."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a saved position."""
        ...


class GeneratedReader(Iterator[GeneratedRows]):
    """The rows of batches of generated faces, which are generated from (seed, step, row)."""

    def __init__(self, rows: NDArray[np.int32]) -> None:
        """Starts at the first batch.

        Args:
            rows: int32 [b], this process's rows of every batch.
        """
        self._rows = rows
        self._done = 0

    def __next__(self) -> GeneratedRows:
        """Returns the next batch."""
        self._done += 1
        return GeneratedRows(self._rows)

    def names(self, batch: GeneratedRows) -> list[str]:
        """Returns the names of a batch's faces."""
        return [f"generated face {row}" for row in batch.row]

    def get_state(self) -> dict[str, Any]:
        """Returns the number of batches returned so far."""
        return {"next_index": self._done}

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a saved position."""
        self._done = state["next_index"]


class Inputs:
    """The data of all stages of a run."""

    def __init__(self, experiment: Experiment, data_dir: Path | None = None) -> None:
        """Opens the data of all stages; faces that are not cached yet are cropped.

        Args:
            experiment: the run.
            data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or
                ~/.cache/rednet_jax.

        Raises:
            RednetError: a data set is not prepared, has no labelled faces, has no face whose error
                validation can measure, or has more people than f_CLS has classes.
        """
        self._experiment = experiment
        self._validation = [_validation(experiment, stage, data_dir) for stage in experiment.stages]
        self._crops = [_crops(experiment, stage, data_dir) for stage in experiment.stages]
        lines = dict.fromkeys(
            f"{split}: {len(crops)} faces" for part in self._crops for split, crops in part
        )
        for line in lines if jax.process_index() == 0 else ():
            print(line, flush=True)
        # All stages have the same classes, so that later stages continue to train f_CLS.
        self._people = np.unique(
            np.concatenate(
                [np.empty(0, np.int64)]
                + [
                    known_people(crops for _, crops in part)
                    for part, stage in zip(self._crops, experiment.stages, strict=True)
                    if stage.losses.identity
                ]
            )
        )
        if len(self._people) > experiment.model.identities:
            raise RednetError(
                f"{len(self._people)} people to classify, and model.identities is "
                f"{experiment.model.identities}"
            )

    def validation(self, number: int) -> Crops | ClipWindows:
        """Returns the validation data of a stage: faces in truth boxes, or clips.

        Generated faces are generated in the first call, so that training does not wait for them.
        """
        stage = self._experiment.stages[number]
        if isinstance(stage.data, GeneratedData):
            return generated_crops(self._experiment, stage.data, stage.batch)
        faces = self._validation[number]
        assert faces is not None
        return faces

    def fingerprints(self) -> dict[str, dict[str, str]]:
        """Returns a digest of the faces of every prepared split, by stage.

        Keys are `train NAME/SPLIT` and `validation NAME/SPLIT`. Generated faces have no digest: the
        experiment determines them.
        """
        fingerprints = {}
        for stage, parts, validation in zip(
            self._experiment.stages, self._crops, self._validation, strict=True
        ):
            if isinstance(stage.data, GeneratedData) or validation is None:
                continue
            digests = {f"train {split}": crops.fingerprint for split, crops in parts}
            digests[f"validation {stage.data.validation}"] = _fingerprint(validation)
            fingerprints[stage.name] = digests
        return fingerprints

    def open(self, number: int) -> BatchReader:
        """Returns a reader of a stage's batches, for this process.

        Raises:
            RednetError: a data set has no labelled face, or no clip of the stage's length.
        """
        stage = self._experiment.stages[number]
        process, processes = jax.process_index(), jax.process_count()
        if isinstance(stage.data, GeneratedData):
            return GeneratedReader(np.arange(process, stage.batch, processes, dtype=np.int32))
        crops = [crops for _, crops in self._crops[number]]
        return read_batches(
            list(zip(crops, stage.data.weights, strict=True)),
            batch=stage.batch,
            scheme=self._experiment.model.scheme,
            seed=self._experiment.seed,
            styles=stage.data.styles,
            people=self._people,
            clips=stage.clips,
            process=process,
            processes=processes,
        )


def _crops(
    experiment: Experiment, stage: Stage, data_dir: Path | None
) -> list[tuple[str, FaceCrops]]:
    """Returns the training faces of a stage by NAME/SPLIT."""
    if isinstance(stage.data, GeneratedData):
        return []
    margin, size = experiment.model.crop_margin * stage.data.cover, stage.data.cached_size
    parts = [(place, *place.split("/")) for place in stage.data.train]
    return [
        (place, face_crops(name, split, margin=margin, size=size, data_dir=data_dir))
        for place, name, split in parts
    ]


def _fingerprint(faces: Crops | ClipWindows) -> str:
    if isinstance(faces, ClipWindows):
        return faces.faces.fingerprint
    arrays = {"names": np.asarray(faces.names), "images": faces.images}
    arrays |= {"landmarks": faces.landmarks, "labelled": faces.labelled}
    return fingerprint_arrays(arrays)


def _validation(
    experiment: Experiment, stage: Stage, data_dir: Path | None
) -> Crops | ClipWindows | None:
    """Returns the validation faces of a stage; None if they are generated."""
    data, model = stage.data, experiment.model
    if isinstance(data, GeneratedData):
        return None
    name, split = data.validation.split("/")
    if stage.clips is not None and holds_clips(name):
        margin, size = model.crop_margin * data.cover, data.cached_size
        return clip_windows(name, split, margin=margin, size=size, data_dir=data_dir)
    crops = crop_split(read_split(name, split, data_dir), model)
    if not measurable(crops.labelled, crops.scheme, boxed=True).any():
        # Otherwise the first validation would fail, after up to `evaluate_every` steps.
        lacking = needed(default_normaliser(crops.scheme), crops.scheme)
        raise RednetError(f"{data.validation}: no face has {lacking} labelled, to validate on")
    return crops


@functools.cache
def generated_crops(experiment: Experiment, data: GeneratedData, batch: int) -> Crops:
    """Returns generated validation faces, which differ from those of all training steps.

    Args:
        experiment: the run.
        data: distribution and number of the faces.
        batch: number of faces to generate at once. The batch of a training step on one device uses
            the compiled program of that step.
    """
    keys = jax.random.split(root(experiment.seed, Stream.VALIDATION), data.validation)
    keys = jax.device_put(keys, jax.local_devices()[0])
    draw = generator(data.faces, None)
    # The last call is filled up with the first keys.
    places = np.resize(np.arange(data.validation), (-(-data.validation // batch), batch))
    parts = [jax.device_get(draw(keys[row])) for row in places]
    images, landmarks = (
        np.concatenate(part)[: data.validation] for part in zip(*parts, strict=True)
    )
    landmarks = convert(landmarks, HEAD70, experiment.model.scheme)
    return Crops(
        names=[f"generated face {i}" for i in range(data.validation)],
        images=np.round(255 * images).astype(np.uint8),
        affines=np.tile(np.eye(2, 3), (data.validation, 1, 1)),
        landmarks=landmarks,
        labelled=np.ones(landmarks.shape[:2], bool),
        boxes=np.concatenate([landmarks.min(1), landmarks.max(1)], axis=1),
        missed=[],
        scheme=experiment.model.scheme,
    )
