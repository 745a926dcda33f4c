"""The loss of each pass of the feedback loop: a weighted sum of terms.

Terms are [B], a number per face, so that the error of a run with non-finite values can name the
face. Landmarks without label have no effect, whatever their coordinates.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields
from rednet_jax.landmarks.crops import apply_affine, invert_affine
from rednet_jax.landmarks.heatmaps import gaussian_heatmaps, to_map_pixels
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.network import PassOutput
from rednet_jax.train.terms import (
    Targets,
    confidence_loss,
    coordinate_loss,
    detection_loss,
    detection_targets,
    disc_loss,
    expect_shape,
    face_unit,
    heat_map_loss,
    identity_loss,
    masked_mean,
)

TERMS = ("detection", "heat_maps", "map_landmarks", "landmarks", "confidence", "identity")


class ExtraLoss(Protocol):
    """A user-defined term: a function of one pass."""

    __name__: str

    def __call__(self, output: PassOutput, targets: Targets, /) -> Array:
        """Returns float32 [B]."""
        ...


@dataclass(frozen=True)
class LossConfig:
    """Weights and forms of the terms; a term with weight 0 is left out of the sum.

    Landmarks of the journal form (`ijcv_resnet`) are peaks of maps, which have no gradient. So it
    has the term `heat_maps` in place of `map_landmarks`, `landmarks` and `stability`, and ignores
    the fields of those terms.

    Attributes:
        detection: weight of the pixel-wise cross entropy; in the journal form of its 7 coarse maps.
        heat_maps: weight of the cross entropy of the journal form's L maps; not used otherwise.
        map_landmarks: weight of the landmarks decoded from the maps.
        landmarks: weight of the regression head's landmarks.
        confidence: weight of the binary cross entropy of the confidence.
        identity: weight of the cross entropy of f_CLS over people; 0 for faces of unknown people.
        stability: weight of the change of the regression head's error from frame to frame.
        sigma: standard deviation of the target's peaks, map pixels; the target discs of coarse maps
            end where such a peak has fallen to 1 / e.
        background_share: total weight of the background's pixels in `detection`, relative to that
            of the peaks.
        coordinate: `l1`, or `wing` (Feng et al. 2018), which has larger gradients at small errors.
        unit: the length that coordinates are divided by: the `inter_ocular` distance, or the
            scheme's other normaliser (faces without its landmarks are masked), or the side of the
            `crop`.
        wing_width: error from which `wing` is linear, in `unit`.
        wing_curvature: `wing`'s epsilon, in `unit`.
        correct_below: a landmark is correct if its error is below this share of the inter-ocular
            distance.
    """

    detection: float = 1.0
    heat_maps: float = 1.0
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
        """Raises a RednetError for invalid fields."""
        check_fields(self, "losses.")
        for name in (*TERMS, "stability", "background_share"):
            if getattr(self, name) < 0:
                raise RednetError(f"losses.{name} must be at least 0, not {getattr(self, name)}")
        for name in ("sigma", "wing_width", "wing_curvature", "correct_below"):
            if getattr(self, name) <= 0:
                raise RednetError(f"losses.{name} must be above 0, not {getattr(self, name)}")


def pass_losses(
    config: LossConfig, model: RedNetConfig, extra: Sequence[ExtraLoss] = ()
) -> Callable[[PassOutput, Targets], dict[str, Array]]:
    """Returns the function that the feedback loop calls at each pass.

    Args:
        config: weights and forms.
        model: the network.
        extra: further terms, added to the total without weights.

    Returns:
        A function that returns `total`, `nme` and the network's terms, each float32 [B]:
        `detection` and `confidence`; `map_landmarks` and `landmarks`, or in the journal form
        `heat_maps`; `identity` if it has a weight; and the extra terms by their names. `total` is
        the weighted sum. `nme` is the mean error of `PassOutput.landmarks` in percent of
        `face_unit`, in most schemes the inter-ocular distance; nan if that is unknown.
    """
    journal = model.architecture == "ijcv_resnet"

    def losses(output: PassOutput, targets: Targets) -> dict[str, Array]:
        # Sums over thousands of pixels need float32 even if activations are bfloat16.
        output = jax.tree.map(
            lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), output
        )
        expect_shape(targets.landmarks, output.landmarks.shape)
        labelled, of_image = targets.labelled, targets
        targets = _in_crop(of_image, output.crop)
        truth = targets.landmarks
        eyes, eyes_known = face_unit(targets, model.scheme, _face_side(model, output.crop))
        known = labelled & eyes_known[:, None]
        if journal:
            coarse = _in_crop(of_image, output.coarse_crop)
            terms = _independent_maps(config, model, output, targets, coarse)
        else:
            terms = _softmax_maps(config, model.image_size, output, targets, eyes, known)
        confidence = confidence_loss(
            output.confidence_logits, output.landmarks, truth, eyes, config.correct_below
        )
        terms["confidence"] = masked_mean(confidence, known)
        if config.identity:
            terms["identity"] = identity_loss(output.identity_logits, targets.identity)
        total = sum(getattr(config, name) * value for name, value in terms.items())
        for loss in extra:
            terms[loss.__name__] = value = loss(output, targets)
            expect_shape(value, eyes.shape)
            total += value
        distance = jnp.linalg.norm(jax.lax.stop_gradient(output.landmarks) - truth, axis=-1)
        nme = 100 * masked_mean(distance / eyes[:, None], known)
        return {"total": total, **terms, "nme": jnp.where(eyes_known, nme, jnp.nan)}

    return losses


def _face_side(model: RedNetConfig, crop: Array) -> Array:
    """Returns the side [B] of the face's bounding box in pixels of a crop [B, 2, 3]."""
    (a, b), (c, d) = jnp.moveaxis(crop[..., :2], 0, -1)
    return model.image_size / model.crop_margin / jnp.sqrt(jnp.abs(a * d - b * c))


