"""Compiled programs are kept between processes, where that is possible and allowed."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rednet_jax import cli
from rednet_jax.cli import run as cli_run
from rednet_jax.cli import training
from rednet_jax.compilation import FOLDER

PROGRAM = """
import json, sys
from rednet_jax.compilation import keep_compiled
keep_compiled(json.loads(sys.argv[1]))
assert "jax" not in sys.modules, "that would cost every command half a second"
import jax, jax.numpy as jnp, numpy as np
seen = []
jax.monitoring.register_event_listener(lambda name, **_: seen.append(name))
table = np.arange(12.0).reshape(4, 3)
value = jax.jit(lambda x: jnp.sin(jnp.cumsum(x @ x.T, axis=0)).sum(1))(table)
print(json.dumps({
    "value": [float(one).hex() for one in value],
    "hits": seen.count("/jax/compilation_cache/cache_hits"),
}))
"""


def run(data: Path, *, enabled: bool = True, **variables: str):
    unset = {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {
        "REDNET_JAX_DATA": str(data),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        # XLA's warnings are seen, such as of processors that code was not compiled for.
        "TF_CPP_MIN_LOG_LEVEL": "1",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(enabled)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return json.loads(done.stdout)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-cache"))


def test_the_second_process_compiles_nothing_and_gives_the_same_bits(tmp_path):
    first = run(tmp_path)
    files = kept(tmp_path / FOLDER)
    assert files and first["hits"] == 0
    assert (tmp_path / FOLDER).stat().st_mode & 0o077 == 0, "others could put code there"
    second = run(tmp_path)
    assert second == {"value": first["value"], "hits": len(files)}
    # A damaged file costs a compilation.
    for file in files:
        file.write_bytes(file.read_bytes()[:40])
    assert run(tmp_path) == first


def test_a_folder_that_cannot_be_made_costs_nothing_but_the_cache(tmp_path):
    (tmp_path / FOLDER).touch()
    assert run(tmp_path)["hits"] == 0
    (tmp_path / "data").touch()
    assert run(tmp_path / "data")["hits"] == 0


def test_the_option_and_the_variable_turn_it_off(tmp_path):
    run(tmp_path, enabled=False)
    run(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false")
    assert not kept(tmp_path / FOLDER)


def test_a_folder_that_is_given_to_jax_is_used_instead(tmp_path):
    run(tmp_path / "data", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "given"))
    assert kept(tmp_path / "given") and not (tmp_path / "data").exists()


def test_the_folder_is_bounded(tmp_path):
    run(tmp_path)
    sizes = [file.stat().st_size for file in kept(tmp_path / FOLDER)]
    limit = sum(sizes) - min(sizes) // 2
    run(tmp_path / "other", JAX_COMPILATION_CACHE_MAX_SIZE=str(limit))
    left = [file.stat().st_size for file in kept(tmp_path / "other" / FOLDER)]
    assert 0 < len(left) < len(sizes) and sum(left) <= limit


def leaves(parser):
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [leaf for a in below for sub in a.choices.values() for leaf in leaves(sub)] or [parser]


def test_every_command_has_the_option():
    commands_ = leaves(cli.parser())
    assert len(commands_) > 15
    for one in commands_:
        assert "--no-compilation-cache" in one.format_help(), one.prog


@pytest.mark.parametrize(("words", "enabled"), [([], True), (["--no-compilation-cache"], False)])
def test_a_command_keeps_what_is_compiled_unless_it_is_told_not_to(monkeypatch, words, enabled):
    given = []
    monkeypatch.setattr(cli_run, "keep_compiled", given.append)

    def report(args):
        """Nothing."""
        return 0

    monkeypatch.setattr(training, "report", report)
    assert cli.main(["report", "RUN", *words]) == 0
    assert given == [enabled]
