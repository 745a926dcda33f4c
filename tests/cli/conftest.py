"""Runs command lines in an empty folder, with a small checkpoint and a video without faces."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rednet_jax import cli
from rednet_jax.media.video import write_video
from rednet_jax.model.rednet import init
from rednet_jax.weights.store import write_weights


@pytest.fixture(scope="module")
def checkpoint(narrow, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    config = narrow("compact")
    write_weights(path, config, init(config, jax.random.key(0)))
    return str(path)


@pytest.fixture(scope="module")
def grey_video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "grey.mp4"
    with write_video(path, 20, (160, 120)) as write:
        for _ in range(5):
            write(np.full((120, 160, 3), 128, np.uint8))
    return str(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd):
    """Runs a command line; returns (exit status, standard output, lines on standard error)."""

    def run(*words):
        capfd.readouterr()
        status = cli.main([str(word) for word in words])
        out, err = capfd.readouterr()
        return status, out, err.splitlines()

    return run
