"""What a run reads: batches to train on, and crops to validate on."""

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
from rednet_jax.train.draw import GeneratedRows, generator
from rednet_jax.train.experiment import Experiment, GeneratedData, Stage
from rednet_jax.train.streams import Stream, root


class BatchReader(Protocol):
    """An endless iterator of batches, whose place can be saved as plain JSON."""

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
        """Goes to a place that was saved."""
        ...


class GeneratedReader(Iterator[GeneratedRows]):
    """The rows of every batch: what is on them is drawn from (seed, step, row)."""

    def __init__(self, rows: NDArray[np.int32]) -> None:
        """Of this process's rows of every batch."""
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
        """Returns how many batches were returned."""
        return {"next_index": self._done}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a place that was saved."""
        self._done = state["next_index"]


class Inputs:
    """The data of a run: opened before anything is compiled, and read stage by stage."""

    def __init__(self, experiment: Experiment, data_dir: Path | None = None) -> None:
        """Opens everything that the stages read; the first time faces are cut.

        Args:
            experiment: the run.
            data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or
                ~/.cache/rednet_jax.

        Raises:
            RednetError: a data set that is not prepared, has no labelled faces, or shows more
                people than f_CLS tells apart.
        """
        self._experiment = experiment
        self._validation = [_validation(experiment, stage, data_dir) for stage in experiment.stages]
        self._crops = [_crops(experiment, stage, data_dir) for stage in experiment.stages]
        told = dict.fromkeys(
            f"{split}: {len(crops)} faces" for part in self._crops for split, crops in part
        )
        for line in told if jax.process_index() == 0 else ():
            print(line, flush=True)
        # The same classes in all stages, so that a later stage continues to train f_CLS.
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
        """Returns what a stage's checkpoints are chosen by: faces in truth boxes, or clips.

        Generated faces are made by the first call, so that training does not wait for them.
        """
        stage = self._experiment.stages[number]
        if isinstance(stage.data, GeneratedData):
            return generated_crops(self._experiment, stage.data, stage.batch)
        read = self._validation[number]
        assert read is not None
        return read

    def fingerprints(self) -> dict[str, dict[str, str]]:
        """Returns a digest of the faces of every prepared split, by stage.

        Keys are `train NAME/SPLIT` and `validation NAME/SPLIT`. Generated faces have none: the
        experiment decides them.
        """
        found = {}
        for stage, parts, validation in zip(
            self._experiment.stages, self._crops, self._validation, strict=True
        ):
            if isinstance(stage.data, GeneratedData) or validation is None:
                continue
            digests = {f"train {split}": crops.fingerprint for split, crops in parts}
            digests[f"validation {stage.data.validation}"] = _fingerprint(validation)
            found[stage.name] = digests
        return found

    def open(self, number: int) -> BatchReader:
        """Returns a reader of a stage's batches, for this process.

        Raises:
            RednetError: a source has no labelled face, or no clip as long as is asked for.
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
    """The training faces of a stage by NAME/SPLIT."""
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
    """The validation faces of a stage that are read; None if they are generated."""
    data, model = stage.data, experiment.model
    if isinstance(data, GeneratedData):
        return None
    name, split = data.validation.split("/")
    if stage.clips is not None and holds_clips(name):
        margin, size = model.crop_margin * data.cover, data.cached_size
        return clip_windows(name, split, margin=margin, size=size, data_dir=data_dir)
    return crop_split(read_split(name, split, data_dir), model)


@functools.cache
def generated_crops(experiment: Experiment, data: GeneratedData, batch: int) -> Crops:
    """Returns the validation faces of generated data, which no training step draws.

    Args:
        experiment: the run.
        data: what is generated, and how many faces.
        batch: faces of a call. With the batch of a training step on one device, its compiled
            generator is used.
    """
    keys = jax.random.split(root(experiment.seed, Stream.VALIDATION), data.validation)
    keys = jax.device_put(keys, jax.local_devices()[0])
    draw = generator(data.faces, None)
    # The first keys fill the last call up.
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
