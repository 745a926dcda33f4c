"""What a split's faces are measured against: their labels, without their images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.builders.tree_300w import photo
from rednet_jax.data.samples import ClipSample, Sample
from rednet_jax.landmarks.schemes import scheme


class Labels(NamedTuple):
    """The labels of N faces: of images, or of all frames of clips, one clip after the other.

    Attributes:
        of: the data set and the split, as in '300w validation'.
        names: N names; of frames CLIP/NUMBER, the number from 1.
        landmarks: float32 [N, L, 2], image pixels.
        labelled: bool [N, L].
        owners: N; faces of one owner err together.
        over: what owners are: 'people' where the data set knows them, else 'photos', or 'clips'.
        clips: name and frames of each clip, None of images.
    """

    of: str
    names: list[str]
    landmarks: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    owners: list[str]
    over: str
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


def face_labels(of: str, samples: Iterable[Sample], count: int) -> Labels:
    """Returns the labels of faces in images, of the scheme with `count` points."""
    indices = list(scheme(count).from_68)
    names, landmarks, labelled, owners = [], [], [], []
    known = True
    for sample in samples:
        names.append(sample.name)
        landmarks.append(sample.landmarks[indices])
        labelled.append(sample.labelled[indices])
        known = known and sample.identity >= 0
        owners.append(
            f"person {sample.identity}" if sample.identity >= 0 else f"photo {photo(sample.name)}"
        )
    over = "people" if known else "photos"
    return Labels(of, names, np.stack(landmarks), np.stack(labelled), owners, over)


def clip_labels(of: str, clips: Iterable[ClipSample], count: int, every: int = 1) -> Labels:
    """Returns the labels of clips' frames, or of one in so many, of `count` points each."""
    indices = list(scheme(count).from_68)
    names: list[str] = []
    owners: list[str] = []
    landmarks, labelled, places = [], [], []
    for clip in clips:
        frames = range(0, len(clip.valid), every)
        places.append((clip.name, slice(len(names), len(names) + len(frames))))
        names += [f"{clip.name}/{frame + 1}" for frame in frames]
        owners += [clip.name] * len(frames)
        landmarks.append(clip.landmarks[::every, indices])
        labelled.append((clip.labelled[:, indices] & clip.valid[:, None])[::every])
    return Labels(
        of, names, np.concatenate(landmarks), np.concatenate(labelled), owners, "clips", places
    )
