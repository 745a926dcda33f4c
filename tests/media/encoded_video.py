"""Writes test videos with FFmpeg's codecs, and reads them back."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from rednet_jax.media.video import VideoReader

WIDTH, HEIGHT = 64, 48
SOUND_RATE = 16_000

FASTSTART = {"movflags": "faststart"}


def steps(count, size=(WIDTH, HEIGHT)):
    """Frames of uniform grey, each brighter by 8 than the last, with a bright top left corner."""
    for number in range(count):
        frame = np.full((size[1], size[0], 3), 40 + 8 * number, np.uint8)
        frame[: size[1] // 3, : size[0] // 3] = 250
        yield frame


def noise(count):
    """Frames with about the same number of encoded bytes."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.integers(256, size=(HEIGHT, WIDTH, 3), dtype=np.uint8)


def encoded(
    path,
    frames,
    codec,
    pixels,
    *,
    group=12,
    turned=0,
    aspect=None,
    times=None,
    sound=None,
    options=None,
):
    """Writes a video. `sound` places a stream of two seconds of silence before or after it."""
    frames = list(frames)
    with av.open(str(path), "w", options=options or {}) as container:
        audio = _sound(container, path) if sound == "before" else None
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = group
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if turned:
            stream.set_display_rotation(turned)
        if sound == "after":
            audio = _sound(container, path)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image)
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            for number in range(20):
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, SOUND_RATE // 10), np.int16), format="s16", layout="mono"
                )
                silence.sample_rate, silence.pts = SOUND_RATE, number * SOUND_RATE // 10
                container.mux(audio.encode(silence))
            container.mux(audio.encode(None))
    return path


def _sound(container, path):
    codec = {".avi": "pcm_s16le", ".webm": "libopus"}.get(path.suffix, "aac")
    return container.add_stream(codec, rate=SOUND_RATE, layout="mono")


def read(path):
    with VideoReader(path) as reader:
        return list(reader), reader


def grey(frame):
    """The number of a frame of `steps`, from its grey at the bottom right."""
    return round((frame.image[-12:, -12:].mean() - 40) / 8)
