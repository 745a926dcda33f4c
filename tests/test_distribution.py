"""The files of the wheel and of the sdist; the wheel works without the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import rednet_jax

ROOT = Path(__file__).parents[1]
PORTRAIT = "from rednet_jax.quickstart import portrait_path; print(portrait_path())"

pytestmark = pytest.mark.slow

LARGEST_WHEEL, LARGEST_SDIST = 8_000_000, 12_000_000
IN_WHEEL = (
    *("weights/compact.safetensors", "weights/compact_video.safetensors"),
    *("weights/compact.md", "weights/compact_video.md"),
    *("data/splits/300w_validation.txt", "data/splits/300vw_a.txt"),
    *("landmarks/scheme.schema.json", "landmarks/mean_shape_68.json", "py.typed"),
    *("experiments/smoke.py", "train/report.html.jinja", "export/web/index.html"),
)
ENDINGS = {".py", ".safetensors", ".md", ".txt", ".json", ".jinja", ".html", ".js", ".typed"}


def run(*words: str, **options) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The sdist of the tracked files, and the wheel built from it."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    archive = tree / "tree.tar"
    run("git", "-C", str(ROOT), "archive", "-o", str(archive), "HEAD")
    with tarfile.open(archive) as file:
        file.extractall(tree / "rednet_jax", filter="data")
    backend = tmp_path_factory.mktemp("hatchling")
    run(sys.executable, "-m", "pip", "install", "-q", "--target", str(backend), "hatchling>=1.27")

    def build(kind: str, source: Path) -> Path:
        code = f"import hatchling.build; print(hatchling.build.build_{kind}({str(out)!r}))"
        environment = os.environ | {"PYTHONPATH": str(backend)}
        output = run(sys.executable, "-c", code, env=environment, cwd=source)
        return out / output.strip().splitlines()[-1]

    sdist = build("sdist", tree / "rednet_jax")
    with tarfile.open(sdist) as file:
        file.extractall(tree / "sdist", filter="data")
    (unpacked,) = (tree / "sdist").iterdir()
    return sdist, build("wheel", unpacked)


def test_the_files_of_the_wheel(built) -> None:
    _, wheel = built
    assert wheel.name == f"rednet_jax-{rednet_jax.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < LARGEST_WHEEL
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"rednet_jax/{name}" for name in IN_WHEEL} <= set(names)
    metadata = f"rednet_jax-{rednet_jax.__version__}.dist-info"
    assert f"{metadata}/licenses/LICENSE" in names
    others = [name for name in names if not name.startswith(f"{metadata}/")]
    assert all(name.startswith("rednet_jax/") for name in others)
    assert {Path(name).suffix for name in others} <= ENDINGS


def test_the_files_of_the_sdist(built) -> None:
    sdist, _ = built
    assert sdist.stat().st_size < LARGEST_SDIST
    tracked = set(run("git", "-C", str(ROOT), "ls-tree", "-r", "--name-only", "HEAD").splitlines())
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert names - tracked == {"PKG-INFO"}
    # Released weights alone.
    weights = {name for name in names if name.endswith(".safetensors")}
    assert {Path(name).parent.as_posix() for name in weights} == {"rednet_jax/weights"}
    assert {"LICENSE", "CITATION.cff", "CHANGELOG.md", "constraints.txt"} <= names


def test_the_wheel_runs_without_the_source_tree(built, tmp_path) -> None:
    """From a read-only folder and with an empty home, with this environment's dependencies."""
    _, wheel = built
    site, home, work = tmp_path / "site", tmp_path / "home", tmp_path / "work"
    for folder in (home, work):
        folder.mkdir()
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site))
    run(*pip, str(wheel))
    for path in (site, *site.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    before = sorted(site.rglob("*"))
    environment = {"PATH": os.defpath, "HOME": str(home), "PYTHONPATH": str(site)}
    python = (sys.executable, "-P")
    file = run(*python, "-c", "import rednet_jax; print(rednet_jax.__file__)", env=environment)
    assert Path(file.strip()).is_relative_to(site)
    rednet = (*python, "-m", "rednet_jax")
    options = {"env": environment, "cwd": work}
    assert rednet_jax.__version__ in run(*rednet, "--version", **options)
    assert "Example: rednet quickstart" in run(*rednet, "quickstart", "--help", **options)
    portrait = run(*python, "-c", PORTRAIT, **options).strip()
    run(*rednet, "align", portrait, "--csv", "a.csv", "--overlay", "drawn", **options)
    assert (work / "a.csv").read_text().splitlines()[1].startswith("astronaut,0,0.9")
    assert sorted(path.name for path in work.rglob("*.*")) == ["a.csv", "astronaut.png"]
    assert sorted(site.rglob("*")) == before
