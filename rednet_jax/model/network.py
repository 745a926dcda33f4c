"""`RedNet`: the network of one pass, composed of its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rednet_jax.landmarks.heatmaps import soft_argmax, to_crop_pixels
from rednet_jax.model.config import Architecture, RedNetConfig
from rednet_jax.model.decoder import CompactDecoder, Decoder, ResNetDecoder, VGGDecoder
from rednet_jax.model.encoder import CompactEncoder, Encoder, ResNetEncoder, VGGEncoder
from rednet_jax.model.heads import (
    CoarseDetection,
    CompactRegression,
    Detection,
    FineDetection,
    Identity,
    PeakReadout,
    VGGRegression,
)
from rednet_jax.model.layers import Draw, Mode
from rednet_jax.model.separable import SeparableDecoder, SeparableEncoder, SeparableRegression
from rednet_jax.model.temporal import ConvLSTM, MapGate, Memory, PooledLSTM, recurrent_channels


class PassOutput(NamedTuple):
    """The output of one pass, which is also the input of a loss.

    Attributes:
        logits: [B, h, w, M], M = L + 1 with background first, or L independent maps (journal form).
        response_maps: softmax of the logits over M, or their sigmoid (journal form).
        map_landmarks: [B, L, 2], crop pixels, decoded from the maps; differentiable if M = L + 1.
        landmarks: [B, L, 2], crop pixels, of f_REG; in the journal form those of the maps.
        confidence_logits: [B, L], of the probability that a point lies within 5 % of the
            inter-ocular distance.
        identity_logits: [B, identities], of f_CLS.
        coarse_logits: [B, H / 4, W / 4, 7] of the frame's coarse pass, the same at every pass;
            None except in the journal form.
        crop: [B, 2, 3], the pass's crop: pixels of the crop -> pixels of the image.
        coarse_crop: [B, 2, 3], the crop of the coarse pass, which is the frame's first crop.
    """

    logits: jax.Array
    response_maps: jax.Array
    map_landmarks: jax.Array
    landmarks: jax.Array
    confidence_logits: jax.Array
    identity_logits: jax.Array
    coarse_logits: jax.Array | None
    crop: jax.Array
    coarse_crop: jax.Array


Loss = Callable[[PassOutput, Any], Any]
"""Maps a pass's output and the targets of its frame to a tree of arrays, inside the loop."""

_HALVES: dict[Architecture, tuple[Callable[..., Encoder], Callable[..., Decoder]]] = {
    "eccv_vgg": (VGGEncoder, VGGDecoder),
    "ijcv_resnet": (ResNetEncoder, ResNetDecoder),
    "compact": (CompactEncoder, CompactDecoder),
    "separable": (SeparableEncoder, SeparableDecoder),
}


