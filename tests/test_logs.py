"""What other libraries log passes through commands, but for what is noise."""

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
def test_noise_alone_is_held_back_unless_it_is_asked_for(environment, enabled):
    lines = run(STATE, **environment).stdout.splitlines()[-4:]
    assert [line.endswith("True") for line in lines] == enabled


def test_compilations_are_logged_where_the_user_asks_for_them():
    code = (
        "from rednet_jax import cli; cli.main(['--help']); import jax; jax.jit(lambda x: x + 1)(1)"
    )
    assert "Compiling" in run(code, JAX_LOG_COMPILES="1").stderr
    assert run(code).stderr == ""


@pytest.mark.parametrize("before", ["", "from rednet_jax import cli; cli.main(['--help'])\n"])
def test_of_absl_only_what_orbax_raises_as_well_is_left_out(before):
    """In a command, too, where the logger is there before absl gives it a class of its own."""
    code = (
        f"{before}import logging, rednet_jax.train.checkpoints\n"
        "from absl import logging as absl\n"
        "absl.error('of another library')\n"
        "exec(compile('absl.error(\"of orbax\")', '/site-packages/orbax/checkpoint/a.py', 'exec'))"
    )
    told = run(code).stderr
    assert "of another library" in told and "of orbax" not in told
    assert "of orbax" in run(code, JAX_LOGGING_LEVEL="DEBUG").stderr
