"""Linear probes on codes that contain the target, and on codes that do not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.evaluate import probes
from rednet_jax.model import rednet


def test_regression_explains_only_the_half_that_contains_the_target():
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(60), 5)
    target = rng.normal(3, 2, len(owner))
    informative = rng.normal(size=(len(owner), 8))
    informative[:, 2] = 1 - target / 4
    codes = {"C_id": rng.normal(size=(len(owner), 8)), "C_pe": informative}
    errors = probes._regression_errors(codes, target, owner, owner < 40)
    row = probes._regressed("yaw", errors, owner[owner >= 40])
    assert row["unexplained"]["C_pe"] < 0.01
    assert row["unexplained"]["C_id"] == pytest.approx(1, abs=0.2)
    low, high = row["difference"]
    assert low < high < -0.7


def test_verification_works_only_with_the_half_that_encodes_people():
    rng = np.random.default_rng(0)

    def faces(people, offset):
        owner = offset + np.repeat(np.arange(people), 3)
        person = rng.normal(size=(people, 6))[owner - offset]
        # The variation within people is larger, but in one direction only.
        moved = person + 5 * rng.normal(size=(len(owner), 1)) * np.eye(6)[0]
        return {"C_id": moved, "C_pe": rng.normal(size=(len(owner), 6))}, owner

    row = probes._verified("generated", faces(80, 0), faces(40, 80))
    assert (row["people"], row["pairs"]) == (40, 120)
    assert row["equal_error_rate"]["C_id"] < 0.1
    assert row["equal_error_rate"]["C_pe"] == pytest.approx(0.5, abs=0.1)
    assert row["confusion"]["C_id"] < 0.1
    assert row["difference"][1] < -0.3


def test_the_equal_error_rate_of_a_case_by_hand():
    # At a threshold between 0.4 and 0.5, one of four pairs is rejected and one of four others
    # accepted.
    pairs, others = np.array([0.9, 0.8, 0.5, 0.1]), np.array([0.0, 0.2, 0.4, 0.6])
    assert probes._equal_error_rate(pairs, others) == pytest.approx(0.25)


def test_the_mean_code_is_the_input_of_the_identity_head(narrow):
    config = narrow("compact", recrop="similarity", context=1.5)
    variables = rednet.init(config, jax.random.key(0))
    side = config.input_size
    crops = np.random.default_rng(0).integers(256, size=(3, side, side, 3), dtype=np.uint8)
    halves = probes.halves_of_codes(config, variables, crops)
    assert halves["C_id"].shape == halves["C_pe"].shape == (3, config.code_width // 2)
    images = jnp.asarray(crops, jnp.float32) / 255
    output, _ = rednet.align_image(config, variables, images, feedback_steps=1)
    dense = variables["params"]["identity"]["logits"]
    logits = halves["C_id"] @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
    np.testing.assert_allclose(logits, output.identity_logits, atol=1e-4)


def test_too_few_people_are_refused(narrow):
    with pytest.raises(RednetError, match="5 people with 3 faces each cannot be split"):
        probes.measure_probes((narrow("compact"), {}), people=5, faces=3)


@pytest.mark.slow
def test_generated_people_are_reproducible(narrow):
    config = dataclasses.replace(narrow("compact"), image_size=64)
    images, targets = probes.draw_people(config, 3, 4)
    assert images.shape == (12, 64, 64, 3) and images.dtype == np.uint8
    assert targets.shape == (12, len(probes.TARGETS))
    assert len(np.unique(targets, axis=0)) == 12
    assert (np.abs(targets[:, :3]) <= probes._ANGLES).all()
    again, _ = probes.draw_people(config, 2, 4)
    np.testing.assert_array_equal(again, images[:8])
