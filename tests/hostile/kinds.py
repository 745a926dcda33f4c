"""Kinds of input: images, videos and files of landmarks; and the table of all kinds."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hostile.kind import Kind, each, encoded, network, picture
from hostile.training_kinds import ROOT, configs, experiments, runs, weights
from PIL import Image


def images() -> Kind:
    from rednet_jax.inference.align_files import align_files

    image = picture()
    grey = image.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[274] = 6
    files = {
        "a.png": encoded(image, "PNG"),
        "alpha.png": encoded(image.convert("RGBA"), "PNG"),
        "palette.png": encoded(image.convert("P"), "PNG", transparency=3),
        "deep.png": encoded(deep, "PNG"),
        "a.jpg": encoded(image, "JPEG", exif=turned),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG", progressive=True),
        "a.gif": encoded(image, "GIF", save_all=True, append_images=[picture(1)]),
        "a.bmp": encoded(image, "BMP"),
        "a.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "deep.tif": encoded(deep, "TIFF"),
        "float.tif": encoded(Image.fromarray(np.asarray(grey, np.float32)), "TIFF"),
        "a.webp": encoded(image, "WEBP"),
        "a.ppm": encoded(image, "PPM"),
        "a.pfm": encoded(Image.fromarray(np.asarray(grey, np.float32)), "PPM"),
        "a.jp2": encoded(image, "JPEG2000"),
        "a.ico": encoded(image, "ICO", sizes=[(32, 32)]),
        "a.tga": encoded(image, "TGA"),
        "a.pcx": encoded(image, "PCX"),
        "a.sgi": encoded(image, "SGI"),
        "a.dds": encoded(image, "DDS"),
        "a.eps": encoded(image, "EPS"),
        "a.avif": encoded(image, "AVIF"),
    }
    net = network()

    def feed(path: Path, out: Path, chosen: str) -> None:
        each(
            lambda: align_files(
                [path],
                checkpoint=net,
                feedback_steps=1,
                min_confidence=0,
                csv=out / "a.csv",
                json=out / "a.json",
                overlay=out / "drawn",
            )
        )

    return Kind(files, feed)


def videos() -> Kind:
    import av

    from rednet_jax.inference.track_file import track_file

    def encode(kind: str, codec: str, pixels: str, **options: str) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format=kind) as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
            for seed in range(6):
                frame = av.VideoFrame.from_image(picture(seed, (64, 48)))
                container.mux(stream.encode(frame.reformat(format=pixels)))
            container.mux(stream.encode(None))
        return file.getvalue()

    files = {
        "a.mp4": encode("mp4", "libx264", "yuv420p", preset="ultrafast"),
        "a.avi": encode("avi", "mpeg4", "yuv420p"),
        "jpeg.avi": encode("avi", "mjpeg", "yuvj420p"),
        "a.mkv": encode("matroska", "libx264", "yuv420p", preset="ultrafast"),
        "a.mpg": encode("mpeg", "mpeg1video", "yuv420p"),
        "a.gif": encoded(picture(), "GIF", save_all=True, append_images=[picture(1), picture(2)]),
    }
    net = network()

    def feed(path: Path, out: Path, chosen: str) -> None:
        each(
            lambda: track_file(
                path,
                checkpoint=net,
                out=out / "a.mp4",
                landmarks=out / "a.csv",
                jsonl=out / "a.jsonl",
            )
        )

    return Kind(files, feed)


def points() -> Kind:
    from rednet_jax.landmarks.pts import read_pts, write_pts

    rows = np.random.default_rng(0).uniform(0, 200, (68, 2))
    path = Path("a.pts")
    write_pts(path, rows)
    data = path.read_bytes()
    path.unlink()
    return Kind({"a.pts": data}, lambda path, out, chosen: each(lambda: read_pts(path)), text=True)


def tables() -> Kind:
    """CSV files of predictions, boxes and labels, COCO keypoints, and lists of splits."""
    from rednet_jax.data.builders.label_files import read_labels
    from rednet_jax.data.builders.own_folder import OwnData
    from rednet_jax.data.prepare import prepare
    from rednet_jax.evaluate.predictions import score_predictions
    from rednet_jax.landmarks.builtin import REDNET7
    from rednet_jax.landmarks.table import landmarks_csv, read_boxes_csv, read_landmarks_csv

    tree, data_dir = Path("tree").absolute(), Path("prepared").absolute()
    tree.mkdir()
    names = [f"{i}.png" for i in range(6)]
    shape = REDNET7.shape * 30 + [24, 20]
    for index, name in enumerate(names):
        picture(index).save(tree / name)
    labels = landmarks_csv(names, np.stack([shape] * 6))
    valid = Path("labels.csv").absolute()
    valid.write_text(labels)
    own = OwnData(REDNET7, valid, shares=(0, 0, 1))
    prepare("mine", tree, data_dir, own=own)
    columns = ["identity", "box_x0", "box_y0", "box_x1", "box_y1"]
    table = [line.split(",") for line in labels.splitlines()]
    extra = "\n".join(
        ",".join([*row, *(["p", "2", "2", "40", "38"] if number else columns)])
        for number, row in enumerate(table)
    )
    keypoints = [[float(v) for point in shape for v in (*point, 2)] for _ in names]
    coco = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [
            {"image_id": i, "keypoints": values, "bbox": [2, 2, 38, 36]}
            for i, values in enumerate(keypoints)
        ],
    }
    files = {
        "points.csv": labels.replace(".png", "").encode(),
        "labels.csv": extra.encode(),
        "labels.json": json.dumps(coco).encode(),
        "boxes.csv": b"name,x0,y0,x1,y1\n" + b"".join(b"%d,1,2,30,40.5\n" % i for i in range(6)),
        "names.txt": "\n".join(names).encode(),
    }

    def feed(path: Path, out: Path, chosen: str) -> None:
        lists = (("test", path),) if path.suffix == ".txt" else ()
        labels = None if lists else path
        each(
            lambda: read_landmarks_csv(path),
            lambda: read_boxes_csv(path),
            lambda: read_labels(tree, labels, None),
            lambda: score_predictions(path, "mine", "test", data_dir=data_dir),
        )
        if lists or random.Random(path.read_bytes()).random() < 0.1:
            own = OwnData(REDNET7, valid if lists else path, lists=lists)
            each(lambda: prepare("mine", tree, out / "data", own=own))

    return Kind(files, feed, text=True)


def schemes() -> Kind:
    from rednet_jax.landmarks.builtin import BUILTIN, load_scheme

    files = {
        f"{name}.json": json.dumps({**scheme.to_json(), "name": f"my_{name}"}, indent=1).encode()
        for name, scheme in BUILTIN.items()
        if name in ("rednet7", "cofw29", "wflw98")
    }
    files["mine.json"] = (ROOT / "experiments/own_landmarks/mine98.json").read_bytes()
    return Kind(files, lambda path, out, chosen: each(lambda: load_scheme(path)), text=True)


KINDS: dict[str, Callable[[], Kind]] = {
    "images": images,
    "videos": videos,
    "points": points,
    "tables": tables,
    "schemes": schemes,
    "weights": weights,
    "runs": runs,
    "configs": configs,
    "experiments": experiments,
}
