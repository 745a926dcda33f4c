"""The house rules that a machine can hold: imports go down, the core stays light."""

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

# Each folder may import from itself and from those on lower floors; from its own floor only
# itself. `model` may see `landmarks` alone.
FLOORS = [
    {"cli"},
    {"commands"},
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
    {"files", "fields", "logs", "reading"},
    {"errors"},
]
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def imports(file: Path) -> set[str]:
    """First folder or module below `rednet_jax` of everything that a file imports from it."""
    rooms = set()
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
                rooms.add(rest.split(".")[0])
    return rooms


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down(file: Path) -> None:
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for room in imports(file) - {own}:
        assert FLOOR[room] > FLOOR[own], f"{own} imports {room}"
        if own == "model":
            assert room in ("landmarks", "fields", "errors")


def test_no_relative_import() -> None:
    for file in FILES:
        assert not re.search(r"^\s*from \.", file.read_text(encoding="utf-8"), re.M), file


def test_core_depends_on_no_other_framework() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[^\w-]", line)[0].lower() for line in project["dependencies"]}
    assert not names & {"tensorflow", "tensorflow-cpu", "torch", "onnx", "onnxruntime"}


def test_constraints_name_no_address() -> None:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line), line


def test_importing_the_package_costs_nothing() -> None:
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


def test_align_imports_nothing_of_data_sets_videos_or_training() -> None:
    """Half of its second would go to what it does not use."""
    program = "import sys; import rednet_jax.inference.align_files; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    unused = {"tensorflow_datasets", "grain", "orbax", "av", "matplotlib", "skimage"}
    assert not loaded & unused


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert rednet_jax.__version__ == project["version"]
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert cited is not None and cited[1] == project["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changes, re.M)[1] == project["version"]
