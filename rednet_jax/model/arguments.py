"""The check of the arguments of the public functions, by their shapes and types."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rednet_jax.errors import RednetError
from rednet_jax.fields import integer
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.state import State, initial_state
from rednet_jax.model.variables import mismatch


def check_arguments(
    config: RedNetConfig,
    variables: Any,
    images: jax.Array,
    axes: tuple[str, ...],
    feedback_steps: int,
    state: State | None = None,
    warps: jax.Array | None = None,
) -> None:
    """Checks that images, variables, state and warps have the shapes and types of the config.

    Args:
        config: of the network.
        variables: of the network.
        images: [*axes, H, W, 3].
        axes: names of the axes before height, width and channels.
        feedback_steps: K.
        state: before the images; None for images alone.
        warps: [*axes, 2, 3]; None for identities.

    Raises:
        RednetError: they do not, or there is no image.
    """
    integer(feedback_steps, "feedback_steps")
    size = config.input_size
    if not hasattr(images, "ndim"):
        raise RednetError(f"images are a {type(images).__name__}, not one array: stack them")
    if images.ndim != len(axes) + 3 or images.shape[len(axes) :] != (size, size, 3):
        takes = ", ".join((*axes, str(size), str(size), "3"))
        unbatched = images.ndim == len(axes) + 2 and images.shape[-3:] == (size, size, 3)
        remedy = ": images[None] adds the batch axis" if unbatched else ""
        raise RednetError(
            f"images are {images.shape}; this {config.architecture} takes [{takes}]{remedy}"
        )
    if 0 in images.shape:
        raise RednetError(f"images are {images.shape}; there must be one or more")
    expected = "floating" if state is None else state.feedback.dtype
    if not jnp.issubdtype(images.dtype, jnp.floating) or expected not in ("floating", images.dtype):
        raise RednetError(f"images are {images.dtype}, not {expected}, values in [0, 1]")
    if complaint := mismatch(config, variables):
        raise RednetError(f"variables are not those of this config: {complaint}")
    if warps is not None and (
        jnp.shape(warps) != (*images.shape[: len(axes)], 2, 3)
        or not jnp.issubdtype(jnp.result_type(warps), jnp.floating)
    ):
        raise RednetError(
            f"warps are {jnp.result_type(warps)} {jnp.shape(warps)}, not floating "
            f"{(*images.shape[: len(axes)], 2, 3)}"
        )
    if state is None:
        return
    batch = images.shape[0]
    fresh = _shapes_and_types(jax.eval_shape(lambda: initial_state(config, batch, images.dtype)))
    for name, found in _shapes_and_types(state).items():
        if found != fresh.get(name):
            raise RednetError(
                f"state: {name} is {found}, and {batch} images of this config need "
                f"{fresh.get(name)}; see initial_state"
            )


def _shapes_and_types(state: State) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{jnp.result_type(leaf)} {jnp.shape(leaf)}"
        )
        for path, leaf in jax.tree.leaves_with_path(state)
    }
