"""Time of other landmark tools on the portrait, if they are installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rednet_jax.bench.machine import Machine, Timing, milliseconds
from rednet_jax.bench.runtimes import Row, time_row
from rednet_jax.errors import RednetError
from rednet_jax.media.images import read_image
from rednet_jax.quickstart import portrait_path


def time_other_tools(machine: Machine, timing: Timing) -> list[Row]:
    """Times the landmarks of one face, without its detection.

    MediaPipe's face mesh tracks the portrait from frame to frame and so needs no detector; it cuts
    its crop itself. dlib's predictor gets the box of dlib's detector.

    Returns:
        For each tool `runtime` with `version`, `ms`, `ms_per_face` and `of_product`, or with
        `left_out`, the reason.
    """
    portrait = read_image(portrait_path(), upright=True)
    rows: list[Row] = []
    for name, prepare in (("mediapipe", _mediapipe), ("dlib", _dlib)):
        try:
            run = prepare(portrait)
        except RednetError as error:
            rows.append({"runtime": name, "left_out": str(error)})
        else:
            version = importlib.import_module(name).__version__
            times = time_row(milliseconds(run, timing), 1, machine)
            rows.append({"runtime": name, "version": version, **times})
    return rows


def _mediapipe(portrait: NDArray[np.uint8]) -> Callable[[], object]:
    if importlib.util.find_spec("mediapipe") is None:
        raise RednetError("mediapipe is not installed")
    solutions = getattr(importlib.import_module("mediapipe"), "solutions", None)
    if solutions is None:
        raise RednetError("this mediapipe has no `solutions`, which contain their models")
    mesh = solutions.face_mesh.FaceMesh(max_num_faces=1)
    if mesh.process(portrait).multi_face_landmarks is None:
        raise RednetError("no face found in the portrait")
    return lambda: mesh.process(portrait)


def _dlib(portrait: NDArray[np.uint8]) -> Callable[[], object]:
    if importlib.util.find_spec("dlib") is None:
        raise RednetError("dlib is not installed")
    weights = importlib.util.find_spec("face_recognition_models")
    if weights is None or not weights.submodule_search_locations:
        raise RednetError("face_recognition_models, which has dlib's weights, is not installed")
    dlib = importlib.import_module("dlib")
    # Its own import needs pkg_resources, which setuptools no longer has.
    folder = Path(weights.submodule_search_locations[0]) / "models"
    predict = dlib.shape_predictor(str(folder / "shape_predictor_68_face_landmarks.dat"))
    boxes = dlib.get_frontal_face_detector()(portrait, 1)
    if not boxes:
        raise RednetError("no face found in the portrait")
    return lambda: predict(portrait, boxes[0])
