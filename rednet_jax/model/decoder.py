"""f_DENC: bottleneck code -> features, from which the detection head computes response maps."""

from __future__ import annotations

from typing import Protocol

import jax
from flax import nnx

from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.encoder import VGG_DEPTHS, Blocks, Encoded
from rednet_jax.model.layers import ConvNorm, Draw, Mode, double, unpool


class Decoder(Protocol):
    """The interface of a decoder, which `RedNet` builds as `decoder(config, draw)`."""

    def __call__(self, code: jax.Array, encoded: Encoded, mode: Mode) -> jax.Array:
        """Returns features for the detection head, from the code and the encoder's output.

        In `eccv_vgg` they are [B, H, W, widths[0]], in `ijcv_resnet` [B, H / 4, W / 4, widths[1]],
        in `compact` [B, H / 4, W / 4, widths[2]], in `separable` [B, H / 4, W / 4, widths[0]].
        """
        ...


class VGGDecoder(nnx.Module):
    """The ECCV paper's decoder: the encoder mirrored, 3-3-3-2-2 convolutions, with unpooling.

    The last convolution of each stage has as many outputs as the next unpooling has channels.
    """

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows = config.statistic_rows
        convs: dict[str, ConvNorm] = {}
        widths = (config.widths[0], *config.widths)
        for stage, depth in zip(range(5, 0, -1), reversed(VGG_DEPTHS), strict=True):
            for layer in range(depth, 0, -1):
                outputs = widths[stage - 1] if layer == 1 else widths[stage]
                convs[f"conv{stage}_{layer}"] = ConvNorm(
                    widths[stage], outputs, rows=rows, draw=draw
                )
        self.convs = nnx.Dict(convs)

    def __call__(self, code: jax.Array, encoded: Encoded, mode: Mode) -> jax.Array:
        """Returns features at the crop's resolution, [B, H, W, widths[0]]."""
        maps = code
        for stage, depth in zip(range(5, 0, -1), reversed(VGG_DEPTHS), strict=True):
            maps = unpool(maps, encoded.places[stage - 1])
            for layer in range(depth, 0, -1):
                maps = self.convs[f"conv{stage}_{layer}"](maps, mode)
        return maps


class _UpStage(nnx.Module):
    """Nearest-neighbour x2 and a 1x1 convolution, plus the encoder's features after 3 blocks."""

    def __init__(self, inputs: int, outputs: int, *, rows: int, draw: Draw) -> None:
        self.project = ConvNorm(inputs, outputs, 1, rows=rows, activate=False, draw=draw)
        self.skip = Blocks(outputs, outputs, 3, rows=rows, draw=draw)
        self.blocks = Blocks(outputs, outputs, 3, rows=rows, draw=draw)

    def __call__(self, features: jax.Array, skip: jax.Array, mode: Mode) -> jax.Array:
        # The 1x1 convolution and its normalisation commute with the up-sampling: before it they are
        # a quarter of the work.
        up = double(self.project(features, mode))
        return self.blocks(jax.nn.relu(up + self.skip(skip, mode)), mode)


class ResNetDecoder(nnx.Module):
    """The journal code's decoder: three up-sampling stages with skips from layers 3, 2 and 1."""

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows = config.statistic_rows
        widths = config.widths
        self.stages = nnx.Dict(
            {
                f"up{i}": _UpStage(widths[i + 1], widths[i], rows=rows, draw=draw)
                for i in range(3, 0, -1)
            }
        )

    def __call__(self, code: jax.Array, encoded: Encoded, mode: Mode) -> jax.Array:
        """Returns features at a quarter of the crop's resolution, [B, H / 4, W / 4, widths[1]]."""
        maps = code
        for i in range(3, 0, -1):
            maps = self.stages[f"up{i}"](maps, encoded.features[i - 1], mode)
        return maps


class CompactDecoder(nnx.Module):
    """The decoder of `compact`: 3 stages of unpooling, adding encoder features, a convolution."""

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows = config.statistic_rows
        _, _, quarter, eighth, sixteenth, _, _ = config.widths
        inputs = (quarter, eighth, sixteenth)
        outputs = (quarter, quarter, eighth)
        self.project = (
            ConvNorm(config.code_width, sixteenth, 1, rows=rows, draw=draw)
            if config.code_width != sixteenth
            else None
        )
        self.convs = nnx.Dict(
            {
                f"up{i}": ConvNorm(inputs[i], outputs[i], rows=rows, draw=draw)
                for i in range(2, -1, -1)
            }
        )

    def __call__(self, code: jax.Array, encoded: Encoded, mode: Mode) -> jax.Array:
        """Returns features at a quarter of the crop's resolution, [B, H / 4, W / 4, widths[2]]."""
        maps = code if self.project is None else self.project(code, mode)
        for i in range(2, -1, -1):
            maps = unpool(maps, encoded.places[i]) + encoded.features[i]
            maps = self.convs[f"up{i}"](maps, mode)
        return maps
