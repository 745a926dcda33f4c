"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rednet_jax.errors import RednetError
from rednet_jax.files import locked_folder, replacing, write_text


def test_text_replaces_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file.txt"
    write_text(target, "old\n")
    write_text(target, "näher\n")
    assert target.read_bytes() == "näher\n".encode()
    assert list(target.parent.iterdir()) == [target]


def test_bytes_of_a_file_name_are_written_as_they_were(tmp_path: Path) -> None:
    write_text(tmp_path / "names.txt", b"caf\xe9".decode(errors="surrogateescape"))
    assert (tmp_path / "names.txt").read_bytes() == b"caf\xe9"


def test_after_an_error_the_old_file_is_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(KeyError), replacing(target) as partial:
        partial.write_text("half")
        raise KeyError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("place", ["file/below", "folder", "."])
def test_a_place_that_cannot_be_written_gives_one_line(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder").mkdir()
    with pytest.raises(RednetError, match=r"^\S+: cannot be written \(.+\)$"):
        write_text(place, "text")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_device_or_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RednetError, match=r"pipe: cannot be written \(not a regular file\)$"):
        write_text(tmp_path / "pipe", "text")
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_that_goes_before_it_is_opened_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open
    gone: list[Path] = []

    def late(path: Path, flags: int) -> int:
        if not gone:
            gone.append(path)
            path.rmdir()
        return opened(path, flags)

    monkeypatch.setattr(os, "open", late)
    with locked_folder(tmp_path / "folder") as folder:
        assert gone == [folder] and folder.is_dir()


def test_a_folder_whose_name_a_file_has_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    with pytest.raises(FileExistsError), locked_folder(tmp_path / "folder"):
        pass
