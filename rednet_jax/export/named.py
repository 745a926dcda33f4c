"""The network as two functions of named arrays, `still` and `stream`: the exports' signatures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from rednet_jax.compiler_options import inference_options
from rednet_jax.export.check import Answer, Runner, State
from rednet_jax.export.folder import initial_state, state_shapes
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

Named = Mapping[str, Any]
"""Arrays by the names of `folder.signatures`."""

Function = Callable[[RedNetConfig, dict[str, Any], int, Named], dict[str, jax.Array]]
"""`still` or `stream`: from config, weights of `stored`, K and inputs to outputs."""


# Some runtimes have no loops, and loops are slower in the others.
_unrolled = functools.partial(lax.scan, unroll=True)


def stored(variables: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Returns the variables with kernels of a dtype; the functions compute in float32."""

    def cast(path: Any, leaf: Any) -> NDArray[Any]:
        return np.asarray(leaf, dtype if path[-1].key == "kernel" else np.float32)

    rounded: dict[str, Any] = jax.tree_util.tree_map_with_path(cast, variables)
    return rounded


def still(
    config: RedNetConfig, variables: dict[str, Any], feedback_steps: int, inputs: Named
) -> dict[str, jax.Array]:
    """Returns `landmarks` and `confidence` of independent `crops`."""
    # Exports have the precision of a CPU on every device.
    with jax.default_matmul_precision("highest"):
        out, _ = rednet.align_image(
            config,
            _float32(variables),
            _pixels(inputs["crops"]),
            feedback_steps=feedback_steps,
            scan=_unrolled,
        )
    return {"landmarks": out.landmarks, "confidence": out.confidence}


def stream(
    config: RedNetConfig, variables: dict[str, Any], feedback_steps: int, inputs: Named
) -> dict[str, jax.Array]:
    """Returns `landmarks` and `confidence` of `crops`, and the next state.

    Args:
        config: of the network.
        variables: from `stored`.
        feedback_steps: K.
        inputs: `crops`, `warp`, and the parts of the state that the network has.
    """
    images = _pixels(inputs["crops"])
    parts = _parts(rednet.initial_state(config, images.shape[0])) | dict(inputs)
    feedback, hidden, cell = (
        jnp.moveaxis(parts[name], 1, -1) for name in ("feedback", "hidden", "cell")
    )
    state = rednet.State(feedback, (hidden, cell), parts["passes"], parts["crop"])
    with jax.default_matmul_precision("highest"):
        out, state = rednet.step(
            config,
            _float32(variables),
            state,
            images,
            inputs["warp"],
            feedback_steps=feedback_steps,
            scan=_unrolled,
        )
    after = _parts(state)
    next_state = {f"next_{name}": after[name] for name in state_shapes(config)}
    return {"landmarks": out.landmarks, "confidence": out.confidence, **next_state}


def runner(
    config: RedNetConfig,
    still: Callable[[Named], Named],
    stream: Callable[[Named], Named],
    passes: Literal["int32", "int64"] = "int32",
) -> Runner:
    """Returns a runner of two exported functions; `passes` is the dtype of that input."""

    def first_state(batch: int) -> dict[str, NDArray[Any]]:
        initial = initial_state(config)
        return {
            name: np.broadcast_to(np.asarray(initial[name], dtype), (batch, *shape))
            for name, (dtype, shape) in state_shapes(config, passes=passes).items()
        }

    def answer(outputs: Named) -> Answer:
        return np.asarray(outputs["landmarks"]), np.asarray(outputs["confidence"])

    def step(
        frames: NDArray[Any], state: State | None, warp: NDArray[np.float32]
    ) -> tuple[Answer, State]:
        state = first_state(len(frames)) if state is None else state
        outputs = stream({"crops": frames, "warp": warp, **state})
        return answer(outputs), {name: np.asarray(outputs[f"next_{name}"]) for name in state}

    return Runner(lambda crops: answer(still({"crops": crops})), step)


def network(config: RedNetConfig, variables: dict[str, Any], feedback_steps: int) -> Runner:
    """Returns a runner of the network itself with K passes; crops may also be float32 in [0, 1]."""
    # Without this, every call would copy the variables to the device.
    variables = jax.device_put(_float32(variables))
    return runner(
        config,
        lambda inputs: _compiled(still)(config, variables, feedback_steps, inputs),
        lambda inputs: _compiled(stream)(config, variables, feedback_steps, inputs),
    )


@functools.cache
def _compiled(function: Function) -> jax.stages.Wrapped:
    return jax.jit(function, static_argnums=(0, 2), compiler_options=inference_options())


def _pixels(crops: jax.Array) -> jax.Array:
    return crops.astype(jnp.float32) / 255 if crops.dtype == jnp.uint8 else crops


def _float32(variables: dict[str, Any]) -> dict[str, Any]:
    cast: dict[str, Any] = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), variables)
    return cast


def _parts(state: rednet.State) -> dict[str, jax.Array]:
    """The parts of the state by name, maps in channels-first layout."""
    maps = {"feedback": state.feedback, "hidden": state.memory[0], "cell": state.memory[1]}
    channels_first = {name: jnp.moveaxis(part, -1, 1) for name, part in maps.items()}
    return {**channels_first, "passes": state.passes, "crop": state.crop}
