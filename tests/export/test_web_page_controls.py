"""Boxes, files, the camera and error messages of the web page in a browser."""

from __future__ import annotations

import json
import shutil

import av
import numpy as np
import pytest
from export.web_page import (
    drag,
    follow,
    hold_the_next_frame,
    opened,
    recorded,
    save,
    serving,
    until,
)

from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.quickstart import portrait_clip, portrait_path

pytestmark = pytest.mark.extras


def test_a_box_drawn_while_the_network_runs_is_searched_next(browser, site, clip):
    _, address = site
    box = [10.0, 12, 60, 72]
    with opened(browser, address) as page:
        follow(page, clip)
        hold_the_next_frame(page)
        before = page.evaluate("window.looks.length")
        drag(page, box)
        shown = page.evaluate("choice?.box")
        page.evaluate("release()")
        until(page, f"window.looks.length > {before + 1}")
        save(page, "drawn_while_running")
        _, searched, tracked, _ = list(recorded(page))[before + 1]
        assert page.evaluate("choice") is None
    assert not tracked
    np.testing.assert_allclose(searched, box, atol=2)
    np.testing.assert_array_equal(np.float32(shown), searched)


def test_an_image_opened_while_the_network_runs_starts_with_the_centre_box(browser, site, clip):
    _, address = site
    with opened(browser, address) as page:
        follow(page, clip)
        hold_the_next_frame(page)
        page.locator("#file").set_input_files(portrait_path())
        until(page, "!source.moving")
        page.evaluate("release()")
        page.get_by_text("ms per image").wait_for()
        box = page.evaluate("window.looks.at(-1).box")
        width, height = page.evaluate("[image.width, image.height]")
    middle, side = np.asarray([width, height] * 2) / 2, min(width, height) / 2
    np.testing.assert_allclose(box, middle + np.asarray([-1, -1, 1, 1]) * side / 2)


def test_a_video_that_restarts_keeps_only_the_last_box(browser, site, clip):
    _, address = site
    with opened(browser, address) as page:
        follow(page, clip)
        until(page, "window.looks.findIndex((look) => !look.tracked) >= 0")
        restart = page.evaluate("window.looks.findIndex((look) => !look.tracked)")
        until(page, f"window.looks.length > {restart + 3}")
        looks = list(recorded(page))
    assert [i for i, (_, _, tracked, _) in enumerate(looks) if not tracked] == [restart]
    *_, last = looks[restart - 1]
    np.testing.assert_allclose(looks[restart][1], landmark_box(last), rtol=1e-5)


def test_a_browser_without_video_frame_callbacks_is_an_error(browser, site, clip):
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
        page.get_by_text("ms per image").wait_for()


def test_an_invalid_file_is_an_error_and_is_released(browser, site, tmp_path):
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
        for name, cause in (("a.png", "is not an image"), ("a.mp4", "is not a video")):
            (tmp_path / name).write_bytes(b"neither")
            page.locator("#file").set_input_files(tmp_path / name)
            page.get_by_text(f"{name} {cause} that this browser").wait_for()
            assert page.evaluate("window.held.size") == 0
        page.locator("#file").set_input_files(portrait_path())
        page.get_by_text("ms per image").wait_for()
        assert page.evaluate("window.held.size") == 1


def test_graphs_may_have_any_name(browser, site, tmp_path):
    """Their names are those of checkpoint files."""
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


def test_the_camera_finds_loses_and_finds_a_face(browser, site, tmp_path):
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
        # The fake camera repeats its video.
        page.get_by_text("One face, confidence 0.").wait_for()


def test_the_box_is_moved_by_keys(browser, site):
    _, address = site
    with opened(browser, address) as page:
        page.locator("#file").set_input_files(portrait_path())
        page.get_by_text("ms per image").wait_for()
        page.locator("#drawing").focus()
        begin = np.asarray(page.evaluate("box"))
        for key in ("ArrowLeft", "ArrowUp", "+", "ArrowLeft", "-"):
            page.keyboard.press(key)
        chosen = np.asarray(page.evaluate("choice.box"))
        side = begin[2] - begin[0]
        np.testing.assert_allclose(chosen - begin, side * np.asarray([-0.21, -0.1] * 2), rtol=0.2)
        page.keyboard.press("Enter")
        until(page, "choice === null")


def test_the_page_opened_as_a_local_file_explains_what_to_do(browser, site):
    folder, _ = site
    chromium = browser(args=["--no-sandbox"])
    page = chromium.new_page()
    page.goto((folder / "index.html").as_uri())
    page.get_by_text("python -m http.server").wait_for()
    chromium.close()
