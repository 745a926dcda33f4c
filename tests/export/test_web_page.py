"""The page for the web, in a browser: the points that the tracker finds."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from rednet_jax.detection.detector import Detection
from rednet_jax.export.named import network
from rednet_jax.export.web import export_web
from rednet_jax.inference import tracker
from rednet_jax.inference.tracker import Tracker
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform
from rednet_jax.landmarks.pts import read_pts
from rednet_jax.quickstart import FACE, portrait_clip, portrait_path
from rednet_jax.weights.store import load

pytestmark = pytest.mark.extras

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TOLERANCE = 3e-3
"""How far points in the browser may lie from those of JAX, in sides of a face: 0.2 px of 70. Of 120
frames the median was 0.0001, the farthest 0.0009: pixels of crops are whole numbers, and some turn
on a last bit."""


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window; its camera shows the portrait, moving."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        yield functools.partial(driver.chromium.launch, executable_path=executable)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of `compact`, and the address of a plain server of it."""
    node_modules = os.environ.get("REDNET_ONNXRUNTIME_WEB")
    if not node_modules:
        pytest.skip("REDNET_ONNXRUNTIME_WEB is not set to npm's folder onnxruntime-web")
    for module in ("torch", "onnxscript", "onnx", "onnxruntime"):
        pytest.importorskip(module, reason=f"{module} is not installed: the extra [onnx]")
    folder = tmp_path_factory.mktemp("site")
    export_web("compact", folder, runtime=node_modules, feedback_steps=1)
    with serving(folder) as address:
        yield folder, address


@contextlib.contextmanager
def serving(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("localhost", 0), functools.partial(Quiet, directory=folder)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()


@contextlib.contextmanager
def opened(browser, address, *options):
    """The page, its network loaded; nothing may go wrong in it or be asked of anyone else."""
    chromium = browser(args=["--no-sandbox", *options])
    page = chromium.new_page(viewport={"width": 900, "height": 900})
    complaints, asked = [], []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_text("Ready.").wait_for(timeout=120_000)
    yield page
    chromium.close()
    assert not complaints
    assert all(url.startswith((address, "data:", f"blob:{address}")) for url in asked)


RECORD = """
window.seen = [];
const before = look;
look = async () => {
  const started = { follows: follower.face !== null, box: [...box] };
  await before();
  const { data } = pixels.getImageData(0, 0, image.width, image.height);
  let text = "";
  for (let i = 0; i < data.length; i += 0x8000)
    text += String.fromCharCode(...data.subarray(i, i + 0x8000));
  const points = follower.face && [...follower.face.points];
  window.seen.push({ ...started, points, pixels: btoa(text) });
};
null;
"""


def recorded(page):
    """[(image, box, whether a face was followed, points or None)] of every look so far."""
    size = page.evaluate("[image.height, image.width, 4]")
    for look in page.evaluate("window.seen"):
        data = np.frombuffer(base64.b64decode(look["pixels"]), np.uint8)
        points = None if look["points"] is None else np.reshape(look["points"], (-1, 2))
        image = np.ascontiguousarray(data.reshape(size)[..., :3])
        yield image, np.asarray(look["box"], np.float32), look["follows"], points


def until(page, condition):
    """Waits until it holds; Playwright's own way is what the page forbids, to evaluate strings."""
    end = time.monotonic() + 120
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def follow(page, clip):
    """Opens a clip, waits until its face is found, and records from there."""
    page.locator("#file").set_input_files(clip)
    page.get_by_text("One face, confidence 0.").wait_for()
    page.evaluate(RECORD)


HOLD = """
window.waits = false;
const step = follower.network.step;
follower.network.step = async function (...given) {
  window.waits = true;
  await new Promise((resolve) => { window.release = resolve; });
  window.waits = false;
  this.step = step;
  return this.step(...given);
};
null;
"""


def hold_the_next_frame(page):
    """The next frame that the network is given waits for `release()`: what is done meanwhile is
    done in the middle of a look, as where the network computes beside the page."""
    page.evaluate(HOLD)
    until(page, "window.waits")


def drag(page, box):
    """Draws a box, image pixels, with the mouse."""
    shown = page.locator("#drawing").bounding_box()
    scale = shown["width"] / page.evaluate("picture.width")
    places = [
        ((x + 0.5) * scale + shown["x"], (y + 0.5) * scale + shown["y"])
        for x, y in np.reshape(box, (2, 2)).tolist()
    ]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=3)
    page.mouse.up()


def apart(points, expected):
    """The largest distance between points, in sides of the face."""
    box = landmark_box(expected)
    return np.linalg.norm(points - expected, axis=-1).max() / max(box[2:] - box[:2])


