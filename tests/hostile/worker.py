"""A process that reads hostile inputs with the library, under limits.

`python -m hostile.worker FIRST KIND=COUNT ...` reads COUNT mutated inputs of each kind, with seeds
from FIRST, and `python -m hostile.worker bombs` those of `bombs.py`. The current folder must be
empty. The process prints the name of each case before it starts, one line if it fails, and the CPU
seconds at the end.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from hostile.bombs import BOMBS
from hostile.guard import Writes, limit_memory, limited_time
from hostile.kind import Kind
from hostile.kinds import KINDS


class Cases:
    """Runs cases, each in new folders `in` and `out`."""

    def __init__(self) -> None:
        """Creates the scratch folder in the current folder."""
        self.here = Path.cwd()
        self.scratch = self.here / "scratch"
        self.scratch.mkdir()
        tempfile.tempdir = str(self.scratch)
        self.writes = Writes()
        self.stdout = sys.stdout
        self.begin = time.process_time()

    def run(self, name: str, case: Callable[[Path, Path], None]) -> None:
        """Runs one case, and prints its failure."""
        self._print(f"begin {name}")
        into, out = self.here / "in", self.here / "out"
        into.mkdir()
        out.mkdir()
        before = self._files()
        self.writes.violations.clear()
        compiled = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
        self.writes.allowed = [folder.resolve() for folder in (into, out, self.scratch, compiled)]
        failure = ""
        try:
            with (
                limited_time(sys.__stderr__),
                warnings.catch_warnings(),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                warnings.simplefilter("ignore")
                self.writes.enabled = True
                case(into, out)
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)[-6:]
            places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
            failure = f"{type(error).__name__}: {' '.join(str(error).split())[:300]} [{places}]"
        finally:
            self.writes.enabled = False
        outside = self.writes.violations + sorted(self._files() - before)
        if outside and not failure:
            failure = f"outside its output folder: {outside[:3]}"
        if failure:
            self._print(f"failed {name}: {failure}")
        shutil.rmtree(into)
        shutil.rmtree(out)

    def end(self) -> None:
        """Prints that all cases have run."""
        self._print(f"done {time.process_time() - self.begin:.1f}")

    def _print(self, line: str) -> None:
        print(line, file=self.stdout, flush=True)

    def _files(self) -> set[str]:
        """Returns the files outside the folders of a case."""
        own = tuple(str(self.here / name) for name in ("in", "out", "scratch"))
        return {
            f"{folder}/{file}"
            for folder, _, files in os.walk(self.here)
            for file in files
            if not folder.startswith(own)
        }


def mutations(counts: dict[str, int], first: int) -> None:
    """Reads mutated inputs, as many of each kind as `counts` has."""
    cases = Cases()
    kinds = {}
    for name in counts:
        folder = cases.scratch / name
        folder.mkdir()
        with contextlib.chdir(folder):
            kind = kinds[name] = KINDS[name]()
        # Valid files first, so that imports and compiled programs do not count towards the limits.
        for whole in sorted(kind.files):
            with (
                tempfile.TemporaryDirectory(dir=cases.here) as place,
                contextlib.redirect_stdout(io.StringIO()),
            ):
                _feed_valid(kind, whole, Path(place))
    cases.end()
    limit_memory()
    for name, kind in kinds.items():
        for seed in range(first, first + counts[name]):

            def case(into: Path, out: Path, kind: Kind = kind, seed: int = seed) -> None:
                _feed_mutated(kind, seed, into, out)

            cases.run(f"{name} {seed}", case)
        cases.end()


def _feed_mutated(kind: Kind, seed: int, into: Path, out: Path) -> None:
    path, chosen = kind.write(random.Random(seed), into)
    try:
        kind.feed(path, out, chosen)
    except BaseException as error:
        error.add_note(chosen)
        raise


def _feed_valid(kind: Kind, name: str, folder: Path) -> None:
    into, out = folder / "in", folder / "out"
    into.mkdir()
    out.mkdir()
    kind.feed(kind.whole(name, into), out, name)


def bombs() -> None:
    """Runs all of `BOMBS`."""
    import jax
    import tensorflow_datasets

    import rednet_jax.train.checkpoints
    import rednet_jax.train.report  # noqa: F401
    from rednet_jax.data.builders import own_folder
    from rednet_jax.weights import store

    assert jax.devices() and tensorflow_datasets and own_folder and store
    cases = Cases()
    limit_memory()
    for name, bomb in BOMBS.items():

        def case(into: Path, out: Path, bomb: Callable[[], None] = bomb) -> None:
            with contextlib.chdir(into):
                bomb()

        cases.run(name, case)
    cases.end()


if __name__ == "__main__":
    if sys.argv[1] == "bombs":
        bombs()
    else:
        pairs = (word.split("=") for word in sys.argv[2:])
        mutations({name: int(count) for name, count in pairs}, int(sys.argv[1]))
