"""f_DET, f_REG and f_CLS: response maps, landmarks with confidence, and identity.

Logits and landmarks are float32 even if activations are bfloat16: bfloat16 has a spacing of 1/16 at
a logit of 10, so neighbouring pixels tie, and of half a pixel beyond 64.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rednet_jax.landmarks.heatmaps import decode_peak, to_crop_pixels
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.convolutions import wide
from rednet_jax.model.encoder import Blocks, Encoded
from rednet_jax.model.layers import BatchNorm, Conv, ConvNorm, Dense, Draw, Mode, double, max_pool


class Detection(nnx.Module):
    """f_DET with softmax: a 1x1 convolution to L + 1 logits per pixel, background first."""

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        inputs = config.widths[2 if config.architecture == "compact" else 0]
        self.logits = Conv(inputs, config.scheme.count + 1, 1, bias=True, draw=draw)

    def __call__(self, features: jax.Array, mode: Mode) -> jax.Array:
        """Returns logits [B, h, w, L + 1], at least float32."""
        del mode
        return self.logits(wide(features))


class CoarseDetection(nnx.Module):
    """The journal's detection head: 7 independent maps at a quarter of the crop's resolution."""

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        width = config.widths[0]
        self.hidden = ConvNorm(config.widths[1], width, 1, draw=draw)
        self.logits = Conv(width, 7, 1, bias=True, draw=draw)

    def __call__(self, features: jax.Array, mode: Mode) -> jax.Array:
        """Returns logits [B, H / 4, W / 4, 7], at least float32."""
        return self.logits(wide(self.hidden(features, mode)))


class FineDetection(nnx.Module):
    """The journal's heat-map regression: up-sampling by two, three blocks, L maps."""

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows, width = config.statistic_rows, config.regression_width
        self.project = ConvNorm(config.widths[1], width, 1, rows=rows, draw=draw)
        self.blocks = Blocks(width, width, 3, rows=rows, draw=draw)
        self.logits = Conv(width, config.scheme.count, 1, bias=True, draw=draw)

    def __call__(self, features: jax.Array, mode: Mode) -> jax.Array:
        """Returns logits [B, H / 2, W / 2, L], at least float32."""
        return self.logits(wide(self.blocks(double(self.project(features, mode)), mode)))


