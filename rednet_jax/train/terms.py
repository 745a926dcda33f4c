"""The terms of the loss of a pass, per face and per landmark or pixel.

Landmarks without label have no effect on them.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rednet_jax.landmarks.heatmaps import gaussian_heatmaps
from rednet_jax.landmarks.schemes import Scheme


class Targets(NamedTuple):
    """The targets of a batch.

    Attributes:
        landmarks: float32 [B, L, 2], crop pixels; for clips [B, T, L, 2].
        labelled: bool [B, L]; for clips [B, T, L].
        identity: int32 [B], class of f_CLS, -1 if unknown; for clips [B, T].
    """

    landmarks: Array
    labelled: Array
    identity: Array


def detection_targets(
    landmarks: Array, labelled: Array, size: tuple[int, int], sigma: float
) -> Array:
    """Returns soft labels of each pixel, with sum 1: background first, then the landmarks.

    Args:
        landmarks: float32 [B, L, 2], map pixels, not rounded.
        labelled: bool [B, L]; a landmark without label has no peak.
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
    """Returns the pixel-wise softmax cross entropy with soft labels.

    The total weight of background pixels is `background_share` times that of all peaks, at any
    resolution of the maps. Landmarks without label are left out of the softmax.

    Args:
        logits: float32 [B, h, w, L + 1], background first.
        target: float32 [B, h, w, L + 1], with sum 1 over the classes.
        labelled: bool [B, L].
        background_share: see above.

    Returns:
        float32 [B, h, w]; the loss is the sum over pixels.
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
    """Returns the binary cross entropy of independent maps with soft peaks (journal form, L maps).

    The journal's code has the squared error of maps without sigmoid. The gradient of this loss by a
    logit is the same: map minus target. The squared error after a sigmoid would have almost no
    gradient for a blank map.

    Args:
        logits: float32 [B, h, w, L].
        target: float32 [B, h, w, L] in [0, 1].
        labelled: bool [B, L].

    Returns:
        float32 [B, h, w, L], divided by the sum of the face's peaks; the loss is the sum over
        pixels and maps.
    """
    expect_shape(logits, target.shape)
    expect_shape(labelled, (logits.shape[0], logits.shape[-1]))
    known = labelled[:, None, None]
    loss = jnp.where(known, optax.sigmoid_binary_cross_entropy(logits, target), 0)
    peaks = jnp.sum(jnp.where(known, target, 0), axis=(1, 2, 3), keepdims=True)
    normalised: Array = loss / jnp.maximum(peaks, 1.0)
    return normalised


def disc_loss(logits: Array, discs: Array, labelled: Array, background_share: float) -> Array:
    """Returns the binary cross entropy of independent maps with discs (journal form, coarse maps).

    The total weight of the pixels outside the discs is `background_share` times that of those
    inside, at any resolution of the maps.

    Args:
        logits: float32 [B, h, w, L].
        discs: bool [B, h, w, L].
        labelled: bool [B, L].
        background_share: see above.

    Returns:
        float32 [B, h, w, L]; the loss is the sum over pixels and maps.
    """
    expect_shape(logits, discs.shape)
    expect_shape(labelled, (logits.shape[0], logits.shape[-1]))
    known = labelled[:, None, None]
    inside, outside = (
        jnp.sum(pixels & known, axis=(1, 2, 3), keepdims=True) for pixels in (discs, ~discs)
    )
    weight = jnp.where(discs, 1.0, background_share * inside / jnp.maximum(outside, 1))
    loss = optax.sigmoid_binary_cross_entropy(logits, discs.astype(logits.dtype))
    total = jnp.maximum((1 + background_share) * inside, 1.0)
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
    """Returns the error of each landmark.

    Args:
        landmarks: float32 [B, L, 2].
        truth: float32 [B, L, 2].
        unit: float32 [B], the length that errors are divided by.
        form: `l1`, or `wing` (Feng et al. 2018).
        wing_width: error from which `wing` is linear, in `unit`.
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
    """Returns the binary cross entropy of the confidence; landmarks get no gradient.

    Args:
        logits: float32 [B, L], of the probability that a landmark is correct.
        landmarks: float32 [B, L, 2].
        truth: float32 [B, L, 2].
        unit: float32 [B], inter-ocular distance.
        correct_below: error below which a landmark is correct, in `unit`.

    Returns:
        float32 [B, L].
    """
    expect_shape(landmarks, truth.shape)
    expect_shape(logits, landmarks.shape[:2])
    distance = jnp.linalg.norm(jax.lax.stop_gradient(landmarks) - truth, axis=-1)
    correct = (distance < correct_below * unit[:, None]).astype(logits.dtype)
    loss: Array = optax.sigmoid_binary_cross_entropy(logits, correct)
    return loss


def identity_loss(logits: Array, identity: Array) -> Array:
    """Returns the cross entropy of f_CLS (ECCV paper, section 3.4).

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
    """Returns the mean change of the error from frame to frame, which viewers see as jitter.

    It is 0 for a constant error, also of a moving face.

    Args:
        landmarks: float32 [K, B, T, L, 2], crop pixels.
        targets: of the clips.
        scheme: of the landmarks.
        face_side: as in `face_unit`.

    Returns:
        float32 [B]: mean L1 distance of the errors of frames t and t - 1, in units of `face_unit`,
        over the passes and the landmarks labelled in both frames.
    """
    batch, frames, points = targets.labelled.shape
    expect_shape(landmarks[0], targets.landmarks.shape)
    flat = Targets(*(leaf.reshape(batch * frames, *leaf.shape[2:]) for leaf in targets))
    eyes, eyes_known = (leaf.reshape(batch, frames) for leaf in face_unit(flat, scheme, face_side))
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
        scheme: of the landmarks; if its normaliser is two groups of landmarks, the length is the
            distance between their centres, in most schemes the outer eye corners.
        face_side: float32 [B] or a number, side of the face's bounding box in crop pixels; the
            length if the scheme is normalised by the box.

    Returns:
        float32 [B], 1 where unknown, and bool [B].
    """
    batch = targets.labelled.shape[:1]
    if scheme.groups is None:
        return jnp.broadcast_to(jnp.float32(face_side), batch), targets.labelled.any(axis=-1)
    right, left = (jnp.asarray(group) for group in scheme.groups)
    known = targets.labelled[:, left].all(-1) & targets.labelled[:, right].all(-1)
    apart = targets.landmarks[:, left].mean(1) - targets.landmarks[:, right].mean(1)
    # In profile the eye corners nearly coincide: a minimum keeps such faces from dominating.
    distance = jnp.sqrt(jnp.maximum(jnp.sum(apart**2, axis=-1), 1.0))
    return jnp.where(known, distance, 1.0), known


def masked_mean(values: Array, used: Array) -> Array:
    """Returns the mean of the values that are used over the last axis, 0 if none is."""
    return jnp.sum(jnp.where(used, values, 0), axis=-1) / jnp.maximum(jnp.sum(used, axis=-1), 1)


def expect_shape(array: Array, shape: tuple[int, ...]) -> None:
    """Raises a ValueError if an array has another shape."""
    if array.shape != shape:
        raise ValueError(f"shape {array.shape} where {shape} was expected")
