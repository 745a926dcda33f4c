"""Which files of folders `align_files` reads, and the names that it gives them."""

from __future__ import annotations

import os
import re
from pathlib import PurePath

import pytest

from rednet_jax.errors import RednetError
from rednet_jax.inference.align_files import _named, align_files


def test_names_are_relative_to_the_common_folder(network, save, boxes):
    files = [save("b/2.png"), save("a/1.jpg"), save("a/x.y.png")]
    file = boxes("a/1", "a/x.y", "b/2")
    aligned = align_files([files[0].parents[1]], checkpoint=network, boxes=file)
    assert list(aligned.faces) == ["a/1", "a/x.y", "b/2"]
    aligned = align_files([files[0], files[1]], checkpoint=network, boxes=file)
    assert list(aligned.faces) == ["b/2", "a/1"]
    with pytest.raises(RednetError, match="no image in this folder"):
        empty = files[0].parents[1] / "empty"
        empty.mkdir()
        align_files([empty], checkpoint=network)


def test_names_keep_the_file_extension_if_needed(network, save, boxes):
    png, jpg = save("a.png"), save("a.jpg")
    aligned = align_files([png.parent], checkpoint=network, boxes=boxes("a.png", "a.jpg"))
    assert list(aligned.faces) == ["a.jpg", "a.png"] and aligned.failures == []
    twice = align_files([jpg, jpg], checkpoint=network, boxes=boxes("a"))
    assert list(twice.faces) == ["a"] and twice.failures == []


def test_no_image_is_dropped_for_its_name(tmp_path):
    for name in ("x.jpg", "x.png", "x.jpg.webp", "y.png", "z.tif", "z.tif.png"):
        (tmp_path / name).touch()
    files, _ = _named([tmp_path, tmp_path / "y.png"])
    assert {name: path.name for name, path in files.items()} == {
        "x.jpg": "x.jpg",
        "x.png": "x.png",
        "x.jpg.webp": "x.jpg.webp",
        "y": "y.png",
        "z": "z.tif",
        "z.tif.png": "z.tif.png",
    }


def test_images_in_linked_folders_are_inputs_and_unreadable_folders_are_failures(
    network, save, boxes, tmp_path, monkeypatch
):
    root = save("a.png").parent
    save("locked/b.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.png").write_bytes((root / "a.png").read_bytes())
    (root / "link").symlink_to(tmp_path / "elsewhere")
    scandir = os.scandir

    def without_permission(path):
        if os.fspath(path) == os.fspath(root / "locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", without_permission)
    aligned = align_files(root, checkpoint=network, boxes=boxes("a", "link/c"))
    assert list(aligned.faces) == ["a", "link/c"]
    line = f"{root / 'locked'}: cannot be read (Permission denied)"
    assert aligned.failures == [line]
    with pytest.raises(RednetError, match=f"^{re.escape(line)}$"):
        align_files(root / "locked", checkpoint=network)


def test_overlays_below_an_input_folder_are_no_inputs(network, save, boxes):
    root = save("b/a.png").parents[1]
    options = {"checkpoint": network, "boxes": boxes("b/a"), "overlay": root / "drawn"}
    for _ in range(2):
        aligned = align_files(root, **options)
        assert list(aligned.faces) == ["b/a"] and aligned.failures == []
    # A drawing that is given by its own name is an input.
    files, _ = _named([root / "drawn" / "b" / "a.png"], root / "drawn")
    assert list(files) == ["a"]


def test_overlays_are_only_in_their_folder(network, save, tmp_path, monkeypatch):
    a, c = save("b/a.png"), save("c/c.png")
    monkeypatch.chdir(a.parent)
    drawn = tmp_path / "drawn"
    align_files(["a.png", "../c/c.png"], checkpoint=network, overlay=drawn)
    assert sorted(p.relative_to(drawn).as_posix() for p in drawn.rglob("*.png")) == [
        "b/a.png",
        "c/c.png",
    ]
    assert [p.name for p in c.parent.iterdir()] == ["c.png"]


def test_other_files_of_a_folder_are_reported(network, save, boxes):
    path = save("a.png")
    path.with_name("notes.txt").touch()
    aligned = align_files([path.parent], checkpoint=network, boxes=boxes("a"))
    assert aligned.failures == [
        f"{path.parent}: skipped files without an image extension: notes.txt"
    ]


def test_the_time_for_names_is_in_proportion_to_the_files(tmp_path, monkeypatch):
    for number in range(100):
        (tmp_path / f"{number}.png").touch()
        (tmp_path / f"{number}.txt").touch()
    hashed = []
    monkeypatch.setattr(PurePath, "__hash__", lambda path: hashed.append(path) or id(path))
    assert len(_named([tmp_path])[0]) == 100
    assert len(hashed) < 1000
