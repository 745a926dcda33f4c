"""f_ENC: image x and feedback map z -> bottleneck code C, and features for decoder and f_REG.

Every encoder has two parts. The stem has the image as its only input and runs once per image; the
rest runs at every pass. A convolution of [x, z] is a convolution of x plus a convolution of z, so
the first of the two is part of the stem.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.layers import BatchNorm, Conv, ConvNorm, Draw, Mode, max_pool, space_to_depth

_OPEN_GAIN = 1e-3
"""Scale of the initial weights of z's input layer if gradients flow through z.

With batch normalisation, one pass of an untrained network amplifies a small change of z: 2 to 5
times in the ECCV paper's form, 40 to 200 times in the journal's, at any width. Gradients grow by
the same factor with every pass and frame: to 1e12 in two frames of two passes. With this scale an
untrained loop is a contraction."""


class Encoded(NamedTuple):
    """The output of one pass of an encoder.

    Attributes:
        code: C, [B, h, w, code_width]; the first half of the channels is C_id, the second C_pe.
        features: feature maps for decoder and f_REG, finest first.
        places: places of the maxima of each max pooling, finest first (`layers.max_pool`).
    """

    code: jax.Array
    features: tuple[jax.Array, ...]
    places: tuple[jax.Array, ...]


VGG_DEPTHS = (2, 2, 3, 3, 3)
"""Number of convolutions in each stage of VGG-16, finest first."""


class Encoder(Protocol):
    """The interface of an encoder, which `RedNet` builds as `encoder(config, draw)`.

    `config` is the `RedNetConfig`. `draw` draws the initial weights of the layers of
    `rednet_jax.model.layers`. Batch statistics need `config.statistic_rows` rows.
    """

    def stem(self, images: jax.Array, mode: Mode) -> jax.Array:
        """Returns features of the image [B, H, W, 3] alone; runs once per image."""
        ...

    def __call__(self, stem: jax.Array, z: jax.Array | None, mode: Mode) -> Encoded:
        """Returns code and features of one pass, given the feedback map z.

        z is [B, feedback_size, feedback_size, feedback_channels], or None if it is blank: in the
        first pass over an image alone. The features are those that the architecture's decoder and
        f_REG need. For `compact` they are at 1/4, 1/8 and 1/16 of the crop's resolution, with
        `widths[2]`, `widths[3]` and `widths[4]` channels; `places` are those of the three max
        poolings that its decoder inverts.
        """
        ...


class VGGEncoder(nnx.Module):
    """The ECCV paper's encoder: VGG-16's 13 convolutions with batch normalisation, 5 max pools.

    `config.widths` are the channels of the five stages. z is an input of conv1_1, at full
    resolution.
    """

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows = config.statistic_rows
        first = config.widths[0]
        self.picture = Conv(3, first, draw=draw)
        gain = _OPEN_GAIN if config.open_feedback_gradient else 1.0
        channels = config.feedback_channels
        self.feedback = Conv(channels, first, gain=gain, draw=draw) if channels else None
        self.norm1_1 = BatchNorm(first, rows)
        convs: dict[str, ConvNorm] = {}
        inputs = first
        for stage, (width, depth) in enumerate(
            zip(config.widths, VGG_DEPTHS, strict=True), start=1
        ):
            for layer in range(2 if stage == 1 else 1, depth + 1):
                convs[f"conv{stage}_{layer}"] = ConvNorm(inputs, width, rows=rows, draw=draw)
                inputs = width
        self.convs = nnx.Dict(convs)

    def stem(self, images: jax.Array, mode: Mode) -> jax.Array:
        """Returns conv1_1 of the image alone, without z, [B, H, W, widths[0]]."""
        del mode
        return self.picture(images)

    def __call__(self, stem: jax.Array, z: jax.Array | None, mode: Mode) -> Encoded:
        """Returns the code at 1/32; the features are conv2_2 (1/2) and conv4_3 (1/8)."""
        mixed = stem if self.feedback is None or z is None else stem + self.feedback(z)
        maps = jax.nn.relu(self.norm1_1(mixed, mode))
        last, places = [], []
        for stage, depth in enumerate(VGG_DEPTHS, start=1):
            for layer in range(2 if stage == 1 else 1, depth + 1):
                maps = self.convs[f"conv{stage}_{layer}"](maps, mode)
            last.append(maps)
            maps, place = max_pool(maps)
            places.append(place)
        return Encoded(maps, (last[1], last[3]), tuple(places))


class Bottleneck(nnx.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions, as in ResNet-50.

    `gain` is the initial scale of the last normalisation of both branches.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        rows: int,
        gain: float = 1.0,
        draw: Draw,
    ) -> None:
        middle = max(outputs // 4, 1)
        self.reduce = ConvNorm(inputs, middle, 1, rows=rows, draw=draw)
        self.spatial = ConvNorm(middle, middle, 3, stride=stride, rows=rows, draw=draw)
        self.expand = ConvNorm(middle, outputs, 1, rows=rows, activate=False, gain=gain, draw=draw)
        self.shortcut = (
            ConvNorm(
                inputs, outputs, 1, stride=stride, rows=rows, activate=False, gain=gain, draw=draw
            )
            if stride != 1 or inputs != outputs
            else None
        )

    def __call__(self, features: jax.Array, mode: Mode) -> jax.Array:
        residual = self.expand(self.spatial(self.reduce(features, mode), mode), mode)
        kept = features if self.shortcut is None else self.shortcut(features, mode)
        return jax.nn.relu(kept + residual)


class Blocks(nnx.Module):
    """`depth` bottleneck blocks; the first changes the channels and may halve the resolution."""

    def __init__(
        self, inputs: int, outputs: int, depth: int, *, stride: int = 1, rows: int, draw: Draw
    ) -> None:
        self.blocks = nnx.Dict(
            {
                f"block{i}": Bottleneck(
                    inputs if i == 0 else outputs,
                    outputs,
                    stride=stride if i == 0 else 1,
                    rows=rows,
                    draw=draw,
                )
                for i in range(depth)
            }
        )

    def __call__(self, features: jax.Array, mode: Mode) -> jax.Array:
        for i in range(len(self.blocks)):
            features = self.blocks[f"block{i}"](features, mode)
        return features


class ResNetEncoder(nnx.Module):
    """The journal code's encoder: ResNet-50, with the feedback map added after layer 1.

    `config.widths` are the channels of the stem and of layers 1 to 4.
    """

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows = config.statistic_rows
        first, *widths = config.widths
        self.conv1 = ConvNorm(3, first, 7, stride=2, draw=draw)
        self.layer1 = Blocks(first, widths[0], 3, rows=1, draw=draw)
        # At least two rows: the features of a blank map are not used, and must not enter the
        # statistics of the other maps.
        gain = _OPEN_GAIN if config.open_feedback_gradient else 1.0
        channels = config.feedback_channels
        self.feedback = (
            Bottleneck(channels, widths[0], rows=max(rows, 2), gain=gain, draw=draw)
            if channels
            else None
        )
        self.layer2 = Blocks(widths[0], widths[1], 4, stride=2, rows=rows, draw=draw)
        self.layer3 = Blocks(widths[1], widths[2], 6, stride=2, rows=rows, draw=draw)
        self.layer4 = Blocks(widths[2], widths[3], 3, stride=2, rows=rows, draw=draw)

    def stem(self, images: jax.Array, mode: Mode) -> jax.Array:
        """Returns layer 1's features of the image, [B, H / 4, W / 4, widths[1]]."""
        maps = nnx.max_pool(
            self.conv1(images, mode), (3, 3), strides=(2, 2), padding=((1, 1), (1, 1))
        )
        return self.layer1(maps, mode)

    def __call__(self, stem: jax.Array, z: jax.Array | None, mode: Mode) -> Encoded:
        """Returns the code at 1/32; the features are layers 1, 2 and 3 (1/4, 1/8, 1/16)."""
        first = stem
        if self.feedback is not None and z is not None:
            # A blank map must add nothing, so that the first pass is the journal's detection pass.
            not_blank = (mode.passes > 0)[:, None, None, None]
            first = stem + jnp.where(not_blank, self.feedback(z, mode), 0)
        second = self.layer2(first, mode)
        third = self.layer3(second, mode)
        return Encoded(self.layer4(third, mode), (first, second, third), ())


