"""Each face of a batch has its own crop, warp and carried state, as if it were alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inference.fake_tracker import FakeDetector
from PIL import Image

from rednet_jax.errors import RednetError
from rednet_jax.inference import streams as module
from rednet_jax.inference.streams import Region, Streams, is_recurrent
from rednet_jax.inference.tracker import Tracker
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform, invert_affine
from rednet_jax.model import rednet

BOXES = {
    0: np.array([40, 50, 110, 120], np.float32),
    1: np.array([150, 60, 230, 140], np.float32),
    3: np.array([210, 120, 300, 200], np.float32),
}
MOVED = {row: box + np.float32(5 + 3 * row) for row, box in BOXES.items()}


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    return rng.integers(256, size=(2, 240, 320, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def recurrent(network):
    """The network with an f_tRNN that has an effect."""
    config, variables = network
    back = variables["params"]["temporal"]["back"]
    kernel = jax.random.normal(jax.random.key(5), back["kernel"].shape)
    temporal = {**variables["params"]["temporal"], "back": {**back, "kernel": kernel}}
    return config, {**variables, "params": {**variables["params"], "temporal": temporal}}


def by_hand(network, frames, boxes, feedback_steps=2, between=lambda state: state):
    """The last frame's points (pixels of the frame) and confidence, from `rednet.step`."""
    config, variables = network
    state, old = rednet.initial_state(config, 1), None
    for frame, box in zip(frames, boxes, strict=True):
        new = crop_transform(box, margin=config.crop_margin, size=config.image_size)
        warp = jnp.eye(2, 3)[None]
        if old is not None:
            state = between(state)
            grid = np.array([[0.0, 0], [1, 0], [0, 1]])
            origin, right, down = apply_affine(invert_affine(old), apply_affine(new, grid))
            columns = np.stack([right - origin, down - origin, origin], axis=-1)
            warp = jnp.asarray(columns[None], "float32")
        crop = jnp.asarray(crop_image(frame, new, config.image_size)[None] / 255, "float32")
        out, state = rednet.step(
            config, variables, state, crop, warp, feedback_steps=feedback_steps
        )
        old = new
    return apply_affine(new, np.asarray(out.landmarks[0])), np.asarray(out.confidence[0])


@pytest.fixture(scope="module")
def streams(recurrent):
    return Streams(*recurrent, 4, feedback_steps=2)


def looks_at(streams, frame, boxes):
    return streams.look(frame, {row: Region(box) for row, box in boxes.items()})


def step(streams, frame, boxes):
    """Looks at the boxes, and keeps the states."""
    looks = looks_at(streams, frame, boxes)
    for row, look in looks.items():
        streams.keep(row, look)
    return looks


def test_faces_in_a_batch_are_faces_alone(streams, recurrent, frames):
    """Three faces are padded to a batch of four; nothing is compiled."""
    compiled = module._compiled_step()._cache_size()
    for row in BOXES:
        streams.forget(row)
    step(streams, frames[0], BOXES)
    looks = step(streams, frames[1], MOVED)
    assert module._compiled_step()._cache_size() == compiled
    assert list(looks) == [0, 1, 3]
    for row, look in looks.items():
        points, confidence = by_hand(recurrent, frames, [BOXES[row], MOVED[row]])
        np.testing.assert_allclose(look.landmarks, points, atol=1e-2)
        np.testing.assert_allclose(look.confidence, confidence, atol=1e-4)
        np.testing.assert_array_equal(look.region.box, MOVED[row])
        assert look.landmarks.dtype == look.confidence.dtype == np.float32


def test_the_state_of_a_face_that_is_left_out_is_kept(streams, recurrent, frames):
    for row in BOXES:
        streams.forget(row)
    step(streams, frames[0], BOXES)
    step(streams, frames[1], {1: MOVED[1]})
    look = step(streams, frames[1], {3: MOVED[3]})[3]
    points, _ = by_hand(recurrent, frames, [BOXES[3], MOVED[3]])
    np.testing.assert_allclose(look.landmarks, points, atol=1e-2)


