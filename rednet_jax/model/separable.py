"""`separable`, an architecture for CPUs: pointwise and depthwise convolutions from 1/4 on.

XLA's CPU backend runs a convolution on one core unless it has many outputs. A pointwise convolution
is a matrix product on all cores, and a depthwise one is a sum of shifted maps in one fused loop. So
the first layer takes blocks of 4 x 4 pixels, and each level of resolution is a stack of such pairs.
There is no max pooling: its ties make exported networks differ.
"""

from __future__ import annotations

from typing import ClassVar

import jax
from flax import nnx

from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.encoder import Encoded
from rednet_jax.model.feedback import halve
from rednet_jax.model.heads import Points
from rednet_jax.model.layers import (
    BatchNorm,
    Conv,
    ConvNorm,
    Depthwise,
    Draw,
    Mode,
    depth_to_space,
    double,
    space_to_depth,
)


class Block(nnx.Module):
    """x + relu(norm(pointwise(depthwise(x)))), [B, h, w, channels] -> the same.

    The normalisation's initial scale is 0.2, so that an untrained block is close to the identity.
    """

    def __init__(self, channels: int, *, rows: int, draw: Draw, size: int = 3) -> None:
        self.depthwise = Depthwise(channels, size, draw=draw)
        self.pointwise = ConvNorm(channels, channels, 1, rows=rows, gain=0.2, draw=draw)

    def __call__(self, features: jax.Array, mode: Mode) -> jax.Array:
        return features + self.pointwise(self.depthwise(features), mode)


class Stack(nnx.Module):
    """`depth` blocks."""

    def __init__(self, channels: int, depth: int, *, rows: int, draw: Draw, size: int = 3) -> None:
        self.blocks = nnx.Dict(
            {f"block{i}": Block(channels, rows=rows, draw=draw, size=size) for i in range(depth)}
        )

    def __call__(self, features: jax.Array, mode: Mode) -> jax.Array:
        for i in range(len(self.blocks)):
            features = self.blocks[f"block{i}"](features, mode)
        return features


class SeparableEncoder(nnx.Module):
    """f_ENC: a stack of blocks at 1/4, 1/8, 1/16 and 1/32 of the crop's resolution.

    `config.widths` are the channels at 1/4, 1/8 and 1/16; at 1/32 they are `code_width`. z is added
    at 1/8.

    Attributes:
        depths: number of blocks of each level, finest first.
        kernel: side of the depthwise kernels.
    """

    depths: ClassVar[tuple[int, int, int, int]] = (1, 2, 2, 1)
    kernel: ClassVar[int] = 3

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows = config.statistic_rows
        quarter, eighth, sixteenth = config.widths
        depths, kernel = self.depths, self.kernel
        self.patches = ConvNorm(48, quarter, 1, draw=draw)
        self.quarter = Stack(quarter, depths[0], rows=1, draw=draw, size=kernel)
        self.image = Conv(4 * quarter, eighth, 1, draw=draw)
        channels = config.feedback_channels
        # At zero, so that adding a second pass does not disturb a network trained with one.
        self.feedback = Conv(channels, eighth, 1, gain=0.0, draw=draw) if channels else None
        self.norm = BatchNorm(eighth, rows)
        self.eighth = Stack(eighth, depths[1], rows=rows, draw=draw, size=kernel)
        self.down16 = ConvNorm(4 * eighth, sixteenth, 1, rows=rows, draw=draw)
        self.sixteenth = Stack(sixteenth, depths[2], rows=rows, draw=draw, size=kernel)
        self.down32 = ConvNorm(4 * sixteenth, config.code_width, 1, rows=rows, draw=draw)
        self.last = Stack(config.code_width, depths[3], rows=rows, draw=draw, size=kernel)

    def stem(self, images: jax.Array, mode: Mode) -> jax.Array:
        """Returns the features of the image at 1/4, [B, H / 4, W / 4, widths[0]]."""
        patches = space_to_depth(space_to_depth(images))
        return self.quarter(self.patches(patches, mode), mode)

    def __call__(self, stem: jax.Array, z: jax.Array | None, mode: Mode) -> Encoded:
        """Returns the code at 1/32; the features are those at 1/4, 1/8 and 1/16."""
        mixed = self.image(space_to_depth(stem))
        if self.feedback is not None and z is not None:
            mixed = mixed + self.feedback(z)
        eighth = self.eighth(jax.nn.relu(self.norm(mixed, mode)), mode)
        sixteenth = self.sixteenth(self.down16(space_to_depth(eighth), mode), mode)
        code = self.last(self.down32(space_to_depth(sixteenth), mode), mode)
        return Encoded(code, (stem, eighth, sixteenth), ())


