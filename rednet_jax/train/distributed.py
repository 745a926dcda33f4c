"""Training in many processes: finding their places, joining them, and comparing their inputs."""

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
    """Returns the place of this process, or None if it trains alone.

    Args:
        coordinator: HOST:PORT of process 0; `auto` to let JAX detect the job in the environment;
            None for the same if srun or GKE started more than one process.
        processes: number of processes; with 1, the process trains alone in any environment.
        process: number of this process, from 0.

    Raises:
        RednetError: arguments that do not fit together, or no job detected.
    """
    if processes is not None and processes < 1:
        raise RednetError(f"--processes must be at least 1, not {processes}")
    if coordinator is None or coordinator == "auto":
        if process is not None or processes not in (None, 1):
            raise RednetError("--processes and --process-id need --coordinator HOST:PORT")
        detects = coordinator == "auto" or _is_one_of_many()
        return _detect_place() if detects and processes is None else None
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


def _is_one_of_many() -> bool:
    """Returns whether SLURM's srun, or GKE on TPUs, started this process and others."""
    # Not SLURM_NTASKS, which JAX reads: it is also set in the shell of an allocation, without srun.
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES", "")
    slices = os.environ.get("MEGASCALE_NUM_SLICES", "1")
    return "," in hosts or any(count.isdecimal() and int(count) > 1 for count in (tasks, slices))


def _detect_place() -> Place | None:
    # JAX has no public function for the address of process 0.
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
            "--coordinator auto: JAX detects no SLURM, Open MPI, TPU or Kubernetes job; "
            "use --processes 1 to train in one process"
        )
    if processes == 1:
        return None
    # JAX itself reads the variable.
    chosen = None if devices is None or "JAX_LOCAL_DEVICE_IDS" in os.environ else list(devices)
    return Place(*_host_and_port(address), processes, process, chosen)


@contextlib.contextmanager
def joined(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> Iterator[None]:
    """Connects the processes: within the block, JAX has the devices of all of them.

    Must be entered before any computation. If another process ends, this one prints a message and
    exits with status `peers.LOST`. If the block raises, this process exits at once, with the status
    that the command would have (2 after a RednetError, 130 when interrupted, 1 after a traceback):
    Python's normal exit would wait for processes that wait for this one.

    Args:
        coordinator: as in `find_place`.
        processes: as in `find_place`.
        process: as in `find_place`.

    Raises:
        RednetError: as in `find_place`; or other processes do not join or cannot be reached.
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
        _exit_after(error)
    watch.wait_for_all()
    jax.distributed.shutdown()


def _initialise(place: Place, service: int) -> None:
    """Starts JAX's coordination service in process 0, and its client in all processes."""
    port = relay_to((place.host, service)) if place.process else service
    proxies = getproxies_environment()
    if proxies.keys() - {"no", "no_grpc"}:
        # Otherwise gRPC would connect to the local relay through a proxy.
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
        each = ", ".join(str(counts[number]) for number in sorted(counts))
        raise RednetError(f"all processes need the same number of devices, not {each}")
    # Connects the devices now: later, the connection could time out while a process is busy.
    multihost_utils.sync_global_devices("joined")
    if place.process == 0:
        devices = f"{jax.device_count()} {jax.default_backend()} devices"
        print(f"{place.processes} processes at {place.host}:{place.port}, {devices}", flush=True)


def _exit_after(error: BaseException) -> NoReturn:
    if isinstance(error, RednetError):
        end(str(error), 2)
    if isinstance(error, KeyboardInterrupt):
        end("interrupted", 130)
    # If another process has ended, a collective may fail before the watch prints its message.
    time.sleep(2 * GRACE_SECONDS)
    traceback.print_exception(error)
    leave(1)


def after_the_first(build: Callable[[], _Built]) -> _Built:
    """Returns the result of `build`, which process 0 calls before the others do.

    So only process 0 creates missing files: on a shared file system, the lock of a folder is held
    within one machine only.
    """
    if jax.process_count() == 1:
        return build()
    if jax.process_index():
        multihost_utils.sync_global_devices("the first has built")
    built = build()
    if not jax.process_index():
        multihost_utils.sync_global_devices("the first has built")
    return built


def check_alike(values: Mapping[str, Any]) -> None:
    """Checks that all processes have the same values; all processes must call this.

    Args:
        values: to compare, JSON values.

    Raises:
        RednetError: they differ; in all processes, with the names of the fields.
    """
    if jax.process_count() == 1:
        return
    first, *others = (json.loads(text) for text in _all_gather_text(json.dumps(values)))
    lines = [
        f"process {number} differs from process 0: "
        + ", ".join(f"{name} is {shown(b)}, not {shown(a)}" for name, a, b in changed)
        for number, other in enumerate(others, 1)
        if (changed := differences(first, other))
    ]
    if lines:
        raise RednetError("; ".join(lines))


def _all_gather_text(text: str) -> list[str]:
    """Returns the texts of all processes, in their order; all processes must call this."""
    own = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(own)))
    # An all-gather needs the same shape in all processes.
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(own)] = own
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def check_shared(run_dir: Path, checkpoint: int | None) -> None:
    """Checks that all processes see the same run folder; all processes must call this.

    Args:
        run_dir: the run's folder, which process 0 has claimed.
        checkpoint: step of the newest checkpoint that this process sees; None without one.

    Raises:
        RednetError: they do not; in all processes.
    """
    if jax.process_count() == 1:
        return
    multihost_utils.sync_global_devices("claimed")
    seen = -1 if checkpoint is None else checkpoint
    if not (run_dir / "config.json").exists():
        seen = -2
    steps = multihost_utils.process_allgather(np.int32(seen))
    if others := np.flatnonzero(steps != steps[0]).tolist():
        raise RednetError(f"{run_dir}: processes 0 and {others[0]} see different folders there")
