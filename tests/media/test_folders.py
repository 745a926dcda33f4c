"""Files below a folder, also through links, and folders that cannot be read."""

from __future__ import annotations

import os

from rednet_jax.media.folders import files_in


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_links_are_followed_and_each_folder_is_listed_once(tmp_path):
    root, outside = tmp_path / "in", tmp_path / "out"
    make(root, "b/2.png", "a/deep/1.png", ".hidden/3.png", ".4.png")
    make(outside, "5.png")
    (root / "a" / "around").symlink_to(root)
    (root / "a" / "first").symlink_to(root / "b")
    (root / "linked").symlink_to(outside)
    (root / "lost.png").symlink_to(tmp_path / "none.png")
    os.mkfifo(root / "pipe.png")
    names = ("a/deep/1.png", "b/2.png", "linked/5.png", "lost.png")
    assert files_in(root) == ([root / name for name in names], [])
    names = ("a/deep/1.png", "linked/5.png", "lost.png")
    assert files_in(root, root / "b") == ([root / name for name in names], [])
    assert files_in(root, root) == files_in(root)


def test_a_folder_that_cannot_be_read_is_a_line(tmp_path, monkeypatch):
    make(tmp_path, "a.png", "locked/b.png")
    scandir = os.scandir

    def without_permission(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", without_permission)
    line = f"{tmp_path / 'locked'}: cannot be read (Permission denied)"
    assert files_in(tmp_path) == ([tmp_path / "a.png"], [line])
