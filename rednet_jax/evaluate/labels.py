"""The labels of a split's faces, without their images."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.builders.tree_300w import photo
from rednet_jax.data.samples import ClipSample, Sample
from rednet_jax.data.sources import Split
from rednet_jax.landmarks.convert import convert, convert_labelled
from rednet_jax.landmarks.schemes import Scheme


class Labels(NamedTuple):
    """The labels of N faces: of images, or of the frames of clips, concatenated.

    Attributes:
        of: the data set and the split, such as '300w validation'.
        names: N names; those of frames are CLIP/NUMBER, with numbers from 1.
        landmarks: float32 [N, L, 2], image pixels.
        labelled: bool [N, L].
        owners: N; the person, photo or clip of each face, within which errors are correlated.
        over: kind of the owners: 'people' if the data set has identities, else 'photos', or
            'clips'.
        scheme: of the landmarks.
        boxes: float32 [N, 4], of the faces, image pixels.
        clips: name and frames of each clip; None for images.
    """

    of: str
    names: list[str]
    landmarks: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    owners: list[str]
    over: str
    scheme: Scheme
    boxes: NDArray[np.float32]
    clips: list[tuple[str, slice]] | None = None


def labels_fingerprint(labels: Labels) -> str:
    """Returns the SHA-256 of the names, the points (float32) and the mask of labelled points."""
    digest = hashlib.sha256()
    for name in labels.names:
        digest.update(f"{name}\n".encode("utf-8", "surrogateescape"))
    points = np.where(labels.labelled[..., None], labels.landmarks, 0)
    digest.update(np.ascontiguousarray(points, "<f4").tobytes())
    digest.update(np.ascontiguousarray(labels.labelled, np.uint8).tobytes())
    return digest.hexdigest()


def face_labels(of: str, samples: Split[Sample], scheme: Scheme) -> Labels:
    """Returns the labels of faces in images, converted to a scheme.

    Raises:
        RednetError: the split's landmarks cannot be converted to the scheme.
    """
    names, landmarks, labelled, owners, boxes = [], [], [], [], []
    known = True
    for sample in samples:
        names.append(sample.name)
        landmarks.append(convert(sample.landmarks, samples.scheme, scheme))
        labelled.append(convert_labelled(sample.labelled, samples.scheme, scheme))
        boxes.append(sample.box)
        known = known and sample.identity >= 0
        owners.append(
            f"person {sample.identity}" if sample.identity >= 0 else f"photo {photo(sample.name)}"
        )
    over = "people" if known else "photos"
    return Labels(
        of,
        names,
        np.stack(landmarks),
        np.stack(labelled),
        owners,
        over,
        scheme,
        np.stack(boxes),
    )


def clip_labels(of: str, clips: Split[ClipSample], scheme: Scheme, every: int = 1) -> Labels:
    """Returns the labels of every `every`-th frame of clips, converted to a scheme.

    Raises:
        RednetError: the split's landmarks cannot be converted to the scheme.
    """
    names: list[str] = []
    owners: list[str] = []
    landmarks, labelled, boxes, places = [], [], [], []
    for clip in clips:
        frames = range(0, len(clip.valid), every)
        places.append((clip.name, slice(len(names), len(names) + len(frames))))
        names += [f"{clip.name}/{frame + 1}" for frame in frames]
        owners += [clip.name] * len(frames)
        landmarks.append(convert(clip.landmarks[::every], clips.scheme, scheme))
        known = clip.labelled & clip.valid[:, None]
        labelled.append(convert_labelled(known[::every], clips.scheme, scheme))
        boxes.append(clip.box[::every])
    return Labels(
        of,
        names,
        np.concatenate(landmarks),
        np.concatenate(labelled),
        owners,
        "clips",
        scheme,
        np.concatenate(boxes),
        places,
    )
