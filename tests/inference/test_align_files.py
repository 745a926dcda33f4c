"""Pictures in, landmarks in picture pixels out; a bad picture does not stop the others."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rednet_jax.errors import RednetError
from rednet_jax.inference.align_files import BATCH, align_files
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.drawing import draw_landmarks
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.media.images import read_image


@pytest.fixture
def save(tmp_path, portrait):
    """Writes the portrait below a folder of pictures: `save('a/b.png')`."""

    def save(name, picture=portrait, **options):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, **options)
        return path

    return save


@pytest.fixture
def boxes(tmp_path):
    """Writes a boxes file with the face of the portrait for each name."""

    def boxes(*names, box=(175, 80, 270, 180)):
        path = tmp_path / "boxes.csv"
        rows = [f"{name},{','.join(map(str, box))}" for name in names]
        path.write_text("\n".join(["name,x0,y0,x1,y1", *rows]) + "\n")
        return path

    return boxes


def test_the_detector_finds_the_portrait(network, save):
    aligned = align_files([save("a.png")], checkpoint=network)
    assert aligned.names == ["a"] and aligned.failures == []
    assert aligned.landmarks.shape == (1, 68, 2) and aligned.landmarks.dtype == np.float32
    x0, y0, x1, y1 = landmark_box(aligned.landmarks[0])
    # A network without training stays near the middle of its crop.
    assert 170 < (x0 + x1) / 2 < 280 and 70 < (y0 + y1) / 2 < 190


def test_landmarks_move_with_the_picture(network, save, portrait, boxes):
    """The same face elsewhere, its box told: the same landmarks elsewhere."""
    moved = np.zeros((600, 640, 3), np.uint8)
    moved[40:552, 100:612] = portrait
    first = align_files([save("a.png")], checkpoint=network, boxes=boxes("a"))
    second = align_files(
        [save("b.png", moved)], checkpoint=network, boxes=boxes("b", box=(275, 120, 370, 220))
    )
    np.testing.assert_allclose(second.landmarks, first.landmarks + np.array([100, 40]), atol=1e-2)


def test_names_are_paths_below_what_the_pictures_share(network, save, boxes):
    files = [save("b/2.png"), save("a/1.jpg"), save("a/x.y.png")]
    given = boxes("a/1", "a/x.y", "b/2")
    aligned = align_files([files[0].parents[1]], checkpoint=network, boxes=given)
    assert aligned.names == ["a/1", "a/x.y", "b/2"]
    aligned = align_files([files[0], files[1]], checkpoint=network, boxes=given)
    assert aligned.names == ["b/2", "a/1"]
    with pytest.raises(RednetError, match="same name"):
        align_files([files[0].parents[1], save("a/1.png")], checkpoint=network, boxes=given)
    with pytest.raises(RednetError, match="no picture in this folder"):
        empty = files[0].parents[1] / "empty"
        empty.mkdir()
        align_files([empty], checkpoint=network)


def test_more_pictures_than_a_batch_keep_their_rows(network, save, boxes, tmp_path):
    """Each picture alone gives what it gives among many, in the drawings, too."""
    names = [f"{n:02d}" for n in range(BATCH + 3)]
    rng = np.random.default_rng(0)
    for name in names:
        save(f"{name}.png", rng.integers(256, size=(300, 300, 3), dtype=np.uint8))
    given = boxes(*names)
    folder = tmp_path / "pictures"
    drawn = tmp_path / "drawn"
    told = []
    aligned = align_files(
        [folder],
        checkpoint=network,
        boxes=given,
        overlay=drawn,
        csv=tmp_path / "a.csv",
        report=lambda done, total: told.append((done, total)),
    )
    assert told == [(n + 1, len(names)) for n in range(len(names))]
    for row in (0, BATCH - 1, BATCH, len(names) - 1):
        alone = align_files([folder / f"{names[row]}.png"], checkpoint=network, boxes=given)
        np.testing.assert_allclose(alone.landmarks[0], aligned.landmarks[row], atol=1e-2)
        image, overlay = (
            read_image(f / f"{names[row]}.png", upright=True) for f in (folder, drawn)
        )
        want = draw_landmarks(image, aligned.landmarks[row])
        np.testing.assert_array_equal(overlay, want)
    written, landmarks = read_landmarks_csv(tmp_path / "a.csv")
    assert written == names
    np.testing.assert_allclose(landmarks, aligned.landmarks, atol=6e-4)


def test_a_bad_picture_does_not_stop_the_others(network, save, tmp_path):
    good = save("good.png")
    empty = good.with_name("empty.png")
    empty.touch()
    grey = save("grey.png", np.full((200, 200, 3), 128, np.uint8))
    missing = good.with_name("missing.png")
    aligned = align_files([empty, good, grey, missing], checkpoint=network, csv=tmp_path / "a.csv")
    assert aligned.names == ["empty", "good", "grey", "missing"]
    np.testing.assert_array_equal(
        np.isnan(aligned.landmarks).all((1, 2)), [True, False, True, True]
    )
    reasons = "not an image", "no face found", "No such file"
    for failure, name, reason in zip(
        aligned.failures, ("empty", "grey", "missing"), reasons, strict=True
    ):
        assert name in failure and reason in failure and "\n" not in failure
    assert np.isnan(read_landmarks_csv(tmp_path / "a.csv")[1][0]).all()


def test_where_no_picture_can_be_read_nothing_is_written(network, tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(RednetError, match=r"a.png: not an image that can be read \(and 1 more\)"):
        align_files(
            [tmp_path / "a.png", tmp_path / "b.png"],
            checkpoint=network,
            csv=tmp_path / "a.csv",
            overlay=tmp_path / "drawn",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_picture_without_a_box_is_a_failure(network, save, boxes):
    files = [save("a.png"), save("b.png")]
    aligned = align_files(files, checkpoint=network, boxes=boxes("b"))
    assert aligned.failures == ["a: has no row in the boxes file"]
    assert not np.isnan(aligned.landmarks[1]).any()


def test_an_overlay_replaces_no_picture(network, save, portrait):
    path = save("a.png")
    with pytest.raises(RednetError, match="would replace"):
        align_files([path], checkpoint=network, overlay=path.parent)
    np.testing.assert_array_equal(read_image(path, upright=True), portrait)


def test_feedback_steps_below_one_are_refused(network, save):
    with pytest.raises(RednetError, match="1 or more, not 0"):
        align_files([save("a.png")], checkpoint=network, feedback_steps=0)


def test_an_image_is_turned_upright_and_scaled(network, save, boxes, portrait, tmp_path):
    """As `read_image` does: what a 16-bit file stored turned holds is the upright image."""
    grey = np.asarray(Image.fromarray(portrait).convert("L"))
    plain = save("plain.png", grey)
    deep = save("deep.png", np.rot90(grey).astype(np.uint16) * 257, exif=turned_clockwise())
    aligned = align_files([plain, deep], checkpoint=network, boxes=boxes("plain", "deep"))
    np.testing.assert_allclose(aligned.landmarks[0], aligned.landmarks[1], atol=1e-3)


def turned_clockwise():
    """EXIF orientation 6: the camera was turned, a viewer turns the image clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif
