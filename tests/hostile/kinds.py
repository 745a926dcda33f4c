"""The kinds of input, each with valid files, how they are mutated, and the calls that read them."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile.mutate import mutated_bytes, mutated_text
from PIL import Image

from rednet_jax.errors import RednetError

ROOT = Path(__file__).parents[2]

_MISSING = 0.05


@dataclasses.dataclass
class Kind:
    """A kind of input.

    Attributes:
        files: valid files by name; a name that ends in / is a folder of files, one of which is
            mutated.
        feed: gives a file or folder to the library, with a folder for its outputs and the name of
            the file that was mutated.
        text: whether files are mutated as texts, four times in five.
    """

    files: dict[str, Any]
    feed: Callable[[Path, Path, str], None]
    text: bool = False

    def write(self, rng: random.Random, folder: Path) -> tuple[Path, str]:
        """Writes a mutated file or folder; returns its path, and the name of the mutated file."""
        name = rng.choice(sorted(self.files))
        whole = self.files[name]
        path = self.whole(name, folder)
        chosen = rng.choice(sorted(whole)) if isinstance(whole, dict) else name
        place, data = (path / chosen, whole[chosen]) if path.is_dir() else (path, whole)
        if rng.random() < _MISSING and path.is_dir():
            place.unlink()
        else:
            place.write_bytes(self._mutated(data, rng))
        return path, chosen

    def whole(self, name: str, folder: Path) -> Path:
        """Writes a valid file or folder, and returns its path."""
        path = folder / name.rstrip("/")
        contents = self.files[name]
        if isinstance(contents, bytes):
            path.write_bytes(contents)
            return path
        for inner, data in contents.items():
            (path / inner).parent.mkdir(parents=True, exist_ok=True)
            (path / inner).write_bytes(data)
        return path

    def _mutated(self, data: bytes, rng: random.Random) -> bytes:
        texts = self.text and rng.random() < 0.8
        if not texts:
            return mutated_bytes(data, rng)
        return mutated_text(data.decode("utf-8", "surrogateescape"), rng).encode(
            "utf-8", "surrogateescape"
        )


def each(*calls: Callable[[], Any]) -> None:
    """Makes calls one after the other; what one refuses the next may still read."""
    for call in calls:
        try:
            call()
        except RednetError as error:
            assert "\n" not in str(error), f"more than one line: {error}"
            assert len(str(error)) < 2000, f"{len(str(error))} characters"


def network() -> Any:
    """A network that runs in milliseconds."""
    import jax
    from conftest import NARROW

    from rednet_jax.model.config import RedNetConfig
    from rednet_jax.model.rednet import init

    config = RedNetConfig.preset("compact", **NARROW["compact"])
    return config, jax.tree.map(np.asarray, init(config, jax.random.key(0)))


def _picture(seed: int = 0, size: tuple[int, int] = (48, 40)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(256, size=(6, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def images() -> Kind:
    from rednet_jax.inference.align_files import align_files

    picture = _picture()
    grey = picture.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[274] = 6
    files = {
        "a.png": _encoded(picture, "PNG"),
        "alpha.png": _encoded(picture.convert("RGBA"), "PNG"),
        "palette.png": _encoded(picture.convert("P"), "PNG", transparency=3),
        "deep.png": _encoded(deep, "PNG"),
        "a.jpg": _encoded(picture, "JPEG", exif=turned),
        "cmyk.jpg": _encoded(picture.convert("CMYK"), "JPEG", progressive=True),
        "a.gif": _encoded(picture, "GIF", save_all=True, append_images=[_picture(1)]),
        "a.bmp": _encoded(picture, "BMP"),
        "a.tif": _encoded(picture, "TIFF", compression="tiff_lzw"),
        "deep.tif": _encoded(deep, "TIFF"),
        "float.tif": _encoded(Image.fromarray(np.asarray(grey, np.float32)), "TIFF"),
        "a.webp": _encoded(picture, "WEBP"),
        "a.ppm": _encoded(picture, "PPM"),
        "a.pfm": _encoded(Image.fromarray(np.asarray(grey, np.float32)), "PPM"),
        "a.jp2": _encoded(picture, "JPEG2000"),
        "a.ico": _encoded(picture, "ICO", sizes=[(32, 32)]),
        "a.tga": _encoded(picture, "TGA"),
        "a.pcx": _encoded(picture, "PCX"),
        "a.sgi": _encoded(picture, "SGI"),
        "a.dds": _encoded(picture, "DDS"),
        "a.eps": _encoded(picture, "EPS"),
        "a.avif": _encoded(picture, "AVIF"),
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

    def encoded(kind: str, codec: str, pixels: str, **options: str) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format=kind) as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
            for seed in range(6):
                frame = av.VideoFrame.from_image(_picture(seed, (64, 48)))
                container.mux(stream.encode(frame.reformat(format=pixels)))
            container.mux(stream.encode(None))
        return file.getvalue()

    files = {
        "a.mp4": encoded("mp4", "libx264", "yuv420p", preset="ultrafast"),
        "a.avi": encoded("avi", "mpeg4", "yuv420p"),
        "jpeg.avi": encoded("avi", "mjpeg", "yuvj420p"),
        "a.mkv": encoded("matroska", "libx264", "yuv420p", preset="ultrafast"),
        "a.mpg": encoded("mpeg", "mpeg1video", "yuv420p"),
        "a.gif": _encoded(
            _picture(), "GIF", save_all=True, append_images=[_picture(1), _picture(2)]
        ),
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
    """CSV files of predictions, boxes and labels; COCO keypoints; lists of splits."""
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
        _picture(index).save(tree / name)
    labels = landmarks_csv(names, np.stack([shape] * 6))
    given = Path("labels.csv").absolute()
    given.write_text(labels)
    own = OwnData(REDNET7, given, shares=(0, 0, 1))
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
            {"image_id": i, "keypoints": one, "bbox": [2, 2, 38, 36]}
            for i, one in enumerate(keypoints)
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
            own = OwnData(REDNET7, given if lists else path, lists=lists)
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


def weights() -> Kind:
    """Safetensors files, of which the header, the config in it and the numbers are mutated."""
    from rednet_jax.export.imported import import_weights
    from rednet_jax.weights.store import load, write_torch_weights, write_weights

    config, variables = network()
    write_weights("a.safetensors", config, variables)
    write_torch_weights("t.safetensors", config, variables, feedback_steps=1)
    files = {}
    for name in ("a.safetensors", "t.safetensors"):
        files[name] = Path(name).read_bytes()

    def feed(path: Path, out: Path, chosen: str) -> None:
        each(lambda: load(path), lambda: import_weights(path, out / "b.safetensors"))

    kind = Kind(files, feed)
    plain = kind._mutated

    def mutated(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.4:
            return plain(data, rng)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        if rng.random() < 0.7:
            header["__metadata__"]["rednet_config"] = mutated_text(
                header["__metadata__"]["rednet_config"], rng
            )
            text = json.dumps(header)
        else:
            text = mutated_text(json.dumps(header), rng)
        new = text.encode("utf-8", "surrogateescape")
        return len(new).to_bytes(8, "little") + new + data[8 + length :]

    kind._mutated = mutated  # type: ignore[method-assign]
    return kind


def runs() -> Kind:
    """Run folders."""
    import jax

    from rednet_jax.train.checkpoints import DIGESTS, Checkpoints
    from rednet_jax.train.experiment import Experiment, OptimiserConfig, Stage
    from rednet_jax.train.folder import best_nme, changed_data, claim, initial_weights
    from rednet_jax.train.report import write_report
    from rednet_jax.weights.store import load, write_weights

    config, variables = network()
    experiment = Experiment(
        "tiny",
        config,
        (Stage(optimiser=OptimiserConfig(warmup_steps=2), steps=20, one_pass_steps=10),),
    )
    run = Path("whole")
    claim(run, experiment, None)
    write_weights(run / "best.safetensors", config, variables)
    rows = [
        {"step": step, "loss": 3.0 / step, "nme": 5.0, "learning_rate": 1e-3, "seconds": 1.0}
        for step in range(1, 21)
    ] + [{"step": 20, "validation_nme": [9.0, 8.0], "validation_jitter": [1.0, 2.0]}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = {"step": 0, "command": "rednet train", "data": {"a": {"train x/train": "1"}}}
    (run / "environment.jsonl").write_text(json.dumps(start) + "\n")
    (run / "pictures").mkdir()
    _picture().save(run / "pictures/step_20.png")
    state = {"a": np.arange(6.0, dtype=np.float32), "b": {"c": np.ones((3, 4), np.float32)}}
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), state)
    with Checkpoints(run / "checkpoints", keep=2) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, state, {"place": step}, nme=1.0 / step)
    contents = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file()
    }
    old = {name: data for name, data in contents.items() if not name.endswith(DIGESTS)}

    def resume(path: Path) -> None:
        with Checkpoints(path / "checkpoints", keep=2) as found:
            found.resume(like)

    def feed(path: Path, out: Path, chosen: str) -> None:
        copy = out / "run"
        shutil.copytree(path, copy)
        if chosen.startswith("checkpoints/"):
            each(lambda: resume(copy))
            return
        each(
            lambda: load(copy),
            lambda: initial_weights(copy, None, experiment),
            lambda: claim(copy, experiment, None),
            lambda: changed_data(copy, {"a": {"train x/train": "1"}}),
            lambda: best_nme(copy, 0),
            lambda: write_report(copy),
        )

    kind = Kind({"run/": contents, "old/": old}, feed, text=True)
    plain = kind._mutated

    def mutated(data: bytes, rng: random.Random) -> bytes:
        return plain(data, rng) if data[:1] == b"{" else mutated_bytes(data, rng)

    kind._mutated = mutated  # type: ignore[method-assign]
    return kind


def configs() -> Kind:
    """Configs of experiments as JSON, in results of ablations and beside exports."""
    from rednet_jax.ablate.index import write_index
    from rednet_jax.model.config import RedNetConfig

    config, _ = network()
    results = ROOT / "experiments/results"
    files: dict[str, Any] = {
        "config.json": json.dumps(config.to_json()).encode(),
        "results/": {
            name: (results / name).read_bytes()
            for name in ("ablation_losses.json", "detect.json", "compact_slices.json", "track.json")
        },
    }

    def feed(path: Path, out: Path, chosen: str) -> None:
        if path.is_dir():
            shutil.copytree(path, out / "results")
            each(lambda: write_index(out / "results"))
            return
        try:
            fields = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return
        if isinstance(fields, dict):
            each(lambda: RedNetConfig.from_json(fields))

    return Kind(files, feed, text=True)


def experiments() -> Kind:
    from rednet_jax.train.load import load_experiment

    names = ("smoke", "compact_clips", "compact_generated", "eccv_vgg_300vw", "ablation_losses")
    files = {f"{name}.py": (ROOT / f"experiments/{name}.py").read_bytes() for name in names}

    def feed(path: Path, out: Path, chosen: str) -> None:
        words = path.read_text("utf-8", "replace").split()
        rng = random.Random(len(words))
        field = rng.choice(("seed", "batch", "model.widths", "losses.sigma", "mesh.data", "name"))
        value = mutated_text(rng.choice(("1", "8,16", "0.5", "a")), rng)
        each(lambda: load_experiment(path), lambda: load_experiment(path, {field: value}))

    return Kind(files, feed, text=True)


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
