"""Many processes that train as one: which they are, and what they do one after the other."""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.request import getproxies_environment

import jax
import numpy as np
from jax.experimental import multihost_utils

from rednet_jax.errors import RednetError
from rednet_jax.fields import differences, shown
from rednet_jax.train.peers import (
    GRACE_SECONDS,
    JOIN_SECONDS,
    Place,
    Watch,
    end,
    leave,
    meet,
    relay_to,
)

_DIRECT = "no_grpc_proxy"

_Built = TypeVar("_Built")


def find_place(coordinator: str | None, processes: int | None, process: int | None) -> Place | None:
    """Returns the place of this process, or None for one that trains alone.

    Args:
        coordinator: HOST:PORT of process 0; `auto` for what JAX finds in the environment; None for
            the same where srun or GKE says that it started more than one process.
        processes: how many there are; 1 trains alone, whatever the environment says.
        process: this one's number, from 0.

    Raises:
        RednetError: arguments that do not fit together, or nothing found.
    """
    if processes is not None and processes < 1:
        raise RednetError(f"--processes must be at least 1, not {processes}")
    if coordinator is None or coordinator == "auto":
        if process is not None or processes not in (None, 1):
            raise RednetError("--processes and --process-id need --coordinator HOST:PORT")
        asked = coordinator == "auto" or _many_were_started()
        return _detected() if asked and processes is None else None
    host, port = _host_and_port(coordinator)
    if processes is None or process is None:
        raise RednetError(f"--coordinator {coordinator} needs --processes and --process-id")
    if not 0 <= process < processes:
        raise RednetError(f"--process-id must be from 0 to {processes - 1}, not {process}")
    return Place(host, port, processes, process) if processes > 1 else None


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise RednetError(f"--coordinator: '{text}' is neither HOST:PORT nor auto")
    return host.strip("[]"), int(port)


def _many_were_started() -> bool:
    """Whether SLURM's srun, or GKE on TPUs, started several processes and this is one of them."""
    # SLURM_NTASKS, which JAX reads, is also set in the shell of an allocation, where none was.
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES", "")
    slices = os.environ.get("MEGASCALE_NUM_SLICES", "1")
    return "," in hosts or any(count.isdecimal() and int(count) > 1 for count in (tasks, slices))


def _detected() -> Place | None:
    # JAX tells where process 0 is to its own `initialize` alone.
    from jax._src.clusters import ClusterEnv

    try:
        with warnings.catch_warnings(action="ignore"):
            address, processes, process, devices = ClusterEnv.auto_detect_unset_distributed_params(
                None, None, None, None, None, JOIN_SECONDS
            )
    except Exception as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise RednetError(f"--coordinator auto: {first_line}") from error
    if address is None or processes is None or process is None:
        raise RednetError(
            "--coordinator auto: JAX finds no SLURM, Open MPI, TPU or Kubernetes job here; "
            "--processes 1 trains alone"
        )
    if processes == 1:
        return None
    # Left to JAX, which reads this variable.
    chosen = None if devices is None or "JAX_LOCAL_DEVICE_IDS" in os.environ else list(devices)
    return Place(*_host_and_port(address), processes, process, chosen)