class PeakReadout(nnx.Module):
    """Landmarks at the sub-pixel peaks of independent maps; confidence is affine in the peak."""

    def __init__(self, config: RedNetConfig) -> None:
        self.gain: nnx.Param[Any] = nnx.Param(np.ones(config.scheme.count, np.float32))
        self.offset: nnx.Param[Any] = nnx.Param(np.zeros(config.scheme.count, np.float32))
        self.image_size, self.map_size = config.image_size, config.map_size

    def __call__(self, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns landmarks [B, L, 2] in crop pixels and confidence logits [B, L]."""
        points = decode_peak(logits)
        peaks = jax.lax.stop_gradient(logits.max((1, 2)))
        confidence = self.gain.get_value() * peaks + self.offset.get_value()
        return to_crop_pixels(points, self.image_size, self.map_size), confidence


class Points(nnx.Module):
    """The last layer of f_REG: landmarks as offsets from the mean shape, and confidence logits."""

    def __init__(self, inputs: int, config: RedNetConfig, draw: Draw) -> None:
        self.dense = Dense(inputs, 3 * config.scheme.count, gain=0.1, draw=draw)
        mean = config.scheme.shape / config.crop_margin
        # The paper regresses landmarks minus the mean shape; the mean shape is the initial bias.
        bias = np.zeros(3 * config.scheme.count, np.float32)
        bias[: mean.size] = mean.ravel()
        self.dense.bias = nnx.Param(bias)
        self.image_size = config.image_size

    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs = self.dense(wide(features))
        offsets, confidence = jnp.split(outputs, [outputs.shape[-1] * 2 // 3], axis=-1)
        offsets = offsets.reshape(*offsets.shape[:-1], -1, 2)
        return (offsets + 0.5) * self.image_size - 0.5, confidence


class VGGRegression(nnx.Module):
    """f_REG of the ECCV paper: a smaller encoder of the maps, conv2_2 and conv4_3.

    The paper does not give its widths; ours are 64-128-256-512-512 at full width, with one
    convolution per pooling and two dense layers.
    """

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows, widths = config.statistic_rows, config.widths
        inputs = (
            config.scheme.count + 1,
            widths[0] + widths[1],
            widths[1],
            widths[2] + widths[3],
            widths[3],
        )
        self.convs = nnx.Dict(
            {
                f"conv{i}": ConvNorm(channels, width, rows=rows, draw=draw)
                for i, (channels, width) in enumerate(zip(inputs, widths, strict=True), start=1)
            }
        )
        side = config.code_size
        self.hidden = Dense(side * side * widths[4], config.regression_width, draw=draw)
        self.points = Points(config.regression_width, config, draw)

    def __call__(
        self, maps: jax.Array, code: jax.Array, encoded: Encoded, mode: Mode
    ) -> tuple[jax.Array, jax.Array]:
        """Returns landmarks [B, L, 2] in crop pixels and confidence logits [B, L]."""
        del code
        half, eighth = encoded.features
        joined = {2: half, 4: eighth}
        features = maps
        for i in range(1, 6):
            if i in joined:
                features = jnp.concatenate([features, joined[i]], axis=-1)
            features = max_pool(self.convs[f"conv{i}"](features, mode))[0]
        hidden = jax.nn.relu(self.hidden(features.reshape(features.shape[0], -1)))
        return self.points(hidden)


class CompactRegression(nnx.Module):
    """f_REG of `compact`: maps and encoder features at 1/8 and 1/16, one dense layer."""

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows = config.statistic_rows
        _, _, quarter, eighth, sixteenth, _, squeezed = config.widths
        last = config.regression_width
        self.squeeze = Conv(config.scheme.count + 1, squeezed, 1, draw=draw)
        self.norm = BatchNorm(squeezed, rows)
        self.eighth = ConvNorm(squeezed + eighth, quarter, rows=rows, draw=draw)
        self.sixteenth = ConvNorm(quarter + sixteenth, last, rows=rows, draw=draw)
        self.code = ConvNorm(config.code_width, last, 1, rows=rows, draw=draw)
        side = config.code_size
        self.points = Points(side * side * last, config, draw)

    def __call__(
        self, maps: jax.Array, code: jax.Array, encoded: Encoded, mode: Mode
    ) -> tuple[jax.Array, jax.Array]:
        """Returns landmarks [B, L, 2] in crop pixels and confidence logits [B, L]."""
        _, eighth, sixteenth = encoded.features
        features = max_pool(jax.nn.relu(self.norm(self.squeeze(maps), mode)))[0]
        features = self.eighth(jnp.concatenate([features, eighth], axis=-1), mode)
        features = max_pool(features)[0]
        features = self.sixteenth(jnp.concatenate([features, sixteenth], axis=-1), mode)
        features = max_pool(features)[0] + self.code(code, mode)
        return self.points(features.reshape(features.shape[0], -1))


class Identity(nnx.Module):
    """f_CLS: a classifier on the mean of C_id over space."""

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        self.logits = Dense(config.code_width // 2, config.identities, draw=draw)

    def __call__(self, identity_code: jax.Array) -> jax.Array:
        """Returns logits [B, identities] of C_id [B, h, w, code_width / 2]."""
        return self.logits(wide(identity_code).mean((1, 2)))


def scale_confidence(
    config: RedNetConfig, variables: dict[str, Any], slope: float, intercept: float
) -> dict[str, Any]:
    """Returns variables for which the confidence is sigmoid(slope * logit + intercept).

    The landmarks are the same, bit for bit.

    Args:
        config: of the network.
        variables: {'params': ..., 'batch_stats': ...}, numpy; they are not changed.
        slope: for all landmarks and passes.
        intercept: likewise.
    """
    scaled: dict[str, Any] = jax.tree.map(np.array, variables)
    if config.architecture == "ijcv_resnet":
        gain, offset = (scaled["params"]["readout"][name] for name in ("gain", "offset"))
    else:
        dense, points = scaled["params"]["regression"]["points"]["dense"], 2 * config.scheme.count
        gain, offset = dense["kernel"][:, points:], dense["bias"][points:]
    # These are views of the copy.
    gain *= slope
    offset *= slope
    offset += intercept
    return scaled
