"""README and docs: commands, options and links are valid, and Python blocks run."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import rednet_jax as rednet
from rednet_jax.cli import options
from rednet_jax.cli.values import fields_of
from rednet_jax.media.video import write_video
from rednet_jax.quickstart import portrait_clip
from rednet_jax.train.load import load_experiment

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())

RUN = [
    "README.md",
    "docs/tutorials/five_minutes.md",
    "docs/tutorials/ablate.md",
    "docs/guides/inference.md",
    "docs/explanations/two_scans.md",
    "docs/explanations/batch_statistics.md",
    "docs/explanations/recropping.md",
    "docs/reference/rednet_jax.md",
]
RUN_SLOWLY = [
    "docs/tutorials/train.md",
    "docs/explanations/memory.md",
    "docs/tutorials/export.md",
    "docs/guides/export.md",
]
RUN_ELSEWHERE = ["docs/tutorials/own_landmarks.md"]
"""Run by `tests/end_to_end/test_own_landmarks.py` with the page's commands."""


def blocks(page: Path, language: str) -> list[str]:
    fenced = re.findall(r"^```(\S*)\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [text for kind, text in fenced if kind == language]


def commands(page: Path) -> list[list[str]]:
    """The words of every `rednet` command of a page, with continued lines joined."""
    lines = "\n".join(blocks(page, "")).replace("\\\n", " ").splitlines()
    matches = [re.search(r"(?:^|/|\s)rednet (.*)$", line) for line in lines]
    return [shlex.split(match[1]) for match in matches if match is not None]


def check_command(words: list[str]) -> None:
    args, rest = options.parser().parse_known_args(words)
    assert callable(args.run), words
    # Only train and ablate accept fields of an experiment.
    assert not rest or "fields" in args, rest
    if "experiment" in args:
        load_experiment(ROOT / args.experiment, {**args.mesh, **fields_of(rest)})
    elif rest:
        raise AssertionError(f"fields without an experiment: {rest}")


@pages
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page):
        check_command(words)


def test_all_other_pages_have_commands() -> None:
    without = {page.name for page in PAGES if page.parent.name != "reference"} - {
        page.name for page in PAGES if commands(page)
    }
    assert without == {
        "index.md",
        "two_scans.md",
        "batch_statistics.md",
        "recropping.md",
        "memory.md",
    }


