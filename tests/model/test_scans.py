"""The two scans: streams, any number of passes, gradients through z, and batch statistics."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from model.loops import PRESETS, SCANS, SLOW_DEEP, SLOW_JOURNAL, Problem

from rednet_jax.model import feedback, rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.recrop import relative_transform

Narrow = Callable[..., RedNetConfig]
Tree = Any


def assert_close(actual: Tree, expected: Tree, atol: float = 1e-4, rtol: float = 1e-7) -> None:
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), actual, expected
    )


@pytest.mark.parametrize("preset", [*PRESETS, "gated"])
def test_a_clip_equals_its_frames_one_by_one(shallow: Narrow, preset: str) -> None:
    gated = {"feedback_update": "gated"} if preset == "gated" else {}
    problem = Problem(shallow("compact" if gated else preset, **gated), frames=3)
    config, passes = problem.config, 2
    # Two programs round differently, and the maps of an untrained journal form are nearly flat.
    atol = 1e-3 if preset == "ijcv_resnet" else 1e-4
    shift = jnp.broadcast_to(jnp.eye(2, 3), (problem.batch, 3, 2, 3)) + jnp.array([0, 0, 1.5])
    clip, after, _ = jax.jit(rednet.align_clip, static_argnums=0, static_argnames="feedback_steps")(
        config, problem.variables, problem.clips, problem.state, shift, feedback_steps=passes
    )
    step = jax.jit(rednet.step, static_argnums=0, static_argnames="feedback_steps")
    state = problem.state
    for frame in range(3):
        out, state = step(
            config,
            problem.variables,
            state,
            problem.clips[:, frame],
            shift[:, frame],
            feedback_steps=passes,
        )
        assert_close(
            jax.tree.map(lambda leaf, frame=frame: leaf[:, frame], clip._replace(per_step=None)),
            out._replace(per_step=None),
            atol,
        )
        assert_close(clip.per_step.landmarks[:, :, frame], out.per_step.landmarks, atol)
    assert_close(after, state)
    assert state.passes.tolist() == [3 * (passes + config.passes_per_frame)] * problem.batch


def test_a_gated_map_is_the_mixture_in_the_crop_of_the_last_pass(shallow: Narrow) -> None:
    """A closed gate carries the old map on, an open one the new map, as without a gate."""
    recrops = {"recrop": "similarity", "context": 1.5, "recurrence": "none"}
    gated = Problem(shallow("compact", feedback_update="gated", **recrops), frames=1)
    plain = shallow("compact", **recrops)
    others = {name: part for name, part in gated.variables["params"].items() if name != "gate"}
    started = gated.state._replace(
        feedback=jax.random.uniform(jax.random.key(1), gated.state.feedback.shape),
        passes=jnp.ones(gated.batch, jnp.int32),
    )

    def after(bias: float | None, state: Tree = started) -> Tree:
        if bias is None:
            variables = {**gated.variables, "params": others}
            return rednet.step(plain, variables, state, gated.clips[:, 0], feedback_steps=1)[1]
        conv = jax.tree.map(jnp.zeros_like, gated.variables["params"]["gate"]["conv"])
        gate = {"conv": {**conv, "bias": conv["bias"] + bias}}
        variables = {**gated.variables, "params": {**others, "gate": gate}}
        return rednet.step(gated.config, variables, state, gated.clips[:, 0], feedback_steps=1)[1]

    new = after(None)
    assert_close(after(50.0), new)
    # In the next crop, as the new map is.
    move = relative_transform(new.crop, started.crop)
    old = feedback.move(started.feedback, move, plain.image_size)
    assert_close(after(-50.0).feedback, old)
    assert_close(after(-4.0).feedback, (old + new.feedback) / 2)
    # Before the first frame there is no old map.
    assert_close(after(-50.0, gated.state), after(None, gated.state))


@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_an_image_alone_is_the_first_frame_of_a_stream(shallow: Narrow, preset: str) -> None:
    """The first pass over an image skips a blank z and a crop, with the same results."""
    recrops = {} if preset == "ijcv_resnet" else {"recrop": "similarity", "context": 1.5}
    problem = Problem(shallow(preset, recurrence="none", **recrops), frames=1)
    config, images = problem.config, problem.clips[:, 0]
    for passes in (1, 3):
        alone, _ = rednet.align_image(config, problem.variables, images, feedback_steps=passes)
        first, _ = rednet.step(
            config, problem.variables, problem.state, images, feedback_steps=passes
        )
        assert_close(alone, first, 1e-3)


def test_one_pass_over_an_image_does_not_resample_it(shallow: Narrow) -> None:
    config = shallow("compact", recrop="similarity", context=1.5)
    problem = Problem(config, frames=1)

    def recrops(passes: int) -> bool:
        lowered = rednet.align_image.lower(
            config, problem.variables, problem.clips[:, 0], feedback_steps=passes
        )
        return re.search(r'op_name="[^"]*recrop', lowered.compile().as_text()) is not None

    assert not recrops(1)
    assert recrops(2)


@pytest.mark.parametrize("preset", SLOW_JOURNAL)
def test_a_network_runs_with_any_number_of_passes(shallow: Narrow, preset: str) -> None:
    """K passes are the first of more passes; passes beyond the trained K use the last row."""
    trained = shallow(preset, feedback_steps=2)
    variables = spread_statistics(rednet.init(trained, jax.random.key(0)))
    images = jax.random.uniform(jax.random.key(1), (2, trained.image_size, trained.image_size, 3))
    few, _ = rednet.align_image(trained, variables, images, feedback_steps=2)
    many, _ = rednet.align_image(trained, variables, images, feedback_steps=4)
    np.testing.assert_allclose(many.per_step.landmarks[:2], few.per_step.landmarks, atol=1e-4)
    np.testing.assert_allclose(few.landmarks, few.per_step.landmarks[-1], atol=0)

    longer = shallow(preset, feedback_steps=4)
    extra = longer.statistic_rows - trained.statistic_rows
    repeated = jax.tree.map(
        lambda rows: (
            jnp.concatenate([rows, jnp.repeat(rows[-1:], extra, 0)]) if len(rows) > 1 else rows
        ),
        variables["batch_stats"],
    )
    with_rows, _ = rednet.align_image(
        longer, {**variables, "batch_stats": repeated}, images, feedback_steps=4
    )
    np.testing.assert_allclose(with_rows.per_step.landmarks, many.per_step.landmarks, atol=1e-4)


def spread_statistics(variables: Tree) -> Tree:
    """The variables with a different mean in each row, as after training."""
    stats = jax.tree.map(
        lambda rows: rows + 0.05 * jnp.arange(len(rows))[:, None], variables["batch_stats"]
    )
    return {**variables, "batch_stats": stats}


@pytest.mark.parametrize("preset", PRESETS)
def test_faces_that_joined_at_different_times_share_a_batch(shallow: Narrow, preset: str) -> None:
    """A batch of a new face and one on its second frame equals the two one by one."""
    config = shallow(preset)
    variables = spread_statistics(rednet.init(config, jax.random.key(0)))
    frames = jax.random.uniform(jax.random.key(1), (3, 1, config.image_size, config.image_size, 3))
    initial = rednet.initial_state(config, 1)
    _, second = rednet.step(config, variables, initial, frames[0], feedback_steps=1)
    alone = [
        rednet.step(config, variables, state, frame, feedback_steps=1)[0].landmarks
        for state, frame in ((second, frames[1]), (initial, frames[2]))
    ]
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), second, initial)
    together, _ = rednet.step(
        config, variables, both, jnp.concatenate(frames[1:]), feedback_steps=1
    )
    np.testing.assert_allclose(together.landmarks, jnp.concatenate(alone), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "has_gradient"),
    [
        ({}, False),
        ({"open_feedback_gradient": True}, True),
        ({"feedback": "label_map"}, False),
    ],
)
@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_no_gradient_flows_through_z_unless_open(
    shallow: Narrow, preset: str, changes: dict[str, Any], has_gradient: bool
) -> None:
    """The second pass's maps as a function of the first pass's z."""
    if (preset, changes.get("feedback")) == ("ijcv_resnet", "label_map"):
        pytest.skip("label maps need softmax maps")
    problem = Problem(shallow(preset, recurrence="none", **changes), frames=1)

    def second(z: jax.Array) -> jax.Array:
        out, _ = rednet.step(
            problem.config,
            problem.variables,
            problem.state._replace(feedback=z, passes=jnp.ones(problem.batch, jnp.int32)),
            problem.clips[:, 0],
            feedback_steps=2,
        )
        return jnp.square(out.response_maps).sum()

    start = jax.random.uniform(jax.random.key(2), problem.state.feedback.shape)
    gradient = jax.jit(jax.grad(second))(start)
    assert bool(jnp.any(gradient != 0)) == has_gradient


@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_each_shape_is_compiled_once(shallow: Narrow, preset: str) -> None:
    """All frames of a stream share a program; another number of faces compiles another one."""
    # No other test has this margin, so none can have compiled for this config.
    config = shallow(preset, crop_margin=1.75)
    variables = rednet.init(config, jax.random.key(0))
    before = rednet.step._cache_size()
    for faces in (1, 2):
        state = rednet.initial_state(config, faces)
        frames = jnp.ones((faces, config.image_size, config.image_size, 3))
        for _ in range(3):
            _, state = rednet.step(config, variables, state, frames, feedback_steps=1)
        assert rednet.step._cache_size() == before + faces


@pytest.mark.parametrize("preset", ["compact", "eccv_vgg"])
def test_label_map_feedback(shallow: Narrow, preset: str) -> None:
    """The paper's one-channel map, with values 0..L, in scans and in Python loops.

    In float64: untrained landmarks are up to 600 px off, where float32 rounding errors exceed the
    tolerance.
    """
    with jax.enable_x64(True):
        problem = Problem(shallow(preset, feedback="label_map"), jnp.float64)
        with_scan, with_loop = (
            rednet.align_clip(
                problem.config,
                problem.variables,
                problem.clips,
                problem.state,
                feedback_steps=2,
                scan=SCANS[name],
            )
            for name in ("scan", "python")
        )
        assert_close(with_scan[:2], with_loop[:2], atol=1e-9, rtol=0)
    state = with_scan[1]
    labels = np.unique(state.feedback)
    assert state.feedback.shape[-1] == 1
    assert set(labels) <= set(range(problem.config.scheme.count + 1))


@pytest.mark.parametrize("preset", PRESETS)
def test_without_feedback_all_passes_are_the_same(shallow: Narrow, preset: str) -> None:
    config = shallow(preset, feedback="none", statistics_per_pass=False)
    variables = rednet.init(config, jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (1, config.image_size, config.image_size, 3))
    out, _ = rednet.align_image(config, variables, images, feedback_steps=3)
    np.testing.assert_allclose(
        out.per_step.landmarks,
        np.broadcast_to(out.landmarks, out.per_step.landmarks.shape),
        atol=1e-4,
    )


@pytest.mark.parametrize("preset", SLOW_DEEP)
@pytest.mark.parametrize("shared", [False, True])
def test_a_call_updates_running_averages_as_one_visit_does(
    shallow: Narrow, preset: str, shared: bool
) -> None:
    """For any number of frames and passes, 0.9 of the old mean remains in every row that is used.

    The means are so large that the batch's contribution is negligible. The head of the 68 maps does
    not run in the journal form's coarse pass: with a row per pass, its first row does not change.
    """
    config = shallow(preset, feedback_steps=2, statistics_per_pass=not shared, recurrence="none")
    problem = Problem(config, frames=3, passes=2)
    high = jax.tree.map(lambda rows: rows + 1e7, problem.variables["batch_stats"])
    _, _, stats = rednet.align_clip(
        config,
        {**problem.variables, "batch_stats": high},
        problem.clips,
        problem.state,
        feedback_steps=2,
        train=True,
    )
    for path, rows in jax.tree_util.tree_leaves_with_path(stats):
        if path[-1].key != "mean":
            continue
        remaining = np.asarray(rows)[:, 0] / 1e7
        journal_rows = preset == "ijcv_resnet" and len(remaining) > 1
        unused = journal_rows and "feedback" in str(path[1])
        if journal_rows and path[0].key == "detection":
            np.testing.assert_allclose(remaining[0], 1, atol=1e-3)
            remaining = remaining[1:]
        if not unused:
            np.testing.assert_allclose(remaining, 0.9, atol=1e-3, err_msg=str(path))


def test_moments_are_global_under_a_mapped_axis(shallow: Narrow) -> None:
    """Two halves of a batch on one mapped axis train as the whole batch does."""
    problem = Problem(shallow("compact"), frames=1)
    images = problem.clips[:, 0]

    def train(images: jax.Array, axis_name: str | None) -> tuple[jax.Array, Tree]:
        out, stats = rednet.align_image(
            problem.config,
            problem.variables,
            images,
            feedback_steps=2,
            train=True,
            axis_name=axis_name,
        )
        return out.landmarks, stats

    whole, stats = train(images, None)
    halves = images.reshape(2, 2, *images.shape[1:])
    landmarks, both = jax.vmap(lambda half: train(half, "device"), axis_name="device")(halves)
    np.testing.assert_allclose(landmarks.reshape(whole.shape), whole, atol=1e-3)
    assert_close(jax.tree.map(lambda leaf: leaf[0], both), stats)


@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_bfloat16_images_give_float32_landmarks(shallow: Narrow, preset: str) -> None:
    """bfloat16 images, float32 parameters: the maps are bfloat16, the landmarks are close."""
    problem = Problem(shallow(preset), frames=1)
    images = problem.clips[:, 0]
    single, _ = rednet.align_image(problem.config, problem.variables, images, feedback_steps=1)
    half, _ = rednet.align_image(
        problem.config, problem.variables, images.astype(jnp.bfloat16), feedback_steps=1
    )
    assert half.response_maps.dtype == jnp.bfloat16
    assert half.landmarks.dtype == jnp.float32
    if preset != "ijcv_resnet":  # The peaks of an untrained network are arbitrary.
        assert float(jnp.abs(half.landmarks - single.landmarks).max()) < 1


def test_lax_scan_has_the_scan_protocol() -> None:
    scan: rednet.Scan = lax.scan
    total, rows = scan(lambda c, x: (c + x, c), jnp.int32(0), jnp.arange(4))
    assert (int(total), rows.tolist()) == (6, [0, 0, 1, 3])
