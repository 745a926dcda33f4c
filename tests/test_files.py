"""Files are written atomically."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.files import (
    check_writable,
    json_text,
    locked_folder,
    replacing,
    set_aside,
    staged,
    write_json,
    write_text,
)
from rednet_jax.train.lock import only_writer


def test_text_replaces_the_old_file_without_temporary_files(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file.txt"
    write_text(target, "old\n")
    write_text(target, "näher\n")
    assert target.read_bytes() == "näher\n".encode()
    assert list(target.parent.iterdir()) == [target]


def test_values_that_json_has_not_are_null(tmp_path: Path) -> None:
    values = {
        "mean": float("nan"),
        "rows": [{"low": -float("inf")}, (1.5, None, np.float64("inf"))],
    }
    write_json(tmp_path / "result.json", values)
    text = (tmp_path / "result.json").read_text()
    assert text == json_text(values) and text.startswith('{\n  "mean": null,\n')
    assert json.loads(text) == {"mean": None, "rows": [{"low": None}, [1.5, None, None]]}


def test_bytes_of_a_file_name_are_written_unchanged(tmp_path: Path) -> None:
    write_text(tmp_path / "names.txt", b"caf\xe9".decode(errors="surrogateescape"))
    assert (tmp_path / "names.txt").read_bytes() == b"caf\xe9"


def test_after_an_exception_the_old_file_is_unchanged(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(KeyError), replacing(target) as partial:
        partial.write_text("half")
        raise KeyError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_is_set_aside_replaces_nothing(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    for text in "first", "second":
        target.write_text(text)
        set_aside(target, "old")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.txt.old": "first",
        "a.txt.old-2": "second",
    }
    with pytest.raises(RednetError, match=r"a\.txt: cannot be written \(No such file"):
        set_aside(target, "old")


def test_an_error_of_a_long_block_is_not_one_of_the_file(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(ConnectionResetError), staged(target) as partial:
        partial.write_text("half")
        raise ConnectionResetError
    assert target.read_text() == "old"
    with pytest.raises(RednetError, match=r"file.txt: cannot be written \("), staged(target):
        # There is no temporary file.
        pass
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("path", ["file/below", "folder", "."])
def test_a_path_that_cannot_be_written_is_an_error(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder").mkdir()
    with pytest.raises(RednetError, match=r"^\S+: cannot be written \(.+\)$"):
        write_text(path, "text")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.parametrize("folder", [False, True])
def test_that_no_file_can_be_written_is_found_in_advance(
    tmp_path: Path, folder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    check_writable(tmp_path / "new" / "output", folder=folder)
    with pytest.raises(RednetError, match=r"cannot be written \(.+/file is not a folder\)$"):
        check_writable(tmp_path / "file" / "output", folder=folder)
    with pytest.raises(RednetError, match=r"cannot be written \((not|it is) a folder\)$"):
        check_writable(tmp_path / "file" if folder else tmp_path, folder=folder)

    def touch(path: Path) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    # As in /proc, of root, whom os.access permits everything.
    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(RednetError, match=r"output: cannot be written \(No such file"):
        check_writable(tmp_path / "output", folder=folder)


def test_a_name_that_is_too_long_is_found_in_advance(tmp_path: Path) -> None:
    with pytest.raises(RednetError, match=r"xx: cannot be written \(File name too long\)$"):
        check_writable(tmp_path / ("x" * 300))


def test_an_empty_path_is_the_current_folder() -> None:
    with pytest.raises(RednetError, match=r"cannot be written \(it is a folder\)$"):
        check_writable("")


def test_a_device_or_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RednetError, match=r"pipe: cannot be written \(not a regular file\)$"):
        write_text(tmp_path / "pipe", "text")
    # /dev/stdout may be a link to a pipe without a path.
    ends = os.pipe()
    for path in (tmp_path / "pipe", f"/dev/fd/{ends[1]}"):
        with pytest.raises(RednetError, match=r"cannot be written \(not a regular file\)$"):
            check_writable(path)
    for end in ends:
        os.close(end)
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_that_is_deleted_before_it_is_opened_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os_open = os.open
    deleted: list[Path] = []

    def delete_and_open(path: Path, flags: int) -> int:
        if not deleted:
            deleted.append(path)
            path.rmdir()
        return os_open(path, flags)

    monkeypatch.setattr(os, "open", delete_and_open)
    with locked_folder(tmp_path / "folder") as folder:
        assert deleted == [folder] and folder.is_dir()


def test_files_and_links_in_the_folder_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".DS_Store").write_text("")
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "kept")
    with locked_folder(tmp_path / "folder") as folder:
        assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    with pytest.raises(FileExistsError), locked_folder(tmp_path / "folder"):
        pass


def test_a_link_to_a_missing_disk_is_an_error(tmp_path):
    (tmp_path / "disk").symlink_to(tmp_path / "missing")
    with pytest.raises(FileExistsError), locked_folder(tmp_path / "disk" / "folder"):
        pass


def test_without_locks_in_the_file_system_there_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for wait in (False, True):
        with locked_folder(tmp_path / "folder", wait=wait) as folder:
            assert folder.is_dir()
    with only_writer(tmp_path):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": cannot")[0] for line in lines] == [
        f"rednet: warning: {tmp_path / name}" for name in ("folder", "folder", ".lock")
    ]
    cause = "cannot be locked (No locks available); a second process that uses it would not be"
    assert all(f": {cause} detected" in line for line in lines)