def test_an_image(browser, site):
    """A box drawn around the face of a portrait; the crop is taken once more around what is found,
    as the tracker does."""
    _, address = site
    config, variables = load("compact")
    net = network(config, variables, 1)
    with opened(browser, address) as page:
        page.evaluate(RECORD)
        page.locator("#file").set_input_files(portrait_path())
        until(page, "window.seen.length === 1")
        drag(page, np.add([-40, -30, 70, 80], np.tile(FACE, 2)))
        until(page, "window.seen.length === 2")
        page.get_by_text("One face, confidence 0.").wait_for()
        assert re.fullmatch(r"\d+ ms an image", page.locator("#speed").inner_text())
        save(page, "picture")
        *_, (image, box, _, points) = recorded(page)
    for _ in range(2):
        affine = crop_transform(box, margin=config.input_margin, size=config.input_size)
        landmarks, _ = net.still(crop_image(image, affine, config.input_size)[None])
        expected = apply_affine(affine, landmarks[0]).astype(np.float32)
        moved = np.abs((landmark_box(expected) - box).reshape(2, 2).sum(0)).max() / 2
        if moved <= tracker.RECROP_BEYOND * max(box[2:] - box[:2]):
            break
        box = landmark_box(expected)
    assert apart(points, expected) < TOLERANCE


class Told:
    """A detector that finds the face where it is told."""

    def __init__(self, box):
        self.box = box

    def detect(self, image):
        return [Detection(self.box, 1.0)]


def test_a_clip_is_followed_as_the_tracker_follows_it(browser, site, real_data):
    """The pixels that the page saw, through the tracker: the same points in every frame."""
    _, address = site
    clip = real_data / "clips" / "carphone_pristine"
    with opened(browser, address) as page:
        page.locator("#file").set_input_files(clip / "vid.mp4")
        page.get_by_role("button", name="Pause").click()
        until(page, "source.element.paused")
        page.evaluate("source.element.currentTime = 0, null")
        until(page, "!source.element.seeking")
        page.evaluate(RECORD)
        drag(page, landmark_box(read_pts(clip / "annot" / "000001.pts")))
        until(page, "window.seen.some((look) => !look.follows)")
        page.get_by_text("One face, confidence 0.").wait_for()
        page.evaluate("source.element.playbackRate = 0.25, source.element.loop = false")
        page.get_by_role("button", name="Play").click()
        until(page, "source.element.ended")
        assert re.fullmatch(r"\d+ ms a frame", page.locator("#speed").inner_text())
        save(page, "clip")
        looks = list(recorded(page))
    # The last look at a box alone is the one that the mouse drew.
    begin = max(i for i, (_, _, follows, _) in enumerate(looks) if not follows)
    frames = looks[begin:]
    assert len(frames) > 20
    config, variables = load("compact")
    there = Tracker((config, variables), detector=Told(frames[0][1]))
    distances = []
    for image, _, _, points in frames:
        (face,) = there.update(image)
        distances.append(apart(points, face.landmarks))
    assert max(distances) < TOLERANCE


@pytest.fixture
def clip(real_data):
    """A video file with a face in the middle."""
    return real_data / "clips" / "carphone_pristine" / "vid.mp4"


def test_a_box_drawn_while_a_frame_is_looked_at_is_looked_in_next(browser, site, clip):
    _, address = site
    box = [10.0, 12, 60, 72]
    with opened(browser, address) as page:
        follow(page, clip)
        hold_the_next_frame(page)
        begun = page.evaluate("window.seen.length")
        drag(page, box)
        shown = page.evaluate("choice?.box")
        page.evaluate("release()")
        until(page, f"window.seen.length > {begun + 1}")
        save(page, "drawn_in_between")
        _, drawn, follows, _ = list(recorded(page))[begun + 1]
        assert page.evaluate("choice") is None
    assert not follows
    np.testing.assert_allclose(drawn, box, atol=2)
    # Until it is its turn, it is shown as it was drawn.
    np.testing.assert_array_equal(np.float32(shown), drawn)


def test_an_image_opened_while_a_frame_is_looked_at_begins_in_its_middle(browser, site, clip):
    _, address = site
    with opened(browser, address) as page:
        follow(page, clip)
        hold_the_next_frame(page)
        page.locator("#file").set_input_files(portrait_path())
        until(page, "!source.moving")
        page.evaluate("release()")
        page.get_by_text("ms an image").wait_for()
        box = page.evaluate("window.seen.at(-1).box")
        width, height = page.evaluate("[image.width, image.height]")
    middle, side = np.asarray([width, height] * 2) / 2, min(width, height) / 2
    np.testing.assert_allclose(box, middle + np.asarray([-1, -1, 1, 1]) * side / 2)