class CompactEncoder(nnx.Module):
    """The encoder of `compact`: a stem at 1/2 and 1/4, then two convolutions per level.

    `config.widths` are the channels of the stem's two convolutions, of the levels at 1/4, 1/8, 1/16
    and 1/32, and of the feedback map after a 1x1 convolution.
    """

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows = config.statistic_rows
        stem1, stem2, quarter, eighth, sixteenth, last, squeezed = config.widths
        self.stem1 = ConvNorm(12, stem1, draw=draw)
        self.stem2 = ConvNorm(stem1, stem2, draw=draw)
        self.picture = Conv(stem2, quarter, draw=draw)
        channels = config.feedback_channels
        self.squeeze = Conv(channels, squeezed, 1, draw=draw) if channels else None
        # At zero, so that adding a second pass does not disturb a network trained with one.
        self.feedback = Conv(squeezed, quarter, gain=0.0, draw=draw) if channels else None
        self.norm = BatchNorm(quarter, rows)
        widths = (quarter, eighth, sixteenth, last)
        convs = {"level1_2": ConvNorm(quarter, quarter, rows=rows, draw=draw)}
        for level in (2, 3, 4):
            inputs, width = widths[level - 2], widths[level - 1]
            outputs = config.code_width if level == 4 else width
            convs[f"level{level}_1"] = ConvNorm(inputs, width, rows=rows, draw=draw)
            convs[f"level{level}_2"] = ConvNorm(width, outputs, rows=rows, draw=draw)
        self.convs = nnx.Dict(convs)

    def stem(self, images: jax.Array, mode: Mode) -> jax.Array:
        """Returns the first convolution at 1/4 without z, [B, H / 4, W / 4, widths[2]]."""
        maps = self.stem2(self.stem1(space_to_depth(images), mode), mode)
        return self.picture(max_pool(maps)[0])

    def __call__(self, stem: jax.Array, z: jax.Array | None, mode: Mode) -> Encoded:
        """Returns the code at 1/32; the features are those at 1/4, 1/8 and 1/16."""
        mixed = stem
        if self.squeeze is not None and self.feedback is not None and z is not None:
            mixed = stem + self.feedback(self.squeeze(z))
        maps = jax.nn.relu(self.norm(mixed, mode))
        maps = self.convs["level1_2"](maps, mode)
        features, places = [], []
        for level in (2, 3, 4):
            features.append(maps)
            maps, place = max_pool(maps)
            places.append(place)
            maps = self.convs[f"level{level}_1"](maps, mode)
            maps = self.convs[f"level{level}_2"](maps, mode)
        return Encoded(maps, tuple(features), tuple(places))