class RedNet(nnx.Module):
    """The layers of a network; `rednet_jax.model.passes` calls it once per pass.

    For traces, operations have the scope of their part: `encoder` (the stem `encoder/stem`),
    `recurrent`, `decoder` or `heads` (`heads/detection`, `heads/regression`, `heads/identity`).
    """

    def __init__(self, config: RedNetConfig, draw: Draw) -> None:
        self.config = config
        journal = config.architecture == "ijcv_resnet"
        encoder, decoder = _HALVES[config.architecture]
        self.encoder: Encoder = (config.encoder or encoder)(config, draw)
        self.decoder: Decoder = (config.decoder or decoder)(config, draw)
        self.detection = (FineDetection if journal else Detection)(config, draw)
        regression = {"eccv_vgg": VGGRegression, "separable": SeparableRegression}.get(
            config.architecture, CompactRegression
        )
        self.regression = None if journal else regression(config, draw)
        self.readout = PeakReadout(config) if journal else None
        self.coarse = CoarseDetection(config, draw) if journal else None
        channels = recurrent_channels(config)
        cell = ConvLSTM if config.architecture in ("compact", "separable") else PooledLSTM
        self.temporal = cell(channels, config.recurrent_width, draw) if channels else None
        self.identity = Identity(config, draw)
        gated = config.feedback_update == "gated"
        self.gate = MapGate(config.feedback_channels, draw) if gated else None

    def stem(self, images: jax.Array, mode: Mode) -> jax.Array:
        """Returns the encoder's features of the image alone."""
        with jax.named_scope("encoder"), jax.named_scope("stem"):
            return self.encoder.stem(images, mode)

    def detect_coarse(
        self, stem: jax.Array, z: jax.Array, memory: Memory | None, mode: Mode, head: Mode
    ) -> jax.Array:
        """Runs the journal form's coarse pass; returns logits [B, H / 4, W / 4, 7].

        `head` is the mode of the coarse head, which runs in fewer passes than the other layers.
        """
        assert self.coarse is not None
        with jax.named_scope("encoder"):
            encoded = self.encoder(stem, z, mode)
        code, _, _ = self._remember(encoded.code, memory)
        with jax.named_scope("decoder"):
            features = self.decoder(code, encoded, mode)
        with jax.named_scope("heads"):
            return self.coarse(features, head)

    def refine(
        self,
        stem: jax.Array,
        z: jax.Array | None,
        memory: Memory | None,
        coarse_logits: jax.Array | None,
        mode: Mode,
        head: Mode,
        *,
        crop: jax.Array,
        coarse_crop: jax.Array,
    ) -> tuple[PassOutput, Memory | None]:
        """Runs one pass of the loop.

        Args:
            stem: of `stem`.
            z: the feedback map, [B, feedback_size, feedback_size, feedback_channels]; None where it
                is blank.
            memory: f_tRNN's state after the previous frame, or None to skip f_tRNN.
            coarse_logits: of `detect_coarse`; copied to the output.
            mode: of normalisation.
            head: mode of the detection head, which does not run in a coarse pass.
            crop: copied to the output.
            coarse_crop: copied to the output.

        Returns:
            The pass's output, and f_tRNN's state after this frame if this pass is its last.
        """
        with jax.named_scope("encoder"):
            encoded = self.encoder(stem, z, mode)
        code, identity_code, memory = self._remember(encoded.code, memory)
        with jax.named_scope("decoder"):
            features = self.decoder(code, encoded, mode)
        with jax.named_scope("heads"):
            with jax.named_scope("detection"):
                logits = self.detection(features, head)
            if self.regression is not None:
                wide_maps = jax.nn.softmax(logits, axis=-1)
                maps = wide_maps.astype(code.dtype)
                with jax.named_scope("regression"):
                    landmarks, confidence = self.regression(maps, code, encoded, mode)
                # From float32 maps: bfloat16 has a spacing of a quarter of a map pixel beyond 32.
                map_landmarks = to_crop_pixels(
                    soft_argmax(wide_maps[..., 1:]), self.config.image_size, self.config.map_size
                )
            else:
                assert self.readout is not None
                maps = jax.nn.sigmoid(logits).astype(code.dtype)
                landmarks, confidence = self.readout(logits)
                map_landmarks = landmarks
            with jax.named_scope("identity"):
                identity_logits = self.identity(identity_code)
            output = PassOutput(
                logits=logits,
                response_maps=maps,
                map_landmarks=map_landmarks,
                landmarks=landmarks,
                confidence_logits=confidence,
                identity_logits=identity_logits,
                coarse_logits=coarse_logits,
                crop=crop,
                coarse_crop=coarse_crop,
            )
        return output, memory

    def _remember(
        self, code: jax.Array, memory: Memory | None
    ) -> tuple[jax.Array, jax.Array, Memory | None]:
        """Returns the code after f_tRNN, C_id before it, and the new memory."""
        half = self.config.code_width // 2
        identity_code = code[..., :half]
        if self.temporal is None or memory is None:
            return code, identity_code, memory
        fixed = self.config.code_width - recurrent_channels(self.config)
        with jax.named_scope("recurrent"):
            changing, memory = self.temporal(code[..., fixed:], memory)
            code = jnp.concatenate([code[..., :fixed], changing], axis=-1)
        return code, identity_code, memory
