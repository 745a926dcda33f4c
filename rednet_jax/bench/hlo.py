"""FLOPs and collectives of a compiled program, counted in its HLO text.

XLA's cost analysis counts the body of a loop once, and does not count collectives.
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
    """A collective operation of devices.

    Attributes:
        kind: one of `KINDS`.
        bytes: size of the whole array: the result of an all-gather, and for the other kinds the
            operand on each device.
        group: numbers of the devices in the first device's group, including itself; for a
            collective-permute the first pair of devices.
    """

    kind: str
    bytes: int
    group: tuple[int, ...]


class Cost(NamedTuple):
    """The cost of one run of a program, on each device.

    Attributes:
        flops: floating-point operations of convolutions and matrix products, two per
            multiplication, including those with padding.
        collectives: number of runs of each, excluding groups of one device.
    """

    flops: int
    collectives: Counter[Collective]


class Operation(NamedTuple):
    """One instruction of a program's entry computation.

    Attributes:
        cost: of one run of the program; for a loop, of all its iterations.
        operands: indices in the program of the operations that produce its operands.
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
    """Returns a program's operations on each device, with their costs and dependences.

    Args:
        text: optimised HLO, as `jax.stages.Compiled.as_text` returns it.

    Returns:
        The instructions of the entry computation, each after its operands.

    Raises:
        ValueError: an instruction of unknown cost, such as a loop of unknown length.
    """
    computations: dict[str, list[_Instruction]] = {}
    entry, instructions = "", None
    for line in text.splitlines():
        if instructions is not None and (match := _INSTRUCTION.match(line)):
            instructions.append(_Instruction(**match.groupdict()))
        elif match := _COMPUTATION.match(line):
            instructions = computations[match["name"]] = []
            entry = match["name"] if match["entry"] else entry
    partitions = re.search(r"num_partitions=(\d+)", text)
    devices = int(partitions[1]) if partitions else 1

    @functools.cache
    def computation_cost(name: str) -> Cost:
        shapes = {instruction.name: instruction.shape for instruction in computations[name]}
        return total_cost(cost(instruction, shapes) for instruction in computations[name])

    def cost(instruction: _Instruction, shapes: dict[str, str]) -> Cost:
        operands = [shapes[name] for name in _names(instruction.operands)]
        kind = instruction.opcode.removesuffix("-start")
        flops, collectives = 0, Counter[Collective]()
        times = 1
        if instruction.opcode == "convolution":
            flops = _convolution_flops(instruction, operands)
        elif instruction.opcode == "dot":
            flops = _dot_flops(instruction, operands)
        elif kind in KINDS:
            collective = _collective(kind, instruction.attributes, operands, devices)
            # A group of one device sends nothing; some backends keep such collectives.
            if len(collective.group) > 1:
                collectives[collective] += 1
        elif instruction.opcode == "conditional":
            raise ValueError(f"{instruction.name}: it is unknown which branch runs")
        elif instruction.opcode == "while":
            times = _trip_count(instruction, computations)
        inner = total_cost(computation_cost(called) for called in _called(instruction))
        for collective, count in inner.collectives.items():
            collectives[collective] += times * count
        return Cost(flops + times * inner.flops, collectives)

    main = computations[entry]
    shapes = {instruction.name: instruction.shape for instruction in main}
    places = {instruction.name: place for place, instruction in enumerate(main)}
    return [
        Operation(
            cost(instruction, shapes),
            tuple({places[name]: None for name in _names(instruction.operands)}),
        )
        for instruction in main
    ]


def total_cost(costs: Iterable[Cost]) -> Cost:
    """Returns the sum of costs."""
    flops, collectives = 0, Counter[Collective]()
    for cost in costs:
        flops += cost.flops
        collectives.update(cost.collectives)
    return Cost(flops, collectives)


def program_cost(text: str) -> Cost:
    """Returns the cost of a program on each device, with all iterations of its loops.

    Args:
        text: as for `program_operations`.

    Raises:
        ValueError: as `program_operations` does.
    """
    return total_cost(operation.cost for operation in program_operations(text))


def _names(operands: str) -> list[str]:
    return re.findall(r"%([\w.-]+)", operands)


def _called(instruction: _Instruction) -> list[str]:
    return re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.-]+)", instruction.attributes)


