"""The compilation cache of commands."""

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
assert "jax" not in sys.modules, "the import would slow every command by half a second"
import jax, jax.numpy as jnp, numpy as np
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
table = np.arange(12.0).reshape(4, 3)
value = jax.jit(lambda x: jnp.sin(jnp.cumsum(x @ x.T, axis=0)).sum(1))(table)
print(json.dumps({
    "value": [float(number).hex() for number in value],
    "hits": events.count("/jax/compilation_cache/cache_hits"),
}))
"""


def run(data: Path, *, enabled: bool = True, **variables: str):
    unset = {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {
        "REDNET_JAX_DATA": str(data),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        # Shows XLA's warnings, such as those of code compiled for another processor.
        "TF_CPP_MIN_LOG_LEVEL": "1",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(enabled)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return json.loads(done.stdout)


def cached(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-cache"))


def test_the_second_process_compiles_nothing_and_gives_the_same_bits(tmp_path):
    first = run(tmp_path)
    files = cached(tmp_path / FOLDER)
    assert files and first["hits"] == 0
    assert (tmp_path / FOLDER).stat().st_mode & 0o077 == 0, "other users could add code"
    second = run(tmp_path)
    assert second == {"value": first["value"], "hits": len(files)}
    # The program of a damaged file is compiled again.
    for file in files:
        file.write_bytes(file.read_bytes()[:40])
    assert run(tmp_path) == first


def test_without_a_writable_folder_there_is_no_cache(tmp_path):
    (tmp_path / FOLDER).touch()
    assert run(tmp_path)["hits"] == 0
    (tmp_path / "data").touch()
    assert run(tmp_path / "data")["hits"] == 0


def test_the_option_and_the_variable_disable_the_cache(tmp_path):
    run(tmp_path, enabled=False)
    run(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false")
    assert not cached(tmp_path / FOLDER)


def test_jaxs_own_folder_takes_precedence(tmp_path):
    run(tmp_path / "data", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))
    assert cached(tmp_path / "own") and not (tmp_path / "data").exists()


def test_the_size_of_the_cache_is_bounded(tmp_path):
    run(tmp_path)
    sizes = [file.stat().st_size for file in cached(tmp_path / FOLDER)]
    limit = sum(sizes) - min(sizes) // 2
    run(tmp_path / "other", JAX_COMPILATION_CACHE_MAX_SIZE=str(limit))
    bounded = [file.stat().st_size for file in cached(tmp_path / "other" / FOLDER)]
    assert 0 < len(bounded) < len(sizes) and sum(bounded) <= limit


def leaves(parser):
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [leaf for a in groups for sub in a.choices.values() for leaf in leaves(sub)] or [parser]


def test_every_command_has_the_option():
    commands = leaves(cli.parser())
    assert len(commands) > 15
    for command in commands:
        assert "--no-compilation-cache" in command.format_help(), command.prog


@pytest.mark.parametrize(("words", "enabled"), [([], True), (["--no-compilation-cache"], False)])
def test_commands_use_the_cache_unless_it_is_disabled(monkeypatch, words, enabled):
    calls = []
    monkeypatch.setattr(cli_run, "keep_compiled", calls.append)

    def report(args):
        """Does nothing."""
        return 0

    monkeypatch.setattr(training, "report", report)
    assert cli.main(["report", "RUN", *words]) == 0
    assert calls == [enabled]
