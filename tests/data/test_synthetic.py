"""Generated faces: exact points, one person per clip, and draws that depend on the key only."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from rednet_jax.data.synthetic import surface
from rednet_jax.data.synthetic.generate import SyntheticConfig, generate, generate_clip
from rednet_jax.data.synthetic.head import Identity, Motion, draw_identity, express
from rednet_jax.data.synthetic.render import render
from rednet_jax.data.synthetic.scene import draw_scene
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import HEAD70
from rednet_jax.landmarks.schemes import mirror_landmarks

SIZE = 64
CONFIG = SyntheticConfig(size=SIZE)
FACES = 48

draw = jax.jit(functools.partial(jax.lax.map, functools.partial(generate, CONFIG)))


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


@pytest.fixture(scope="module")
def faces() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    images, landmarks = draw(keys(FACES))
    return np.asarray(images), np.asarray(landmarks)


@pytest.fixture(scope="module")
def still() -> Motion:
    zero = jnp.zeros(())
    return Motion(jnp.zeros(3), jnp.zeros(2), zero, zero, zero, zero, jnp.zeros(2), jnp.zeros(2))


@pytest.fixture(scope="module")
def person() -> Identity:
    return jax.jit(draw_identity)(jax.random.key(4))


def camera(*degrees: float, scale: float = 50.0) -> surface.Camera:
    rotation = surface.rotation_matrix(jnp.deg2rad(jnp.asarray(degrees)))
    return surface.Camera(rotation, jnp.float32(5), jnp.zeros(2), jnp.float32(scale))


def test_shapes_ranges_and_size_of_the_face(faces) -> None:
    images, landmarks = faces
    assert images.shape == (FACES, SIZE, SIZE, 3) and images.dtype == np.float32
    assert landmarks.shape == (FACES, HEAD70.count, 2) and landmarks.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1 and np.isfinite(landmarks).all()
    assert (images.std((1, 2, 3)) > 0.03).all()
    inside = ((landmarks > -0.5) & (landmarks < SIZE - 0.5)).all(-1)
    assert inside.mean() > 0.97
    # The side of the points' box is 1 / margin of the crop's, up to the random scale.
    sides = (landmarks.max(1) - landmarks.min(1)).max(-1)
    assert np.log(sides * CONFIG.margin / SIZE).std() < 1.2 * CONFIG.log_scale
    assert np.median(sides) == pytest.approx(SIZE / CONFIG.margin, rel=0.05)


def test_a_face_depends_on_its_key_only_and_compiles_once(faces) -> None:
    images, landmarks = faces
    again, points = draw(keys(FACES))
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(landmarks, points)
    second, _ = draw(keys(FACES, seed=1))
    assert (np.abs(images - second).max((1, 2, 3)) > 0.2).all()
    assert draw._cache_size() == 1


def test_left_and_right_are_symmetric(faces) -> None:
    """The mean face equals its mirror image, and yaw is symmetric."""
    landmarks = np.asarray(draw(keys(FACES, seed=2))[1])
    shapes = np.concatenate([faces[1], landmarks])
    unit = np.linalg.norm(shapes[:, 45] - shapes[:, 36], axis=-1).mean()
    mirrored = mirror_landmarks(shapes, SIZE, HEAD70)
    spread = shapes.std(0) / np.sqrt(len(shapes))
    assert (np.abs(shapes.mean(0) - mirrored.mean(0)) < 4.5 * 2 * spread).all()
    turned = shapes[:, 30, 0] - shapes[:, [36, 45], 0].mean(1)
    assert 0.3 < (turned > 0).mean() < 0.7
    assert turned.std() > 0.1 * unit


def test_the_mean_of_many_is_near_the_mean_shape(faces) -> None:
    landmarks = faces[1]
    centre = (landmarks.max(1) + landmarks.min(1)) / 2
    side = (landmarks.max(1) - landmarks.min(1)).max(-1)
    mean = ((landmarks - centre[:, None]) / side[:, None, None]).mean(0)
    assert np.linalg.norm(mean - HEAD70.shape, axis=-1).mean() < 0.05


def test_a_person_stays_the_same_while_the_head_moves() -> None:
    """In a clip only pose and expression change, and from frame to frame only a little."""
    clip = jax.jit(functools.partial(generate_clip, CONFIG, frames=24))
    images, landmarks = map(np.asarray, clip(jax.random.key(5)))
    assert images.shape == (24, SIZE, SIZE, 3) and landmarks.shape == (24, HEAD70.count, 2)
    steps = np.linalg.norm(np.diff(landmarks, axis=0), axis=-1)
    assert np.ptp(landmarks, axis=0).max() > 4 and steps.max() < 0.1 * SIZE
    # The background in the corner changes by the sensor's noise only.
    corner = images[:, :6, :6].mean((1, 2))
    assert np.ptp(corner, axis=0).max() < 0.15
    first, points = draw(keys(FACES).at[0].set(jax.random.key(5)))
    np.testing.assert_allclose(points[0], landmarks[0], atol=1e-3)
    np.testing.assert_allclose(first[0], images[0], atol=0.02)


@pytest.mark.parametrize("yaw", [0, 35, -35])
def test_points_are_on_the_rendered_surface(yaw: float, person: Identity) -> None:
    features, seen = person.features, camera(yaw, 0, 0)
    rotation = np.asarray(seen.rotation)
    points = surface.lift(person, features, features)
    np.testing.assert_allclose(surface.implicit(person, features, *points.T), 0, atol=0.02)
    jaw = np.asarray(surface.contour(person, features, seen))
    assert np.abs(surface.implicit(person, features, *jaw.T)).max() < 0.06
    # On the side that is turned away the jaw is the outline: rays beside it miss the head.
    away = np.arange(10, 15) if yaw >= 0 else np.arange(2, 7)
    beside = (jaw @ rotation.T)[away] + [0.04 * np.sign(jaw[away[0], 0]), 0, 0]
    depths = np.linspace(-0.7, 0.7, 50)[:, None, None] * np.asarray([0, 0, 1])
    ray = (beside + depths) @ rotation
    assert (surface.implicit(person, features, *np.moveaxis(ray, -1, 0)) > 0).all()


def recoloured(person: Identity, motion: Motion, part: str) -> tuple[NDArray, NDArray]:
    """Returns the mask [128, 128] of pixels that a part's colour changes, and the points."""
    style = jnp.full(16, 0.5).at[9].set(0.3)  # no glasses, no beard
    seen = camera(*np.degrees(motion.angles), scale=90.0)
    features, moved = express(person._replace(style=style), motion)
    scene = draw_scene(jax.random.key(1), 128, 0.0)
    scene = scene._replace(
        grade=jnp.full(8, 0.5).at[6:].set(0), levels=jnp.array([1.0, 0, 0, 0])
    )  # sharp, and in ambient light without shading
    image = jax.jit(functools.partial(render, size=128))
    red, green = (
        image(
            moved._replace(**{part: jnp.asarray(colour)}),
            motion,
            scene,
            features,
            seen,
            jax.random.key(0),
        )
        for colour in ((0.6, 0.05, 0.05), (0.05, 0.6, 0.05))
    )
    points = surface.project(seen, surface.lift(moved, features, features)) * seen.scale + 63.5
    return np.asarray((red - green)[..., 0] > 0.1), np.asarray(points)