def test_where_a_video_begins_again_its_end_is_forgotten_but_for_the_place(browser, site, clip):
    _, address = site
    with opened(browser, address) as page:
        follow(page, clip)
        until(page, "window.seen.findIndex((look) => !look.follows) >= 0")
        begun = page.evaluate("window.seen.findIndex((look) => !look.follows)")
        until(page, f"window.seen.length > {begun + 3}")
        looks = list(recorded(page))
    assert [i for i, (_, _, follows, _) in enumerate(looks) if not follows] == [begun]
    *_, last = looks[begun - 1]
    np.testing.assert_allclose(looks[begun][1], landmark_box(last), rtol=1e-5)


def test_a_browser_that_tells_no_frames_is_told_of_in_a_line(browser, site, clip):
    _, address = site
    options = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with opened(browser, address, *options) as page:
        page.evaluate("delete HTMLVideoElement.prototype.requestVideoFrameCallback")
        for give in (
            lambda: page.locator("#file").set_input_files(clip),
            lambda: page.get_by_role("button", name="Use the camera").click(),
        ):
            page.evaluate("say('Ready.')")
            give()
            page.get_by_text("it lacks requestVideoFrameCallback").wait_for()
        assert page.evaluate("source") is None
        save(page, "no_frames")
        page.locator("#file").set_input_files(portrait_path())
        page.get_by_text("ms an image").wait_for()


def test_a_file_that_cannot_be_shown_is_told_of_and_let_go(browser, site, tmp_path):
    _, address = site
    with opened(browser, address) as page:
        page.evaluate("""
            window.held = new Set();
            const { createObjectURL, revokeObjectURL } = URL;
            URL.createObjectURL = (file) => {
              const url = createObjectURL(file);
              window.held.add(url);
              return url;
            };
            URL.revokeObjectURL = (url) => {
              window.held.delete(url);
              revokeObjectURL(url);
            };
            null;
        """)
        for name, why in (("a.png", "is no image"), ("a.mp4", "is no video")):
            (tmp_path / name).write_bytes(b"neither")
            page.locator("#file").set_input_files(tmp_path / name)
            page.get_by_text(f"{name} {why} that this browser").wait_for()
            assert page.evaluate("window.held.size") == 0
        page.locator("#file").set_input_files(portrait_path())
        page.get_by_text("ms an image").wait_for()
        assert page.evaluate("window.held.size") == 1


def test_graphs_may_have_any_name(browser, site, tmp_path):
    """A checkpoint's file gives them theirs."""
    folder, _ = site
    shutil.copytree(folder, tmp_path / "site")
    exported = json.loads((folder / "export.json").read_text())
    names = ["run#3.onnx", "50%25 done_stream.onnx"]
    for old, new in zip(exported["page"]["graphs"], names, strict=True):
        (tmp_path / "site" / old).rename(tmp_path / "site" / new)
    exported["page"]["graphs"] = names
    (tmp_path / "site" / "export.json").write_text(json.dumps(exported))
    with serving(tmp_path / "site") as address, opened(browser, address):
        pass


def test_the_camera_finds_a_face_in_the_middle_and_says_when_it_has_gone(browser, site, tmp_path):
    _, address = site
    frames, _ = portrait_clip()
    shown = [*frames, *[np.full_like(frames[0], 90)] * 24]
    with av.open(tmp_path / "camera.mjpeg", "w") as out:
        stream = out.add_stream("mjpeg", rate=24, options={"qmin": "2", "qmax": "2"})
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuvj420p"
        for frame in shown:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    options = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={tmp_path / 'camera.mjpeg'}",
    ]
    with opened(browser, address, *options) as page:
        page.get_by_role("button", name="Use the camera").click()
        page.get_by_text("One face, confidence 0.").wait_for()
        save(page, "camera")
        page.get_by_text("No face in the dashed box").wait_for()
        # It comes again, where it was.
        page.get_by_text("One face, confidence 0.").wait_for()


def test_the_box_is_moved_by_keys(browser, site):
    _, address = site
    with opened(browser, address) as page:
        page.locator("#file").set_input_files(portrait_path())
        page.get_by_text("ms an image").wait_for()
        page.locator("#drawing").focus()
        begin = np.asarray(page.evaluate("box"))
        for key in ("ArrowLeft", "ArrowUp", "+", "ArrowLeft", "-"):
            page.keyboard.press(key)
        chosen = np.asarray(page.evaluate("choice.box"))
        side = begin[2] - begin[0]
        np.testing.assert_allclose(chosen - begin, side * np.asarray([-0.21, -0.1] * 2), rtol=0.2)
        page.keyboard.press("Enter")
        until(page, "choice === null")


def test_opened_as_a_file_the_page_says_what_to_do(browser, site):
    folder, _ = site
    chromium = browser(args=["--no-sandbox"])
    page = chromium.new_page()
    page.goto((folder / "index.html").as_uri())
    page.get_by_text("python -m http.server").wait_for()
    chromium.close()


def save(page, name):
    """For who wants to look at it."""
    folder = os.environ.get("REDNET_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")
