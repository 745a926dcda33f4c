"""Outputs are checked before the work: they replace no input, and can be written."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from rednet_jax.cli import shared
from rednet_jax.cli.output import print_result
from rednet_jax.errors import RednetError
from rednet_jax.quickstart import portrait_path

# Command lines in a folder with the files of `inputs`, and a part of each error message.
REFUSED = {
    "table over an image": ("align A.png --csv A.png", "--csv A.png: would replace an input"),
    "JSON over an image in a folder": ("align seq --json seq/f_0001.png", "would replace"),
    "table over a hard link": ("align A.png --csv link.png", "--csv link.png: would replace"),
    "table over the boxes": ("align seq --boxes b.csv --csv b.csv", "--csv b.csv: would replace"),
    "table over the weights": ("align A.png --checkpoint w.st --csv w.st", "--csv w.st: would"),
    "table over a run": (
        "align A.png --checkpoint run --csv run/best.safetensors",
        "run/best.safetensors: would replace",
    ),
    "one path, align": ("align A.png --csv x --json x", "--json x: --csv writes to x"),
    "file in place of a folder": ("align A.png --csv x --overlay x", "--overlay x: --csv"),
    "file in place of a parent": ("align A.png --csv x --json x/y", "--json x/y: --csv"),
    "one path by two names": ("align A.png --csv x --json ./x", "--json ./x: --csv writes to x"),
    "overlays to standard output": ("align A.png --overlay -", "--overlay -: standard output"),
    "table over a frame": (
        "track seq/f_%04d.png --landmarks seq/f_0001.png",
        "--landmarks seq/f_0001.png: would replace",
    ),
    "lines over a frame": ("track seq --jsonl seq/f_0001.png", "--jsonl seq/f_0001.png: would"),
    "video over the weights": ("track seq --checkpoint w.st --out w.st", "--out w.st: would"),
    "figures over the weights": (
        "eval w.st --data 300w --split a --json w.st",
        "--json w.st: would replace",
    ),
    "figures over predictions": (
        "eval --predictions-in b.csv --data 300w --split a --json b.csv",
        "--json b.csv: would replace",
    ),
    "plot over predictions of clips": (
        "eval --predictions-in clips --data 300vw --split a --plot clips/a.csv",
        "--plot clips/a.csv: would replace",
    ),
    "figures over the scheme": (
        "eval --predictions-in b.csv --scheme s.json --data 300w --split a --json s.json",
        "--json s.json: would replace",
    ),
    "one path, eval": (
        "eval w.st --data 300w --split a --predictions x --json x --plot x",
        "--plot x: --json writes to x",
    ),
    "predictions to standard output": (
        "eval w.st --data 300w --split a --predictions -",
        "--predictions -: standard output",
    ),
    "predictions of clips to standard output": (
        "eval w.st --data 300vw --split a --predictions -",
        "--predictions -: standard output",
    ),
    "predictions, no such folder": (
        "eval w.st --data 300w --split a --predictions A.png/p.csv",
        "A.png/p.csv: cannot be written",
    ),
    "predictions of clips, no such folder": (
        "eval w.st --data 300vw --split a --predictions A.png/p",
        "A.png/p: cannot be written",
    ),
    "plot, no such folder": (
        "eval w.st --data 300w --split a --plot A.png/p.png",
        "A.png/p.png: cannot be written",
    ),
    "calibrated weights over the weights": (
        "calibrate run/best.safetensors --out run",
        "--out run/best.safetensors: would replace",
    ),
    "calibration, no such folder": ("calibrate w.st --out A.png/x", "cannot be written"),
    "export to standard output": ("export w.st --to onnx --out -", "--out -: standard output"),
    "import over the file": ("import w.st --out w.st", "--out w.st: would replace"),
    "import, no such folder": ("import w.st --out A.png/x", "A.png/x: cannot be written"),
    "scheme over the labels": (
        "data scheme seq --labels b.csv --name s --out b.csv",
        "--out b.csv: would replace",
    ),
    "default scheme over the labels": (
        "data scheme seq --labels s.json --name s",
        "--out s.json: would replace",
    ),
    "sheet over an image": (
        "data scheme seq --name n --sheet seq/f_0001.png",
        "--sheet seq/f_0001.png: would replace",
    ),
    "scheme over a .pts file": (
        "data scheme seq --name n --out seq/f_0001.PTS",
        "--out seq/f_0001.PTS: would replace",
    ),
    "scheme to standard output": ("data scheme seq --name n --out -", "--out -: standard output"),
    "sheet, no such folder": (
        "data scheme seq --name n --sheet A.png/x.png",
        "A.png/x.png: cannot be written",
    ),
    "one path, scheme": ("data scheme seq --name n --out x --sheet x", "--sheet x: --out"),
    "samples to standard output": ("data show 300w --out -", "--out -: standard output"),
    "samples, no such folder": ("data show 300w --out A.png/x", "A.png/x: cannot be written"),
    "run over its initial weights": (
        "train none.py --init-from run --run-dir run",
        "--run-dir run/best.safetensors: would replace",
    ),
    "table of an ablation": ("ablate none.py --out A.png/x", "A.png/x: cannot be written"),
    "benchmark over the weights": (
        "bench layers --checkpoint w.st --json w.st",
        "--json w.st: would replace",
    ),
    "one path, benchmark": ("bench exports --out x --json x", "--out x: --json writes to x"),
    "benchmark over labels": (
        "bench detect --infants seq --json seq/f_0001.PTS",
        "--json seq/f_0001.PTS: would replace",
    ),
    **{
        f"benchmark {name}, no such folder": (
            f"bench {name} --json A.png/x",
            "A.png/x: cannot be written",
        )
        for name in (
            *("scan", "startup", "input", "scaling", "track", "detect", "steadiness"),
            *("identities", "layers", "torch"),
        )
    },
}


@pytest.fixture
def inputs(checkpoint, here):
    """Fills the current folder, and returns its files with their contents."""
    for folder in ("seq", "run", "clips"):
        (here / folder).mkdir()
    for image in ("A.png", "seq/f_0001.png"):
        shutil.copy(portrait_path(), here / image)
    os.link(here / "A.png", here / "link.png")
    for weights in ("w.st", "run/best.safetensors"):
        shutil.copy(checkpoint, here / weights)
    for text in ("b.csv", "s.json", "clips/a.csv", "seq/f_0001.PTS"):
        (here / text).write_text(text)
    return contents(here)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: line.replace(" ", "_"))
def test_a_bad_output_is_refused_before_the_work(line, inputs, here, run, monkeypatch):
    monkeypatch.setenv("REDNET_JAX_DATA", str(here / "data"))
    command, message = REFUSED[line]
    status, out, errors = run(*command.split(), "--no-compilation-cache")
    assert (status, out, len(errors)) == (2, "", 1), errors
    assert message in errors[0]
    assert contents(here) == inputs


def test_an_output_may_replace_a_file_that_is_no_input(inputs, here, run):
    # The folder of the images also has the table of the last run.
    command = ("align", "seq", "--checkpoint", "w.st", "--csv", "seq/out.csv")
    for _ in range(2):
        status, _, errors = run(*command)
        assert status in (0, 1), errors
    assert (here / "seq" / "out.csv").is_file()


def test_an_existing_file_below_an_input_folder_is_an_input(here):
    (here / "data").mkdir()
    (here / "data" / "record").touch()
    shared.check_outputs([("--out", "data/new")], ["data", "missing", None])
    with pytest.raises(RednetError, match=r"^--out data/record: would replace an input"):
        shared.check_outputs([("--out", "data/record")], ["data"])


def test_standard_output_is_no_file(here):
    (here / "-").touch()
    shared.check_outputs([("--json", "-"), ("--csv", "-")], ["-"])


def test_a_closed_pipe_does_not_lose_the_file_nor_a_full_disk_the_printed_numbers(tmp_path, capsys):
    def closed(result):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        print_result({"nme": 3.0}, str(tmp_path / "a.json"), closed)
    assert json.loads((tmp_path / "a.json").read_text()) == {"nme": 3.0}
    with pytest.raises(RednetError):
        print_result({"nme": 3.0}, str(tmp_path / "a.json/b.json"))
    assert capsys.readouterr().out == "nme 3\n"
