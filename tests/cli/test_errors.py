"""Invalid command lines exit with status 2 and one line on standard error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rednet_jax.quickstart import portrait_path

PORTRAIT = str(portrait_path())

# Invalid command lines, and a part of each error message. `W` is a valid checkpoint, `V` a valid
# video, `P` a valid image; `bad_files` writes the other files.
INVALID = {
    "no command": ("", "COMMAND"),
    "unknown command": ("fly", "'fly'"),
    "unknown option": ("align P --colour red", "--colour red"),
    "no image named": ("align", "IMAGE"),
    "option without value": ("align P --csv", "--csv"),
    "K is no number": ("track V --feedback-steps two", "'two'"),
    "K is 0, align": ("align P --checkpoint W --feedback-steps 0 --csv a.csv", "not 0"),
    "K is 0, track": ("track V --checkpoint W --feedback-steps 0", "not 0"),
    "K is -1, track": ("track V --checkpoint W --feedback-steps -1", "not -1"),
    "K is 0, eval": ("eval W --data 300w --split validation --data-dir . --feedback-steps 0", "0"),
    "Ks are no numbers": ("eval W --data 300w --split full --feedback-steps 1,x", "'1,x'"),
    "text as video": ("track text.mp4 --checkpoint W", "text.mp4: not a video"),
    "empty video": ("track empty.mp4 --checkpoint W", "empty.mp4: not a video"),
    "video without its index": ("track cut.mp4 --checkpoint W", "cut.mp4: not a video"),
    "sound as video": ("track sound.wav --checkpoint W", "sound.wav: has no video stream"),
    "missing video": ("track none.mp4 --checkpoint W", "none.mp4: cannot be read"),
    "empty image": ("align empty.png --checkpoint W --csv a.csv", "empty.png: not an image"),
    "missing image": ("align none.png --checkpoint W --overlay drawn", "none.png: cannot be"),
    "folder without image": ("align . --checkpoint W --csv a.csv", "no image in this folder"),
    "unknown checkpoint": ("align P --checkpoint nobody --csv a.csv", "nobody: no such"),
    "unknown checkpoint, track": ("track V --checkpoint nobody", "nobody: no such"),
    "unknown checkpoint, quickstart": ("quickstart --checkpoint nobody", "nobody: no such"),
    "unknown checkpoint, export": ("export nobody --to safetensors --out x", "nobody: no such"),
    "foreign checkpoint": ("align P --checkpoint foreign.safetensors", "foreign.safetensors"),
    "damaged checkpoint": ("track V --checkpoint damaged.safetensors", "damaged.safetensors"),
    "text as checkpoint": ("track V --checkpoint text.mp4", "text.mp4"),
    "folder as checkpoint": ("track V --checkpoint .", "no run with weights"),
    "name that is too long": (
        f"export W --to safetensors --out {'x' * 300}",
        f"{'x' * 300}: File name too long",
    ),
    "plot of another kind": ("eval W --data 300w --split a --plot a.svg", "extension .png"),
    "sheet of another kind": ("data scheme . --name a --sheet a.jpg", "extension .png"),
    "missing folder of labels": ("data scheme nowhere --name a", "nowhere: no such folder"),
    "missing weights to import": ("import none.pth --out a.safetensors", "none.pth: no such file"),
    "unknown data set": ("eval W --data 400w --split full --data-dir .", "no data set '400w'"),
    "unknown split": ("eval W --data 300w --split half --data-dir .", "no split 'half'"),
    "data set not prepared": ("eval W --data 300w --split full --data-dir .", "is not prepared"),
    "nothing to measure": ("eval --data 300w --split full", "CHECKPOINT or --predictions-in"),
    "two things to measure": (
        "eval W --predictions-in a.csv --data 300w --split full",
        "CHECKPOINT cannot be used with --predictions-in",
    ),
    "boxes of predictions": (
        "eval --predictions-in a.csv --data 300w --split full --boxes jitter",
        "--boxes cannot be used with",
    ),
    "corrupted images": (
        "eval W --data 300w --split full --corrupt dark",
        "--corrupt is only for clips: 300w has images",
    ),
    "carried state of images": (
        "eval W --data 300w --split full --carry nothing",
        "--carry is only for clips: 300w has images",
    ),
    "carried state of predictions": (
        "eval --predictions-in a.csv --data 300vw --split a --carry nothing",
        "--carry cannot be used with --predictions-in",
    ),
    "unknown state to carry": ("track V --checkpoint W --carry none", "'none'"),
    "unknown corruption": ("eval W --data 300vw --split a --corrupt fog", "corrupt.kind: 'fog'"),
    "corruption without strength": (
        "eval W --data 300vw --split a --corrupt dark:0",
        "corrupt.strength: must be 0.05 to 4, not 0",
    ),
    "corruption of predictions": (
        "eval --predictions-in a.csv --data 300vw --split a --corrupt dark",
        "--corrupt cannot be used with --predictions-in",
    ),
    "missing predictions": (
        "eval --predictions-in none.csv --data 300w --split full --data-dir .",
        "none.csv: cannot be read",
    ),
    "unknown normaliser": ("eval W --data 300w --split full --normaliser nose", "'nose'"),
    "boxes without header": ("align P --checkpoint W --boxes text.mp4", "text.mp4"),
    "boxes without area": ("align P --checkpoint W --boxes flat.csv", "flat.csv: line 2"),
    "missing boxes": ("align P --checkpoint W --boxes none.csv", "none.csv"),
    "missing experiment": ("train none.py", "none.py: no such experiment file"),
    "field without value": ("train none.py --batch", "--batch"),
    "field without name": ("train none.py batch 3", "batch"),
    "report of no run": ("report .", "not a run folder"),
    "unknown data set, show": ("data show 400w --data-dir .", "no data set '400w'"),
    "data set to show not prepared": ("data show 300w --data-dir .", "300w is not prepared"),
    "no sample to show": ("data show 300w --count 0 --data-dir .", "samples, not 0"),
    "unknown bench": ("bench speed", "'speed'"),
    "unknown file, import": ("import nobody.safetensors --out x", "nobody.safetensors: no such"),
    "unknown target": ("export W --to tarball --out x", "'tarball'"),
    "output is a folder": ("track V --checkpoint W --out .", "cannot be written"),
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory, checkpoint, grey_video):
    folder = tmp_path_factory.mktemp("bad")
    for name in ("empty.mp4", "empty.png"):
        (folder / name).touch()
    (folder / "text.mp4").write_text("This is no video.\n" * 100)
    wave = b"RIFF$\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00"
    wave += b"@\x1f\x00\x00@\x1f\x00\x00\x01\x00\x08\x00data\x00\x10\x00\x00" + b"\x80" * 4096
    (folder / "sound.wav").write_bytes(wave)
    (folder / "cut.mp4").write_bytes(Path(grey_video).read_bytes()[:-300])
    save_file({"a": np.zeros(3, np.float32)}, folder / "foreign.safetensors")
    (folder / "damaged.safetensors").write_bytes(Path(checkpoint).read_bytes()[:-1000])
    (folder / "flat.csv").write_text("name,x0,y0,x1,y1\nastronaut,5,5,5,9\n")
    return folder


@pytest.mark.parametrize("line", INVALID, ids=lambda line: line.replace(" ", "_"))
def test_an_invalid_command_line_is_one_error_line_and_status_2(
    line, bad_files, checkpoint, grey_video, here, run, monkeypatch
):
    monkeypatch.delenv("REDNET_JAX_DATA", raising=False)
    command, message = INVALID[line]
    paths = {"W": checkpoint, "V": grey_video, "P": PORTRAIT}
    for path in bad_files.iterdir():
        paths[path.name] = str(path)
    status, out, errors = run(*(paths.get(word, word) for word in command.split()))
    assert status == 2
    assert len(errors) == 1, errors
    assert errors[0].startswith("rednet: ") and message in errors[0]
    assert out == ""
    assert list(here.iterdir()) == []
