"""What a split's faces are measured against: their labels, without their images."""

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
    """The labels of N faces: of images, or of all frames of clips, one clip after the other.

    Attributes:
        of: the data set and the split, as in '300w validation'.
        names: N names; of frames CLIP/NUMBER, the number from 1.
        landmarks: float32 [N, L, 2], image pixels.
        labelled: bool [N, L].
        owners: N; faces of one owner err together.
        over: what owners are: 'people' where the data set knows them, else 'photos', or 'clips'.
        scheme: of the landmarks.
        boxes: float32 [N, 4], of the faces, image pixels.
        clips: name and frames of each clip, None of images.
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
    """Returns the SHA-256 of names, points (float32) and which of them are labelled."""
    digest = hashlib.sha256()
    for name in labels.names:
        digest.update(f"{name}\n".encode("utf-8", "surrogateescape"))
    points = np.where(labels.labelled[..., None], labels.landmarks, 0)
    digest.update(np.ascontiguousarray(points, "<f4").tobytes())
    digest.update(np.ascontiguousarray(labels.labelled, np.uint8).tobytes())
    return digest.hexdigest()


def face_labels(of: str, samples: Split[Sample], scheme: Scheme) -> Labels:
    """Returns the labels of faces in images, as landmarks of a scheme.

    Raises:
        RednetError: the split's landmarks do not give those of the scheme.
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
    """Returns the labels of clips' frames, or of one in so many, as landmarks of a scheme.

    Raises:
        RednetError: the split's landmarks do not give those of the scheme.
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
