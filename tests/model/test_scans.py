"""The two scans: streaming, passes at run time, what crosses them, and batch statistics."""

from __future__ import annotations

import dataclasses
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

from rednet_jax.errors import RednetError
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

Narrow = Callable[..., RedNetConfig]
Tree = Any


def assert_close(one: Tree, other: Tree, atol: float = 1e-4, rtol: float = 1e-7) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("preset", PRESETS)
def test_clip_equals_step_frame_by_frame(shallow: Narrow, preset: str) -> None:
    problem = Problem(shallow(preset), frames=3)
    config, passes = problem.config, 2
    # Two programs round differently, and untrained peaks of the journal form lie on flat maps.
    atol = 1e-3 if preset == "ijcv_resnet" else 1e-4
    shift = jnp.broadcast_to(jnp.eye(2, 3), (problem.batch, 3, 2, 3)) + jnp.array([0, 0, 1.5])
    clip, after, _ = jax.jit(rednet.align_clip, static_argnums=0, static_argnames="feedback_steps")(
        config, problem.variables, problem.clips, problem.state, shift, feedback_steps=passes
    )
    one = jax.jit(rednet.step, static_argnums=0, static_argnames="feedback_steps")
    state = problem.state
    for frame in range(3):
        out, state = one(
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


@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_an_image_alone_is_the_first_frame_of_a_stream(shallow: Narrow, preset: str) -> None:
    """What the first pass leaves out for it, a blank map and the middle, changes nothing."""
    recrops = {} if preset == "ijcv_resnet" else {"recrop": "similarity", "context": 1.5}
    problem = Problem(shallow(preset, recurrence="none", **recrops), frames=1)
    config, images = problem.config, problem.clips[:, 0]
    for passes in (1, 3):
        alone, _ = rednet.align_image(config, problem.variables, images, feedback_steps=passes)
        first, _ = rednet.step(
            config, problem.variables, problem.state, images, feedback_steps=passes
        )
        assert_close(alone, first, 1e-3)


def test_one_pass_over_an_image_resamples_nothing(shallow: Narrow) -> None:
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
def test_any_number_of_passes_at_run_time(shallow: Narrow, preset: str) -> None:
    """Few passes are the first of many; passes beyond the trained take the last statistics."""
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
    same, _ = rednet.align_image(
        longer, {**variables, "batch_stats": repeated}, images, feedback_steps=4
    )
    np.testing.assert_allclose(same.per_step.landmarks, many.per_step.landmarks, atol=1e-4)


def spread_statistics(variables: Tree) -> Tree:
    """The same variables with another mean in every row, as training leaves them."""
    stats = jax.tree.map(
        lambda rows: rows + 0.05 * jnp.arange(len(rows))[:, None], variables["batch_stats"]
    )
    return {**variables, "batch_stats": stats}


@pytest.mark.parametrize("preset", PRESETS)
def test_faces_that_joined_later_have_their_own_pass(shallow: Narrow, preset: str) -> None:
    """A batch of a fresh face and one on its second frame equals the two computed alone."""
    config = shallow(preset)
    variables = spread_statistics(rednet.init(config, jax.random.key(0)))
    frames = jax.random.uniform(jax.random.key(1), (3, 1, config.image_size, config.image_size, 3))
    blank = rednet.initial_state(config, 1)
    _, old = rednet.step(config, variables, blank, frames[0], feedback_steps=1)
    alone = [
        rednet.step(config, variables, state, frame, feedback_steps=1)[0].landmarks
        for state, frame in ((old, frames[1]), (blank, frames[2]))
    ]
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), old, blank)
    together, _ = rednet.step(
        config, variables, both, jnp.concatenate(frames[1:]), feedback_steps=1
    )
    np.testing.assert_allclose(together.landmarks, jnp.concatenate(alone), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "crosses"),
    [
        ({}, False),
        ({"open_feedback_gradient": True}, True),
        ({"feedback": "label_map"}, False),
    ],
)
@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_no_gradient_crosses_the_loop_unless_open(
    shallow: Narrow, preset: str, changes: dict[str, Any], crosses: bool
) -> None:
    """The second pass's maps, as a function of the map that entered the first."""
    if (preset, changes.get("feedback")) == ("ijcv_resnet", "label_map"):
        pytest.skip("the journal form's sigmoid maps make no label map")
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
    assert bool(jnp.any(gradient != 0)) == crosses


@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_one_compilation_a_shape(shallow: Narrow, preset: str) -> None:
    """Every frame of a stream finds what the first compiled; one more face compiles once more."""
    # A margin of its own: no other test can have compiled for this config.
    config = shallow(preset, crop_margin=1.75)
    variables = rednet.init(config, jax.random.key(0))
    begun = rednet.step._cache_size()
    for faces in (1, 2):
        state = rednet.initial_state(config, faces)
        frames = jnp.ones((faces, config.image_size, config.image_size, 3))
        for _ in range(3):
            _, state = rednet.step(config, variables, state, frames, feedback_steps=1)
        assert rednet.step._cache_size() == begun + faces


