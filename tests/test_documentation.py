"""README and docs: commands parse, links lead somewhere, and Python blocks run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rednet_jax.cli import options
from rednet_jax.media.video import write_video
from rednet_jax.quickstart import portrait_clip

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)


def commands(page: Path) -> list[list[str]]:
    """The words of every `rednet` command of a page, continued lines joined."""
    lines = "\n".join(blocks(page, "")).replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^|/)rednet (.*)$", line) for line in lines]
    return [shlex.split(one[1]) for one in found if one is not None]


@pages
def test_commands_parse(page: Path) -> None:
    found = commands(page)
    assert found
    for words in found:
        args, rest = options.parser().parse_known_args(words)
        assert callable(args.run), words
        # Fields of an experiment are given to train and ablate alone.
        assert not rest or "fields" in args, rest


@pages
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pages
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:rednet_jax|experiments|tests|docs|data)/[\w./-]+)`", page.read_text())
    for target in named:
        assert (ROOT / target).exists(), target


@pages
def test_python_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


@pytest.mark.parametrize("page", ["README.md", "docs/inference.md"])
def test_python_runs(page: str, portrait, tmp_path, monkeypatch) -> None:
    """With the files that it names, one block after the other in one session."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(portrait).save("group.jpg", quality=95)
    frames = portrait_clip()[0][:4]
    with write_video(Path("meeting.mp4"), 25, frames[0].shape[1::-1]) as write:
        for frame in frames:
            write(frame)
    session = {"image": frames[0]}
    for block in blocks(ROOT / page, "python"):
        exec(compile(block, page, "exec"), session)
    face = session["face"]
    assert face.landmarks.shape == (68, 2) and face.landmarks.dtype == np.float32


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