class SeparableDecoder(nnx.Module):
    """f_DENC: three up-samplings by two, each adding encoder features, then a stack of blocks.

    Attributes:
        depths: number of blocks at 1/4, 1/8 and 1/16.
    """

    depths: ClassVar[tuple[int, int, int]] = (0, 1, 0)

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows = config.statistic_rows
        quarter, eighth, sixteenth = config.widths

        def up(inputs: int, outputs: int) -> ConvNorm:
            return ConvNorm(inputs, outputs, 1, rows=rows, activate=False, draw=draw)

        self.up16 = up(config.code_width, sixteenth)
        self.sixteenth = Stack(sixteenth, self.depths[2], rows=rows, draw=draw)
        self.up8 = up(sixteenth, eighth)
        self.eighth = Stack(eighth, self.depths[1], rows=rows, draw=draw)
        self.up4 = up(eighth, 4 * quarter)
        self.quarter = Stack(quarter, self.depths[0], rows=rows, draw=draw)

    def __call__(self, code: jax.Array, encoded: Encoded, mode: Mode) -> jax.Array:
        """Returns features at a quarter of the crop's resolution, [B, H / 4, W / 4, widths[0]]."""
        quarter, eighth, sixteenth = encoded.features
        maps = jax.nn.relu(double(self.up16(code, mode)) + sixteenth)
        maps = self.sixteenth(maps, mode)
        maps = jax.nn.relu(double(self.up8(maps, mode)) + eighth)
        maps = self.eighth(maps, mode)
        # Not nearest-neighbour: channels give each of the 2 x 2 pixels its own value.
        maps = jax.nn.relu(depth_to_space(self.up4(maps, mode)) + quarter)
        return self.quarter(maps, mode)


class SeparableRegression(nnx.Module):
    """f_REG: maps and encoder features at 1/8 and 1/16, the code, a block and a dense layer."""

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows = config.statistic_rows
        _, eighth, sixteenth = config.widths
        last = config.regression_width
        self.maps = Conv(config.scheme.count + 1, last, 1, draw=draw)
        self.eighth = Conv(eighth, last, 1, draw=draw)
        self.norm8 = BatchNorm(last, rows)
        self.down16 = Conv(4 * last, 2 * last, 1, draw=draw)
        self.sixteenth = Conv(sixteenth, 2 * last, 1, draw=draw)
        self.norm16 = BatchNorm(2 * last, rows)
        self.block = Block(2 * last, rows=rows, draw=draw)
        self.down32 = Conv(8 * last, last, 1, draw=draw)
        self.code = Conv(config.code_width, last, 1, draw=draw)
        self.norm32 = BatchNorm(last, rows)
        self.points = Points(config.code_size**2 * last, config, draw)

    def __call__(
        self, maps: jax.Array, code: jax.Array, encoded: Encoded, mode: Mode
    ) -> tuple[jax.Array, jax.Array]:
        """Returns landmarks [B, L, 2] in crop pixels and confidence logits [B, L]."""
        _, eighth, sixteenth = encoded.features

        def joined(norm: BatchNorm, first: jax.Array, second: jax.Array) -> jax.Array:
            return jax.nn.relu(norm(first + second, mode))

        features = joined(self.norm8, self.maps(halve(maps)), self.eighth(eighth))
        down = self.down16(space_to_depth(features))
        features = self.block(joined(self.norm16, down, self.sixteenth(sixteenth)), mode)
        down = self.down32(space_to_depth(features))
        features = joined(self.norm32, down, self.code(code))
        return self.points(features.reshape(features.shape[0], -1))
