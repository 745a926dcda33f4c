"""One page of all results of a folder: a table of claims and verdicts, then ablations and files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rednet_jax.ablate.page import difference_text
from rednet_jax.ablate.plan import FEWEST_SEEDS, OURS, Ablation, load_ablation
from rednet_jax.ablate.verdict import NOT_DECIDED, NOT_SUPPORTED, SUPPORTED
from rednet_jax.errors import RednetError
from rednet_jax.files import write_text
from rednet_jax.reading import read_json

PAGE = "README.md"

_MARK = "This page is written by `rednet ablate --index"
"""Text of the pages that may be replaced."""

_COMMANDS = {"quickstart_track": "rednet quickstart"}
"""Commands that write images without a JSON file of their name."""


def check_index(folder: Path) -> None:
    """Checks that FOLDER/README.md does not exist, or that `write_index` wrote it.

    Raises:
        RednetError: it is another page, such as a project's own, or cannot be read.
    """
    page = folder / PAGE
    try:
        text = page.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise RednetError(f"{page}: cannot be read ({error})") from error
    if _MARK not in text:
        raise RednetError(
            f"{page}: would be replaced, but `rednet ablate --index` did not write it; give the "
            "folder of the results, or rename the page"
        )


def write_index(folder: Path) -> Path:
    """Writes FOLDER/README.md from the JSON files there; returns its path.

    The page starts with a table of all claims: those in the JSON files, and those of the ablations
    in the parent folder without results, which are not decided. Markdown files without a JSON file
    of their name are linked as notes.

    Raises:
        RednetError: a folder or file that cannot be read, a folder without results, or a page that
            cannot be written or would replace one of another origin.
    """
    if not folder.is_dir():
        raise RednetError(f"{folder}: no such folder of results")
    check_index(folder)
    results = {path: _read(path) for path in sorted(folder.glob("*.json"))}
    if not any({"command", "provenance"} & result.keys() for result in results.values()):
        raise RednetError(f"{folder}: no JSON file of a result")
    ablations = {
        path: result for path, result in results.items() if "arms" in result and "rows" in result
    }
    lines = [
        "# Results",
        "",
        f"{_MARK} {_path(folder)}`. Every JSON file records "
        "its command, commit, machine and versions; the page and the plot of the same name are "
        "written with it.",
        "",
    ]
    planned = [
        load_ablation(path)
        for path in sorted(folder.parent.glob("ablation_*.py"))
        if not (folder / f"{path.stem}.json").exists()
    ]
    lines += _claims(results, planned)
    if ablations:
        lines += ["## Ablations", ""]
    for path, result in ablations.items():
        with _reading(path):
            lines += _ablation(path, result)
    others = {path: result for path, result in results.items() if path not in ablations}
    if others:
        lines += ["## Measurements", "", "| file | made by | commit |", "|---|---|---|"]
        lines += [_row(path, result) for path, result in others.items()]
        lines += [""]
    shown = {path.stem for path in results}
    notes = [path for path in sorted(folder.glob("*.md")) if path.stem not in shown]
    lines += [_note(path) for path in notes if path.name != PAGE]
    images = [
        path
        for path in sorted(folder.glob("*"))
        if path.suffix in (".png", ".webp") and path.stem not in shown
    ]
    if images:
        lines += ["## Images", ""]
    for path in images:
        made = f", made by `{_COMMANDS[path.stem]}`" if path.stem in _COMMANDS else ""
        lines += [f"{path.name}{made}:", "", f"![{path.stem}]({path.name})", ""]
    write_text(folder / PAGE, "\n".join(lines))
    return folder / PAGE


def _note(path: Path) -> str:
    """Returns a link to a note, with its heading as text."""
    try:
        heading = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    except (OSError, ValueError) as error:
        raise RednetError(f"{path}: cannot be read ({error})") from error
    return f"[{heading}]({path.name})\n"


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Converts errors of a result without the expected fields to a RednetError."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise RednetError(f"{path}: not a result as a command writes it ({error!r})") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        result = read_json(path)
    except (OSError, ValueError) as error:
        raise RednetError(f"{path}: cannot be read ({error})") from error
    if not isinstance(result, dict):
        raise RednetError(f"{path}: contains no result")
    return result


def _path(folder: Path) -> str:
    """Returns the folder's path relative to the root of the checkout."""
    parts = folder.resolve().parts[-2:]
    return "/".join(parts) if parts == ("experiments", "results") else folder.name


