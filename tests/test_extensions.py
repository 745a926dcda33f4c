"""Extensions by users: a loss, an optimiser, a detector, a preset, modules.

Each is passed as a value, without changes of the package and without a registry.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import rednet_jax
from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.detection.detector import Detection
from rednet_jax.errors import RednetError
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.decoder import CompactDecoder
from rednet_jax.model.encoder import CompactEncoder, Encoded
from rednet_jax.model.layers import Conv
from rednet_jax.train.draw import GeneratedFaces
from rednet_jax.train.experiment import GeneratedData, OptimiserConfig
from rednet_jax.train.folder import claim, initial_weights
from rednet_jax.train.load import load_experiment
from rednet_jax.train.state import initial_train_state
from rednet_jax.train.step import train_step
from rednet_jax.train.terms import Targets
from rednet_jax.weights.store import fingerprint, write_torch_weights


def my_preset(**changes: Any) -> RedNetConfig:
    """A preset is a function that returns a config."""
    own = {
        "image_size": 64,
        "widths": (4, 6, 8, 10, 12, 14, 5),
        "code_width": 16,
        "recurrent_width": 4,
        "regression_width": 6,
        "feedback_steps": 1,
    }
    return RedNetConfig.preset("compact", **{**own, **changes})


def symmetry(output, targets: Targets) -> jax.Array:
    """A loss: half the difference of the widths of the eyes, in pixels of the crop."""
    points = output.landmarks
    right = jnp.abs(points[:, 39, 0] - points[:, 36, 0])
    left = jnp.abs(points[:, 45, 0] - points[:, 42, 0])
    return 0.5 * jnp.abs(right - left)


def one_stage(model: RedNetConfig, **changes: Any) -> rednet_jax.Stage:
    faces = SyntheticConfig(size=model.input_size, margin=model.input_margin)
    own: dict[str, Any] = {
        "steps": 4,
        "batch": 2,
        "data": GeneratedData(faces, validation=2),
        "optimiser": OptimiserConfig(warmup_steps=1),
    }
    return rednet_jax.Stage(**{**own, **changes})


def batch_of(model: RedNetConfig) -> GeneratedFaces:
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(2, model.input_size, model.input_size, 3))
    landmarks = rng.uniform(0, model.input_size, (2, 70, 2))
    return GeneratedFaces(jnp.asarray(images, jnp.float32), jnp.asarray(landmarks, jnp.float32))


def stepped(experiment: rednet_jax.Experiment) -> tuple[Any, Any, dict[str, jax.Array]]:
    """The state before and after two steps of an experiment, and the metrics of the first."""
    state = initial_train_state(experiment)
    step = functools.partial(train_step, experiment, experiment.stages[0], 1)
    compiled = jax.jit(step)
    # The learning rate starts at 0.
    after, metrics = compiled(state, batch_of(experiment.model))
    return state, compiled(after, batch_of(experiment.model))[0], metrics


def test_a_loss_is_a_function() -> None:
    """It is added to the total loss of every pass, and is a metric with its name."""
    model = my_preset()
    with_it = rednet_jax.Experiment(
        "mine", model, stages=(one_stage(model, extra_losses=(symmetry,)),)
    )
    without = dataclasses.replace(with_it, stages=(one_stage(model),))
    _, after, metrics = stepped(with_it)
    _, after_without, metrics_without = stepped(without)
    assert float(metrics["symmetry"]) > 0 and "symmetry" not in metrics_without
    total = metrics_without["loss"] + metrics["symmetry"]
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after.params, after_without.params)
    assert any(jax.tree.leaves(changed))


def test_a_loss_of_another_shape_is_an_error() -> None:
    model = my_preset()

    def scalar(output, targets):
        return jnp.mean(output.landmarks)

    experiment = rednet_jax.Experiment(
        "mine", model, stages=(one_stage(model, extra_losses=(scalar,)),)
    )
    with pytest.raises(ValueError, match=r"shape \(\) where \(2,\) was expected"):
        jax.eval_shape(
            functools.partial(train_step, experiment, experiment.stages[0], 1),
            jax.eval_shape(lambda: initial_train_state(experiment)),
            batch_of(model),
        )


@pytest.mark.parametrize("extra", [(symmetry, symmetry), (functools.partial(symmetry),)])
def test_losses_need_unique_names(extra) -> None:
    with pytest.raises(RednetError, match="extra_losses need a __name__ each"):
        one_stage(my_preset(), extra_losses=extra)

    def landmarks(output, targets):
        return output.landmarks[:, 0, 0]

    with pytest.raises(RednetError, match="unlike that of other terms: landmarks"):
        one_stage(my_preset(), extra_losses=(landmarks,))


@pytest.mark.parametrize(
    "transformation",
    [
        optax.lion,
        optax.adagrad,
        lambda rate: optax.chain(optax.scale_by_adam(), optax.scale_by_learning_rate(rate)),
    ],
    ids=["lion", "adagrad", "chain"],
)
def test_an_optimiser_is_any_optax_transformation(transformation) -> None:
    """It does not change frozen parts."""
    model = my_preset()
    optimiser = OptimiserConfig(
        warmup_steps=1, transformation=transformation, frozen=("encoder",), learning_rate=0.1
    )
    experiment = rednet_jax.Experiment(
        "mine", model, stages=(one_stage(model, optimiser=optimiser),)
    )
    state = initial_train_state(experiment)
    initial = jax.tree.leaves(jax.jit(transformation(0.1).init)(state.params))
    leaves = jax.tree.leaves(state.opt_state)
    # The state is the transformation's own: Adagrad's sums start at 0.1, not at 0.
    assert sorted(float(np.sum(leaf)) for leaf in initial if np.ndim(leaf)) == pytest.approx(
        sorted(float(np.sum(leaf)) for leaf in leaves if np.ndim(leaf))
    )
    step = jax.jit(functools.partial(train_step, experiment, experiment.stages[0], 1))
    after = state
    for _ in range(2):
        after, _ = step(after, batch_of(model))

    def changed(part: str) -> bool:
        pairs = zip(
            jax.tree.leaves(state.params[part]), jax.tree.leaves(after.params[part]), strict=True
        )
        return any(bool(jnp.any(a != b)) for a, b in pairs)

    assert changed("decoder") and not changed("encoder")


class FixedDetector:
    """A detector that always returns the same box."""

    def __init__(self, box: np.ndarray) -> None:
        self.box = box

    def detect(self, image: np.ndarray) -> list[Detection]:
        return [Detection(self.box, 0.7)]


def test_a_detector_is_a_value(portrait) -> None:
    (detected,) = rednet_jax.align(portrait, feedback_steps=1)
    detector = FixedDetector(detected.box + np.float32([2, 0, 2, 0]))
    (face,) = rednet_jax.align(portrait, feedback_steps=1, detector=detector)
    np.testing.assert_array_equal(face.box, detector.box)
    assert face.score == 0.7
    frames = rednet_jax.track([portrait] * 2, detector=detector)
    assert [len(frame.faces) for frame in frames] == [1, 1]


class Gate(nnx.Module):
    """The encoder of `compact` with a gate on its finest features."""

    def __init__(self, config: RedNetConfig, draw: Any) -> None:
        self.inner = CompactEncoder(config, draw)
        self.gate = Conv(config.widths[2], config.widths[2], 1, bias=True, draw=draw)

    def stem(self, images: jax.Array, mode: Any) -> jax.Array:
        return self.inner.stem(images, mode)

    def __call__(self, stem: jax.Array, z: jax.Array, mode: Any) -> Encoded:
        encoded = self.inner(stem, z, mode)
        first, *rest = encoded.features
        return encoded._replace(features=(first * jax.nn.sigmoid(self.gate(first)), *rest))


class Doubled(CompactDecoder):
    """The decoder of `compact` with doubled outputs."""

    def __call__(self, code: jax.Array, encoded: Encoded, mode: Any) -> jax.Array:
        return 2 * super().__call__(code, encoded, mode)


def test_an_encoder_and_a_decoder_are_modules(tmp_path: Path) -> None:
    """They are trained, and saved by name; `load` needs the modules again."""
    model = my_preset(encoder=Gate, decoder=Doubled)
    experiment = rednet_jax.Experiment("mine", model, stages=(one_stage(model),))
    before, after, metrics = stepped(experiment)
    assert np.isfinite(float(metrics["loss"]))
    assert before.params["encoder"]["gate"]["kernel"].shape == (1, 1, 8, 8)
    variables = {"params": after.params, "batch_stats": after.batch_stats}
    rednet_jax.save(tmp_path / "mine.safetensors", model, variables)
    config, loaded = rednet_jax.load(tmp_path / "mine.safetensors", encoder=Gate, decoder=Doubled)
    assert config == model
    images = jnp.zeros((1, model.input_size, model.input_size, 3))
    expected, _ = rednet_jax.align_image(model, variables, images, feedback_steps=1)
    output, _ = rednet_jax.align_image(config, loaded, images, feedback_steps=1)
    np.testing.assert_array_equal(output.landmarks, expected.landmarks)
    # They are also the initial weights of a run, as are weights with another encoder (below).
    initial = initial_weights(tmp_path / "run", str(tmp_path / "mine.safetensors"), experiment)
    assert initial is not None
    assert initial.fingerprint == fingerprint(variables)
    without = dataclasses.replace(model, encoder=None, decoder=None)
    with pytest.raises(RednetError, match="PyTorch module has only the presets' encoders"):
        write_torch_weights(tmp_path / "torch.safetensors", model, variables, feedback_steps=1)
    with pytest.raises(RednetError, match=r"an encoder of its own, .*Gate.*load\(..., encoder="):
        rednet_jax.load(tmp_path / "mine.safetensors")
    rednet_jax.save(
        tmp_path / "plain.safetensors", without, rednet_jax.init(without, jax.random.key(0))
    )
    with pytest.raises(RednetError, match=r"plain\.safetensors"):
        rednet_jax.load(tmp_path / "plain.safetensors", encoder=Gate)
    initial = initial_weights(
        tmp_path / "other", str(tmp_path / "plain.safetensors"), experiment, ("encoder",)
    )
    assert initial is not None


EXPERIMENT = """
import jax.numpy as jnp
import optax
import rednet_jax as rednet
from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.train.experiment import GeneratedData, OptimiserConfig


