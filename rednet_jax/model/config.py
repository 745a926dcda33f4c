"""`RedNetConfig`: one frozen dataclass that describes a network, with presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from rednet_jax.errors import RednetError
from rednet_jax.fields import (
    FORMER,
    FORMER_VALUES,
    check_fields,
    current_names,
    field_types,
)
from rednet_jax.functions import plain_function
from rednet_jax.landmarks.builtin import IBUG68, REDNET7, plain_scheme, scheme_of
from rednet_jax.landmarks.convert import indices_in
from rednet_jax.landmarks.schemes import Scheme

Architecture = Literal["eccv_vgg", "ijcv_resnet", "compact", "separable"]
Feedback = Literal["response_maps", "label_map", "none"]
FeedbackUpdate = Literal["replace", "gated"]
Recurrence = Literal["pose_expression", "code", "none"]
Recrop = Literal["none", "shift_scale", "similarity"]

_ARTICLES = {"encoder": "an", "decoder": "a"}

# Down-sampling from the crop to the code: the crop's side must be divisible by it.
_CODE_STRIDE = 32
_MAP_STRIDE = {"eccv_vgg": 1, "ijcv_resnet": 2, "compact": 4, "separable": 4}
_WIDTHS = {"eccv_vgg": 5, "ijcv_resnet": 5, "compact": 7, "separable": 3}


@dataclasses.dataclass(frozen=True)
class RedNetConfig:
    """A network. Start from a preset: `RedNetConfig.preset('compact', feedback_steps=3)`.

    Attributes:
        architecture: encoder, decoder and heads: those of the ECCV paper (`eccv_vgg`), of the
            journal's code (`ijcv_resnet`), or ours.
        image_size: side of the square crop in pixels.
        scheme: of the L landmarks.
        crop_margin: side of the crop in units of the larger side of the face's bounding box.
        feedback_steps: K that the network is trained with: batch statistics have a row for each
            pass. The number of passes that run is an argument of each call.
        feedback: the feedback map z: the soft maps, one channel of labels 0..L, or none.
        feedback_update: how z changes from frame to frame: the new maps `replace` it, or a
            convolutional gate mixes the old and the new maps, for each pixel and landmark
            (`gated`). Within a frame each pass replaces z. Ours; the papers replace.
        open_feedback_gradient: let gradients flow through z from pass to pass. The layer that z
            enters by is then initialised close to zero: gradients would explode over the passes of
            an untrained network.
        statistics_per_pass: separate batch statistics for each of the K passes, not one shared set.
        recurrence: what f_tRNN acts on: C_pe, the whole code C, or nothing.
        widths: channels, stage by stage (see the encoders for what each number is).
        code_width: channels of the code C = [C_id, C_pe], half each.
        recurrent_width: units (pooled LSTM) or channels (convolutional LSTM) of f_tRNN.
        regression_width: units of f_REG's hidden dense layer; in `compact` and `separable`
            channels of its last convolution, in `ijcv_resnet` of the head of the L maps.
        identities: classes of f_CLS.
        recrop: crop the image again after each pass, around the landmarks: by their position and
            size, with 'similarity' also by their rotation. z and f_tRNN's hidden state are
            resampled into the new crop. Ours; the papers keep one crop ('none').
        context: side of the network's input image in units of the side of its first crop; 1
            without re-crops.
        recrop_margin: side of a re-crop in units of the side of the mean shape's box, fitted to the
            landmarks. Landmarks are more accurate than a detector's box, so it can be tighter than
            `crop_margin`.
        encoder: a class or function (config, draw) -> `nnx.Module` with the methods of
            `encoder.Encoder`, in place of the architecture's encoder. A checkpoint holds its name
            only: pass it to `load` again.
        decoder: the same for the decoder, with the methods of `decoder.Decoder`.

    Raises:
        RednetError: fields are out of range or contradict each other.
    """

    architecture: Architecture
    image_size: int
    widths: tuple[int, ...]
    code_width: int
    recurrent_width: int
    regression_width: int
    scheme: Scheme = dataclasses.field(
        default=IBUG68,
        metadata={FORMER: "landmarks", FORMER_VALUES: {68: "ibug68", 7: "rednet7"}},
    )
    crop_margin: float = 1.25
    feedback_steps: int = 2
    feedback: Feedback = "response_maps"
    feedback_update: FeedbackUpdate = "replace"
    open_feedback_gradient: bool = False
    statistics_per_pass: bool = True
    recurrence: Recurrence = "pose_expression"
    identities: int = 300
    recrop: Recrop = dataclasses.field(default="none", metadata={FORMER: "register"})
    context: float = 1.0
    recrop_margin: float = dataclasses.field(default=1.25, metadata={FORMER: "registered_margin"})
    encoder: Callable[..., Any] | None = None
    decoder: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        check_fields(self, "model.")
        stages = _WIDTHS[self.architecture]
        rules = {
            f"image_size {self.image_size} is not a positive multiple of {_CODE_STRIDE}": (
                self.image_size < _CODE_STRIDE or self.image_size % _CODE_STRIDE != 0
            ),
            f"crop_margin {self.crop_margin} is not in [0.5, 4]": not 0.5 <= self.crop_margin <= 4,
            f"context {self.context} is not in [1, 3]": not 1 <= self.context <= 3,
            f"context is {self.context}, and recrop is none: only a re-crop can reach "
            "beyond the first crop": (self.recrop == "none" and self.context != 1),
            f"context {self.context} times image_size {self.image_size} is not an even integer": (
                (self.context * self.image_size) % 2 != 0
            ),
            f"recrop_margin {self.recrop_margin} is not in [0.5, 4]": (
                not 0.5 <= self.recrop_margin <= 4
            ),
            f"feedback_steps is {self.feedback_steps}; at least one pass must be trained": (
                self.feedback_steps < 1
            ),
            f"{self.architecture} has {stages} widths, not {len(self.widths)}": (
                len(self.widths) != stages
            ),
            "every width must be positive": any(w < 1 for w in self._all_widths()),
            f"code_width {self.code_width} does not split into C_id and C_pe": (
                self.code_width % 2 != 0
            ),
            f"code_width of {self.architecture} must equal the width of its last stage, "
            f"{self.widths[-1] if self.widths else 0}, not {self.code_width}": (
                self.architecture not in ("compact", "separable")
                and bool(self.widths)
                and self.code_width != self.widths[-1]
            ),
            "feedback is 'label_map', which needs softmax maps; ijcv_resnet has none": (
                self.architecture == "ijcv_resnet" and self.feedback == "label_map"
            ),
            "ijcv_resnet feeds the maps of rednet7's landmarks back, and scheme "
            f"{self.scheme.name} does not contain them": (
                self.architecture == "ijcv_resnet" and indices_in(self.scheme, REDNET7) is None
            ),
            "feedback_update is 'gated', which needs response maps that are carried over frames": (
                self.feedback_update == "gated"
                and (self.feedback != "response_maps" or self.architecture == "ijcv_resnet")
            ),
            "open_feedback_gradient needs feedback 'response_maps': a label map has no gradient": (
                self.open_feedback_gradient and self.feedback != "response_maps"
            ),
        }
        for complaint, broken in rules.items():
            if broken:
                raise RednetError(f"config: {complaint}")

    def _all_widths(self) -> tuple[int, ...]:
        return (
            *self.widths,
            self.code_width,
            self.recurrent_width,
            self.regression_width,
            self.identities,
        )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """Returns the preset `name` ('compact', 'separable', 'eccv_vgg',
        'ijcv_resnet') with fields changed.

        Raises:
            RednetError: an unknown preset, an unknown field, or fields that contradict each other.
        """
        if name not in _PRESETS:
            raise RednetError(f"no preset {name!r}; there are {', '.join(sorted(_PRESETS))}")
        return cls.from_json({**_PRESETS[name], **changes})

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Returns the config of a dict that `to_json` of this version or an earlier one returned.

        Raises:
            RednetError: an unknown or missing field, a field of the wrong type, or a contradiction.
        """
        fields = current_names(dict(fields), cls)
        if unknown := [name for name in fields if name not in field_types(cls)]:
            raise RednetError(f"config: unknown field {unknown[0]!r}")
        for name in ("encoder", "decoder"):
            if isinstance(fields.get(name), str):
                raise RednetError(
                    f"config: the network has {_ARTICLES[name]} {name} of its own, {fields[name]}: "
                    f"load it in Python with rednet_jax.load(..., {name}=...)"
                )
        fields["scheme"] = scheme_of(fields.get("scheme", IBUG68))
        # JSON has lists for tuples.
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        try:
            return cls(**values)
        except TypeError as error:
            raise RednetError(f"config: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """Returns all fields as JSON values: lists for tuples, the name of a built-in scheme."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("encoder", "decoder"):
            if plain[name] is not None:
                plain[name] = plain_function(plain[name])
        return {**plain, "widths": list(self.widths), "scheme": plain_scheme(self.scheme)}

    @property
    def input_size(self) -> int:
        """Side of the network's input image in pixels: the first crop and its surroundings."""
        return round(self.image_size * self.context)

    @property
    def input_margin(self) -> float:
        """Side of the input image in units of the larger side of the face's bounding box."""
        return self.crop_margin * self.context

    @property
    def map_size(self) -> int:
        """Side of the response maps in pixels."""
        return self.image_size // _MAP_STRIDE[self.architecture]

    @property
    def code_size(self) -> int:
        """Side of the code C in pixels."""
        return self.image_size // _CODE_STRIDE

    @property
    def feedback_size(self) -> int:
        """Side of the feedback map z in pixels; half of `map_size` in two architectures."""
        halved = self.architecture in ("ijcv_resnet", "separable")
        return self.map_size // 2 if halved else self.map_size

    @property
    def feedback_channels(self) -> int:
        """Channels of the feedback map z."""
        if self.feedback == "none":
            return 0
        if self.feedback == "label_map":
            return 1
        if self.architecture == "ijcv_resnet":
            return len(self.coarse_landmarks)
        return self.scheme.count + 1

    @property
    def coarse_landmarks(self) -> tuple[int, ...]:
        """Indices of the landmarks of `rednet7`: those of the journal form's coarse maps and z."""
        indices = indices_in(self.scheme, REDNET7)
        assert indices is not None
        return indices

    @property
    def passes_per_frame(self) -> int:
        """Passes before the K passes of a frame: the journal form runs one coarse pass first."""
        return 1 if self.architecture == "ijcv_resnet" else 0

    @property
    def statistic_rows(self) -> int:
        """Rows of the batch statistics of layers that run at every pass."""
        return self.feedback_steps + self.passes_per_frame if self.statistics_per_pass else 1


_PRESETS: dict[str, dict[str, Any]] = {
    "eccv_vgg": {
        "architecture": "eccv_vgg",
        "image_size": 128,
        "widths": (64, 128, 256, 512, 512),
        "code_width": 512,
        "recurrent_width": 256,
        "regression_width": 512,
        "feedback_steps": 3,
    },
    "ijcv_resnet": {
        "architecture": "ijcv_resnet",
        "image_size": 256,
        "widths": (64, 256, 512, 1024, 2048),
        "code_width": 2048,
        "recurrent_width": 512,
        "regression_width": 128,
        "feedback_steps": 1,
    },
    "compact": {
        "architecture": "compact",
        "image_size": 128,
        "widths": (24, 32, 48, 96, 128, 160, 24),
        "code_width": 128,
        "recurrent_width": 32,
        "regression_width": 64,
        "feedback_steps": 2,
    },
    "separable": {
        "architecture": "separable",
        "image_size": 128,
        "widths": (48, 128, 192),
        "code_width": 128,
        "recurrent_width": 32,
        "regression_width": 64,
        "feedback_steps": 2,
    },
}
