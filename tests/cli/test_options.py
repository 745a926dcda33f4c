"""Options of commands reach the library's functions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from rednet_jax.bench import detect, identities
from rednet_jax.inference import align_files, track_file
from rednet_jax.quickstart import portrait_path

PORTRAIT = str(portrait_path())


@pytest.fixture
def arguments_of(monkeypatch, run):
    """Runs a command whose library function is replaced; returns the arguments that it was given.

    They are a tuple of those by position, and a dict of those by name.
    """

    def arguments_of(module, name, result, *words):
        calls = []
        monkeypatch.setattr(
            module, name, lambda *args, **named: calls.append((args, named)) or result
        )
        status, _, errors = run(*words)
        assert (status, errors) == (0, [])
        (call,) = calls
        return call

    return arguments_of


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), {"faces": 1, "min_confidence": 0.1}),
        (("--faces", "all", "--min-confidence", 0.25), {"faces": None, "min_confidence": 0.25}),
        (("--faces", 3), {"faces": 3}),
    ],
)
def test_align(arguments_of, here, words, expected):
    aligned = SimpleNamespace(faces={}, failures=[], interrupted=False)
    _, given = arguments_of(
        align_files, "align_files", aligned, "align", PORTRAIT, "--csv", "a.csv", *words
    )
    assert {name: given[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), {"faces": 1, "smooth": None, "fps": None, "carry": "all"}),
        (("--faces", 4, "--smooth", "--fps", 12.5), {"faces": 4, "smooth": True, "fps": 12.5}),
        (("--no-smooth", "--carry", "feedback"), {"smooth": False, "carry": "feedback"}),
    ],
)
def test_track(arguments_of, here, words, expected):
    tracked = SimpleNamespace(files=[], failures=[], interrupted=False)
    _, given = arguments_of(track_file, "track_file", tracked, "track", "seq", *words)
    assert {name: given[name] for name in expected} == expected


def test_bench_detect(arguments_of, here):
    for folder in ("infants", "landscapes"):
        (here / folder).mkdir()
    words = "--infants", "infants", "--without-faces", "landscapes", "--images", 5
    words += "--data-dir", "data"
    _, given = arguments_of(detect, "bench_detect", {}, "bench", "detect", *words)
    assert (given["infants"], given["without_faces"]) == (Path("infants"), Path("landscapes"))
    assert (given["images"], given["data_dir"]) == (5, Path("data"))


def test_bench_identities(arguments_of, here):
    words = "bench", "identities", "--splits", "train,test", "--data-dir", "data"
    given, _ = arguments_of(identities, "bench_identities", {}, *words)
    assert given == ("300vw", ("train", "test"))