@contextlib.contextmanager
def joined(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> Iterator[None]:
    """Within the block JAX has the devices of all processes; at its end they part.

    To be entered before anything is computed. Where another process is gone, this one says so and
    ends with status `peers.LOST`. Where the block raises, the process ends at once, with the status
    that the command would have (2 after a RednetError, 130 when interrupted, 1 after a traceback):
    Python's own way out waits for processes that wait for this one.

    Args:
        coordinator: as in `find_place`.
        processes: as in `find_place`.
        process: as in `find_place`.

    Raises:
        RednetError: as in `find_place`; others that do not come, or cannot be reached.
    """
    place = find_place(coordinator, processes, process)
    if place is None:
        yield
        return
    peers, service = meet(place)
    watch = Watch(place, peers)
    try:
        _initialise(place, service)
        yield
    except BaseException as error:
        _leave_alone(error)
    watch.part()
    jax.distributed.shutdown()


def _initialise(place: Place, service: int) -> None:
    """Starts JAX's service in process 0, and its client in each."""
    port = relay_to((place.host, service)) if place.process else service
    proxies = getproxies_environment()
    if proxies.keys() - {"no", "no_grpc"}:
        # Else gRPC would ask one for this very machine.
        direct = proxies.get("no_grpc") or proxies.get("no")
        os.environ[_DIRECT] = f"{direct},127.0.0.1" if direct else "127.0.0.1"
    jax.distributed.initialize(
        f"127.0.0.1:{port}",
        place.processes,
        place.process,
        place.devices,
        cluster_detection_method="deactivate",
        coordinator_bind_address=f"[::]:{service}",
    )
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        told = ", ".join(str(counts[number]) for number in sorted(counts))
        raise RednetError(f"every process needs as many devices as the others, not {told}")
    # Now, as the first connection between devices does not wait long for a process that is busy.
    multihost_utils.sync_global_devices("joined")
    if place.process == 0:
        devices = f"{jax.device_count()} {jax.default_backend()} devices"
        print(f"{place.processes} processes at {place.host}:{place.port}, {devices}", flush=True)


def _leave_alone(error: BaseException) -> NoReturn:
    if isinstance(error, RednetError):
        end(str(error), 2)
    if isinstance(error, KeyboardInterrupt):
        end("interrupted", 130)
    # Where another process is gone, what waits for it may fail before the watch has spoken.
    time.sleep(2 * GRACE_SECONDS)
    traceback.print_exception(error)
    leave(1)


def after_the_first(build: Callable[[], _Built]) -> _Built:
    """Returns what `build` returns; process 0 calls it before the others do.

    So files that are made where they are missing have one maker: on file systems that machines
    share, the lock of a folder holds within one machine only.
    """
    if jax.process_count() == 1:
        return build()
    if jax.process_index():
        multihost_utils.sync_global_devices("the first has built")
    built = build()
    if not jax.process_index():
        multihost_utils.sync_global_devices("the first has built")
    return built


def check_alike(told: Mapping[str, Any]) -> None:
    """Makes sure that all processes, each of which calls this, were told the same.

    Args:
        told: what must not differ, plain JSON.

    Raises:
        RednetError: it differs; in each of them, and names every field.
    """
    if jax.process_count() == 1:
        return
    first, *others = (json.loads(text) for text in _exchanged(json.dumps(told)))
    lines = [
        f"process {number} differs from process 0: "
        + ", ".join(f"{name} is {shown(b)}, not {shown(a)}" for name, a, b in found)
        for number, other in enumerate(others, 1)
        if (found := differences(first, other))
    ]
    if lines:
        raise RednetError("; ".join(lines))


def _exchanged(text: str) -> list[str]:
    """The texts that all processes, each of which calls this, hand in; in their order."""
    mine = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(mine)))
    # Arrays that are gathered have one shape.
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(mine)] = mine
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def check_shared(run_dir: Path, checkpoint: int | None) -> None:
    """Makes sure that all processes, each of which calls this, see the same run folder.

    Args:
        run_dir: the run's folder, which process 0 has claimed.
        checkpoint: step of the latest that this process sees, None without one.

    Raises:
        RednetError: they do not; in each of them.
    """
    if jax.process_count() == 1:
        return
    multihost_utils.sync_global_devices("claimed")
    seen = -1 if checkpoint is None else checkpoint
    if not (run_dir / "config.json").exists():
        seen = -2
    told = multihost_utils.process_allgather(np.int32(seen))
    if others := np.flatnonzero(told != told[0]).tolist():
        raise RednetError(f"{run_dir}: processes 0 and {others[0]} see different folders there")
