"""What every pass of the feedback loop is trained on.

The terms keep their points and pixels apart, and a pass comes out as one number per face, [B], so
that a run that breaks can name the face. Points without label enter none of them, whatever stands
in their place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.heatmaps import gaussian_heatmaps, to_map_pixels
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.model.network import PassOutput


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


_TERMS = ("detection", "map_landmarks", "landmarks", "confidence", "identity")


@dataclass(frozen=True)
class LossConfig:
    """Weights and forms of the terms; a weight of 0 leaves a term out of the sum.

    Attributes:
        detection: weight of the pixel-wise cross entropy.
        map_landmarks: weight of the points read off the maps.
        landmarks: weight of the regression head's points.
        confidence: weight of the binary cross entropy of the confidence.
        identity: weight of the cross entropy of f_CLS over people; faces of nobody known count 0.
        stability: weight of the change of the regression head's error from frame to frame.
        sigma: standard deviation of the target's peaks, map pixels.
        background_share: total weight of the background's pixels, in the total of the peaks.
        coordinate: `l1`, or `wing` (Feng et al. 2018), which pulls harder on small errors.
        unit: coordinates are divided by the `inter_ocular` distance (faces without both outer
            eye corners then do not enter) or by the side of the `crop`.
        wing_width: from where `wing` is linear, in `unit`.
        wing_curvature: `wing`'s epsilon, in `unit`.
        correct_below: a point within this part of the inter-ocular distance counts as right.
    """

    detection: float = 1.0
    map_landmarks: float = 5.0
    landmarks: float = 10.0
    confidence: float = 0.1
    identity: float = 0.0
    stability: float = 0.0
    sigma: float = 1.0
    background_share: float = 0.5
    coordinate: Literal["l1", "wing"] = "l1"
    unit: Literal["inter_ocular", "crop"] = "inter_ocular"
    wing_width: float = 0.1
    wing_curvature: float = 0.02
    correct_below: float = 0.05

    def __post_init__(self) -> None:
        """Refuses weights below 0 and lengths that are not above it."""
        for name in (*_TERMS, "stability", "background_share"):
            if getattr(self, name) < 0:
                raise RednetError(f"losses.{name} must be at least 0, not {getattr(self, name)}")
        for name in ("sigma", "wing_width", "wing_curvature", "correct_below"):
            if getattr(self, name) <= 0:
                raise RednetError(f"losses.{name} must be above 0, not {getattr(self, name)}")


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
    _same_shape(logits, target)
    _expect(labelled, (logits.shape[0], logits.shape[-1] - 1))
    present = jnp.concatenate([jnp.ones_like(labelled[:, :1]), labelled], axis=-1)
    log_p = jax.nn.log_softmax(jnp.where(present[:, None, None], logits, -1e9), axis=-1)
    peaks = jnp.sum(target[..., 1:], axis=(1, 2, 3))
    background = jnp.sum(target[..., 0], axis=(1, 2))
    weight = background_share * peaks / jnp.maximum(background, 1.0)
    total = jnp.maximum((1 + background_share) * peaks, 1.0)
    target = target.at[..., 0].multiply(weight[:, None, None])
    cross_entropy: Array = -jnp.sum(target * log_p, axis=-1)
    return cross_entropy / total[:, None, None]


def coordinate_loss(landmarks: Array, truth: Array, unit: Array, config: LossConfig) -> Array:
    """Error of each point.

    Args:
        landmarks: float32 [B, L, 2].
        truth: float32 [B, L, 2].
        unit: float32 [B], the length that errors are measured in.
        config: which form.

    Returns:
        float32 [B, L], mean of the two axes.
    """
    _same_shape(landmarks, truth)
    _expect(unit, landmarks.shape[:1])
    error = jnp.abs(landmarks - truth) / unit[:, None, None]
    if config.coordinate == "wing":
        width, curvature = config.wing_width, config.wing_curvature
        offset = width - width * jnp.log1p(width / curvature)
        error = jnp.where(error < width, width * jnp.log1p(error / curvature), error - offset)
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
    _same_shape(landmarks, truth)
    _expect(logits, landmarks.shape[:2])
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
    _expect(identity, logits.shape[:1])
    known = jnp.maximum(identity, 0)
    loss: Array = optax.softmax_cross_entropy_with_integer_labels(logits, known)
    return jnp.where(identity >= 0, loss, 0)


def stability_loss(landmarks: Array, targets: Targets, scheme: Scheme) -> Array:
    """How much the error changes from a frame to the next: what a viewer sees as jitter.

    A constant error costs nothing here, and a face that moves costs nothing for moving.

    Args:
        landmarks: float32 [K, B, T, L, 2], crop pixels.
        targets: of the clips.
        scheme: of the points.

    Returns:
        float32 [B]: mean L1 distance of the errors of frames t and t - 1, in inter-ocular
        distances, over the passes and over the points labelled in both frames.
    """
    batch, frames, points = targets.labelled.shape
    _expect(landmarks[0], targets.landmarks.shape)
    flat = Targets(*(leaf.reshape(batch * frames, *leaf.shape[2:]) for leaf in targets))
    eyes, eyes_known = (one.reshape(batch, frames) for one in inter_ocular(flat, scheme))
    known = targets.labelled & eyes_known[..., None]
    error = jnp.where(known[..., None], landmarks - targets.landmarks, 0) / eyes[..., None, None]
    change = jnp.mean(jnp.abs(error[:, :, 1:] - error[:, :, :-1]), axis=(0, -1))
    both = known[:, 1:] & known[:, :-1]
    shape = (batch, (frames - 1) * points)
    return _mean(change.reshape(shape), both.reshape(shape))


def inter_ocular(targets: Targets, scheme: Scheme) -> tuple[Array, Array]:
    """Distance of the outer eye corners, float32 [B], and whether both are labelled, bool [B]."""
    right, left = scheme.outer_eyes
    known = targets.labelled[:, left] & targets.labelled[:, right]
    apart = targets.landmarks[:, left] - targets.landmarks[:, right]
    # A face seen from the side has corners on one spot: a floor keeps it from ruling the batch.
    distance = jnp.sqrt(jnp.maximum(jnp.sum(apart**2, axis=-1), 1.0))
    return jnp.where(known, distance, 1.0), known


def pass_losses(
    config: LossConfig, scheme: Scheme, crop_size: int
) -> Callable[[PassOutput, Targets], dict[str, Array]]:
    """The function that the feedback loop calls at each pass.

    Args:
        config: weights and forms.
        scheme: of the points.
        crop_size: pixels on each side of the network's picture.

    Returns:
        A function to {`total`, `detection`, `map_landmarks`, `landmarks`, `confidence`, `nme`},
        and `identity` where it has a weight, each float32 [B]; `total` is the weighted sum, `nme`
        the mean error of the regression head's points (percent of the inter-ocular distance), nan
        where the eye corners have no label.
    """

    def losses(output: PassOutput, targets: Targets) -> dict[str, Array]:
        # Activations may be half as precise; a sum over thousands of pixels may not.
        output = jax.tree.map(
            lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), output
        )
        height, width, classes = output.logits.shape[1:]
        _expect(targets.landmarks, (output.logits.shape[0], classes - 1, 2))
        labelled = targets.labelled
        truth = jnp.where(labelled[..., None], targets.landmarks, 0)
        eyes, eyes_known = inter_ocular(targets, scheme)
        side = jnp.full_like(eyes, crop_size)
        unit, usable = (eyes, eyes_known) if config.unit == "inter_ocular" else (side, True)
        used = labelled & jnp.asarray(usable).reshape(-1, 1)
        # The maps end where the crop ends: a point beyond it can only be regressed.
        inside = jnp.all((truth > -0.5) & (truth < crop_size - 0.5), axis=-1)
        target = detection_targets(
            to_map_pixels(truth, crop_size, height), labelled, (height, width), config.sigma
        )
        detection = detection_loss(output.logits, target, labelled, config.background_share)
        mapped = coordinate_loss(output.map_landmarks, truth, unit, config)
        regressed = coordinate_loss(output.landmarks, truth, unit, config)
        confidence = confidence_loss(
            output.confidence_logits, output.landmarks, truth, eyes, config.correct_below
        )
        distance = jnp.linalg.norm(jax.lax.stop_gradient(output.landmarks) - truth, axis=-1)
        known = labelled & eyes_known[:, None]
        terms = {
            "detection": jnp.sum(detection, axis=(1, 2)),
            "map_landmarks": _mean(mapped, used & inside),
            "landmarks": _mean(regressed, used),
            "confidence": _mean(confidence, known),
        }
        if config.identity:
            terms["identity"] = identity_loss(output.identity_logits, targets.identity)
        total = sum(getattr(config, name) * value for name, value in terms.items())
        nme = 100 * _mean(distance / eyes[:, None], known)
        return {"total": total, **terms, "nme": jnp.where(eyes_known, nme, jnp.nan)}

    return losses


def _mean(values: Array, used: Array) -> Array:
    return jnp.sum(jnp.where(used, values, 0), axis=-1) / jnp.maximum(jnp.sum(used, axis=-1), 1)


def _same_shape(one: Array, other: Array) -> None:
    _expect(one, other.shape)


def _expect(array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"shape {array.shape} where {shape} was expected")
