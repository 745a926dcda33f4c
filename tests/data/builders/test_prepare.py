"""Preparation: once, atomically, and with a report of bad files."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from data.builders.trees import LANDMARKS, add_faces, names, read_back, save_image

from rednet_jax import cli
from rednet_jax.data.folder import data_folder
from rednet_jax.data.prepare import find_prepared, prepare
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.pts import write_pts


@pytest.fixture
def tree(tmp_path) -> Path:
    return add_faces(tmp_path / "300w", [f"afw/{i}" for i in range(100, 140)])


def state(folder: Path) -> dict[Path, tuple[int, int]]:
    return {f: (f.stat().st_ino, f.stat().st_mtime_ns) for f in folder.rglob("*")}


def test_an_unchanged_folder_is_prepared_once(tree, tmp_path) -> None:
    first = prepare("300w", tree, tmp_path / "data")
    before = state(tmp_path / "data")
    tried: list[int] = []
    second = prepare("300w", tree, tmp_path / "data", lambda done, total: tried.append(done))
    assert first.built and not second.built and tried == []
    assert state(tmp_path / "data") == before
    assert second.samples == first.samples == {"train": 40}
    assert (second.folder, second.left_out) == (first.folder, first.left_out)


@pytest.mark.parametrize("summary", ["[]", "{}", '{"source": "a"}'])
def test_a_damaged_summary_is_no_prepared_data_set(tree, tmp_path, summary: str) -> None:
    prepared = prepare("300w", tree, tmp_path / "data")
    (prepared.folder / "rednet.json").write_text(summary)
    assert find_prepared("300w", tmp_path / "data") is None
    assert prepare("300w", tree, tmp_path / "data").built


def test_a_changed_folder_is_prepared_again(tree, tmp_path) -> None:
    prepare("300w", tree, tmp_path / "data")
    add_faces(tree, ["afw/200"])
    again = prepare("300w", tree, tmp_path / "data")
    assert again.built and again.samples == {"train": 41}
    assert len(read_back(again)["train"]) == 41
    assert os.listdir(tmp_path / "data") == ["rednet_300w"]


def test_the_data_folder_may_be_inside_the_source(tree) -> None:
    assert prepare("300w", tree, tree / "data").built
    assert not prepare("300w", tree, tree / "data").built


def test_a_full_disk_raises_and_keeps_the_older_data_set(tree, tmp_path) -> None:
    """A limit on the size of files simulates the full disk."""
    first = prepare("300w", tree, tmp_path / "data")
    before = state(tmp_path / "data")
    add_faces(tree, ["afw/200"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(RednetError) as caught:
            prepare("300w", tree, tmp_path / "data")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert re.fullmatch(
        r"300w cannot be prepared: .*File too large; writing \S+array_record\S+", str(caught.value)
    )
    assert state(tmp_path / "data") == before
    assert find_prepared("300w", tmp_path / "data").source == first.source


def test_a_killed_build_keeps_the_older_data_set(tree, tmp_path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from rednet_jax.data.prepare import prepare; "
        "die = lambda done, total: done == 20 and os.kill(os.getpid(), signal.SIGKILL); "
        "prepare('300w', Path(sys.argv[1]), Path(sys.argv[2]), die)"
    )
    data = tmp_path / "data"
    run = [sys.executable, "-c", code, str(tree), str(data)]
    assert subprocess.run(run, check=False).returncode == -signal.SIGKILL
    assert find_prepared("300w", data) is None
    assert os.listdir(data) == [".300w.partial"]
    assert prepare("300w", tree, data).samples == {"train": 40}
    assert os.listdir(data) == ["rednet_300w"]
    add_faces(tree, ["afw/200"])
    assert subprocess.run(run, check=False).returncode == -signal.SIGKILL
    kept = find_prepared("300w", data)
    assert kept is not None and len(read_back(kept)["train"]) == 40


def test_a_data_set_larger_than_tfds_buffer_keeps_its_order(tree, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 10_000)
    prepared = prepare("300w", tree, tmp_path / "data")
    assert names(read_back(prepared)["train"]) == [f"afw/{i}" for i in range(100, 140)]


def test_a_name_that_is_not_utf8_is_skipped(tree, tmp_path) -> None:
    for ending in (".png", ".pts"):
        file = tree / f"afw/100{ending}"
        file.rename(tree / f"afw/\udcff{ending}")
    prepared = prepare("300w", tree, tmp_path / "data")
    assert prepared.samples == {"train": 39}
    assert prepared.skipped == (r"'afw/\udcff': the name is not UTF-8, or not printable",)


def test_two_processes_do_not_prepare_one_data_set(tree, tmp_path) -> None:
    def meanwhile(done: int, total: int | None) -> None:
        if done == 1:
            with pytest.raises(RednetError, match="another process uses this folder"):
                prepare("300w", tree, tmp_path / "data")

    assert prepare("300w", tree, tmp_path / "data", meanwhile).samples == {"train": 40}


def test_bad_files_are_reported_and_left_out(tree, tmp_path) -> None:
    add_faces(tree, [f"afw/{i}" for i in range(200, 300)])
    outside = save_image(tmp_path / "outside.png")
    (tree / "afw/200.png").write_bytes((tree / "afw/200.png").read_bytes()[:900])
    (tree / "afw/201.png").write_text("no image")
    text = (tree / "afw/202.pts").read_text()
    (tree / "afw/202.pts").write_text(
        text.replace("n_points: 68", "n_points: 67").replace(text.splitlines()[4] + "\n", "")
    )
    (tree / "afw/203.pts").write_text(text.replace(text.splitlines()[5], "nan nan"))
    (tree / "afw/204.png").unlink()
    (tree / "afw/204.png").symlink_to(outside)
    (tree / "afw/205.png").unlink()
    write_pts(tmp_path / "206.pts", LANDMARKS)
    (tree / "afw/206.pts").unlink()
    (tree / "afw/206.pts").symlink_to(tmp_path / "206.pts")
    prepared = prepare("300w", tree, tmp_path / "data")
    causes = [
        "200.png: cannot be read (",
        "201.png: not an image",
        "202.pts: 67 points, 300-W has 68",
        "203.pts: a coordinate is not a pixel of an image",
        f"204.png: leads outside {tree}",
        "205: has no image",
        f"206.pts: leads outside {tree}",
    ]
    assert len(prepared.skipped) == len(causes)
    for line, cause in zip(prepared.skipped, causes, strict=True):
        assert line.startswith(f"{tree}/afw/{cause}") and "\n" not in line
    kept = names(read_back(prepared)["train"])
    assert len(kept) == prepared.samples["train"] == 133
    assert not {f"afw/{i}" for i in range(200, 207)} & set(kept)
    again = find_prepared("300w", tmp_path / "data")
    assert again is not None and again.skipped == prepared.skipped


@pytest.mark.parametrize(("bad", "stops"), [(2, False), (3, True)])
def test_more_than_a_twentieth_bad_stops_the_build(tree, tmp_path, bad, stops) -> None:
    for i in range(bad):
        (tree / f"afw/{100 + i}.png").write_text("no image")
    if not stops:
        assert prepare("300w", tree, tmp_path / "data").samples == {"train": 38}
        return
    with pytest.raises(RednetError, match=r"3 of 40 faces are bad, more than 5%: .*100\.png: not"):
        prepare("300w", tree, tmp_path / "data")
    assert find_prepared("300w", tmp_path / "data") is None
    assert os.listdir(tmp_path / "data") == []


def test_a_failed_build_keeps_the_older_data_set(tree, tmp_path) -> None:
    prepare("300w", tree, tmp_path / "data")
    for file in (tree / "afw").glob("*.png"):
        file.write_text("no image")
    with pytest.raises(RednetError, match="40 of 40 faces are bad"):
        prepare("300w", tree, tmp_path / "data")
    kept = find_prepared("300w", tmp_path / "data")
    assert kept is not None and len(read_back(kept)["train"]) == 40


def test_errors_of_the_command_are_one_line(tree, tmp_path, capfd) -> None:
    (tmp_path / "empty").mkdir()
    data = ["--data-dir", str(tmp_path / "data")]
    for words, line in (
        (["coco", "--from", str(tree)], "no data set 'coco'; known: folder, 300w"),
        (["300w"], "300w is prepared from the publisher's folder: give --from FOLDER"),
        (["synthetic", "--from", str(tree)], "synthetic is generated, without a folder: leave out"),
        (["300w", "--from", str(tmp_path / "none")], f"{tmp_path}/none: no such folder"),
        (
            ["300w", "--from", str(tmp_path / "empty")],
            f"{tmp_path}/empty: contains no part of the data set (looked for afw",
        ),
    ):
        assert cli.main(["data", "prepare", *words, *data]) == 2
        err = capfd.readouterr().err
        assert err.startswith(f"rednet: {line}") and err.count("\n") == 1


def test_the_commands(tree, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("REDNET_JAX_DATA", str(tmp_path / "data"))
    (tree / "afw/100.png").write_text("no image")
    (tree / "afw/note.txt").touch()
    assert cli.main(["data", "list"]) == 0
    listed = capfd.readouterr().out
    assert "300w            not prepared (looked for afw" in listed
    assert "synthetic       not prepared (generated: needs no folder)" in listed
    assert "synthetic_clips not prepared (generated: needs no folder)" in listed
    assert cli.main(["data", "prepare", "300w", "--from", str(tree)]) == 1
    out, err = capfd.readouterr()
    assert f"left out: {tree}/ibug: no such folder\nnot read: 1 .txt\n" in out
    assert "train 39, 1 files skipped" in out
    assert err == f"rednet: {tree}/afw/100.png: not an image that can be read\n"
    assert cli.main(["data", "prepare", "300w", "--from", str(tree)]) == 0
    assert "unchanged since the last preparation: nothing to do" in capfd.readouterr().out
    assert cli.main(["data", "list"]) == 0
    assert "300w            train 39 (ibug68)\n" in capfd.readouterr().out


def test_the_data_folder(monkeypatch) -> None:
    monkeypatch.delenv("REDNET_JAX_DATA", raising=False)
    assert data_folder() == Path.home() / ".cache/rednet_jax"
    monkeypatch.setenv("REDNET_JAX_DATA", "elsewhere")
    assert data_folder() == Path("elsewhere")
    assert data_folder(Path("given")) == Path("given")


def test_neither_building_nor_reading_imports_tensorflow(tree, tmp_path) -> None:
    code = (
        "import sys; from pathlib import Path; import tensorflow_datasets as tfds; "
        "from rednet_jax.data.prepare import prepare; "
        "made = prepare('300w', Path(sys.argv[1]), Path(sys.argv[2])); "
        "source = tfds.builder_from_directory(made.folder).as_data_source('train'); "
        "assert source[39]['image'].shape == (24, 32, 3); "
        "sys.exit('tensorflow' in sys.modules or 'jax' in sys.modules)"
    )
    run = [sys.executable, "-c", code, str(tree), str(tmp_path / "data")]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
