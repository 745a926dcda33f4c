"""f_ENC: image x and feedback map z -> bottleneck code C, with what decoder and f_REG reuse.

Every encoder comes in two parts. The stem sees the image alone and runs once an image; the rest
runs at every feedback pass. A convolution over [x, z] is a convolution of x plus one of z, so its
first half belongs to the stem.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.layers import BatchNorm, Conv, ConvNorm, Draw, Mode, max_pool, space_to_depth

_OPEN_GAIN = 1e-3
"""What z's way in is scaled by at the start where gradients cross the loop.

While batches normalise it, one pass of an untrained network stretches a small change of z: 2 to 5
times in the ECCV paper's form, 40 to 200 times in the journal's, however wide. Gradients grow by as
much with every pass and frame: to 1e12 in two frames of two passes. Thus begun, the loop shrinks
what enters it; what training then makes of it is training's own."""


class Encoded(NamedTuple):
    """What one pass of an encoder returns.

    Attributes:
        code: C, [B, h, w, code_width]; the first half of the channels is C_id, the second C_pe.
        features: feature maps for decoder and f_REG, finest first.
        places: of each max pooling, finest first (`layers.max_pool`).
    """

    code: jax.Array
    features: tuple[jax.Array, ...]
    places: tuple[jax.Array, ...]


VGG_DEPTHS = (2, 2, 3, 3, 3)
"""Convolutions of the stages of VGG-16, finest first."""


class Encoder(Protocol):
    """What `RedNet` needs of an encoder. It is built as `encoder(config, draw)`.

    `config` is the `RedNetConfig`. `draw` gives initial weights to the layers of
    `rednet_jax.model.layers`. Batch statistics need `config.statistic_rows` rows.
    """

    def stem(self, images: jax.Array, mode: Mode) -> jax.Array:
        """Returns what depends on the image [B, H, W, 3] alone; it runs once an image."""
        ...

    def __call__(self, stem: jax.Array, z: jax.Array | None, mode: Mode) -> Encoded:
        """Returns code and features of one pass, given the feedback map z.

        z is [B, feedback_size, feedback_size, feedback_channels], or None where it is blank: in the
        first pass over an image that stands alone. The features are those that the
        decoder and f_REG of the architecture read: of `compact` at 1/4, 1/8 and 1/16 of the crop,
        with `widths[2]`, `widths[3]` and `widths[4]` channels, and a place for each of the three
        max poolings that its decoder undoes.
        """
        ...


class VGGEncoder(nnx.Module):
    """The ECCV paper's: the 13 convolutions of VGG-16 with batch normalisation, five max pools.

    `config.widths` are the channels of the five stages; z enters at full resolution, in conv1_1.
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
        """Returns the image's half of conv1_1, [B, H, W, widths[0]]."""
        del mode
        return self.picture(images)

    def __call__(self, stem: jax.Array, z: jax.Array | None, mode: Mode) -> Encoded:
        """Returns the code at 1/32; features are conv2_2 (1/2) and conv4_3 (1/8), as f_REG asks."""
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

    The last normalisations of both branches begin with the scale `gain`.
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
    """The journal code's: ResNet-50, the feedback map added after layer 1.

    `config.widths` are the channels of the stem and of layers 1 to 4.
    """

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows = config.statistic_rows
        first, *widths = config.widths
        self.conv1 = ConvNorm(3, first, 7, stride=2, draw=draw)
        self.layer1 = Blocks(first, widths[0], 3, rows=1, draw=draw)
        # Two rows at least: a blank map, whose features are not used, must not enter the statistics
        # of the others.
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
        """Returns the code at 1/32; features are those of layers 1, 2 and 3 (1/4, 1/8, 1/16)."""
        first = stem
        if self.feedback is not None and z is not None:
            # A blank map must add nothing, so that the first pass is the journal's detection pass.
            seen = (mode.passes > 0)[:, None, None, None]
            first = stem + jnp.where(seen, self.feedback(z, mode), 0)
        second = self.layer2(first, mode)
        third = self.layer3(second, mode)
        return Encoded(self.layer4(third, mode), (first, second, third), ())


class CompactEncoder(nnx.Module):
    """Ours, for a CPU: a stem at half and quarter resolution, then two convolutions a level.

    `config.widths` are the channels of the stem's two convolutions, of the levels at 1/4, 1/8, 1/16
    and 1/32, and of the feedback map once squeezed by a 1x1 convolution.
    """

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        rows = config.statistic_rows
        stem1, stem2, quarter, eighth, sixteenth, last, squeezed = config.widths
        self.stem1 = ConvNorm(12, stem1, draw=draw)
        self.stem2 = ConvNorm(stem1, stem2, draw=draw)
        self.picture = Conv(stem2, quarter, draw=draw)
        channels = config.feedback_channels
        self.squeeze = Conv(channels, squeezed, 1, draw=draw) if channels else None
        # A network that was trained with one pass is not disturbed when the second begins.
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
        """Returns the image's half of the first convolution, [B, H / 4, W / 4, widths[2]]."""
        maps = self.stem2(self.stem1(space_to_depth(images), mode), mode)
        return self.picture(max_pool(maps)[0])

    def __call__(self, stem: jax.Array, z: jax.Array | None, mode: Mode) -> Encoded:
        """Returns the code at 1/32; features are those at 1/4, 1/8 and 1/16."""
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
