"""One page of all results of a folder, and for each the command that makes it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rednet_jax.ablate.page import difference_text
from rednet_jax.ablate.plan import Ablation, load_ablation
from rednet_jax.errors import RednetError
from rednet_jax.files import write_text
from rednet_jax.reading import read_json

PAGE = "README.md"

_COMMANDS = {"quickstart_overlay": "rednet quickstart"}
"""Of images that no JSON file lies beside."""


def write_index(folder: Path) -> Path:
    """Writes FOLDER/README.md from the JSON files there; returns its path.

    A Markdown file without a JSON file of its name is a note, and linked. Beside the folder lie the
    ablations; the claims of one that has no result are not decided.

    Raises:
        RednetError: a folder or file that cannot be read, or a page that cannot be written.
    """
    if not folder.is_dir():
        raise RednetError(f"{folder}: no such folder of results")
    results = {path: _read(path) for path in sorted(folder.glob("*.json"))}
    ablations = {path: one for path, one in results.items() if "claims" in one and "rows" in one}
    lines = [
        "# Results",
        "",
        f"This page is written by `rednet ablate --index {_said(folder)}`. Every JSON file says by "
        "which command, commit, machine and versions it was made; pages and plots come with it.",
        "",
    ]
    planned = [
        load_ablation(path)
        for path in sorted(folder.parent.glob("ablation_*.py"))
        if not (folder / f"{path.stem}.json").exists()
    ]
    not_run = [ablation for ablation in planned if ablation.claims]
    if ablations or not_run:
        lines += ["## Ablations", ""]
    for path, one in ablations.items():
        lines += _ablation(path, one)
    for ablation in not_run:
        lines += _not_run(ablation)
    others = {path: one for path, one in results.items() if path not in ablations}
    if others:
        lines += ["## Measurements", "", "| file | made by | commit |", "|---|---|---|"]
        lines += [_row(path, one) for path, one in others.items()]
        lines += [""]
    shown = {path.stem for path in results}
    notes = [path for path in sorted(folder.glob("*.md")) if path.stem not in shown]
    lines += [_note(path) for path in notes if path.name != PAGE]
    images = [path for path in sorted(folder.glob("*.png")) if path.stem not in shown]
    if images:
        lines += ["## Pictures", ""]
    for path in images:
        made = f", made by `{_COMMANDS[path.stem]}`" if path.stem in _COMMANDS else ""
        lines += [f"{path.name}{made}:", "", f"![{path.stem}]({path.name})", ""]
    write_text(folder / PAGE, "\n".join(lines))
    return folder / PAGE


def _note(path: Path) -> str:
    """A link to a page that people wrote, by its heading."""
    try:
        heading = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    except (OSError, ValueError) as error:
        raise RednetError(f"{path}: cannot be read ({error})") from error
    return f"[{heading}]({path.name})\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise RednetError(f"{path}: cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise RednetError(f"{path}: holds no result")
    return found


def _said(folder: Path) -> str:
    """The folder as someone at the root of the checkout would type it."""
    parts = folder.resolve().parts[-2:]
    return "/".join(parts) if parts == ("experiments", "results") else folder.name


def _ablation(path: Path, one: dict[str, Any]) -> list[str]:
    lines = [f"### [{one['name']}]({path.stem}.md)", "", one["question"], ""]
    lines += [f"- {claim['sentence']} {_verdict(claim)}" for claim in one["claims"]]
    lines += [""] * bool(one["claims"])
    lines += [f"`{_source(one)['command']}`", ""]
    if path.with_suffix(".png").exists():
        lines += [f"![{one['name']}]({path.stem}.png)", ""]
    return lines


def _not_run(ablation: Ablation) -> list[str]:
    claims = [f"- {claim.sentence} **not decided** (no run yet)" for claim in ablation.claims]
    command = f"`rednet ablate experiments/{ablation.name}.py`"
    return [f"### {ablation.name}", "", ablation.question, "", *claims, "", command, ""]


def _verdict(claim: dict[str, Any]) -> str:
    why = f" ({claim['why']})" if claim["why"] else ""
    return f"**{claim['verdict']}**{why}: {difference_text(claim['difference'], claim['interval'])}"


def _row(path: Path, one: dict[str, Any]) -> str:
    source = _source(one)
    links = [f"[{path.stem}.{kind}]({path.stem}.{kind})" for kind in ("json", "md", "png")]
    there = [
        link for link in links if path.with_suffix(f".{link.rpartition('.')[2][:-1]}").exists()
    ]
    command = f"`{source['command']}`" if "command" in source else "not said"
    return f"| {', '.join(there)} | {command} | {str(source.get('git_commit', '?'))[:7]} |"


def _source(one: dict[str, Any]) -> dict[str, Any]:
    """Where a result comes from: its own field, or in older files among the others."""
    found = one.get("provenance", one)
    return found if isinstance(found, dict) else {}
