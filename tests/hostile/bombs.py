"""Small files that declare huge contents; each must be refused before memory is allocated."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile.kind import network
from PIL import Image

from rednet_jax.errors import RednetError


def _png(width: int, height: int, rows: bytes = b"\x00" * 100) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    image = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + image + chunk(b"IEND", b"")


def _refused(call: Callable[[], Any], message: str) -> None:
    try:
        call()
    except RednetError as error:
        assert message in str(error), str(error)
        return
    raise AssertionError("was not refused")


def _read_image(data: bytes, message: str) -> None:
    from rednet_jax.media.images import read_image

    Path("a.png").write_bytes(data)
    _refused(lambda: read_image("a.png", upright=True), message)


def png_header() -> None:
    _read_image(_png(100_000, 100_000), "a.png: cannot be read (")


def png_of_170_million_pixels() -> None:
    """The file is complete, with a compression ratio of 1000."""
    side = 13_000
    _read_image(_png(side, side, (b"\x00" * (3 * side + 1)) * side), "13000 x 13000 pixels")


def image_without_end() -> None:
    from rednet_jax.media.images import read_image

    _refused(lambda: read_image("/dev/zero", upright=True), "/dev/zero: cannot be read (larger")


def largest_image() -> None:
    """The largest allowed image is read, in the format that needs the most memory."""
    from rednet_jax.media.images import LARGEST, read_image

    Image.new("I;16", (10_000, LARGEST // 10_000), 40_000).save("a.tif", compression="tiff_lzw")
    assert read_image("a.tif", upright=True)[0, 0].tolist() == [156] * 3


def ppm_header() -> None:
    _read_image(b"P6 1000000 1000000 255\n" + b"\x00" * 64, "a.png: cannot be read (")


def program_as_image() -> None:
    """Pillow would run Ghostscript."""
    file = Path("a.eps")
    Image.new("RGB", (8, 8)).save(file)
    _read_image(file.read_bytes(), "EPS files are not supported")


def _open_video(name: str, data: bytes, message: str) -> None:
    from rednet_jax.media.video import VideoReader

    Path(name).write_bytes(data)

    def read() -> None:
        with VideoReader(name) as video:
            for _ in video:
                pass

    _refused(read, message)


def gif_with_a_large_canvas() -> None:
    file = io.BytesIO()
    Image.new("P", (2, 2)).save(file, "GIF", comment=b"-")
    data = bytearray(file.getvalue())
    data[6:10] = struct.pack("<HH", 20_000, 20_000)
    _open_video("a.gif", bytes(data), "a.gif: not a video")


def png_as_video() -> None:
    """The container does not declare its size."""
    _open_video("a.mp4", _png(16_000, 16_000, bytes(48_001 * 300)), "a.mp4: ")


def scheme_of_many_landmarks() -> None:
    from rednet_jax.landmarks.builtin import load_scheme

    mirror = list(range(500_000))
    Path("a.json").write_text(json.dumps({"name": "a", "mirror": mirror, "mean_shape": []}))
    _refused(lambda: load_scheme("a.json"), "a.json: ")


def deep_json() -> None:
    from rednet_jax.data.builders.label_files import read_labels
    from rednet_jax.landmarks.builtin import load_scheme
    from rednet_jax.train.report import write_report
    from rednet_jax.weights.store import load

    for text in ("[" * 100_000 + "]" * 100_000, '{"a":' * 5_000 + "1" + "}" * 5_000):
        Path("run").mkdir(exist_ok=True)
        for name in ("a.json", "run/config.json"):
            Path(name).write_text(text)
        header = json.dumps({"__metadata__": {"rednet_config": text}}).encode()
        Path("a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        _refused(lambda: load_scheme("a.json"), "nested deeper than 100")
        _refused(lambda: read_labels(Path(), Path("a.json"), None), "nested deeper than 100")
        _refused(lambda: write_report(Path("run")), "run/config.json: not the config of a run")
        _refused(lambda: load("a.safetensors"), "nested deeper than 100")


def labels_of_half_a_gigabyte() -> None:
    from rednet_jax.data.builders.label_files import read_labels

    with Path("a.json").open("wb") as file:
        file.truncate(2**29)
    _refused(lambda: read_labels(Path(), Path("a.json"), None), "a.json: larger than")


def wide_csv() -> None:
    from rednet_jax.data.builders.label_files import read_labels
    from rednet_jax.landmarks.table import read_boxes_csv, read_landmarks_csv

    texts = "a" * 100_000_000, "," * 100_000_000, 'name,"' + "x\n" * 50_000_000
    reads: tuple[Callable[[], Any], ...] = (
        lambda: read_landmarks_csv("a.csv"),
        lambda: read_boxes_csv("a.csv"),
        lambda: read_labels(Path(), Path("a.csv"), None),
    )
    for text, read in zip(texts, reads, strict=True):
        Path("a.csv").write_text(text)
        _refused(read, "a.csv: ")


def long_csv() -> None:
    from rednet_jax.landmarks.table import read_boxes_csv
    from rednet_jax.reading import MOST_ROWS

    Path("a.csv").write_text("name,x0,y0,x1,y1\n" + "a,1,2,3,4\n" * (MOST_ROWS + 1))
    _refused(lambda: read_boxes_csv("a.csv"), f"a.csv: more than {MOST_ROWS} rows")


def _weights(header: dict[str, Any], data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    Path("a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


def weights_of_terabytes() -> None:
    from rednet_jax.weights.store import load

    config, _ = network()
    metadata = {"rednet_config": json.dumps(config.to_json())}
    size = 2**42
    array = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    _weights({"__metadata__": metadata, "a": array}, b"\x00" * 64)
    _refused(lambda: load("a.safetensors"), "a.safetensors: not a safetensors file")
    Path("a.safetensors").write_bytes((2**42).to_bytes(8, "little") + b"{}")
    _refused(lambda: load("a.safetensors"), "a.safetensors: not a safetensors file")


def config_of_a_huge_network() -> None:
    from rednet_jax.weights.store import load

    config, _ = network()
    for changes, message in (
        ({"widths": [2**40] * 7}, "needs more numbers than the 16"),
        ({"widths": [2**20] * 7}, "needs more numbers than the 16"),
        ({"feedback_steps": 10**9}, "needs more numbers than the 16"),
        ({"identities": 10**12}, "needs more numbers than the 16"),
    ):
        metadata = {"rednet_config": json.dumps({**config.to_json(), **changes})}
        array = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}
        _weights({"__metadata__": metadata, "a": array}, b"\x00" * 64)
        _refused(lambda: load("a.safetensors"), message)


def network_of_huge_images() -> None:
    import dataclasses

    from rednet_jax.weights.store import load, write_weights

    config, variables = network()
    write_weights("a.safetensors", config, variables)
    written = Path("a.safetensors").read_bytes()
    end = 8 + int.from_bytes(written[:8], "little")
    header = json.loads(written[8:end])
    large = dataclasses.replace(config, image_size=32 * 100_000)
    header["__metadata__"]["rednet_config"] = json.dumps(large.to_json())
    _weights(header, written[end:])
    _refused(lambda: load("a.safetensors"), "has images of 3200000 x 3200000 pixels")


def checkpoint_that_names_a_device() -> None:
    from rednet_jax.train.checkpoints import DIGESTS, damage

    folder = Path("10")
    (folder / "metrics").mkdir(parents=True)
    reader = {"custom_metadata": {"reader": {}}}
    (folder / "_CHECKPOINT_METADATA").write_text(json.dumps(reader))
    (folder / "metrics/metrics").write_text('{"nme": 1.0}')
    os.mkfifo(folder / "pipe")
    for name in ("/dev/zero", "../../../../../../dev/zero", "pipe"):
        digests = {"reader": {}, "files": {name: "0" * 64}}
        (folder / DIGESTS).write_text(json.dumps(digests))
        assert damage(folder) == f"{name} is missing"


BOMBS: dict[str, Callable[[], None]] = {
    call.__name__: call
    for call in (
        png_header,
        png_of_170_million_pixels,
        image_without_end,
        largest_image,
        ppm_header,
        program_as_image,
        gif_with_a_large_canvas,
        png_as_video,
        scheme_of_many_landmarks,
        deep_json,
        labels_of_half_a_gigabyte,
        wide_csv,
        long_csv,
        weights_of_terabytes,
        config_of_a_huge_network,
        network_of_huge_images,
        checkpoint_that_names_a_device,
    )
}
