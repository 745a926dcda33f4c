"""What a compiled program computes and sends, counted in the text of its HLO.

XLA's own analysis counts the body of a loop once, however often it runs, and no collectives.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Collective(NamedTuple):
    """What devices do together.

    Attributes:
        kind: of `KINDS`.
        bytes: of the whole array: of what an all-gather ends with, and of what the others begin
            with on each device.
        group: numbers of the devices that the first device does it with, itself among them; of a
            collective-permute the first two that exchange something.
    """

    kind: str
    bytes: int
    group: tuple[int, ...]


class Cost(NamedTuple):
    """Of one run of a program, on each device.

    Attributes:
        flops: floating-point operations of convolutions and matrix products, two a
            multiplication, padding counted as if it were pixels.
        collectives: how often each runs, but those of one device with itself.
    """

    flops: int
    collectives: Counter[Collective]


class Operation(NamedTuple):
    """One instruction of a program's entry computation.

    Attributes:
        cost: of one run of the program; of a loop, of all its iterations.
        operands: the operations whose results it takes, by their place in the program.
    """

    cost: Cost
    operands: tuple[int, ...]


class _Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    operands: str
    attributes: str


_INSTRUCTION = re.compile(
    r"\s+(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<shape>\((?:[^()]|\([^()]*\))*\)|\S+) "
    r"(?P<opcode>[a-z][\w-]*)\((?P<operands>(?:[^()]|\([^()]*\))*)\)(?P<attributes>.*)"
)
_COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\{")


def program_operations(text: str) -> list[Operation]:
    """Reads what a program does on each device, and what depends on what.

    Args:
        text: of optimised HLO, as `jax.stages.Compiled.as_text` returns it.

    Returns:
        The instructions of the entry computation, each after its operands.

    Raises:
        ValueError: something in it whose cost its text does not tell.
    """
    computations: dict[str, list[_Instruction]] = {}
    entry, instructions = "", None
    for line in text.splitlines():
        if instructions is not None and (found := _INSTRUCTION.match(line)):
            instructions.append(_Instruction(**found.groupdict()))
        elif found := _COMPUTATION.match(line):
            instructions = computations[found["name"]] = []
            entry = found["name"] if found["entry"] else entry
    partitions = re.search(r"num_partitions=(\d+)", text)
    devices = int(partitions[1]) if partitions else 1

    @functools.cache
    def computation_cost(name: str) -> Cost:
        shapes = {one.name: one.shape for one in computations[name]}
        return total_cost(cost(one, shapes) for one in computations[name])

    def cost(one: _Instruction, shapes: dict[str, str]) -> Cost:
        operands = [shapes[name] for name in _names(one.operands)]
        kind = one.opcode.removesuffix("-start")
        flops, collectives = 0, Counter[Collective]()
        times = 1
        if one.opcode == "convolution":
            flops = _convolution_flops(one, operands)
        elif one.opcode == "dot":
            flops = _dot_flops(one, operands)
        elif kind in KINDS:
            collective = _collective(kind, one.attributes, operands, devices)
            # Along an axis of one device nothing is sent; some backends leave it to run time.
            if len(collective.group) > 1:
                collectives[collective] += 1
        elif one.opcode == "conditional":
            raise ValueError(f"{one.name}: which branch runs is not known")
        elif one.opcode == "while":
            times = _trip_count(one, computations)
        inner = total_cost(computation_cost(called) for called in _called(one))
        for collective, count in inner.collectives.items():
            collectives[collective] += times * count
        return Cost(flops + times * inner.flops, collectives)

    shapes = {one.name: one.shape for one in computations[entry]}
    places = {one.name: place for place, one in enumerate(computations[entry])}
    return [
        Operation(cost(one, shapes), tuple({places[name]: None for name in _names(one.operands)}))
        for one in computations[entry]
    ]


def total_cost(costs: Iterable[Cost]) -> Cost:
    """Returns the sum."""
    flops, collectives = 0, Counter[Collective]()
    for one in costs:
        flops += one.flops
        collectives.update(one.collectives)
    return Cost(flops, collectives)


def program_cost(text: str) -> Cost:
    """Counts what a program does on each device, loops as often as they run.

    Args:
        text: as for `program_operations`.

    Raises:
        ValueError: something in it whose cost its text does not tell.
    """
    return total_cost(one.cost for one in program_operations(text))


def _names(operands: str) -> list[str]:
    return re.findall(r"%([\w.-]+)", operands)


def _called(one: _Instruction) -> list[str]:
    return re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.-]+)", one.attributes)


def _dimensions(shape: str) -> list[int]:
    found = re.match(r"\w+\[([\d,]*)\]", shape)
    if not found:
        raise ValueError(f"{shape} is no array")
    return [int(length) for length in found[1].split(",") if length]


def _bytes(shape: str) -> int:
    """Of an array, or of all arrays of a tuple."""
    total = 0
    for kind, lengths in re.findall(r"([a-z]+\d*\w*)\[([\d,]*)\]", shape):
        width = re.search(r"\d+", kind)
        bits = int(width[0]) if width else 8
        total += math.prod(int(length) for length in lengths.split(",") if length) * bits // 8
    return total


def _convolution_flops(one: _Instruction, operands: list[str]) -> int:
    labels = re.search(r"dim_labels=\w+_(\w+)->", one.attributes)
    if not labels:
        raise ValueError(f"{one.name}: a convolution without dim_labels")
    kernel = _dimensions(operands[1])
    del kernel[labels[1].index("o")]
    # Of a dilated image all but the pixels themselves is zero, and is left out.
    dilation = re.search(r"lhs_dilate=([\dx]+)", one.attributes)
    zeros = math.prod(map(int, dilation[1].split("x"))) if dilation else 1
    return 2 * math.prod(_dimensions(one.shape)) * math.prod(kernel) // zeros


def _dot_flops(one: _Instruction, operands: list[str]) -> int:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
    axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
    left = _dimensions(operands[0])
    return 2 * math.prod(_dimensions(one.shape)) * math.prod(left[axis] for axis in axes)


def _collective(kind: str, attributes: str, operands: list[str], devices: int) -> Collective:
    size = sum(map(_bytes, operands))
    if kind == "collective-permute":
        pair = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes)
        if not pair:
            raise ValueError(f"a collective-permute without pairs: {attributes}")
        return Collective(kind, size, (int(pair[1]), int(pair[2])))
    group = _first_group(attributes, devices)
    return Collective(kind, size * len(group) if kind == "all-gather" else size, group)


def _first_group(attributes: str, devices: int) -> tuple[int, ...]:
    """In each of the three forms in which HLO writes groups of devices."""
    start = attributes.find("replica_groups=")
    written = attributes[start + len("replica_groups=") :]
    if written.startswith("{}"):
        return tuple(range(devices))
    if listed := re.match(r"\{\{([\d,]+)\}", written):
        return tuple(map(int, listed[1].split(",")))
    if found := re.match(r"\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", written):
        return tuple(_numbers(found[3]).reshape(int(found[1]), int(found[2]))[0].tolist())
    # mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'b'}: axes, devices along them, axes of a group.
    if start >= 0 and (
        found := re.match(
            r"mesh\[([^\]]*)\](?:, device_ids=\((.*?\]?(?:T\([\d,]+\))?)\))? \{([^}]*)\}", written
        )
    ):
        axes = re.findall(r"'(\w+)'=(\d+)", found[1])
        names, lengths = [name for name, _ in axes], [int(length) for _, length in axes]
        grouped = [names.index(name.strip("'")) for name in found[3].split(",")]
        numbers = _numbers(found[2] or f"[{math.prod(lengths)}]").reshape(lengths)
        first = numbers[tuple(slice(None) if i in grouped else 0 for i in range(len(lengths)))]
        # Axes of a group in the order in which it names them.
        order = [sorted(grouped).index(i) for i in grouped]
        return tuple(first.transpose(order).reshape(-1).tolist())
    raise ValueError(f"groups of devices in a form not known: {written[:80]}")


def _numbers(written: str) -> NDArray[np.int64]:
    """Device numbers of [2,4]T(1,0): counted in that shape, and its axes swapped."""
    found = re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", written)
    if not found:
        raise ValueError(f"device numbers in a form not known: {written}")
    shape = [int(length) for length in found[1].split(",")]
    counted = np.arange(math.prod(shape)).reshape(shape)
    return counted.transpose([int(axis) for axis in found[2].split(",")]) if found[2] else counted


def _trip_count(loop: _Instruction, computations: dict[str, list[_Instruction]]) -> int:
    """As the compiler notes it, or from `i < n` with i from 0, as JAX writes loops."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if known:
        return int(known[1])
    condition = re.search(r"condition=%?([\w.-]+)", loop.attributes)
    reached = [condition[1]] if condition else []
    for name in reached:
        reached += [called for one in computations[name] for called in _called(one)]
    inside = [one for name in reached for one in computations[name]]
    limits = [int(one.operands) for one in inside if one.opcode == "constant"]
    compared = [one.attributes for one in inside if one.opcode == "compare"]
    if len(limits) != 1 or len(compared) != 1 or "direction=LT" not in compared[0]:
        raise ValueError(f"{loop.name}: how often this loop runs is not known")
    return limits[0]