def _in_crop(targets: Targets, crop: Array) -> Targets:
    """Returns targets in pixels of a crop [B, 2, 3], 0 where not labelled."""
    landmarks = apply_affine(invert_affine(crop), targets.landmarks)
    return targets._replace(landmarks=jnp.where(targets.labelled[..., None], landmarks, 0))


def _softmax_maps(
    config: LossConfig,
    crop_size: int,
    output: PassOutput,
    targets: Targets,
    eyes: Array,
    known: Array,
) -> dict[str, Array]:
    """Returns the terms [B] of maps with background, of their landmarks, and of f_REG."""
    truth, labelled = targets.landmarks, targets.labelled
    height, width = output.logits.shape[1:3]
    target = detection_targets(
        to_map_pixels(truth, crop_size, height), labelled, (height, width), config.sigma
    )
    detection = detection_loss(output.logits, target, labelled, config.background_share)
    in_eyes = config.unit == "inter_ocular"
    unit, used = (eyes, known) if in_eyes else (jnp.full_like(eyes, crop_size), labelled)
    # Maps cannot represent landmarks outside of the crop; f_REG can.
    inside = jnp.all((truth > -0.5) & (truth < crop_size - 0.5), axis=-1)
    mapped, regressed = (
        coordinate_loss(
            landmarks,
            truth,
            unit,
            form=config.coordinate,
            wing_width=config.wing_width,
            wing_curvature=config.wing_curvature,
        )
        for landmarks in (output.map_landmarks, output.landmarks)
    )
    return {
        "detection": jnp.sum(detection, axis=(1, 2)),
        "map_landmarks": masked_mean(mapped, used & inside),
        "landmarks": masked_mean(regressed, used),
    }


def _independent_maps(
    config: LossConfig, model: RedNetConfig, output: PassOutput, targets: Targets, coarse: Targets
) -> dict[str, Array]:
    """Returns the terms [B] of the journal form's maps.

    `coarse` are the targets in the crop of the coarse pass.
    """
    assert output.coarse_logits is not None

    def peaks(logits: Array, landmarks: Array) -> Array:
        height, width = logits.shape[1:3]
        landmarks = to_map_pixels(landmarks, model.image_size, height)
        return gaussian_heatmaps(landmarks, (height, width), config.sigma)

    seven = jnp.asarray(model.coarse_landmarks)
    # The radius is sqrt(2) sigma, which is the journal's 3 px with the sigma of its code.
    discs = peaks(output.coarse_logits, coarse.landmarks[:, seven]) > math.exp(-1)
    detection = disc_loss(
        output.coarse_logits, discs, coarse.labelled[:, seven], config.background_share
    )
    heat_maps = heat_map_loss(
        output.logits, peaks(output.logits, targets.landmarks), targets.labelled
    )
    return {
        "detection": jnp.sum(detection, axis=(1, 2, 3)),
        "heat_maps": jnp.sum(heat_maps, axis=(1, 2, 3)),
    }
