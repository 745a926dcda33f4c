"""RED-Net in PyTorch: landmarks of a face in a crop, for images or a stream of frames.

This file is self-contained. It needs torch, safetensors, and the exported weights:

    net = load("compact.safetensors")
    landmarks, confidence = net(crops)                      # independent images

    state = net.initial_state(batch=1)
    landmarks, confidence, state = net.step(crops, state)   # a stream, frame by frame

Crops are [B, S, S, 3], RGB, uint8 or floating in [0, 1], S = net.config.input_size: a square around
the face; its side is net.config.input_margin times the larger side of the landmarks' bounding box.
Landmarks are [B, L, 2], (x, y) in crop pixels, pixel centres at integers. Confidence is [B, L], the
probability that a landmark's error is at most 5 % of the distance between the outer eye corners.

Maps are [B, channels, height, width]. z is the feedback map, computed from the response maps of a
pass and an input of the next pass. A network with re-crops reads a part of its input, and after
each pass crops it again around the landmarks. Affine maps are [B, 2, 3], matrix and shift.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

# Sides of the squares in a label map, in map pixels, by pass.
_SQUARE_SIDES = [7.0, 5.0, 3.0]


class Config(NamedTuple):
    """Configuration of the network; the fields are those of the checkpoint's configuration."""

    architecture: str
    image_size: int
    widths: list[int]
    code_width: int
    recurrent_width: int
    regression_width: int
    landmarks: int
    coarse_landmarks: list[int]
    crop_margin: float
    feedback_steps: int
    feedback: str
    feedback_update: str
    statistics_per_pass: bool
    recurrence: str
    recrop: str
    context: float
    recrop_margin: float

    @property
    def input_size(self) -> int:
        """Side of the network's input, in pixels."""
        return round(self.image_size * self.context)

    @property
    def input_margin(self) -> float:
        """That side in units of the larger side of the face's bounding box."""
        return self.crop_margin * self.context

    @property
    def journal(self) -> bool:
        """Whether the first pass predicts only a few coarse maps."""
        return self.architecture == "ijcv_resnet"

    @property
    def rows(self) -> int:
        """Rows of the batch statistics in the feedback loop: the number of passes in training."""
        return self.feedback_steps + int(self.journal) if self.statistics_per_pass else 1

    @property
    def feedback_channels(self) -> int:
        """Channels of z."""
        soft = len(self.coarse_landmarks) if self.journal else self.landmarks + 1
        return {"none": 0, "label_map": 1, "response_maps": soft}[self.feedback]

    @property
    def feedback_size(self) -> int:
        """Side of z."""
        return self.image_size // {"eccv_vgg": 1, "separable": 8}.get(self.architecture, 4)

    @property
    def memory_has_a_grid(self) -> bool:
        """Whether the LSTM's state has the code's spatial axes."""
        return self.architecture in ("compact", "separable")

    @property
    def recurrent_channels(self) -> int:
        """Number of the code's last channels on which the LSTM acts."""
        shares = {"none": 0, "pose_expression": self.code_width // 2, "code": self.code_width}
        return shares[self.recurrence]


class State(NamedTuple):
    """The state carried from frame to frame.

    Attributes:
        feedback: z, [B, channels, side, side].
        hidden: hidden state of the LSTM, [B, units] or [B, channels, h, w].
        cell: cell state of the LSTM, likewise.
        passes: int64 [B], passes since z was zero.
        crop: [B, 2, 3], the part of the input for the next pass, with which the maps are aligned:
            pixels of that part -> pixels of the input. Constant without re-crops.
    """

    feedback: Tensor
    hidden: Tensor
    cell: Tensor
    passes: Tensor
    crop: Tensor


class Encoded(NamedTuple):
    """The code at 1/32 of the crop, features finest first, and the indices of each max pooling."""

    code: Tensor
    features: list[Tensor]
    places: list[Tensor]


def load(weights: str | Path) -> RedNet:
    """Returns the network with the weights of a file, on the CPU, in float32, for inference.

    Raises ValueError if the file was not written for this module.
    """
    invalid = f"{weights}: not a file that `rednet export --to torch` writes"
    try:
        with safe_open(weights, framework="pt") as file:
            metadata = file.metadata() or {}
            if not {"rednet_config", "feedback_steps", "mean_shape"} <= metadata.keys():
                raise ValueError(invalid)
            # The classifier of identities is used only in training.
            names = [n for n in file.keys() if not n.startswith("identity.")]  # noqa: SIM118
            tensors = {name: file.get_tensor(name).float() for name in names}
    except SafetensorError as error:
        raise ValueError(f"{invalid} ({error})") from error
    mean_shape = torch.tensor(json.loads(metadata["mean_shape"]))
    fields = json.loads(metadata["rednet_config"]) | {
        "landmarks": len(mean_shape),
        "coarse_landmarks": json.loads(metadata.get("coarse_landmarks", "[]")),
    }
    config = Config(**{name: fields[name] for name in Config._fields})
    net = RedNet(config, int(metadata["feedback_steps"]), mean_shape)
    net.load_state_dict(tensors)
    return net.eval().requires_grad_(False)


class RedNet(nn.Module):
    """The network; `feedback_steps` (K) may be set to any number >= 1.

    `mean_shape` [L, 2] is the mean face, centred at 0, in sides of its bounding box. Crops of
    another shape, a state or warp of another batch size, and K < 1 raise ValueError.
    """

    def __init__(self, config: Config, feedback_steps: int, mean_shape: Tensor) -> None:
        super().__init__()
        self.config, self.feedback_steps = config, feedback_steps
        self.register_buffer("mean_shape", mean_shape, persistent=False)
        self.coarse = CoarseDetection(config) if config.journal else None
        if config.journal:
            self.encoder, self.decoder = ResNetEncoder(config), ResNetDecoder(config)
            self.detection, self.readout = FineDetection(config), PeakReadout(config)
        else:
            parts: dict[str, tuple[type[Any], type[Any], type[Any]]] = {
                "eccv_vgg": (VGGEncoder, VGGDecoder, VGGRegression),
                "compact": (CompactEncoder, CompactDecoder, CompactRegression),
                "separable": (SeparableEncoder, SeparableDecoder, SeparableRegression),
            }
            encoder, decoder, regression = parts[config.architecture]
            self.encoder, self.decoder = encoder(config), decoder(config)
            self.detection, self.regression = Detection(config), regression(config)
        cell = ConvLSTM if config.memory_has_a_grid else PooledLSTM
        channels = config.recurrent_channels
        self.temporal = cell(channels, config.recurrent_width) if channels else None
        gated = config.feedback_update == "gated"
        self.gate = MapGate(config.feedback_channels) if gated else None

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Returns landmarks [B, L, 2] and confidence [B, L] of independent crops."""
        self._check(crops)
        # [1], since all crops are at the same pass.
        passes = torch.zeros(1, dtype=torch.int64, device=crops.device)
        state = self.initial_state(crops.shape[0], crops.device)._replace(passes=passes)
        landmarks, confidence, _ = self._frame(crops, state, recurrent=False)
        return landmarks, confidence

    def step(
        self, crops: Tensor, state: State, warp: Tensor | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """Returns landmarks, confidence and the next state for the next frame of B streams.

        Args:
            crops: a crop of each stream.
            state: from `initial_state` or the previous frame.
            warp: [B, 2, 3], pixels of this crop -> pixels of the previous crop; None for the
                identity. x' = warp[:, 0] @ (x, y, 1), y' = warp[:, 1] @ (x, y, 1).
        """
        self._check(crops)
        for name, part in zip((*State._fields, "warp"), (*state, warp), strict=True):
            if part is not None and part.shape[0] != crops.shape[0]:
                raise ValueError(f"{name} has batch {part.shape[0]}, crops have {crops.shape[0]}")
        if warp is not None and self.config.recrop != "none":
            # The maps stay aligned with the face; only the coordinates of their crop change.
            state = state._replace(crop=relative_transform(state.crop, warp))
        elif warp is not None:
            feedback, memory = self._moved(state.feedback, (state.hidden, state.cell), warp)
            assert memory is not None
            hidden, cell = memory
            state = State(feedback, hidden, cell, state.passes, state.crop)
        return self._frame(crops, state, recurrent=True)

    def initial_state(self, batch: int, device: torch.device | str = "cpu") -> State:
        """Returns the state before the first frame: z and memory are zero, the crop is centred."""
        config = self.config
        side, width = config.feedback_size, config.recurrent_width if self.temporal else 0
        memory = [batch, width]
        if config.memory_has_a_grid:
            memory += [config.image_size // 32] * 2
        border = (config.input_size - config.image_size) / 2
        centred = torch.tensor([[1.0, 0.0, border], [0.0, 1.0, border]], device=device)
        return State(
            torch.zeros(batch, config.feedback_channels, side, side, device=device),
            torch.zeros(memory, device=device),
            torch.zeros(memory, device=device),
            torch.zeros(batch, dtype=torch.int64, device=device),
            centred.expand(batch, 2, 3),
        )

    def _check(self, crops: Tensor) -> None:
        side = self.config.input_size
        if self.feedback_steps < 1:
            raise ValueError(f"feedback_steps is {self.feedback_steps}; at least one pass must run")
        if crops.ndim != 4 or crops.shape[1:] != (side, side, 3):
            raise ValueError(f"crops are {tuple(crops.shape)}, not (B, {side}, {side}, 3)")
        if crops.dtype != torch.uint8 and not crops.is_floating_point():
            raise ValueError(f"crops are {crops.dtype}, neither uint8 nor floating in [0, 1]")

    def _frame(
        self, crops: Tensor, state: State, *, recurrent: bool
    ) -> tuple[Tensor, Tensor, State]:
        """K passes on a frame: z is carried from pass to pass, the LSTM's from frame to frame."""
        z, hidden, cell, passes, begin = state
        memory = after = (hidden, cell) if recurrent and self.temporal is not None else None
        old, first_frame = z, passes == 0
        images = crops / 255 if crops.dtype == torch.uint8 else crops.float()
        images = images.permute(0, 3, 1, 2)
        recrops, crop = self.config.recrop != "none", begin

        def look() -> Tensor:
            size = self.config.image_size
            return self.encoder.stem(resample(images, crop, size) if recrops else images)

        stem = look()
        if self.coarse is not None:
            features, *_ = self._features(stem, z, memory, passes)
            if self.config.feedback != "none":
                z = torch.sigmoid(self.coarse(features))
            passes = passes + 1
        for step in range(self.feedback_steps):
            aligned = memory
            if recrops and step > 0:
                stem = look()
                _, aligned = self._moved(None, memory, relative_transform(crop, begin))
            features, code, encoded, after = self._features(stem, z, aligned, passes)
            logits = self.detection(features, passes)
            if self.config.journal:
                maps = torch.sigmoid(logits)
                landmarks, confidence = self.readout(logits)
            else:
                maps = torch.softmax(logits, dim=1)
                landmarks, confidence = self.regression(maps, code, encoded, passes)
            z = self._feedback(maps, z, passes)
            if recurrent and self.gate is not None and step == self.feedback_steps - 1:
                if recrops:
                    old, _ = self._moved(old, None, relative_transform(crop, begin))
                z = torch.where(first_frame[:, None, None, None], z, self.gate(z, old))
            passes = passes + 1
            if recrops:
                landmarks = apply(crop, landmarks)
                recrop = next_crop(self.config, self.mean_shape, landmarks)
                z, after = self._moved(z, after, relative_transform(recrop, crop))
                crop = recrop
        hidden, cell = (hidden, cell) if after is None else after
        return landmarks, torch.sigmoid(confidence), State(z, hidden, cell, passes, crop)

    def _features(
        self, stem: Tensor, z: Tensor, memory: tuple[Tensor, Tensor] | None, passes: Tensor
    ) -> tuple[Tensor, Tensor, Encoded, tuple[Tensor, Tensor] | None]:
        """The decoder's features, the code, the encoder's output, and the LSTM's new memory."""
        encoded = self.encoder(stem, z, passes)
        code = encoded.code
        if memory is not None and self.temporal is not None:
            fixed = self.config.code_width - self.config.recurrent_channels
            changing, memory = self.temporal(code[:, fixed:], memory)
            code = torch.cat([code[:, :fixed], changing], dim=1)
        return self.decoder(code, encoded, passes), code, encoded, memory

    def _feedback(self, maps: Tensor, z: Tensor, passes: Tensor) -> Tensor:
        """z for the next pass, from the response maps of this pass."""
        if self.config.feedback == "none":
            return z
        if self.config.architecture == "separable":
            maps = F.avg_pool2d(maps, 2)
        if self.config.feedback == "label_map":
            return label_map(maps, passes)
        return (
            F.avg_pool2d(maps[:, self.config.coarse_landmarks], 2) if self.config.journal else maps
        )

    def _moved(
        self, z: Tensor | None, memory: tuple[Tensor, Tensor] | None, warp: Tensor
    ) -> tuple[Tensor | None, tuple[Tensor, Tensor] | None]:
        """z, and a memory with spatial axes, resampled into another crop."""
        size = self.config.image_size
        if z is not None and self.config.feedback != "none":
            z = move(z, warp, size, nearest=self.config.feedback == "label_map")
        if memory is not None and self.temporal is not None and memory[0].ndim == 4:
            memory = move(memory[0], warp, size), move(memory[1], warp, size)
        return z, memory


class Stream(nn.Module):
    """`RedNet.step` as a module with a flat state, as exporters need it.

    `carried` has the names of the parts of the state that the network has, in order.
    """

    def __init__(self, net: RedNet) -> None:
        super().__init__()
        self.net = net
        has = {
            "feedback": net.config.feedback != "none",
            "hidden": net.temporal is not None,
            "cell": net.temporal is not None,
            "passes": True,
            "crop": net.config.recrop != "none",
        }
        self.carried = [name for name in State._fields if has[name]]

    def forward(self, crops: Tensor, warp: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Returns landmarks, confidence, and the parts of the next state."""
        blank = self.net.initial_state(crops.shape[0], crops.device)
        whole = blank._replace(**dict(zip(self.carried, state, strict=True)))
        landmarks, confidence, after = self.net.step(crops, whole, warp)
        return landmarks, confidence, *(getattr(after, name) for name in self.carried)


class Norm(nn.Module):
    """Batch normalisation with a row of statistics for each pass, [rows, channels]."""

    def __init__(self, channels: int, rows: int = 1) -> None:
        super().__init__()
        self.scale, self.offset = (nn.Parameter(torch.empty(channels)) for _ in range(2))
        self.register_buffer("mean", torch.empty(rows, channels))
        self.register_buffer("variance", torch.empty(rows, channels))

    def forward(self, maps: Tensor, passes: Tensor | None = None) -> Tensor:
        """Normalises [B, C, h, w]; `passes` is [B] or [1], None if there is only one row."""
        gain = self.scale * torch.rsqrt(self.variance + 1e-5)
        shift = self.offset - self.mean * gain
        if passes is not None and len(gain) > 1:
            # Passes beyond those of training use the last row.
            row = passes.clamp(max=len(gain) - 1)
            gain, shift = gain.index_select(0, row), shift.index_select(0, row)
        return maps * gain[:, :, None, None] + shift[:, :, None, None]


class ConvNorm(nn.Module):
    """Convolution without bias, normalisation, and ReLU unless `activate` is False."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 3,
        *,
        stride: int = 1,
        rows: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.conv = convolution(inputs, outputs, size, stride=stride)
        self.norm = Norm(outputs, rows)
        self.activate = activate

    def forward(self, maps: Tensor, passes: Tensor | None = None) -> Tensor:
        maps = self.norm(self.conv(maps), passes)
        return F.relu(maps) if self.activate else maps


def convolution(
    inputs: int, outputs: int, size: int = 3, *, stride: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Returns a convolution with zero padding of half the kernel."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=bias)


def max_pool(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the maxima of 2 x 2 windows, and their indices: row * 2 + column.

    If values tie, the first one in reading order is the maximum.
    """
    left, right = maps[..., ::2], maps[..., 1::2]
    larger, column = torch.maximum(left, right), (right > left).to(maps.dtype)
    upper, lower = larger[..., ::2, :], larger[..., 1::2, :]
    places = torch.where(lower > upper, column[..., 1::2, :] + 2, column[..., ::2, :])
    return torch.maximum(upper, lower), places


def unpool(maps: Tensor, places: Tensor) -> Tensor:
    """Inverts `max_pool`: each value at its index, zeros elsewhere."""
    height, width = (torch.arange(2 * n, device=maps.device) % 2 for n in maps.shape[2:])
    index = (2 * height[:, None] + width).to(maps.dtype)
    return torch.where(double(places) == index, double(maps), 0)


def double(maps: Tensor) -> Tensor:
    """Nearest up-sampling by two."""
    return F.interpolate(maps, scale_factor=2, mode="nearest")


def space_to_depth(maps: Tensor) -> Tensor:
    """Blocks of 2 x 2 pixels become channels, [B, C, H, W] -> [B, 4 C, H / 2, W / 2]."""
    batch, channels, height, width = maps.shape
    blocks = maps.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, 4 * channels, height // 2, width // 2)


def depth_to_space(maps: Tensor) -> Tensor:
    """Undoes `space_to_depth`, [B, 4 C, h, w] -> [B, C, 2 h, 2 w]."""
    batch, channels, height, width = maps.shape
    blocks = maps.reshape(batch, 2, 2, channels // 4, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // 4, 2 * height, 2 * width)


def flat(maps: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h * w * C], channels last as in the weights."""
    return maps.permute(0, 2, 3, 1).flatten(1)


class Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions, as in ResNet-50."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, rows: int) -> None:
        super().__init__()
        middle = max(outputs // 4, 1)
        self.reduce = ConvNorm(inputs, middle, 1, rows=rows)
        self.spatial = ConvNorm(middle, middle, 3, stride=stride, rows=rows)
        self.expand = ConvNorm(middle, outputs, 1, rows=rows, activate=False)
        self.shortcut = (
            ConvNorm(inputs, outputs, 1, stride=stride, rows=rows, activate=False)
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, maps: Tensor, passes: Tensor | None = None) -> Tensor:
        residual = self.expand(self.spatial(self.reduce(maps, passes), passes), passes)
        return F.relu((maps if self.shortcut is None else self.shortcut(maps, passes)) + residual)


class Blocks(nn.Module):
    """`depth` bottleneck blocks; the first changes the channels and may halve the resolution."""

    def __init__(
        self, inputs: int, outputs: int, depth: int, *, stride: int = 1, rows: int
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(
            {
                f"block{i}": Bottleneck(
                    outputs if i else inputs, outputs, stride=1 if i else stride, rows=rows
                )
                for i in range(depth)
            }
        )

    def forward(self, maps: Tensor, passes: Tensor | None = None) -> Tensor:
        for block in self.blocks.values():
            maps = block(maps, passes)
        return maps


class CompactEncoder(nn.Module):
    """A stem at half and quarter resolution, then two convolutions per level."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        rows, channels = config.rows, config.feedback_channels
        stem1, stem2, *widths, squeezed = config.widths
        self.stem1 = ConvNorm(12, stem1)
        self.stem2 = ConvNorm(stem1, stem2)
        self.picture = convolution(stem2, widths[0])
        if channels:
            self.squeeze = convolution(channels, squeezed, 1)
            self.feedback = convolution(squeezed, widths[0])
        self.has_feedback = channels > 0
        self.norm = Norm(widths[0], rows)
        self.convs = nn.ModuleDict({"level1_2": ConvNorm(widths[0], widths[0], rows=rows)})
        for level in (2, 3, 4):
            inputs, width = widths[level - 2], widths[level - 1]
            outputs = config.code_width if level == 4 else width
            self.convs[f"level{level}_1"] = ConvNorm(inputs, width, rows=rows)
            self.convs[f"level{level}_2"] = ConvNorm(width, outputs, rows=rows)

    def stem(self, images: Tensor) -> Tensor:
        """The layers that depend only on the image; they run once per crop, not per pass."""
        blocks = space_to_depth(images)
        return self.picture(F.max_pool2d(self.stem2(self.stem1(blocks)), 2))

    def forward(self, stem: Tensor, z: Tensor, passes: Tensor) -> Encoded:
        if self.has_feedback:
            stem = stem + self.feedback(self.squeeze(z))
        maps = self.convs["level1_2"](F.relu(self.norm(stem, passes)), passes)
        features, places = [], []
        for level in (2, 3, 4):
            features.append(maps)
            maps, place = max_pool(maps)
            places.append(place)
            maps = self.convs[f"level{level}_1"](maps, passes)
            maps = self.convs[f"level{level}_2"](maps, passes)
        return Encoded(maps, features, places)


class CompactDecoder(nn.Module):
    """Three stages of unpooling, addition of the encoder's features, and a convolution."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        _, _, quarter, eighth, sixteenth, _, _ = config.widths
        self.project = (
            ConvNorm(config.code_width, sixteenth, 1, rows=config.rows)
            if config.code_width != sixteenth
            else None
        )
        shapes = ((quarter, quarter), (eighth, quarter), (sixteenth, eighth))
        self.convs = nn.ModuleDict(
            {f"up{i}": ConvNorm(*shape, rows=config.rows) for i, shape in enumerate(shapes)}
        )

    def forward(self, code: Tensor, encoded: Encoded, passes: Tensor) -> Tensor:
        maps = code if self.project is None else self.project(code, passes)
        for i in (2, 1, 0):
            maps = unpool(maps, encoded.places[i]) + encoded.features[i]
            maps = self.convs[f"up{i}"](maps, passes)
        return maps


class Block(nn.Module):
    """x + relu(norm(pointwise(depthwise(x))))."""

    def __init__(self, channels: int, rows: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = ConvNorm(channels, channels, 1, rows=rows)

    def forward(self, maps: Tensor, passes: Tensor | None = None) -> Tensor:
        return maps + self.pointwise(self.depthwise(maps), passes)


class Stack(nn.Module):
    """`depth` blocks."""

    def __init__(self, channels: int, depth: int, rows: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({f"block{i}": Block(channels, rows) for i in range(depth)})

    def forward(self, maps: Tensor, passes: Tensor | None = None) -> Tensor:
        for block in self.blocks.values():
            maps = block(maps, passes)
        return maps


class SeparableEncoder(nn.Module):
    """A stack of blocks at 1/4, 1/8, 1/16 and 1/32 of the crop; z enters at 1/8."""

    depths = (1, 2, 2, 1)

    def __init__(self, config: Config) -> None:
        super().__init__()
        rows, channels = config.rows, config.feedback_channels
        quarter, eighth, sixteenth = config.widths
        self.patches = ConvNorm(48, quarter, 1)
        self.quarter = Stack(quarter, self.depths[0], 1)
        self.image = convolution(4 * quarter, eighth, 1)
        self.has_feedback = channels > 0
        if self.has_feedback:
            self.feedback = convolution(channels, eighth, 1)
        self.norm = Norm(eighth, rows)
        self.eighth = Stack(eighth, self.depths[1], rows)
        self.down16 = ConvNorm(4 * eighth, sixteenth, 1, rows=rows)
        self.sixteenth = Stack(sixteenth, self.depths[2], rows)
        self.down32 = ConvNorm(4 * sixteenth, config.code_width, 1, rows=rows)
        self.last = Stack(config.code_width, self.depths[3], rows)

    def stem(self, images: Tensor) -> Tensor:
        """The layers that depend only on the image; they run once per crop, not per pass."""
        return self.quarter(self.patches(space_to_depth(space_to_depth(images))))

    def forward(self, stem: Tensor, z: Tensor, passes: Tensor) -> Encoded:
        mixed = self.image(space_to_depth(stem))
        if self.has_feedback:
            mixed = mixed + self.feedback(z)
        eighth = self.eighth(F.relu(self.norm(mixed, passes)), passes)
        sixteenth = self.sixteenth(self.down16(space_to_depth(eighth), passes), passes)
        code = self.last(self.down32(space_to_depth(sixteenth), passes), passes)
        return Encoded(code, [stem, eighth, sixteenth], [])


class SeparableDecoder(nn.Module):
    """Three stages of up-sampling by two, addition of the encoder's features, and blocks."""

    depths = (0, 1, 0)

    def __init__(self, config: Config) -> None:
        super().__init__()
        rows = config.rows
        quarter, eighth, sixteenth = config.widths
        self.up16 = ConvNorm(config.code_width, sixteenth, 1, rows=rows, activate=False)
        self.sixteenth = Stack(sixteenth, self.depths[2], rows)
        self.up8 = ConvNorm(sixteenth, eighth, 1, rows=rows, activate=False)
        self.eighth = Stack(eighth, self.depths[1], rows)
        self.up4 = ConvNorm(eighth, 4 * quarter, 1, rows=rows, activate=False)
        self.quarter = Stack(quarter, self.depths[0], rows)

    def forward(self, code: Tensor, encoded: Encoded, passes: Tensor) -> Tensor:
        quarter, eighth, sixteenth = encoded.features
        maps = self.sixteenth(F.relu(double(self.up16(code, passes)) + sixteenth), passes)
        maps = self.eighth(F.relu(double(self.up8(maps, passes)) + eighth), passes)
        maps = F.relu(depth_to_space(self.up4(maps, passes)) + quarter)
        return self.quarter(maps, passes)


class VGGEncoder(nn.Module):
    """The 13 convolutions of VGG-16 with batch normalisation; z enters at full resolution."""

    depths = (2, 2, 3, 3, 3)

    def __init__(self, config: Config) -> None:
        super().__init__()
        first = inputs = config.widths[0]
        self.picture = convolution(3, first)
        self.has_feedback = config.feedback_channels > 0
        if self.has_feedback:
            self.feedback = convolution(config.feedback_channels, first)
        self.norm1_1 = Norm(first, config.rows)
        self.convs = nn.ModuleDict()
        for stage, (width, depth) in enumerate(zip(config.widths, self.depths, strict=True), 1):
            for layer in range(2 if stage == 1 else 1, depth + 1):
                self.convs[f"conv{stage}_{layer}"] = ConvNorm(inputs, width, rows=config.rows)
                inputs = width

    def stem(self, images: Tensor) -> Tensor:
        """The layers that depend only on the image; they run once per crop, not per pass."""
        return self.picture(images)

    def forward(self, stem: Tensor, z: Tensor, passes: Tensor) -> Encoded:
        if self.has_feedback:
            stem = stem + self.feedback(z)
        maps = F.relu(self.norm1_1(stem, passes))
        kept, places = [], []
        for stage, depth in enumerate(self.depths, 1):
            for layer in range(2 if stage == 1 else 1, depth + 1):
                maps = self.convs[f"conv{stage}_{layer}"](maps, passes)
            kept.append(maps)
            maps, place = max_pool(maps)
            places.append(place)
        return Encoded(maps, [kept[1], kept[3]], places)


class VGGDecoder(nn.Module):
    """The mirrored encoder; the last convolution of each stage reduces the channels."""

    depths = ((5, 3), (4, 3), (3, 3), (2, 2), (1, 2))

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = (config.widths[0], *config.widths)
        self.convs = nn.ModuleDict()
        for stage, depth in self.depths:
            for layer in range(depth, 0, -1):
                outputs = widths[stage - 1] if layer == 1 else widths[stage]
                self.convs[f"conv{stage}_{layer}"] = ConvNorm(
                    widths[stage], outputs, rows=config.rows
                )

    def forward(self, code: Tensor, encoded: Encoded, passes: Tensor) -> Tensor:
        maps = code
        for stage, depth in self.depths:
            maps = unpool(maps, encoded.places[stage - 1])
            for layer in range(depth, 0, -1):
                maps = self.convs[f"conv{stage}_{layer}"](maps, passes)
        return maps


class ResNetEncoder(nn.Module):
    """ResNet-50, z added after layer 1."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        rows = config.rows
        first, *widths = config.widths
        self.conv1 = ConvNorm(3, first, 7, stride=2)
        self.layer1 = Blocks(first, widths[0], 3, rows=1)
        self.has_feedback = config.feedback_channels > 0
        if self.has_feedback:
            self.feedback = Bottleneck(config.feedback_channels, widths[0], rows=max(rows, 2))
        self.layer2 = Blocks(widths[0], widths[1], 4, stride=2, rows=rows)
        self.layer3 = Blocks(widths[1], widths[2], 6, stride=2, rows=rows)
        self.layer4 = Blocks(widths[2], widths[3], 3, stride=2, rows=rows)

    def stem(self, images: Tensor) -> Tensor:
        """The layers that depend only on the image; they run once per crop, not per pass."""
        return self.layer1(F.max_pool2d(self.conv1(images), 3, 2, padding=1))

    def forward(self, stem: Tensor, z: Tensor, passes: Tensor) -> Encoded:
        first = stem
        if self.has_feedback:
            # The initial z has no effect.
            computed = (passes > 0)[:, None, None, None]
            first = stem + torch.where(computed, self.feedback(z, passes), 0)
        second = self.layer2(first, passes)
        third = self.layer3(second, passes)
        return Encoded(self.layer4(third, passes), [first, second, third], [])


class UpStage(nn.Module):
    """Nearest x2 of a 1x1 convolution, plus three blocks of the encoder's features."""

    def __init__(self, inputs: int, outputs: int, rows: int) -> None:
        super().__init__()
        self.project = ConvNorm(inputs, outputs, 1, rows=rows, activate=False)
        self.skip = Blocks(outputs, outputs, 3, rows=rows)
        self.blocks = Blocks(outputs, outputs, 3, rows=rows)

    def forward(self, maps: Tensor, skip: Tensor, passes: Tensor) -> Tensor:
        up = double(self.project(maps, passes))
        return self.blocks(F.relu(up + self.skip(skip, passes)), passes)


class ResNetDecoder(nn.Module):
    """Three up-sampling stages with skips from layers 3, 2 and 1."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = config.widths
        self.stages = nn.ModuleDict(
            {f"up{i}": UpStage(widths[i + 1], widths[i], config.rows) for i in (3, 2, 1)}
        )

    def forward(self, code: Tensor, encoded: Encoded, passes: Tensor) -> Tensor:
        maps = code
        for i in (3, 2, 1):
            maps = self.stages[f"up{i}"](maps, encoded.features[i - 1], passes)
        return maps


class Detection(nn.Module):
    """A 1x1 convolution to L + 1 logits per pixel, background first."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        inputs = config.widths[2 if config.architecture == "compact" else 0]
        self.logits = convolution(inputs, config.landmarks + 1, 1, bias=True)

    def forward(self, features: Tensor, passes: Tensor) -> Tensor:
        return self.logits(features)


class CoarseDetection(nn.Module):
    """The journal version's head of 7 independent maps."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.hidden = ConvNorm(config.widths[1], config.widths[0], 1)
        self.logits = convolution(config.widths[0], 7, 1, bias=True)

    def forward(self, features: Tensor) -> Tensor:
        return self.logits(self.hidden(features))


class FineDetection(nn.Module):
    """The journal version's head of L independent maps, at half the crop's resolution."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.regression_width
        self.project = ConvNorm(config.widths[1], width, 1, rows=config.rows)
        self.blocks = Blocks(width, width, 3, rows=config.rows)
        self.logits = convolution(width, config.landmarks, 1, bias=True)

    def forward(self, features: Tensor, passes: Tensor) -> Tensor:
        return self.logits(self.blocks(double(self.project(features, passes)), passes))


class PeakReadout(nn.Module):
    """Points and confidence of independent maps."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gain, self.offset = (nn.Parameter(torch.empty(config.landmarks)) for _ in range(2))
        self.image_size = config.image_size

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        points = peaks(logits)
        landmarks = (points + 0.5) * (self.image_size / logits.shape[-1]) - 0.5
        return landmarks, self.gain * logits.amax((2, 3)) + self.offset


def peaks(logits: Tensor) -> Tensor:
    """Returns the peak [B, L, 2] of each map's sigmoid, by a parabola through three logarithms."""
    height, width = logits.shape[2:]
    logits = logits.flatten(2)
    index = logits.argmax(2)
    # From the logits, since float32 sigmoids are 1 for logits from 17.
    logs = -F.softplus(-logits).clamp(max=-math.log(1e-30))

    def vertex(position: Tensor, length: int, stride: int) -> Tensor:
        middle = position.clamp(1, length - 2)
        centre = index + (middle - position) * stride
        low, mid, high = (
            logs.gather(2, (centre + offset)[..., None])[..., 0] for offset in (-stride, 0, stride)
        )
        curvature = low - 2 * mid + high
        peaked = curvature < -(1e-6 * mid.abs() + 1e-30)
        offset = 0.5 * (low - high) / torch.where(peaked, curvature, -1.0)
        peak = middle + offset.clamp(-2, 2)
        return torch.where(peaked, peak, position.to(peak.dtype))

    column, row = index % width, index // width
    return torch.stack([vertex(column, width, 1), vertex(row, height, width)], dim=-1)


class Points(nn.Module):
    """The last layer of a regression: points as fractions of the crop, and confidence logits."""

    def __init__(self, inputs: int, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, 3 * config.landmarks)
        self.landmarks, self.image_size = config.landmarks, config.image_size

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.dense(features)
        points = outputs[:, : 2 * self.landmarks].unflatten(1, (self.landmarks, 2))
        return (points + 0.5) * self.image_size - 0.5, outputs[:, 2 * self.landmarks :]


class CompactRegression(nn.Module):
    """Points from the maps and from the encoder's features at 1/8, 1/16 and 1/32."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        rows, last = config.rows, config.regression_width
        _, _, quarter, eighth, sixteenth, _, squeezed = config.widths
        self.squeeze = convolution(config.landmarks + 1, squeezed, 1)
        self.norm = Norm(squeezed, rows)
        self.eighth = ConvNorm(squeezed + eighth, quarter, rows=rows)
        self.sixteenth = ConvNorm(quarter + sixteenth, last, rows=rows)
        self.code = ConvNorm(config.code_width, last, 1, rows=rows)
        self.points = Points((config.image_size // 32) ** 2 * last, config)

    def forward(
        self, maps: Tensor, code: Tensor, encoded: Encoded, passes: Tensor
    ) -> tuple[Tensor, Tensor]:
        _, eighth, sixteenth = encoded.features
        features = F.max_pool2d(F.relu(self.norm(self.squeeze(maps), passes)), 2)
        features = F.max_pool2d(self.eighth(torch.cat([features, eighth], 1), passes), 2)
        features = F.max_pool2d(self.sixteenth(torch.cat([features, sixteenth], 1), passes), 2)
        return self.points(flat(features + self.code(code, passes)))


class SeparableRegression(nn.Module):
    """Points from the maps and from the encoder's features at 1/8, 1/16 and 1/32."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        rows, last = config.rows, config.regression_width
        _, eighth, sixteenth = config.widths
        self.maps = convolution(config.landmarks + 1, last, 1)
        self.eighth = convolution(eighth, last, 1)
        self.norm8 = Norm(last, rows)
        self.down16 = convolution(4 * last, 2 * last, 1)
        self.sixteenth = convolution(sixteenth, 2 * last, 1)
        self.norm16 = Norm(2 * last, rows)
        self.block = Block(2 * last, rows)
        self.down32 = convolution(8 * last, last, 1)
        self.code = convolution(config.code_width, last, 1)
        self.norm32 = Norm(last, rows)
        self.points = Points((config.image_size // 32) ** 2 * last, config)

    def forward(
        self, maps: Tensor, code: Tensor, encoded: Encoded, passes: Tensor
    ) -> tuple[Tensor, Tensor]:
        _, eighth, sixteenth = encoded.features
        joined = self.maps(F.avg_pool2d(maps, 2)) + self.eighth(eighth)
        features = F.relu(self.norm8(joined, passes))
        joined = self.down16(space_to_depth(features)) + self.sixteenth(sixteenth)
        features = self.block(F.relu(self.norm16(joined, passes)), passes)
        joined = self.down32(space_to_depth(features)) + self.code(code)
        return self.points(flat(F.relu(self.norm32(joined, passes))))


class VGGRegression(nn.Module):
    """Points from the maps and from the encoder's conv2_2 and conv4_3."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        a, b, c, d, e = config.widths
        inputs = (config.landmarks + 1, a + b, b, c + d, d)
        self.convs = nn.ModuleDict(
            {
                f"conv{i}": ConvNorm(channels, width, rows=config.rows)
                for i, (channels, width) in enumerate(zip(inputs, config.widths, strict=True), 1)
            }
        )
        self.hidden = nn.Linear((config.image_size // 32) ** 2 * e, config.regression_width)
        self.points = Points(config.regression_width, config)

    def forward(
        self, maps: Tensor, code: Tensor, encoded: Encoded, passes: Tensor
    ) -> tuple[Tensor, Tensor]:
        half, eighth = encoded.features
        joined = {2: half, 4: eighth}
        features = maps
        for i in range(1, 6):
            if i in joined:
                features = torch.cat([features, joined[i]], 1)
            features = F.max_pool2d(self.convs[f"conv{i}"](features, passes), 2)
        return self.points(F.relu(self.hidden(flat(features))))


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the new hidden and cell state."""
    enter, forget, candidate, leave = gates.chunk(4, dim=1)
    cell = torch.sigmoid(forget + 1) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


class PooledLSTM(nn.Module):
    """An LSTM on the code's spatial mean; its output is added at every position."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.gates = nn.Linear(channels + units, 4 * units)
        self.back = nn.Linear(units, channels)

    def forward(
        self, code: Tensor, memory: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, cell = memory
        gates = self.gates(torch.cat([code.mean((2, 3)), hidden], dim=1))
        hidden, cell = lstm_cell(gates, cell)
        return code + self.back(hidden)[:, :, None, None], (hidden, cell)


class MapGate(nn.Module):
    """Mixes z of the last frame with the maps of this one, pixel by pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = convolution(2 * channels, channels, bias=True)

    def forward(self, new: Tensor, old: Tensor) -> Tensor:
        gate = torch.sigmoid(self.conv(torch.cat([new, old], dim=1)) + 4)
        return gate * new + (1 - gate) * old


class ConvLSTM(nn.Module):
    """An LSTM of 3x3 convolutions, whose state has the code's spatial axes."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.gates = convolution(channels + units, 4 * units, bias=True)
        self.back = convolution(units, channels, 1)

    def forward(
        self, code: Tensor, memory: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, cell = memory
        hidden, cell = lstm_cell(self.gates(torch.cat([code, hidden], dim=1)), cell)
        return code + self.back(hidden), (hidden, cell)


def label_map(maps: Tensor, passes: Tensor) -> Tensor:
    """Returns z [B, 1, h, w]: at the centre of each landmark's pixels, a square of its number.

    A pixel belongs to the class with the largest response. Where squares overlap, z is the larger
    number. The sides are 7, 5 and 3 pixels in the first, second and later passes.
    """
    labels = torch.arange(1, maps.shape[1], device=maps.device)[:, None, None]
    members = (maps.argmax(1, keepdim=True) == labels).to(maps.dtype)
    count = members.sum((2, 3))
    sides = maps.new_tensor(_SQUARE_SIDES)[passes.clamp(max=len(_SQUARE_SIDES) - 1)][:, None, None]

    def within(profile: Tensor) -> Tensor:
        """Which pixels along an axis are within each landmark's square."""
        pixels = torch.arange(profile.shape[-1], device=maps.device, dtype=maps.dtype)
        centre = (profile * pixels).sum(-1) / count.clamp(min=1)
        low = centre[..., None] - sides / 2
        return (pixels > low) & (pixels <= low + sides)

    in_x, in_y = within(members.sum(2)), within(members.sum(3))
    drawn = in_y[..., :, None] & in_x[..., None, :] & (count > 0)[..., None, None]
    return (drawn * labels).amax(1, keepdim=True).to(maps.dtype)


def move(maps: Tensor, warp: Tensor, image_size: int, *, nearest: bool = False) -> Tensor:
    """Resamples maps [B, C, h, w] of a crop into another crop, with zeros outside the old crop.

    `warp` [B, 2, 3] maps pixels of the new crop of `image_size` to pixels of the old one.
    """
    side = maps.shape[-1]
    ratio = side / image_size
    linear = warp[..., :2]
    # The same map between centres of map pixels: p_map = (p + 1/2) * ratio - 1/2.
    centre = (1 / ratio - 1) / 2
    shift = (warp[..., 2] + linear.sum(-1) * centre - centre) * ratio
    affine = torch.cat([linear, shift[..., None]], dim=-1)
    return resample(maps, affine, side, nearest=nearest)


def next_crop(config: Config, mean_shape: Tensor, landmarks: Tensor) -> Tensor:
    """Returns the crop [B, 2, 3] in which points [B, L, 2] are aligned with the mean face.

    In it, their centroid, spread and, with 'similarity', rotation are those of the mean face.
    """
    size = config.image_size
    shape = mean_shape * (size / config.recrop_margin) + (size - 1) / 2
    shape_centre, middle = shape.mean(0), landmarks.mean(1, keepdim=True)
    shape_apart, apart = shape - shape_centre, landmarks - middle
    if config.landmarks == 1:
        # A single point has no spread: the crop follows only its position.
        spread = torch.ones_like(middle[:, 0, 0])
    else:
        spread = ((apart**2).sum((1, 2)) / (shape_apart**2).sum()).sqrt()
    # With a much larger or smaller spread, the points are not reliable.
    cosine, sine = spread.clamp(0.25, 4.0), torch.zeros_like(spread)
    if config.recrop == "similarity" and config.landmarks > 1:
        along = (apart * shape_apart).sum((1, 2))
        across = (apart[..., 1] * shape_apart[:, 0] - apart[..., 0] * shape_apart[:, 1]).sum(1)
        length = (along**2 + across**2).sqrt()
        cosine, sine = (cosine * part / length.clamp(min=1e-12) for part in (along, across))
    linear = torch.stack([cosine, -sine, sine, cosine], dim=-1).unflatten(-1, (2, 2))
    centre = middle[:, 0].clamp(0, config.input_size - 1)
    offset = centre - linear[..., 0] * shape_centre[0] - linear[..., 1] * shape_centre[1]
    return torch.cat([linear, offset[..., None]], dim=-1)


def apply(affine: Tensor, points: Tensor) -> Tensor:
    """Returns points [B, N, 2] mapped by affine [B, 2, 3]."""
    a, b, c = affine[:, None].unbind(-1)
    return a * points[..., :1] + b * points[..., 1:] + c


def relative_transform(new: Tensor, old: Tensor) -> Tensor:
    """Returns the map [B, 2, 3] from the domain of `new` to that of `old`: old^-1 after new."""
    a, b, c, d = (old[:, i, j] for i in (0, 1) for j in (0, 1))
    inverse = torch.stack([d, -b, -c, a], dim=-1).unflatten(-1, (2, 2))
    inverse = inverse / (a * d - b * c)[:, None, None]
    shifted = torch.cat([new[..., :2], new[..., 2:] - old[..., 2:]], dim=-1)
    return inverse[..., :1] * shifted[:, :1] + inverse[..., 1:] * shifted[:, 1:]


def resample(maps: Tensor, affine: Tensor, size: int, *, nearest: bool = False) -> Tensor:
    """Returns [B, C, size, size]: pixel p is the map [B, C, h, w] at affine(p), zero outside.

    The relative coordinates of `grid_sample` are less precise than pixels.
    """
    _, channels, height, width = maps.shape
    pixels = maps.flatten(2)
    grid = torch.arange(size, device=maps.device, dtype=affine.dtype)
    a, b, c = (affine[:, :, i, None, None] for i in range(3))
    x, y = (a * grid + b * grid[:, None] + c).unbind(1)

    def take(column: Tensor, row: Tensor, weight: Tensor | float) -> Tensor:
        """Pixels [B, C, size, size] at [B, size, size] times a weight; zero outside."""
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        index = torch.where(inside, row * width + column, 0).long()
        index = index.flatten(1)[:, None].expand(-1, channels, -1)
        return pixels.gather(2, index).unflatten(2, (size, size)) * (inside * weight)[:, None]

    if nearest:
        return take(x.round(), y.round(), 1.0)
    left, top = x.floor(), y.floor()
    right, below = x - left, y - top
    return (
        take(left, top, (1 - right) * (1 - below))
        + take(left + 1, top, right * (1 - below))
        + take(left, top + 1, (1 - right) * below)
        + take(left + 1, top + 1, right * below)
    )
