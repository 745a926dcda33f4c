"""The web page: the files of its folder, and its algorithms, without a browser."""

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
from rednet_jax.export.web import RUNTIME, _page_config, export_web
from rednet_jax.inference import tracker
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.convert import convert
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform
from rednet_jax.weights.store import write_weights

PAGE = Path(rednet_jax.export.__file__).parent / "web"


@pytest.fixture
def runtime(tmp_path):
    """A folder like npm's, with placeholder files."""
    folder = tmp_path / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text('{"version": "1.2.3"}')
    for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        (folder / "dist" / name).write_text(name)
    return folder


def test_a_missing_runtime_is_an_error_with_the_remedy(runtime, tmp_path):
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
    with pytest.raises(RednetError, match=r"package\.json: has no version; do `npm install"):
        export_web("compact", tmp_path / "out", runtime=runtime)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("noise_faces")
def test_the_folder_has_all_files_that_the_page_loads(narrow, weights, runtime, tmp_path):
    for module in ("torch", "onnxscript", "onnx", "onnxruntime"):
        pytest.importorskip(module, reason=f"{module} is not installed: the extra [onnx]")
    config, out = narrow("compact"), tmp_path / "out"
    write_weights(tmp_path / "tiny.safetensors", config, weights(config))
    written = export_web(tmp_path / "tiny.safetensors", out, runtime=runtime, feedback_steps=1)
    assert written == json.loads((out / "export.json").read_text())
    files = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert files == {*written["files"], "export.json"}
    loaded = re.findall(r'(?:src|href)="([^"]+)"', (out / "index.html").read_text())
    assert {name for name in loaded if not name.startswith("data:")} <= files
    assert set(written["page"]["graphs"]) <= files
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


def test_the_page_has_the_trackers_constants():
    numbers = dict(
        re.findall(r"^const ([A-Z_]+) = ([\d.]+);", (PAGE / "follow.js").read_text(), re.M)
    )
    constants = ("SURE_ABOVE", "HIDDEN_ABOVE", "HIDDEN_FRAMES", "RECROP_BEYOND", "TURN_BEYOND")
    for name in (*constants, "SMALLEST_FACE"):
        assert float(numbers[name]) == getattr(tracker, name)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("scheme", [IBUG68, REDNET7], ids=lambda scheme: scheme.name)
def test_the_page_has_the_trackers_regions(narrow, tmp_path, scheme):
    """Around the box of the whole face, rotated by its roll, also with 7 landmarks."""
    rng = np.random.default_rng(0)
    faces, rolls = [], [0.0, 0.1, 0.6, 3.1, -3.0, -1.2]
    for roll in rolls:
        turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        points = (IBUG68.shape + rng.normal(0, 0.01, (68, 2))) @ turn * 90 + 200
        faces.append(convert(points, IBUG68, scheme).astype(np.float32))
    shape = _page_config(narrow("compact", scheme=scheme))["shape"]
    script = tmp_path / "regions.js"
    script.write_text(
        (PAGE / "follow.js").read_text()
        + f"const shape = new Shape({json.dumps(shape)});\n"
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
def test_the_page_has_the_same_crops(tmp_path):
    """Within, across and far outside the image, shrunk and enlarged; exact without rotation."""
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
        + f"const crops = {json.dumps(regions)}.map((region) => cropAround(region, 2.5, 48));\n"
        + "console.log(JSON.stringify({\n"
        + "  pixels: crops.map((crop) => [...cutCrop(image, crop, 48)]),\n"
        + "  warps: crops.slice(1).map((crop, i) => [...warpBetween(crop, crops[i])]),\n"
        + "}));\n"
    )
    done = subprocess.run(["node", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    affines = [
        crop_transform(np.asarray(box), margin=2.5, size=48, roll=roll)
        for box, roll in zip(boxes, rolls, strict=True)
    ]
    for pixels, affine, roll in zip(page["pixels"], affines, rolls, strict=True):
        expected = crop_image(image, affine, 48)
        error = np.abs(np.reshape(pixels, (48, 48, 3)) - expected.astype(int))
        # With a rotation, the last bit of a coordinate can change the rounding of a value.
        assert error.max() <= (0 if roll == 0 else 1)
        assert (error > 0).mean() < 0.01
    points = rng.uniform(0, 48, (5, 2))
    for warp, new, old in zip(page["warps"], affines[1:], affines, strict=False):
        through_old = apply_affine(old, apply_affine(np.reshape(warp, (2, 3)), points))
        atol = 1e-6 * np.abs(new).max() * 48 + 1e-3
        np.testing.assert_allclose(through_old, apply_affine(new, points), atol=atol)
