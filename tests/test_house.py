"""Automatic checks of project rules: layers of imports, and dependencies of the core."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rednet_jax

PACKAGE = Path(rednet_jax.__file__).parent
ROOT = PACKAGE.parent

# Each folder or module may import itself, and those in lower layers. `model` may import only
# `landmarks`, `fields`, `functions` and `errors`.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"bench", "ablate"},
    {"quickstart"},
    {"train", "export"},
    {"evaluate"},
    {"inference"},
    {"compilation"},
    {"data", "weights"},
    {"model"},
    {"detection"},
    {"landmarks"},
    {"media"},
    {"files", "fields", "logs", "reading", "compiler_options"},
    {"functions"},
    {"errors"},
]
LAYER = {name: number for number, layer in enumerate(LAYERS) for name in layer}


def imports(file: Path) -> set[str]:
    """The folders and modules directly in `rednet_jax` from which a file imports."""
    names_below = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "rednet_jax" and rest:
                names_below.add(rest.split(".")[0])
    return names_below


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_are_from_lower_layers(file: Path) -> None:
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(file) - {own}:
        assert LAYER[name] > LAYER[own], f"{own} imports {name}"
        if own == "model":
            assert name in ("landmarks", "fields", "functions", "errors")


def test_no_relative_import() -> None:
    for file in FILES:
        assert not re.search(r"^\s*from \.", file.read_text(encoding="utf-8"), re.M), file


def test_core_depends_on_no_other_framework() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[^\w-]", line)[0].lower() for line in project["dependencies"]}
    assert not names & {"tensorflow", "tensorflow-cpu", "torch", "onnx", "onnxruntime"}


def test_constraints_have_no_urls() -> None:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line), line


def test_the_import_of_the_package_is_fast() -> None:
    """Neither the package nor the command's help imports jax."""
    code = (
        "import sys, rednet_jax, rednet_jax.cli as cli; cli.main(['--help']); "
        "sys.exit('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "quickstart" in done.stdout


def test_public_names_load() -> None:
    for name in ("RedNetConfig", "init", "initial_state", "align_image", "align_clip", "step"):
        assert callable(getattr(rednet_jax, name))
    with pytest.raises(AttributeError, match="no_such_name"):
        rednet_jax.no_such_name  # noqa: B018


def test_align_does_not_import_unused_libraries() -> None:
    """They would double the start time of `rednet align`."""
    program = "import sys; import rednet_jax.inference.align_files; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    unused = {"tensorflow_datasets", "grain", "orbax", "av", "matplotlib", "skimage"}
    assert not loaded & unused


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert rednet_jax.__version__ == project["version"]
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert cited is not None and cited[1] == project["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changes, re.M)[1] == project["version"]
