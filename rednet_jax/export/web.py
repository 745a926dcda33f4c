"""A checkpoint as a folder for the web: one page that finds landmarks in the browser itself."""

from __future__ import annotations

import importlib.resources
import os
import shutil
from pathlib import Path
from typing import Any

from rednet_jax.errors import RednetError
from rednet_jax.export.checked import Dtype, Job, Made, export_checked
from rednet_jax.export.folder import crop_rule, initial_state, state_shapes
from rednet_jax.export.onnx import MODULES, make_graphs
from rednet_jax.landmarks.drawing import coloured_parts
from rednet_jax.model.config import RedNetConfig
from rednet_jax.reading import read_json

RUNTIME = "1.30.0"
"""Version of onnxruntime-web that the page was tested with."""

_RUNTIME_FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_PAGE_FILES = ("index.html", "follow.js", "page.js")


def export_web(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: Dtype = "float32",
    *,
    runtime: str | os.PathLike[str] | None,
    feedback_steps: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes OUT/index.html with all that it loads, once the graphs are checked.

    The page opens an image, a video or the camera, follows one face by its own points, without a
    detector or shot cuts, and asks no other server for anything. Any server of plain files will do:
    `python -m http.server`.

    Arguments, what is returned and errors are those of `export_checked`, which compares the graphs
    in Python's onnxruntime; no runtime, or a folder without its files, is an error, too.

    Args:
        runtime: npm's folder `onnxruntime-web`, of whose files three are copied.

    Returns:
        What export.json holds: as of `export_onnx`, `onnxruntime_web`, the version copied, and
        `page`, what the page reads there: `graphs` (of images, of streams), `crop`, the parts of
        the `state`, `shape` (the scheme's mean shape and outline), and the `parts` of a face.
    """
    version, libraries = _runtime(runtime)

    def make(job: Job) -> Made:
        graphs = make_graphs(job)
        page = importlib.resources.files(__package__) / "web"
        for name in _PAGE_FILES:
            (job.folder / name).write_bytes((page / name).read_bytes())
        (job.folder / "onnxruntime-web").mkdir()
        for library in libraries:
            shutil.copyfile(library, job.folder / "onnxruntime-web" / library.name)
        runtime_files = (f"onnxruntime-web/{library.name}" for library in libraries)
        return Made(
            [*_PAGE_FILES, *graphs.files, *runtime_files],
            graphs.runner,
            {
                **graphs.told,
                "onnxruntime_web": version,
                "page": {"graphs": graphs.files, **_described(job.config)},
            },
        )

    return export_checked(
        "web",
        checkpoint,
        out,
        dtype,
        make,
        modules=MODULES,
        extra="onnx",
        feedback_steps=feedback_steps,
        data_dir=data_dir,
    )


def _runtime(folder: str | os.PathLike[str] | None) -> tuple[str, list[Path]]:
    """The version in npm's folder, and the files of it that the page loads."""
    remedy = (
        f"do `npm install onnxruntime-web@{RUNTIME}` and give "
        "`--runtime node_modules/onnxruntime-web`"
    )
    if folder is None:
        raise RednetError(f"the page needs the files of onnxruntime-web: {remedy}")
    files = [Path(folder) / "dist" / name for name in _RUNTIME_FILES]
    for file in files:
        if not file.is_file():
            raise RednetError(f"{file}: no such file of onnxruntime-web; {remedy}")
    package = Path(folder) / "package.json"
    try:
        return str(read_json(package)["version"]), files
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RednetError(f"{package}: says no version; {remedy}") from error


def _described(config: RedNetConfig) -> dict[str, Any]:
    """What the page has to know of a network, beside its graphs."""
    begin = initial_state(config)
    scheme = config.scheme
    return {
        "crop": crop_rule(config),
        "state": {
            name: {"dtype": dtype, "shape": list(shape), "begin": begin[name]}
            for name, (dtype, shape) in state_shapes(config).items()
        },
        "shape": {
            "mean_shape": [list(point) for point in scheme.mean_shape],
            "outline": [list(point) for point in scheme.outline],
        },
        "parts": [
            {"members": list(part.points), "closed": part.closed, "colour": colour}
            for part, colour in coloured_parts(scheme)
        ],
    }
