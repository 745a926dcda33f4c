"""The page for the web: what its folder holds, and its arithmetic, without a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import rednet_jax.export
from rednet_jax.errors import RednetError
from rednet_jax.export.web import RUNTIME, _described, export_web
from rednet_jax.inference import tracker
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.convert import convert
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform
from rednet_jax.weights.store import write_weights

PAGE = Path(rednet_jax.export.__file__).parent / "web"


@pytest.fixture
def runtime(tmp_path):
    """A folder like npm's, of files without sense."""
    folder = tmp_path / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text('{"version": "1.2.3"}')
    for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        (folder / "dist" / name).write_text(name)
    return folder


def test_without_the_runtime_a_line_says_how_to_get_it(runtime, tmp_path):
    remedy = (
        rf"do `npm install onnxruntime-web@{re.escape(RUNTIME)}` and give "
        "`--runtime node_modules/onnxruntime-web`$"
    )
    with pytest.raises(RednetError, match=rf"^the page needs the files of [^\n]*: {remedy}"):
        export_web("compact", tmp_path / "out", runtime=None)
    (runtime / "dist" / "ort.wasm.min.js").unlink()
    with pytest.raises(RednetError, match=rf"^[^\n]*ort\.wasm\.min\.js: no such [^\n]*; {remedy}"):
        export_web("compact", tmp_path / "out", runtime=runtime)
    (runtime / "dist" / "ort.wasm.min.js").write_text("")
    (runtime / "package.json").write_text("{}")
    with pytest.raises(RednetError, match=r"package\.json: says no version; do `npm install"):
        export_web("compact", tmp_path / "out", runtime=runtime)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("noise_faces")
def test_the_folder_has_all_that_the_page_asks_for(narrow, weights, runtime, tmp_path):
    for module in ("torch", "onnxscript", "onnx", "onnxruntime"):
        pytest.importorskip(module, reason=f"{module} is not installed: the extra [onnx]")
    config, out = narrow("compact"), tmp_path / "out"
    write_weights(tmp_path / "tiny.safetensors", config, weights(config))
    written = export_web(tmp_path / "tiny.safetensors", out, runtime=runtime, feedback_steps=1)
    assert written == json.loads((out / "export.json").read_text())
    there = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert there == {*written["files"], "export.json"}
    asked = re.findall(r'(?:src|href)="([^"]+)"', (out / "index.html").read_text())
    assert {name for name in asked if not name.startswith("data:")} <= there
    assert set(written["page"]["graphs"]) <= there
    crop = written["page"]["crop"]
    assert (crop["size"], crop["margin"]) == (64, config.input_margin)
    assert written["page"]["state"]["hidden"] == {
        "dtype": "float32",
        "shape": [4, 2, 2],
        "begin": 0,
    }
    assert sorted(i for part in written["page"]["parts"] for i in part["members"]) == [*range(68)]
    assert written["onnxruntime_web"] == "1.2.3"
    assert (out / "onnxruntime-web" / "ort.wasm.min.js").read_text() == "ort.wasm.min.js"


def test_the_page_follows_by_the_trackers_numbers():
    numbers = dict(
        re.findall(r"^const ([A-Z_]+) = ([\d.]+);", (PAGE / "follow.js").read_text(), re.M)
    )
    for name in ("LOST_BELOW", "RECROP_BEYOND", "TURN_BEYOND", "SMALLEST_FACE"):
        assert float(numbers[name]) == getattr(tracker, name)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("scheme", [IBUG68, REDNET7], ids=lambda one: one.name)
def test_the_page_looks_where_the_tracker_looks(narrow, tmp_path, scheme):
    """Around the box of the whole face, turned by its roll, also where a network finds 7 points."""
    rng = np.random.default_rng(0)
    faces, rolls = [], [0.0, 0.1, 0.6, 3.1, -3.0, -1.2]
    for roll in rolls:
        turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        points = (IBUG68.shape + rng.normal(0, 0.01, (68, 2))) @ turn * 90 + 200
        faces.append(convert(points, IBUG68, scheme).astype(np.float32))
    told = _described(narrow("compact", scheme=scheme))["shape"]
    script = tmp_path / "regions.js"
    script.write_text(
        (PAGE / "follow.js").read_text()
        + f"const shape = new Shape({json.dumps(told)});\n"
        + f"const faces = {json.dumps([face.ravel().tolist() for face in faces])};\n"
        + "console.log(JSON.stringify(faces.map((face) => shape.region(face, 0, [0, 0, 9, 9]))));\n"
    )
    done = subprocess.run(["node", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for region, face in zip(json.loads(done.stdout), faces, strict=True):
        expected = tracker._region(face, scheme, 0.0, np.float32([0, 0, 9, 9]))
        assert region["roll"] == pytest.approx(expected.roll, abs=1e-4)
        np.testing.assert_allclose(region["box"], expected.box, atol=0.02)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_page_cuts_the_same_crops(tmp_path):
    """Bit for bit, within the image, beside it and far outside, shrunk and enlarged."""
    rng = np.random.default_rng(0)
    image = rng.integers(256, size=(90, 120, 3), dtype=np.uint8)
    boxes = [[40.0, 30, 70, 62], [-30, -20, 60, 50], [5, 5, 300, 310], [50, 40, 58, 47]]
    boxes += [[900, 20, 930, 45], [-4000, -4000, 4000, 4000], [60.25, 33.5, 160.75, 120.125]]
    rolls = [0.0] * len(boxes) + [0.5, np.pi, -2.0, 1.0, 0.3, 0.1, -1.5]
    boxes += boxes
    regions = [{"box": box, "roll": roll} for box, roll in zip(boxes, rolls, strict=True)]
    opaque = np.concatenate([image, np.full_like(image[..., :1], 255)], -1)
    script = tmp_path / "crops.js"
    script.write_text(
        (PAGE / "follow.js").read_text()
        + f"const image = {{ width: 120, height: 90, data: {opaque.ravel().tolist()} }};\n"
        + f"const crops = {json.dumps(regions)}.map((one) => cropAround(one, 2.5, 48));\n"
        + "console.log(JSON.stringify({\n"
        + "  pixels: crops.map((crop) => [...cutCrop(image, crop, 48)]),\n"
        + "  warps: crops.slice(1).map((crop, i) => [...warpBetween(crop, crops[i])]),\n"
        + "}));\n"
    )
    done = subprocess.run(["node", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    affines = [
        crop_transform(np.asarray(box), margin=2.5, size=48, roll=roll)
        for box, roll in zip(boxes, rolls, strict=True)
    ]
    for pixels, affine, roll in zip(answer["pixels"], affines, rolls, strict=True):
        expected = crop_image(image, affine, 48)
        apart = np.abs(np.reshape(pixels, (48, 48, 3)) - expected.astype(int))
        # Where axes are turned, a last bit of a coordinate decides how some values are rounded.
        assert apart.max() <= (0 if roll == 0 else 1)
        assert (apart > 0).mean() < 0.01
    points = rng.uniform(0, 48, (5, 2))
    for warp, new, old in zip(answer["warps"], affines[1:], affines, strict=False):
        before = apply_affine(np.reshape(warp, (2, 3)), points)
        there, here = apply_affine(old, before), apply_affine(new, points)
        np.testing.assert_allclose(there, here, atol=1e-6 * np.abs(new).max() * 48 + 1e-3)
