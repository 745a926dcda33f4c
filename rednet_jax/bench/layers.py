"""The time of one pass by part and by layer, compared with the machine's peak rates.

Parts and layers are read from the traced network, so this works for any configuration.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

from rednet_jax.bench.machine import (
    Machine,
    Timing,
    check_batches,
    interleaved_milliseconds,
    measure_machine,
    portrait_crops,
)
from rednet_jax.bench.scan import python_loop
from rednet_jax.compiler_options import inference_options
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import Checkpoint, name_in_command, network_of

OTHER = "other"
"""Part of the operations outside all named scopes, such as the conversion of pixels to floats."""

_LAYERS = ("conv_general_dilated", "dot_general")
_CALLS = {
    "jit": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
"""Call primitives, and the parameter with the called jaxpr. Loops are not included: a loop is one
operation, and layers inside it are not separated."""

Row = dict[str, Any]


class Layer(NamedTuple):
    """A convolution or a matrix product of a program.

    Attributes:
        name: path of its kernel in the parameters; the part if no operand is a parameter.
        part: that contains the layer.
        shapes: of operands and result.
        flops: from `operation_flops`.
        operation: in the program.
    """

    name: str
    part: str
    shapes: str
    flops: int
    operation: JaxprEqn


class Subprogram(NamedTuple):
    """Operations of a program, compiled separately.

    Attributes:
        run: computes the values of `outputs` from those of `inputs`.
        inputs: variables of the whole program that the operations use.
        outputs: variables that the operations compute for the rest of the program.
    """

    run: Callable[..., list[jax.Array]]
    inputs: list[Var]
    outputs: list[Var]


class Program:
    """A traced function as a flat list of operations, after dead-code elimination.

    Attributes:
        operations: in order of execution.
        layers: the convolutions and matrix products among them.
        parts: names of all parts, in order of execution.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Traces a function.

        Args:
            function: of pytrees of arrays.
            arguments: to trace it with; paths in the first argument name the layers.
        """
        closed = jax.make_jaxpr(function)(*arguments)
        flat = jax.make_jaxpr(functools.partial(_evaluate, closed))(*jax.tree.leaves(arguments))
        self._jaxpr: Jaxpr = flat.jaxpr
        self._constants = flat.consts
        self.operations = _needed(self._jaxpr)
        names = {
            var: jax.tree_util.keystr(path, simple=True, separator="/")
            for var, (path, _) in zip(
                self._jaxpr.invars, jax.tree.leaves_with_path(arguments[0]), strict=False
            )
        }
        for operation in self.operations:
            sources = _variables(operation)
            if len(sources) == 1 and sources[0] in names:
                names |= dict.fromkeys(operation.outvars, names[sources[0]])
        self.layers = [
            _layer(operation, names)
            for operation in self.operations
            if operation.primitive.name in _LAYERS
        ]
        self.parts = list(dict.fromkeys(map(part_of, self.operations)))

    def values(self, variables: Sequence[Any], *arguments: Any) -> list[jax.Array]:
        """Returns the values of variables of the program for these arguments."""
        inputs = [*self._jaxpr.constvars, *self._jaxpr.invars]
        run = _jit(_function(self._jaxpr, self.operations, inputs, variables))
        values: list[jax.Array] = run(*self._constants, *jax.tree.leaves(arguments))
        return values

    def outputs(self, *arguments: Any) -> list[jax.Array]:
        """Returns the leaves of the function's result."""
        return self.values(self._jaxpr.outvars, *arguments)

    def part(self, name: str) -> Subprogram:
        """Returns the operations of a part."""
        return self._subprogram([each for each in self.operations if part_of(each) == name])

    def layer(self, layer: Layer) -> Subprogram:
        """Returns the operation of a layer."""
        return self._subprogram([layer.operation])

    def _subprogram(self, inside: list[JaxprEqn]) -> Subprogram:
        computed = dict.fromkeys(var for each in inside for var in each.outvars)
        used = dict.fromkeys(var for each in inside for var in _variables(each))
        outside = {id(each) for each in self.operations} - {id(each) for each in inside}
        elsewhere = {
            var for each in self.operations if id(each) in outside for var in _variables(each)
        }
        elsewhere |= {var for var in self._jaxpr.outvars if isinstance(var, Var)}
        inputs = [var for var in used if var not in computed]
        outputs = [var for var in computed if var in elsewhere]
        run = _jit(_function(self._jaxpr, inside, inputs, outputs))
        return Subprogram(run, inputs, outputs)


