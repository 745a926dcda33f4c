"""`--help` and `--version`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import jax

ROOT = Path(__file__).parents[2]


def help_of_commands(run, *words) -> dict[str, str]:
    """Returns the help of every command that starts with these words, by the whole command."""
    status, text, errors = run(*words, "--help")
    assert (status, errors) == (0, [])
    listed = re.search(r"^commands:\n.*\n((?:  .*\n)+)", text, re.M)
    if listed is None:
        return {" ".join(words): text}
    names = re.findall(r"^    (\S+)", listed[1], re.M)
    assert names
    return {
        command: text
        for name in names
        for command, text in help_of_commands(run, *words, name).items()
    }


def test_help_of_every_command_groups_its_options_and_has_an_example(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    helps = help_of_commands(run)
    assert {"align", "data prepare", "bench torch"} <= set(helps)
    for command, text in helps.items():
        assert f"Example: rednet {command}" in text
        assert "\noptions:" not in text and "\ngeneral:" in text
        for option in re.findall(r"^  (--.*(?:\n {9,}.*)*)$", text, re.M):
            assert "(default: " in option or "(required" in option, f"{command}: {option}"


def test_version_prints_the_versions_and_devices(run):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    status, out, errors = run("--version")
    assert (status, errors) == (0, [])
    devices = f"cpu x{jax.device_count()}"
    assert out == f"rednet_jax {project['version']} (jax {jax.__version__}, devices: {devices})\n"


def test_version_works_without_a_usable_device(run, monkeypatch):
    def fail():
        raise RuntimeError("Unable to initialize backend 'tpu':\nno TPU")

    monkeypatch.setattr(jax, "devices", fail)
    status, out, errors = run("--version")
    assert (status, errors) == (0, [])
    assert out.endswith("devices: none (Unable to initialize backend 'tpu': no TPU))\n")
