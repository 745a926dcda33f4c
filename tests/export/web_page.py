"""Opens the web page in Chromium, and controls and records it."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import os
import threading
import time
from pathlib import Path

import numpy as np

from rednet_jax.landmarks.boxes import landmark_box


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
    """Yields the page after the network is loaded; checks that it has no errors and that it sends
    requests only to its own server."""
    chromium = browser(args=["--no-sandbox", *options])
    page = chromium.new_page(viewport={"width": 900, "height": 900})
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.get_by_text("Ready.").wait_for(timeout=120_000)
    yield page
    chromium.close()
    assert not errors
    assert all(url.startswith((address, "data:", f"blob:{address}")) for url in requests)


RECORD = """
window.looks = [];
const before = look;
look = async () => {
  const started = { tracked: follower.face !== null, box: [...box] };
  await before();
  const { data } = pixels.getImageData(0, 0, image.width, image.height);
  let text = "";
  for (let i = 0; i < data.length; i += 0x8000)
    text += String.fromCharCode(...data.subarray(i, i + 0x8000));
  const points = follower.face && [...follower.face.points];
  window.looks.push({ ...started, points, pixels: btoa(text) });
};
null;
"""


def recorded(page):
    """Yields (image, box, whether a face was tracked before, points or None) of every look."""
    size = page.evaluate("[image.height, image.width, 4]")
    for look in page.evaluate("window.looks"):
        data = np.frombuffer(base64.b64decode(look["pixels"]), np.uint8)
        points = None if look["points"] is None else np.reshape(look["points"], (-1, 2))
        image = np.ascontiguousarray(data.reshape(size)[..., :3])
        yield image, np.asarray(look["box"], np.float32), look["tracked"], points


def until(page, condition):
    """Waits until a condition is true. The page's security policy forbids Playwright's own way."""
    end = time.monotonic() + 120
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def follow(page, clip):
    """Opens a clip, waits until its face is found, and records from then on."""
    page.locator("#file").set_input_files(clip)
    page.get_by_text("One face, confidence 0.").wait_for()
    page.evaluate(RECORD)


HOLD = """
window.waits = false;
const step = follower.network.step;
follower.network.step = async function (...inputs) {
  window.waits = true;
  await new Promise((resolve) => { window.release = resolve; });
  window.waits = false;
  this.step = step;
  return this.step(...inputs);
};
null;
"""


def hold_the_next_frame(page):
    """Stops the network before the next frame until `release()`, and waits until it has stopped."""
    page.evaluate(HOLD)
    until(page, "window.waits")


def drag(page, box):
    """Draws a box, image pixels, with the mouse."""
    canvas = page.locator("#drawing").bounding_box()
    scale = canvas["width"] / page.evaluate("image.width")
    corners = [
        ((x + 0.5) * scale + canvas["x"], (y + 0.5) * scale + canvas["y"])
        for x, y in np.reshape(box, (2, 2)).tolist()
    ]
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1], steps=3)
    page.mouse.up()


def apart(points, expected):
    """The largest distance between points, in sides of the face."""
    box = landmark_box(expected)
    return np.linalg.norm(points - expected, axis=-1).max() / max(box[2:] - box[:2])


def save(page, name):
    """Saves a screenshot if REDNET_SCREENSHOTS is set."""
    folder = os.environ.get("REDNET_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")