def bench_layers(
    checkpoint: Checkpoint = "compact",
    *,
    batches: Sequence[int] = (1, 32),
    timing: Timing | None = None,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measures the step of a stream at K = 1, its parts, and each of its layers.

    Each part and layer is compiled separately and run with its values in the network. The overhead
    of a call is subtracted from the times of parts and layers, but not from that of the whole step.

    Args:
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        batches: batch sizes to measure.
        timing: number of timed calls.
        report: called with (done, total) before each batch size.

    Returns:
        `machine`: a `Machine`. `steps`, a row for each batch: `ms` of the whole step from uint8
        crops to points and the next state, `ms_per_face`, `of_product` (the step's time divided by
        that of the matrix product), `gflop` and `gflop_per_s`, `layers_ms` (of all layers),
        `rest_ms` (ms without them) and `rest_share`. `parts`: `batch`, `part`, `ms`,
        `share_of_step`, `gflop`, `layers_ms` and `rest_ms`. `layers`: `batch`, `part`, `layer`,
        `shapes` (operands and result), `gflop` (including padding), `ms`, `gflop_per_s`,
        `share_of_product` (rate divided by that of the matrix product) and `share_of_step`.
        `provenance`.

    Raises:
        RednetError: a checkpoint that cannot be read, or a batch below 1.
    """
    check_batches(batches)
    timing = timing or Timing()
    config, variables = network_of(checkpoint)
    variables = jax.device_put(variables)
    machine = measure_machine(timing)
    steps: list[Row] = []
    parts: list[Row] = []
    layers: list[Row] = []
    for done, batch in enumerate(batches):
        report(done, len(batches))
        step_row, part_rows, layer_rows = _measure(config, variables, batch, machine, timing)
        steps.append({"batch": batch, **step_row})
        parts += [{"batch": batch, **row} for row in part_rows]
        layers += [{"batch": batch, **row} for row in layer_rows]
    name = name_in_command(checkpoint)
    command = f"rednet bench layers --checkpoint {name} --batch {','.join(map(str, batches))}"
    return {
        "checkpoint": name,
        "feedback_steps": 1,
        "timing": timing._asdict(),
        "machine": machine._asdict(),
        "steps": steps,
        "parts": parts,
        "layers": layers,
        "provenance": provenance(command, seed=0),
    }


def step(
    config: RedNetConfig,
    variables: dict[str, Any],
    state: rednet.State,
    crops: jax.Array,
    warps: jax.Array,
    *,
    scan: rednet.Scan = jax.lax.scan,
) -> tuple[jax.Array, jax.Array, rednet.State]:
    """Returns landmarks, confidence and next state of crops uint8 [B, S, S, 3] at K = 1."""
    images = crops.astype(jnp.float32) / 255
    out, state = rednet.step(config, variables, state, images, warps, feedback_steps=1, scan=scan)
    return out.landmarks, out.confidence, state


def step_arguments(
    config: RedNetConfig, variables: dict[str, Any], batch: int
) -> tuple[dict[str, Any], rednet.State, jax.Array, jax.Array]:
    """Returns the arguments of `step` after its config: crops of a portrait, the initial state."""
    warps = jnp.tile(jnp.eye(2, 3), (batch, 1, 1))
    crops = jnp.asarray(portrait_crops(config, batch))
    return variables, rednet.initial_state(config, batch), crops, warps


def operation_flops(operation: JaxprEqn) -> int:
    """Returns the floating-point operations of a convolution or matrix product.

    Each product counts as two, including products with padding, which are computed, too. Zeros
    between the pixels of a dilated image are not counted.
    """
    left, right = map(_shape, operation.invars)
    result = math.prod(_shape(operation.outvars[0]))
    if operation.primitive.name == "dot_general":
        (contracted, _), _ = operation.params["dimension_numbers"]
        summed: int = math.prod(left[axis] for axis in contracted)
        return 2 * result * summed
    outputs: int = operation.params["dimension_numbers"].rhs_spec[0]
    zeros: int = math.prod(operation.params["lhs_dilation"])
    kernel = math.prod(right) // right[outputs]
    return 2 * result * kernel // zeros


def part_of(operation: JaxprEqn) -> str:
    """Returns the outer named scopes of an operation, at most two, such as `heads/regression`."""
    scopes = re.match(r"(\w+(?:/\w+)?(?=/|$))?", str(operation.source_info.name_stack))
    return (scopes and scopes[1]) or OTHER


def _layer(operation: JaxprEqn, names: dict[Var, str]) -> Layer:
    part = part_of(operation)
    operands = [names[var] for var in operation.invars if isinstance(var, Var) and var in names]
    name = operands[0].removeprefix("params/").removesuffix("/kernel") if operands else part
    shapes = ["x".join(map(str, _shape(v))) for v in (*operation.invars, *operation.outvars)]
    return Layer(
        name,
        part,
        f"{shapes[0]} * {shapes[1]} -> {shapes[2]}",
        operation_flops(operation),
        operation,
    )


def _jit(function: Callable[..., Any]) -> jax.stages.Wrapped:
    return jax.jit(function, compiler_options=inference_options())


def _kind(layer: Layer) -> tuple[str, ...]:
    return "layer", layer.shapes, str(layer.operation.params)


def _measure(
    config: RedNetConfig, variables: dict[str, Any], batch: int, machine: Machine, timing: Timing
) -> tuple[Row, list[Row], list[Row]]:
    """Returns the row of a batch's whole step, and those of its parts and layers."""
    arguments = step_arguments(config, variables, batch)
    compiled = _jit(functools.partial(step, config))
    program = Program(functools.partial(step, config, scan=python_loop), *arguments)
    subprograms: dict[tuple[str, ...], Subprogram]
    subprograms = {("part", name): program.part(name) for name in program.parts}
    # Layers with equal operations and shapes are timed once.
    subprograms |= {_kind(layer): program.layer(layer) for layer in program.layers}
    used = list(dict.fromkeys(var for each in subprograms.values() for var in each.inputs))
    values = dict(zip(used, program.values(used, *arguments), strict=True))
    runs: dict[tuple[str, ...], Callable[[], Any]] = {
        key: functools.partial(each.run, *(values[var] for var in each.inputs))
        for key, each in subprograms.items()
    }
    runs[("step",)] = functools.partial(compiled, *arguments)
    times = interleaved_milliseconds(runs, timing)
    whole = times.pop(("step",))
    # Positive, since the overhead of a call varies.
    times = {key: max(ms - machine.call_ms, 1e-6) for key, ms in times.items()}
    layer_rows: list[Row] = []
    for layer in program.layers:
        ms = times[_kind(layer)]
        rate = layer.flops / ms / 1e6
        layer_rows.append(
            {
                "part": layer.part,
                "layer": layer.name,
                "shapes": layer.shapes,
                "gflop": layer.flops / 1e9,
                "ms": ms,
                "gflop_per_s": rate,
                "share_of_product": rate / machine.gflop_per_s,
                "share_of_step": ms / whole,
            }
        )
    part_rows: list[Row] = []
    for part in program.parts:
        own = [row for row in layer_rows if row["part"] == part]
        ms, within = times["part", part], sum(row["ms"] for row in own)
        part_rows.append(
            {
                "part": part,
                "ms": ms,
                "share_of_step": ms / whole,
                "gflop": sum(row["gflop"] for row in own),
                "layers_ms": within,
                "rest_ms": ms - within,
            }
        )
    gflop = sum(row["gflop"] for row in layer_rows)
    within = sum(row["ms"] for row in layer_rows)
    step_row = {
        "ms": whole,
        "ms_per_face": whole / batch,
        "of_product": whole / machine.product_ms,
        "gflop": gflop,
        "gflop_per_s": 1e3 * gflop / whole,
        "layers_ms": within,
        "rest_ms": whole - within,
        "rest_share": (whole - within) / whole,
    }
    return step_row, part_rows, layer_rows


def _variables(operation: JaxprEqn) -> list[Var]:
    """Returns the operands of an operation that are not literals."""
    return list(dict.fromkeys(var for var in operation.invars if isinstance(var, Var)))


def _shape(var: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = var.aval.shape
    return shape


def _evaluate(closed: ClosedJaxpr, *inputs: Any) -> list[Any]:
    """Evaluates a jaxpr operation by operation, and inlines its calls."""
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(var: Any) -> Any:
        return var.val if isinstance(var, Literal) else values[var]

    for operation in jaxpr.eqns:
        name = operation.primitive.name
        if name in _CALLS:
            scope = str(operation.source_info.name_stack)
            with jax.named_scope(scope) if scope else contextlib.nullcontext():
                results = _evaluate(operation.params[_CALLS[name]], *map(read, operation.invars))
        else:
            operands = _variables(operation)
            function = _function(jaxpr, [operation], operands, operation.outvars)
            results = function(*map(read, operands))
        values |= zip(operation.outvars, results, strict=True)
    return [read(var) for var in jaxpr.outvars]


def _function(
    jaxpr: Jaxpr, operations: Sequence[JaxprEqn], inputs: Sequence[Var], outputs: Sequence[Any]
) -> Callable[..., list[Any]]:
    """Returns operations of a program as a function from `inputs` to `outputs`."""
    part = jaxpr.replace(
        constvars=[], invars=list(inputs), outvars=list(outputs), eqns=list(operations)
    )
    function: Callable[..., list[Any]] = jaxpr_as_fun(ClosedJaxpr(part, []))
    return function


def _needed(jaxpr: Jaxpr) -> list[JaxprEqn]:
    """Returns the operations that the outputs depend on."""
    variables = {var for var in jaxpr.outvars if isinstance(var, Var)}
    needed = []
    for operation in reversed(jaxpr.eqns):
        if variables & set(operation.outvars):
            needed.append(operation)
            variables |= set(_variables(operation))
    return needed[::-1]