def test_a_forgotten_row_starts_from_the_initial_state(streams, recurrent, frames):
    step(streams, frames[0], {1: BOXES[1]})
    streams.forget(1)
    again = step(streams, frames[1], {1: MOVED[1]})[1]
    points, _ = by_hand(recurrent, frames[1:], [MOVED[1]])
    np.testing.assert_allclose(again.landmarks, points, atol=1e-2)
    carried, _ = by_hand(recurrent, frames, [BOXES[1], MOVED[1]])
    assert np.abs(points - carried).max() > 0.1


def without_memory(state):
    return state._replace(memory=jax.tree.map(jnp.zeros_like, state.memory))


def blank(state):
    return jax.tree.map(jnp.zeros_like, state)._replace(crop=state.crop)


@pytest.mark.parametrize(("carry", "between"), [("feedback", without_memory), ("nothing", blank)])
def test_state_that_is_not_carried_is_initial(recurrent, frames, carry, between):
    streams = Streams(*recurrent, 1, feedback_steps=1, carry=carry)
    step(streams, frames[0], {0: BOXES[0]})
    look = step(streams, frames[1], {0: MOVED[0]})[0]
    boxes = [BOXES[0], MOVED[0]]
    points, _ = by_hand(recurrent, frames, boxes, 1, between)
    np.testing.assert_allclose(look.landmarks, points, atol=1e-2)
    everything, _ = by_hand(recurrent, frames, boxes, 1)
    assert np.abs(points - everything).max() > 0.1


def test_an_unknown_state_to_carry_is_an_error(network):
    for streams in (
        lambda: Streams(*network, 1, feedback_steps=1, carry="none"),
        lambda: Tracker(network, carry="none", detector=FakeDetector()),
    ):
        with pytest.raises(RednetError, match="carry: 'none' is not one of all, feedback, nothing"):
            streams()


def test_a_second_look_starts_from_the_state_before_the_frame(streams, recurrent, frames):
    """The state advances once per frame, whichever look is kept."""
    beside = {1: MOVED[1] - np.float32(9)}
    alone, _ = by_hand(recurrent, frames, [BOXES[1], MOVED[1]])
    for kept in (0, 1):
        streams.forget(1)
        step(streams, frames[0], {1: BOXES[1]})
        looks = [looks_at(streams, frames[1], boxes)[1] for boxes in (beside, MOVED)]
        np.testing.assert_allclose(looks[1].landmarks, alone, atol=1e-2)
        streams.keep(1, looks[kept])
        boxes = [BOXES[1], (beside, MOVED)[kept][1], MOVED[1]]
        points, _ = by_hand(recurrent, [*frames, frames[0]], boxes)
        after = step(streams, frames[0], {1: MOVED[1]})[1]
        np.testing.assert_allclose(after.landmarks, points, atol=1e-2)


def test_landmarks_rotate_with_the_frame_and_the_crop(streams):
    """A frame and its region rotated by 90 degrees, over two frames with carried state."""
    coarse = np.random.default_rng(1).integers(256, size=(2, 24, 32, 3), dtype=np.uint8)
    frames = [
        np.asarray(Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC))
        for noise in coarse
    ]
    turned = [np.ascontiguousarray(np.rot90(frame, -1)) for frame in frames]
    height = frames[0].shape[0]

    def turn(points):
        return np.stack([height - 1 - points[..., 1], points[..., 0]], -1)

    streams.forget(1)
    step(streams, frames[0], {1: BOXES[1]})
    upright = step(streams, frames[1], {1: MOVED[1]})[1]
    streams.forget(1)
    for frame, box in zip(turned, (BOXES[1], MOVED[1]), strict=True):
        centre, half = turn(box.reshape(2, 2).mean(0)), (box[2:] - box[:2]) / 2
        region = Region(np.concatenate([centre - half, centre + half]), np.pi / 2)
        look = streams.look(frame, {1: region})[1]
        streams.keep(1, look)
    np.testing.assert_allclose(look.landmarks, turn(upright.landmarks), atol=0.3)
    np.testing.assert_allclose(look.confidence, upright.confidence, atol=1e-2)


def test_without_regions_the_result_is_empty(streams, frames):
    assert streams.look(frames[0], {}) == {}


def test_a_network_with_an_untrained_or_no_ftrnn_is_not_recurrent(network, recurrent):
    assert not is_recurrent(network[1])
    assert is_recurrent(recurrent[1])
    params = {name: part for name, part in network[1]["params"].items() if name != "temporal"}
    assert not is_recurrent({"params": params})