def _claims(results: dict[Path, dict[str, Any]], planned: list[Ablation]) -> list[str]:
    """Returns the table of all claims, with those of the papers first."""
    rows = []
    for path, result in results.items():
        with _reading(path):
            rows += [
                (str(claim["by"]), str(claim["verdict"]), _claim(path, result, claim))
                for claim in result.get("claims", ())
            ]
    for ablation in planned:
        command = f"`rednet ablate experiments/{ablation.name}.py`"
        rows += [
            (
                claim.by,
                NOT_DECIDED,
                f"| {claim.sentence} | {claim.by} | **{NOT_DECIDED}** (no run yet) | - "
                f"| 0 of {len(ablation.seeds)} | {command} |",
            )
            for claim in ablation.claims
        ]
    if not rows:
        return []
    rows.sort(key=lambda row: row[0] == OURS)
    counts = [
        f"{sum(verdict == kind for _, verdict, _ in rows)} {kind}"
        for kind in (SUPPORTED, NOT_SUPPORTED, NOT_DECIDED)
    ]
    return [
        "## Claims",
        "",
        f"{', '.join(counts)}. A claim is supported if the 95 % interval of the difference lies "
        "below 0, and not supported otherwise, which does not show that there is no effect. It is "
        f"not decided while one of its {FEWEST_SEEDS} or more seeds is missing. A claim with a "
        "single seed is about that network alone; its interval is over people. Differences without "
        "a unit are percent of the normaliser of errors: for 68 landmarks, the inter-ocular "
        "distance.",
        "",
        "| claim | claimed by | verdict | difference, 95 % interval | seeds | command |",
        "|---|---|---|---|---|---|",
        *(text for _, _, text in rows),
        "",
    ]


def _claim(path: Path, result: dict[str, Any], claim: dict[str, Any]) -> str:
    why = f" ({claim['why']})" if claim["why"] else ""
    unit = "" if "arms" in result else f" {claim['unit']}"
    # Percent of an ablation; otherwise a share.
    difference = difference_text(claim["difference"], claim["interval"], 3 if unit else 2)
    seeds = f"{claim['seeds']} of {len(result['seeds'])}" if "seeds" in result else claim["seeds"]
    cells = (
        claim["sentence"],
        claim["by"],
        f"**{claim['verdict']}**{why}",
        f"{difference}{unit}",
        str(seeds),
        f"[`{_source(result)['command']}`]({path.stem}.md)",
    )
    return f"| {' | '.join(cells)} |"


def _ablation(path: Path, result: dict[str, Any]) -> list[str]:
    lines = [f"### [{result['name']}]({path.stem}.md)", "", result["question"], ""]
    if path.with_suffix(".png").exists():
        lines += [f"![{result['name']}]({path.stem}.png)", ""]
    return lines


def _row(path: Path, result: dict[str, Any]) -> str:
    source = _source(result)
    links = [f"[{path.stem}.{kind}]({path.stem}.{kind})" for kind in ("json", "md", "png")]
    existing = [
        link for link in links if path.with_suffix(f".{link.rpartition('.')[2][:-1]}").exists()
    ]
    command = f"`{source['command']}`" if "command" in source else "not recorded"
    return f"| {', '.join(existing)} | {command} | {str(source.get('git_commit', '?'))[:7]} |"


def _source(result: dict[str, Any]) -> dict[str, Any]:
    """Returns the provenance of a result, which older files have at the top level."""
    source = result.get("provenance", result)
    return source if isinstance(source, dict) else {}
