"""Export to the web: a page that runs the ONNX graphs in the browser."""

from __future__ import annotations

import importlib.resources
import os
import shutil
from pathlib import Path
from typing import Any

from rednet_jax.errors import RednetError
from rednet_jax.export.checked import Dtype, Job, Written, export_checked
from rednet_jax.export.folder import crop_rule, initial_state, state_shapes
from rednet_jax.export.onnx import MODULES, make_graphs
from rednet_jax.landmarks.drawing import coloured_parts
from rednet_jax.model.config import RedNetConfig
from rednet_jax.reading import read_json

RUNTIME = "1.30.0"
"""Version of onnxruntime-web with which the page was tested."""

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
    """Writes OUT/index.html with all files that it loads, after a check of the graphs.

    The page opens an image, a video or the camera, and tracks one face by its landmarks, without a
    detector and without shot cuts. It sends no requests to other servers. Any server of static
    files suffices, such as `python -m http.server`.

    The other arguments and errors are those of `export_checked`, which checks the graphs in
    Python's onnxruntime. A missing runtime, or a folder without its files, is also an error.

    Args:
        runtime: npm's folder `onnxruntime-web`, from which three files are copied.

    Returns:
        The content of export.json: that of `export_onnx`; `onnxruntime_web`, the copied version;
        and `page`, which the page reads: `graphs` (for images, for streams), `crop`, the parts of
        the `state`, `shape` (the scheme's mean shape and outline), and the `parts` of a face.
    """
    version, libraries = _runtime(runtime)

    def make(job: Job) -> Written:
        graphs = make_graphs(job)
        page = importlib.resources.files(__package__) / "web"
        for name in _PAGE_FILES:
            (job.folder / name).write_bytes((page / name).read_bytes())
        (job.folder / "onnxruntime-web").mkdir()
        for library in libraries:
            shutil.copyfile(library, job.folder / "onnxruntime-web" / library.name)
        runtime_files = (f"onnxruntime-web/{library.name}" for library in libraries)
        return Written(
            [*_PAGE_FILES, *graphs.files, *runtime_files],
            graphs.runner,
            {
                **graphs.details,
                "onnxruntime_web": version,
                "page": {"graphs": graphs.files, **_page_config(job.config)},
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
    """The version of npm's folder, and its files that the page loads."""
    remedy = (
        f"do `npm install onnxruntime-web@{RUNTIME}` and give "
        "`--runtime node_modules/onnxruntime-web`"
    )
    if folder is None:
        raise RednetError(f"the page needs the files of onnxruntime-web: {remedy}")
    files = [Path(folder) / "dist" / name for name in _RUNTIME_FILES]
    for file in files:
        if not file.is_file():
            raise RednetError(f"{file}: no such file; {remedy}")
    package = Path(folder) / "package.json"
    try:
        return str(read_json(package)["version"]), files
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RednetError(f"{package}: has no version; {remedy}") from error


def _page_config(config: RedNetConfig) -> dict[str, Any]:
    """The network's description for the page."""
    initial = initial_state(config)
    scheme = config.scheme
    return {
        "crop": crop_rule(config),
        "state": {
            name: {"dtype": dtype, "shape": list(shape), "begin": initial[name]}
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