@pytest.mark.parametrize("preset", ["compact", "eccv_vgg"])
def test_label_map_feedback(shallow: Narrow, preset: str) -> None:
    """The paper's one-channel map, the same in both scans, with values 0..L.

    In double precision: these untrained points lie up to 600 px off, where single precision rounds
    by as much as an error would show.
    """
    with jax.enable_x64(True):
        problem = Problem(shallow(preset, feedback="label_map"), jnp.float64)
        one, other = (
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
        assert_close(one[:2], other[:2], atol=1e-9, rtol=0)
    state = one[1]
    labels = np.unique(state.feedback)
    assert state.feedback.shape[-1] == 1
    assert set(labels) <= set(range(problem.config.scheme.count + 1))


@pytest.mark.parametrize("preset", PRESETS)
def test_without_feedback_every_pass_is_the_same(shallow: Narrow, preset: str) -> None:
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
def test_running_averages_move_as_after_one_visit(
    shallow: Narrow, preset: str, shared: bool
) -> None:
    """However many frames and passes a call has: 0.9 of the old mean is left in every row used.

    Held by means so large that what the batch adds does not count. The head of the 68 maps takes
    no part in the journal form's coarse pass: where rows are kept apart, its first stays.
    """
    config = shallow(preset, feedback_steps=2, statistics_per_pass=not shared, recurrence="none")
    problem = Problem(config, frames=3, passes=2)
    high = jax.tree.map(lambda rows: rows + 1e7, problem.variables["batch_stats"])
    _, _, moved = rednet.align_clip(
        config,
        {**problem.variables, "batch_stats": high},
        problem.clips,
        problem.state,
        feedback_steps=2,
        train=True,
    )
    for path, rows in jax.tree_util.tree_leaves_with_path(moved):
        if path[-1].key != "mean":
            continue
        left = np.asarray(rows)[:, 0] / 1e7
        unused = preset == "ijcv_resnet" and len(left) > 1 and "feedback" in str(path[1])
        fine = preset == "ijcv_resnet" and len(left) > 1 and path[0].key == "detection"
        if fine:
            np.testing.assert_allclose(left[0], 1, atol=1e-3)
            left = left[1:]
        if not unused:
            np.testing.assert_allclose(left, 0.9, atol=1e-3, err_msg=str(path))


def test_moments_are_global_under_a_mapped_axis(shallow: Narrow) -> None:
    """Two halves of a batch under one axis name train as the whole batch does."""
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
    found, both = jax.vmap(lambda half: train(half, "device"), axis_name="device")(halves)
    np.testing.assert_allclose(found.reshape(whole.shape), whole, atol=1e-3)
    assert_close(jax.tree.map(lambda leaf: leaf[0], both), stats)


@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_half_precision_images_give_points_in_single(shallow: Narrow, preset: str) -> None:
    """bfloat16 crops with float32 parameters: the maps are half, the points near and single."""
    problem = Problem(shallow(preset), frames=1)
    images = problem.clips[:, 0]
    single, _ = rednet.align_image(problem.config, problem.variables, images, feedback_steps=1)
    half, _ = rednet.align_image(
        problem.config, problem.variables, images.astype(jnp.bfloat16), feedback_steps=1
    )
    assert half.response_maps.dtype == jnp.bfloat16
    assert half.landmarks.dtype == jnp.float32
    if preset != "ijcv_resnet":  # untrained, its peaks are anywhere
        assert float(jnp.abs(half.landmarks - single.landmarks).max()) < 1


def test_wrong_shapes_and_no_pass_are_refused(shallow: Narrow) -> None:
    config = shallow("compact")
    variables = rednet.init(config, jax.random.key(0))
    images = jnp.zeros((1, config.image_size, config.image_size, 3))
    with pytest.raises(RednetError, match="feedback_steps is 0"):
        rednet.align_image(config, variables, images, feedback_steps=0)
    with pytest.raises(RednetError, match="images are"):
        rednet.align_image(config, variables, images[:, 1:], feedback_steps=1)
    with pytest.raises(RednetError, match="images are uint8, not floating"):
        rednet.align_image(config, variables, images.astype(jnp.uint8), feedback_steps=1)
    state = rednet.initial_state(config, 1)
    with pytest.raises(RednetError, match="images are bfloat16, not float32"):
        rednet.step(config, variables, state, images.astype(jnp.bfloat16), feedback_steps=1)
    with pytest.raises(RednetError, match="images are"):
        rednet.align_clip(config, variables, images, state, feedback_steps=1)


def test_what_does_not_fit_together_is_named(shallow: Narrow) -> None:
    config = shallow("compact")
    variables = rednet.init(config, jax.random.key(0))
    size, state = config.image_size, rednet.initial_state(config, 1)
    images = jnp.zeros((2, size, size, 3))
    align, step = (
        functools.partial(call, config, feedback_steps=1)
        for call in (rednet.align_image, rednet.step)
    )
    told = f"({size}, {size}, 3); this compact takes [B, {size}, {size}, 3]: images[None] adds the"
    with pytest.raises(RednetError, match=re.escape(told)):
        align(variables, images[0])
    with pytest.raises(RednetError, match=r"state: feedback is \(1, 16, 16, 69\), and 2 images of"):
        step(variables, state, images)
    other = dataclasses.replace(config, recurrence="none")
    with pytest.raises(
        RednetError, match=r"state: memory/0 is .*, and 2 images of this config need"
    ):
        step(variables, rednet.initial_state(other, 2), images)

    wider = dataclasses.replace(config, regression_width=9)
    theirs = jax.eval_shape(lambda: rednet.init(wider, jax.random.key(0)))
    theirs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), theirs)
    told = r"variables are not those of this config: \S+/regression/\S+ is .*, its config asks"
    with pytest.raises(RednetError, match=told):
        align(theirs, images)
    with pytest.raises(RednetError, match=r"batch_stats/\S+ is missing"):
        align(variables["params"], images)
    more = variables | {"more": jnp.zeros(3)}
    with pytest.raises(RednetError, match="more belongs to no part of its config's network"):
        align(more, images)


def test_scan_protocol_is_lax_scan() -> None:
    """`lax.scan` itself fits where a loop can be handed in."""
    form: rednet.Scan = lax.scan
    total, rows = form(lambda c, x: (c + x, c), jnp.int32(0), jnp.arange(4))
    assert (int(total), rows.tolist()) == (6, [0, 0, 1, 3])
