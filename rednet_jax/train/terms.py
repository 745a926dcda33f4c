"""The single terms that a pass is trained on: one face a row, points and pixels kept apart.

Points without label enter none of them.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rednet_jax.landmarks.heatmaps import gaussian_heatmaps
from rednet_jax.landmarks.schemes import Scheme


class Targets(NamedTuple):
    """What a batch should come out as.

    Attributes:
        landmarks: float32 [B, L, 2], crop pixels; of clips [B, T, L, 2].
        labelled: bool [B, L]; of clips [B, T, L].
        identity: int32 [B], class of f_CLS, -1 if unknown; of clips [B, T].
    """

    landmarks: Array
    labelled: Array
    identity: Array


def detection_targets(
    landmarks: Array, labelled: Array, size: tuple[int, int], sigma: float
) -> Array:
    """Soft labels of each pixel: background first, then the points, in sum 1.

    Args:
        landmarks: float32 [B, L, 2], map pixels, not rounded.
        labelled: bool [B, L]; a point without label has no peak.
        size: (h, w) of the map.
        sigma: standard deviation of a peak, map pixels.

    Returns:
        float32 [B, h, w, L + 1].
    """
    peaks = gaussian_heatmaps(landmarks, size, sigma) * labelled[..., None, None, :]
    background = jnp.clip(1 - jnp.max(peaks, axis=-1, keepdims=True), 0, 1)
    target = jnp.concatenate([background, peaks], axis=-1)
    return target / jnp.sum(target, axis=-1, keepdims=True)


def detection_loss(logits: Array, target: Array, labelled: Array, background_share: float) -> Array:
    """Pixel-wise softmax cross entropy against soft labels.

    The background's pixels are weighted so that together they count `background_share` times all
    peaks, whatever the map's resolution. A class without label takes no part in the softmax.

    Args:
        logits: float32 [B, h, w, L + 1], background first.
        target: float32 [B, h, w, L + 1], in sum 1 over the classes.
        labelled: bool [B, L].
        background_share: see above.

    Returns:
        float32 [B, h, w], to be summed over pixels.
    """
    expect_shape(logits, target.shape)
    expect_shape(labelled, (logits.shape[0], logits.shape[-1] - 1))
    present = jnp.concatenate([jnp.ones_like(labelled[:, :1]), labelled], axis=-1)
    log_p = jax.nn.log_softmax(jnp.where(present[:, None, None], logits, -1e9), axis=-1)
    peaks = jnp.sum(target[..., 1:], axis=(1, 2, 3))
    background = jnp.sum(target[..., 0], axis=(1, 2))
    weight = background_share * peaks / jnp.maximum(background, 1.0)
    total = jnp.maximum((1 + background_share) * peaks, 1.0)
    target = target.at[..., 0].multiply(weight[:, None, None])
    cross_entropy: Array = -jnp.sum(target * log_p, axis=-1)
    return cross_entropy / total[:, None, None]


def heat_map_loss(logits: Array, target: Array, labelled: Array) -> Array:
    """Binary cross entropy of independent maps against soft peaks (the journal form's L maps).

    The journal's code takes the squared error of maps that pass no sigmoid. In a logit, this has
    the same slope, map minus target; the squared error behind a sigmoid has next to none where a
    map is blank, and leaves it so.

    Args:
        logits: float32 [B, h, w, L].
        target: float32 [B, h, w, L] in [0, 1].
        labelled: bool [B, L].

    Returns:
        float32 [B, h, w, L], in parts of the face's peaks, to be summed over pixels and maps.
    """
    expect_shape(logits, target.shape)
    expect_shape(labelled, (logits.shape[0], logits.shape[-1]))
    known = labelled[:, None, None]
    loss = jnp.where(known, optax.sigmoid_binary_cross_entropy(logits, target), 0)
    peaks = jnp.sum(jnp.where(known, target, 0), axis=(1, 2, 3), keepdims=True)
    normalised: Array = loss / jnp.maximum(peaks, 1.0)
    return normalised


def disc_loss(logits: Array, discs: Array, labelled: Array, background_share: float) -> Array:
    """Binary cross entropy of independent maps against discs (the journal form's 7 coarse maps).

    The pixels beside the discs are weighted so that together they count `background_share` times
    those in them, whatever the map's resolution.

    Args:
        logits: float32 [B, h, w, L].
        discs: bool [B, h, w, L].
        labelled: bool [B, L].
        background_share: see above.

    Returns:
        float32 [B, h, w, L], to be summed over pixels and maps.
    """
    expect_shape(logits, discs.shape)
    expect_shape(labelled, (logits.shape[0], logits.shape[-1]))
    known = labelled[:, None, None]
    within, beside = (
        jnp.sum(pixels & known, axis=(1, 2, 3), keepdims=True) for pixels in (discs, ~discs)
    )
    weight = jnp.where(discs, 1.0, background_share * within / jnp.maximum(beside, 1))
    loss = optax.sigmoid_binary_cross_entropy(logits, discs.astype(logits.dtype))
    total = jnp.maximum((1 + background_share) * within, 1.0)
    normalised: Array = jnp.where(known, weight * loss, 0) / total
    return normalised


def coordinate_loss(
    landmarks: Array,
    truth: Array,
    unit: Array,
    *,
    form: Literal["l1", "wing"],
    wing_width: float,
    wing_curvature: float,
) -> Array:
    """Error of each point.

    Args:
        landmarks: float32 [B, L, 2].
        truth: float32 [B, L, 2].
        unit: float32 [B], the length that errors are measured in.
        form: `l1`, or `wing` (Feng et al. 2018).
        wing_width: from where `wing` is linear, in `unit`.
        wing_curvature: `wing`'s epsilon, in `unit`.

    Returns:
        float32 [B, L], mean of the two axes.
    """
    expect_shape(landmarks, truth.shape)
    expect_shape(unit, landmarks.shape[:1])
    error = jnp.abs(landmarks - truth) / unit[:, None, None]
    if form == "wing":
        offset = wing_width - wing_width * jnp.log1p(wing_width / wing_curvature)
        curved = wing_width * jnp.log1p(error / wing_curvature)
        error = jnp.where(error < wing_width, curved, error - offset)
    return jnp.mean(error, axis=-1)


def confidence_loss(
    logits: Array, landmarks: Array, truth: Array, unit: Array, correct_below: float
) -> Array:
    """Binary cross entropy of 'this point is right'; the points themselves get no gradient.

    Args:
        logits: float32 [B, L].
        landmarks: float32 [B, L, 2], the points that the confidence speaks of.
        truth: float32 [B, L, 2].
        unit: float32 [B], inter-ocular distance.
        correct_below: in `unit`.

    Returns:
        float32 [B, L].
    """
    expect_shape(landmarks, truth.shape)
    expect_shape(logits, landmarks.shape[:2])
    distance = jnp.linalg.norm(jax.lax.stop_gradient(landmarks) - truth, axis=-1)
    right = (distance < correct_below * unit[:, None]).astype(logits.dtype)
    loss: Array = optax.sigmoid_binary_cross_entropy(logits, right)
    return loss


def identity_loss(logits: Array, identity: Array) -> Array:
    """Cross entropy of f_CLS (ECCV paper, section 3.4).

    Args:
        logits: float32 [B, identities].
        identity: int32 [B], -1 if unknown.

    Returns:
        float32 [B], 0 where the identity is unknown.
    """
    expect_shape(identity, logits.shape[:1])
    known = jnp.maximum(identity, 0)
    loss: Array = optax.softmax_cross_entropy_with_integer_labels(logits, known)
    return jnp.where(identity >= 0, loss, 0)


def stability_loss(
    landmarks: Array, targets: Targets, scheme: Scheme, face_side: float | Array
) -> Array:
    """How much the error changes from a frame to the next: what a viewer sees as jitter.

    A constant error costs nothing here, and a face that moves costs nothing for moving.

    Args:
        landmarks: float32 [K, B, T, L, 2], crop pixels.
        targets: of the clips.
        scheme: of the points.
        face_side: as in `face_unit`.

    Returns:
        float32 [B]: mean L1 distance of the errors of frames t and t - 1, in units of `face_unit`,
        over the passes and over the points labelled in both frames.
    """
    batch, frames, points = targets.labelled.shape
    expect_shape(landmarks[0], targets.landmarks.shape)
    flat = Targets(*(leaf.reshape(batch * frames, *leaf.shape[2:]) for leaf in targets))
    eyes, eyes_known = (one.reshape(batch, frames) for one in face_unit(flat, scheme, face_side))
    known = targets.labelled & eyes_known[..., None]
    error = jnp.where(known[..., None], landmarks - targets.landmarks, 0) / eyes[..., None, None]
    change = jnp.mean(jnp.abs(error[:, :, 1:] - error[:, :, :-1]), axis=(0, -1))
    both = known[:, 1:] & known[:, :-1]
    shape = (batch, (frames - 1) * points)
    return masked_mean(change.reshape(shape), both.reshape(shape))


def face_unit(targets: Targets, scheme: Scheme, face_side: float | Array) -> tuple[Array, Array]:
    """Returns the length that errors are divided by, and whether it is known.

    Args:
        targets: of B faces, landmarks in crop pixels.
        scheme: of the landmarks; where it names two groups of them, the length is the distance
            between their centres, in most schemes that of the outer eye corners.
        face_side: float32 [B] or a number, side of the face's bounding box in crop pixels; the
            length where the scheme is normalised by the box.

    Returns:
        float32 [B], 1 where it is not known, and bool [B].
    """
    batch = targets.labelled.shape[:1]
    if scheme.groups is None:
        return jnp.broadcast_to(jnp.float32(face_side), batch), targets.labelled.any(axis=-1)
    right, left = (jnp.asarray(group) for group in scheme.groups)
    known = targets.labelled[:, left].all(-1) & targets.labelled[:, right].all(-1)
    apart = targets.landmarks[:, left].mean(1) - targets.landmarks[:, right].mean(1)
    # A face seen from the side has corners on one spot: a floor keeps it from ruling the batch.
    distance = jnp.sqrt(jnp.maximum(jnp.sum(apart**2, axis=-1), 1.0))
    return jnp.where(known, distance, 1.0), known


def masked_mean(values: Array, used: Array) -> Array:
    """Returns the mean over the last axis of those values that are used, 0 where none is."""
    return jnp.sum(jnp.where(used, values, 0), axis=-1) / jnp.maximum(jnp.sum(used, axis=-1), 1)


def expect_shape(array: Array, shape: tuple[int, ...]) -> None:
    """Raises a ValueError where an array has another shape."""
    if array.shape != shape:
        raise ValueError(f"shape {array.shape} where {shape} was expected")