@pytest.mark.parametrize("smile", [0.0, 1.0])
@pytest.mark.parametrize("yaw", [0.0, 30.0])
def test_lips_are_painted_between_their_points(
    still: Motion, person: Identity, yaw: float, smile: float
) -> None:
    angles = jnp.deg2rad(jnp.array([yaw, 8.0, 12.0]))
    motion = still._replace(angles=angles, smile=jnp.float32(smile), open=jnp.float32(0.4 * smile))
    changed, points = recoloured(person, motion, "lips")
    outer, inner = (
        polygon2mask((128, 128), part[:, ::-1]) for part in (points[31:43], points[43:])
    )
    lips = outer & ~inner
    assert (changed & lips).sum() > 0.75 * (changed | lips).sum()
    rows, columns = np.nonzero(changed)
    where = np.stack([columns, rows], -1)
    np.testing.assert_allclose(where.mean(0), np.argwhere(lips)[:, ::-1].mean(0), atol=1.0)
    for corner in (points[31], points[37]):
        assert np.linalg.norm(where - corner, axis=-1).min() < 2


def test_an_iris_is_between_the_corners_of_its_eye(still: Motion, person: Identity) -> None:
    changed, points = recoloured(person, still, "iris")
    halves = np.arange(128) < 64
    for eye, half in ((points[19:25], halves), (points[25:31], ~halves)):
        rows, columns = np.nonzero(changed & half)
        assert len(rows) > 8
        assert columns.mean() == pytest.approx((eye[0, 0] + eye[3, 0]) / 2, abs=1.0)
        assert eye[:, 1].min() - 1 < rows.min() and rows.max() < eye[:, 1].max() + 1


def test_expressions_move_their_features(still: Motion, person: Identity) -> None:
    def moved(**motion: float | list[float]) -> NDArray[np.float32]:
        values = {name: jnp.asarray(value, jnp.float32) for name, value in motion.items()}
        features, changed = express(person, still._replace(**values))
        jaw = surface.contour(changed, features, camera(0, 0, 0))[:, :2]
        return np.concatenate([jaw, features])

    rest = moved()
    jaw = moved(open=1.0) - rest
    assert jaw[8, 1] > 0.1 and jaw[66, 1] > 0.15 and np.abs(jaw[17:48]).max() == 0
    smile = moved(smile=1.0) - rest
    assert smile[48, 0] < -0.01 < 0.01 < smile[54, 0] and smile[[48, 54], 1].max() < -0.01
    brows = moved(brows=1.0) - rest
    assert brows[17:27, 1].max() < -0.01
    shut = moved(closed=[1.0, 0.0]) - rest
    assert (shut[[37, 38], 1] > 0.02).all() and np.abs(shut[42:48]).max() == 0


@pytest.mark.parametrize("bad", [{"size": 0}, {"margin": 0.0}, {"yaw": 90.0}, {"roll": -1.0}])
def test_invalid_configs_raise(bad: dict[str, float]) -> None:
    with pytest.raises(RednetError):
        SyntheticConfig(**bad)
