"""The log messages of other libraries in commands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STATE = """
import logging
from rednet_jax import cli
cli.main(["--help"])
for name in ("jax._src.xla_bridge", "absl", "jax._src.dispatch", "jax"):
    print(name, logging.getLogger(name).isEnabledFor(logging.WARNING))
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    before = {name: value for name, value in os.environ.items() if not name.startswith("JAX_LOG")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=before | environment,
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize(
    ("environment", "enabled"),
    [
        ({}, [False, False, True, True]),
        ({"JAX_LOGGING_LEVEL": "WARNING"}, [True, True, True, True]),
    ],
)
def test_only_the_messages_of_some_loggers_are_hidden(environment, enabled):
    lines = run(STATE, **environment).stdout.splitlines()[-4:]
    assert [line.endswith("True") for line in lines] == enabled


def test_compilations_are_logged_if_enabled():
    code = (
        "from rednet_jax import cli; cli.main(['--help']); import jax; jax.jit(lambda x: x + 1)(1)"
    )
    assert "Compiling" in run(code, JAX_LOG_COMPILES="1").stderr
    assert run(code).stderr == ""


@pytest.mark.parametrize("before", ["", "from rednet_jax import cli; cli.main(['--help'])\n"])
def test_only_orbaxs_messages_of_absls_logger_are_hidden(before):
    """Also in a command, where the logger exists before absl sets its class."""
    code = (
        f"{before}import logging, rednet_jax.train.checkpoints\n"
        "from absl import logging as absl\n"
        "absl.error('of another library')\n"
        "exec(compile('absl.error(\"of orbax\")', '/site-packages/orbax/checkpoint/a.py', 'exec'))"
    )
    log = run(code).stderr
    assert "of another library" in log and "of orbax" not in log
    assert "of orbax" in run(code, JAX_LOGGING_LEVEL="DEBUG").stderr