def closeness(output, targets):
    return {factor} * jnp.abs(output.landmarks - targets.landmarks).mean((1, 2))


model = rednet.RedNetConfig.preset(
    "compact", image_size=64, widths=(4, 6, 8, 10, 12, 14, 5), code_width=16, recurrent_width=4,
    regression_width=6, feedback_steps=1, recrop="none", context=1.0,
)
experiment = rednet.Experiment(
    name="mine",
    model=model,
    stages=(
        rednet.Stage(
            steps=2,
            batch=2,
            data=GeneratedData(
                SyntheticConfig(size=model.input_size, margin=model.input_margin), validation=2
            ),
            optimiser=OptimiserConfig(warmup_steps=1, transformation=optax.lion),
            extra_losses=(closeness,),
        ),
    ),
    evaluate_every=2,
    log_every=1,
)
"""


def test_an_experiment_file_with_its_own_functions(tmp_path: Path) -> None:
    """A run is not resumed with another function of the same name."""
    file, run = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(EXPERIMENT.replace("{factor}", "0.01"))
    claim(run, load_experiment(file, {"seed": "3"}), None)
    stage = json.loads((run / "config.json").read_text())["stages"][0]
    assert stage["extra_losses"][0].startswith("closeness ")
    assert stage["optimiser"]["transformation"].endswith("lion")
    claim(run, load_experiment(file, {"seed": "3"}), None)
    assert load_experiment(file, {"model.scheme": "wflw98"}).model.scheme.count == 98
    with pytest.raises(RednetError, match="nothing: no such file or built-in scheme"):
        load_experiment(file, {"model.scheme": "nothing"})
    (run / "metrics.jsonl").write_text('{"step": 1}\n')
    file.write_text(EXPERIMENT.replace("{factor}", "0.02"))
    with pytest.raises(RednetError, match=r"extra_losses\[0\] was 'closeness"):
        claim(run, load_experiment(file, {"seed": "3"}), None)
