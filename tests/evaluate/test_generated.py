"""Generated faces with a set pose, light or exposure: nothing else changes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rednet_jax.evaluate import generated
from rednet_jax.evaluate.generated import LIGHTS, SETTINGS, Setting, draw_setting, measure_generated
from rednet_jax.evaluate.slices import estimated_yaw

FACES = 6


@pytest.fixture(scope="module")
def drawn():
    """`drawn(varied, value)`: small images and landmarks of a setting."""
    small = dataclasses.replace(generated.synthetic_config(), size=64)
    settings = {(setting.varied, setting.value): setting for setting in SETTINGS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generated, "synthetic_config", lambda: small)

        def draw(varied, value):
            samples = list(draw_setting(settings[varied, value], FACES))
            images = np.stack([sample.image for sample in samples])
            return images.astype(float), np.stack([sample.landmarks for sample in samples])

        yield draw
    generated._drawn.clear_cache()


@pytest.mark.parametrize("yaw", [-30, 15, 45])
def test_heads_have_the_set_yaw(drawn, yaw):
    assert estimated_yaw(drawn("yaw", yaw)[1]).mean() == pytest.approx(yaw, abs=4)


def test_heads_are_frontal_without_a_setting(drawn):
    assert np.abs(estimated_yaw(drawn("nothing", 0)[1])).max() < 4


def test_heads_roll_clockwise_and_look_up(drawn):
    eyes = np.diff(drawn("roll", 90)[1][:, [36, 45]], axis=1)[:, 0]
    np.testing.assert_allclose(np.degrees(np.arctan2(*eyes.T[::-1])), 90, atol=4)

    def nose_below_eyes(points):
        length = np.linalg.norm(points[:, 45] - points[:, 36], axis=-1)
        return (points[:, 30, 1] - points[:, [36, 45], 1].mean(1)) / length

    up, level, down = (nose_below_eyes(drawn("pitch", pitch)[1]) for pitch in (30, 15, -30))
    assert (up < level).all() and (level < down).all()


def test_light_and_exposure_do_not_move_points(drawn):
    images, points = drawn("nothing", 0)
    dark, dark_points = drawn("exposure", -6)
    np.testing.assert_allclose(dark_points, points, atol=1e-3)
    assert (dark.mean((1, 2, 3)) < 0.4 * images.mean((1, 2, 3))).all()
    bright, _ = drawn("exposure", 4)
    assert (bright.mean((1, 2, 3)) > 1.2 * images.mean((1, 2, 3))).all()

    def right_over_left(images):
        # On the cheeks, at the height of the tip of the nose.
        sides = []
        for corner in (2, 14):
            place = (points[:, corner] + points[:, 30]) / 2
            x, y = np.rint(place).astype(int).T
            sides.append(images[np.arange(FACES), y, x].sum(-1) + 1)
        return sides[1] / sides[0]

    aside, aside_points = drawn("light", "the side")
    np.testing.assert_allclose(aside_points, points, atol=1e-3)
    assert LIGHTS["the side"][0] > 0
    assert np.median(right_over_left(aside)) > 1.2 * np.median(
        right_over_left(drawn("light", "the front")[0])
    )


def test_rows_equal_figures_computed_by_hand(drawn, narrow, monkeypatch, tmp_path):
    off = np.random.default_rng(0).normal(0, 1, (2, FACES, 68, 2))

    def answers(config, variables, samples, labels, feedback_steps):
        assert feedback_steps == 3
        return labels.landmarks + np.stack([2 * off[0], off[1], off[1]])

    monkeypatch.setattr(generated, "answer_split", answers)
    settings = [Setting("nothing", 0), Setting("yaw", 45, (45, 0, 0))]
    out = tmp_path / "worst.png"
    network = narrow("compact"), {}
    result = measure_generated(network, settings=settings, faces=FACES, sheet=out)
    assert out.read_bytes().startswith(b"\x89PNG")
    names = [(row["varied"], row["value"]) for row in result["settings"]]
    assert names == [("nothing", 0), ("yaw", 45)]
    for (varied, value), row in zip(names, result["settings"], strict=True):
        truth = drawn(varied, value)[1]
        for figures, moved in zip(row["per_step"], (2 * off[0], off[1]), strict=True):
            distance = np.linalg.norm(moved, axis=-1).mean(1)
            errors = 100 * distance / np.linalg.norm(truth[:, 45] - truth[:, 36], axis=-1)
            diagonal = np.linalg.norm(np.ptp(truth, axis=1), axis=-1)
            assert figures["nme"] == pytest.approx(errors.mean(), rel=1e-4)
            assert figures["above_10"] == pytest.approx(100 * np.mean(errors > 10))
            assert figures["nme_of_diagonal"] == pytest.approx((100 * distance / diagonal).mean())
            assert figures["interval"][0] <= figures["nme"] <= figures["interval"][1]
        assert row["estimated_yaw"][0] == pytest.approx(estimated_yaw(truth).mean(), abs=1e-3)