@pages
def test_the_targets_of_links_exist(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", prose):
        if target.startswith("http"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            anchors = [re.sub(r"[^\w\- ]", "", text).lower().replace(" ", "-") for text in headings]
            assert anchor in anchors, f"{target}#{anchor}"


@pages
def test_mentioned_files_exist(page: Path) -> None:
    text = page.read_text()
    files = re.findall(r"`((?:rednet_jax|experiments|tests|docs|data)/[\w./-]+)`", text)
    files += re.findall(r"\bpython ((?:experiments|docs)/[\w./-]+)", text)
    for target in files:
        assert (ROOT / target).exists(), target


@pages
def test_mentioned_names_of_the_package_exist(page: Path) -> None:
    for name in re.findall(r"`(rednet_jax(?:\.\w+)+)(?:`|\()", page.read_text()):
        value: Any = rednet
        parts = name.split(".")
        for end, part in enumerate(parts[1:], 2):
            if isinstance(value, ModuleType) and not hasattr(value, part):
                value = importlib.import_module(".".join(parts[:end]))
            else:
                value = getattr(value, part)


@pages
def test_python_blocks_compile(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


def test_every_page_with_python_is_run() -> None:
    with_python = {page.relative_to(ROOT).as_posix() for page in PAGES if blocks(page, "python")}
    assert with_python == {*RUN, *RUN_SLOWLY, *RUN_ELSEWHERE}


@pytest.fixture
def session(
    portrait: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The variables that the pages assume, in a folder with the files that they use."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(portrait).save("group.jpg", quality=95)
    frames = portrait_clip()[0][:4]
    for name in ("meeting.mp4", "talk.mp4"):
        with write_video(Path(name), 25, frames[0].shape[1::-1]) as write:
            for frame in frames:
                write(frame)
    Path("experiments").symlink_to(ROOT / "experiments")
    return {"image": frames[0], "images": frames}


def run(page: str, session: dict[str, Any]) -> None:
    """Runs the blocks of a page in order in one session."""
    for block in blocks(ROOT / page, "python"):
        exec(compile(block, page, "exec"), session)


@pytest.mark.parametrize("page", RUN)
def test_python_blocks_run(page: str, session: dict[str, Any]) -> None:
    run(page, session)
    if "face" in session:
        landmarks = session["face"].landmarks
        assert landmarks.shape == (68, 2) and landmarks.dtype == np.float32


@pytest.mark.slow
def test_training_in_python_runs(session: dict[str, Any]) -> None:
    run("docs/tutorials/train.md", session)
    assert int(session["state"].step) == session["experiment"].steps
    assert Path("runs/seed_1/best.safetensors").is_file()


@pytest.mark.slow
def test_memory_is_as_on_the_page(session: dict[str, Any]) -> None:
    """With rematerialisation, only the carried state grows with the number of frames."""
    run("docs/explanations/memory.md", session)
    kept, again = session["kept"], session["again"]
    assert kept[8] > 1.5 * kept[2] and again[8] < 1.15 * again[2]


FEW_CROPS = """
import numpy as np
from rednet_jax import cli
from rednet_jax.export import inputs
from rednet_jax.media.images import read_image
from rednet_jax.quickstart import portrait_path

portrait = read_image(portrait_path(), upright=True)
inputs._generated = lambda: [(portrait, np.asarray([170, 75, 275, 200], np.float32))] * 4
inputs.find_prepared = lambda name, data_dir: None
inputs.FRAMES = 3
"""
"""Exports are compared on a few crops of one face; `tests/export` tests the comparison."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "module"),
    [
        ("Safetensors", None),
        ("StableHLO", None),
        pytest.param("PyTorch", "torch", marks=pytest.mark.extras),
        pytest.param("ONNX", "onnxruntime", marks=pytest.mark.extras),
        pytest.param("TensorFlow", "tensorflow", marks=pytest.mark.extras),
        pytest.param("LiteRT", "ai_edge_litert", marks=pytest.mark.extras),
    ],
)
def test_the_exports_of_the_pages_run(section: str, module: str | None, tmp_path: Path) -> None:
    """The command and the Python of a section, in a subprocess since frameworks may conflict."""
    if module is not None and importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    parts = (DOCS / "tutorials" / "export.md").read_text().split("\n## ")
    pages = {}
    for part in parts:
        pages[part.partition("\n")[0]] = tmp_path / f"{len(pages)}.md"
        pages[part.partition("\n")[0]].write_text(part)
    (words,) = commands(pages[section])
    lines = [
        FEW_CROPS,
        *blocks(pages["A crop"], "python"),
        f"assert cli.main({words}) == 0",
        *blocks(pages[section], "python"),
    ]
    if section == "StableHLO":
        # The guide's stream starts with the same crop.
        lines += [
            "import shutil; shutil.copytree('exported/stablehlo', 'exported', dirs_exist_ok=True)",
            "warp = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)",
            *blocks(DOCS / "guides" / "export.md", "python"),
            "assert set(state) == {'feedback', 'hidden', 'cell', 'passes', 'crop'}",
        ]
    (tmp_path / "section.py").write_text("\n".join(lines))
    subprocess.run([sys.executable, "section.py"], cwd=tmp_path, check=True)


def test_the_figure_has_the_shapes_of_the_network() -> None:
    file = DOCS / "explanations" / "one_pass.py"
    spec = importlib.util.spec_from_file_location("_one_pass", file)
    assert spec is not None and spec.loader is not None
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    config, variables = rednet.load("compact")
    assert figure.FIGURE.read_text(encoding="utf-8") == figure.draw(config), f"run {file}"

    images = jnp.zeros((figure.BATCH, config.input_size, config.input_size, 3))
    initial = rednet.initial_state(config, figure.BATCH)
    output, state = jax.eval_shape(
        lambda: rednet.step(config, variables, initial, images, feedback_steps=1)
    )
    drawn = figure.shapes(config)
    for name, arrays in (
        ("maps", output.response_maps),
        ("landmarks", output.landmarks),
        ("confidence", output.confidence),
        ("identity", output.identity_logits),
        ("crop", output.crop),
        ("z", state.feedback),
        ("memory", state.memory),
    ):
        assert jax.tree.map(jnp.shape, drawn[name]) == jax.tree.map(jnp.shape, arrays), name


def test_every_result_has_its_command() -> None:
    """Each result matches one row of the table in results.md, with the same command."""
    page = (DOCS / "explanations" / "results.md").read_text()
    rows = re.findall(r"^\| (`[^|]*`) \| `([^`]*)` \|", page, re.M)
    rows = [(re.findall(r"`([^`]+)`", files), command) for files, command in rows]
    folder = ROOT / "experiments" / "results"
    for file in folder.rglob("*.json"):
        name = file.relative_to(folder).as_posix()
        (command,) = (
            command
            for patterns, command in rows
            if any(fnmatch(name, pattern) for pattern in patterns)
        )
        if file.parent == folder:
            result = json.loads(file.read_text())
            recorded = result.get("provenance", result)["command"]
            assert fnmatch(recorded, f"{command}*"), name
    for patterns, _ in rows:
        assert all(any(folder.glob(pattern)) for pattern in patterns)


def test_the_reference_has_every_public_name() -> None:
    page = (DOCS / "reference" / "rednet_jax.md").read_text()
    documented = set(re.findall(r"^\.\. auto\w+:: rednet_jax\.(\w+)$", page, re.M))
    assert documented == set(rednet.__all__) - {"__version__"}


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