def _dimensions(shape: str) -> list[int]:
    match = re.match(r"\w+\[([\d,]*)\]", shape)
    if not match:
        raise ValueError(f"{shape} is not an array")
    return [int(length) for length in match[1].split(",") if length]


def _bytes(shape: str) -> int:
    """Returns the size of an array, or of all arrays of a tuple."""
    total = 0
    for kind, lengths in re.findall(r"([a-z]+\d*\w*)\[([\d,]*)\]", shape):
        width = re.search(r"\d+", kind)
        bits = int(width[0]) if width else 8
        total += math.prod(int(length) for length in lengths.split(",") if length) * bits // 8
    return total


def _convolution_flops(convolution: _Instruction, operands: list[str]) -> int:
    labels = re.search(r"dim_labels=\w+_(\w+)->", convolution.attributes)
    if not labels:
        raise ValueError(f"{convolution.name}: a convolution without dim_labels")
    kernel = _dimensions(operands[1])
    del kernel[labels[1].index("o")]
    # Zeros between the pixels of a dilated image are not counted.
    dilation = re.search(r"lhs_dilate=([\dx]+)", convolution.attributes)
    zeros = math.prod(map(int, dilation[1].split("x"))) if dilation else 1
    return 2 * math.prod(_dimensions(convolution.shape)) * math.prod(kernel) // zeros


def _dot_flops(dot: _Instruction, operands: list[str]) -> int:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes)
    axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
    left = _dimensions(operands[0])
    return 2 * math.prod(_dimensions(dot.shape)) * math.prod(left[axis] for axis in axes)


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
    """Returns the first group of devices, from any of the notations of HLO."""
    start = attributes.find("replica_groups=")
    written = attributes[start + len("replica_groups=") :]
    if written.startswith("{}"):
        return tuple(range(devices))
    if listed := re.match(r"\{\{([\d,]+)\}", written):
        return tuple(map(int, listed[1].split(",")))
    if match := re.match(r"\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", written):
        return tuple(_numbers(match[3]).reshape(int(match[1]), int(match[2]))[0].tolist())
    # mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'b'}: axes, devices along them, axes of a group.
    if start >= 0 and (
        match := re.match(
            r"mesh\[([^\]]*)\](?:, device_ids=\((.*?\]?(?:T\([\d,]+\))?)\))? \{([^}]*)\}", written
        )
    ):
        axes = re.findall(r"'(\w+)'=(\d+)", match[1])
        names, lengths = [name for name, _ in axes], [int(length) for _, length in axes]
        grouped = [names.index(name.strip("'")) for name in match[3].split(",")]
        numbers = _numbers(match[2] or f"[{math.prod(lengths)}]").reshape(lengths)
        first = numbers[tuple(slice(None) if i in grouped else 0 for i in range(len(lengths)))]
        # The axes in the order in which the group lists them.
        order = [sorted(grouped).index(i) for i in grouped]
        return tuple(first.transpose(order).reshape(-1).tolist())
    raise ValueError(f"unknown notation of device groups: {written[:80]}")


def _numbers(written: str) -> NDArray[np.int64]:
    """Returns device numbers from a notation such as [2,4]T(1,0): an iota, then a transpose."""
    match = re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", written)
    if not match:
        raise ValueError(f"unknown notation of device numbers: {written}")
    shape = [int(length) for length in match[1].split(",")]
    iota = np.arange(math.prod(shape)).reshape(shape)
    return iota.transpose([int(axis) for axis in match[2].split(",")]) if match[2] else iota


def _trip_count(loop: _Instruction, computations: dict[str, list[_Instruction]]) -> int:
    """Returns the compiler's known trip count, or n from a condition `i < n`, as JAX writes it."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if known:
        return int(known[1])
    condition = re.search(r"condition=%?([\w.-]+)", loop.attributes)
    reached = [condition[1]] if condition else []
    for name in reached:
        reached += [called for part in computations[name] for called in _called(part)]
    instructions = [instruction for name in reached for instruction in computations[name]]
    limits = [int(each.operands) for each in instructions if each.opcode == "constant"]
    compared = [each.attributes for each in instructions if each.opcode == "compare"]
    if len(limits) != 1 or len(compared) != 1 or "direction=LT" not in compared[0]:
        raise ValueError(f"{loop.name}: the number of iterations is unknown")
    return limits[0]
