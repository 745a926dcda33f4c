"""Provenance of results."""

import json
import os
import subprocess
from pathlib import Path

import jax

from rednet_jax.evaluate import provenance as module
from rednet_jax.evaluate.provenance import commit_of, provenance


def test_provenance_has_command_commit_seed_machine_and_versions():
    result = provenance("rednet x RUN_DIR", seed=7)
    assert json.loads(json.dumps(result)) == result
    assert (result["command"], result["seed"]) == ("rednet x RUN_DIR", 7)
    assert result["versions"]["jax"] == jax.__version__
    assert result["machine"]["cores"] == os.cpu_count()
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    if head.returncode == 0:
        assert result["git_commit"].removesuffix("-dirty") == head.stdout.strip()


def test_without_a_checkout_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert provenance("x", seed=0)["git_commit"] == "unknown"


def test_a_package_that_is_not_installed_loses_no_result(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("jax", "no-such-package"))
    versions = provenance("x", seed=0)["versions"]
    assert versions["no-such-package"] == "not installed" and versions["jax"] == jax.__version__


def test_changes_of_tracked_files_are_recorded_but_not_those_of_results(tmp_path):
    def git(*arguments):
        author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        command = ["git", *author, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    code, result = tmp_path / "package/code.py", tmp_path / "experiments/results/one.json"
    for file in (code, result):
        file.parent.mkdir(parents=True)
        file.write_text("before")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    result.write_text("after")
    (code.parent / "untracked.py").touch()
    assert commit_of(code) == commit
    code.write_text("after")
    assert commit_of(code) == f"{commit}-dirty"
    installed = tmp_path / ".venv/code.py"
    installed.parent.mkdir()
    installed.write_text("before")
    assert commit_of(installed) == "unknown"
