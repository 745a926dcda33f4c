"""Result files of an ablation: JSON, a page of Markdown, and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rednet_jax.ablate.table import FAILED, MEASURED, MISSING
from rednet_jax.files import replacing, write_json, write_text

TITLES = {
    "truth": "boxes of the labels",
    "jitter": "boxes displaced as a detector's",
    "jitter-hard": "boxes displaced twice as far",
    "clips": "clips, every frame",
    "clips-halved": "clips, every second frame",
    "bursts": "clips, corrupted frames",
    "after-bursts": "clips, ten frames after corrupted ones",
}
_FIGURES = {"nme": "NME, %", "jitter": "jitter, %"}


def write_results(result: dict[str, Any], out: Path) -> list[Path]:
    """Writes OUT/NAME.json, NAME.md and NAME.png from the result of `tabulate`; returns the paths.

    Raises:
        RednetError: a file cannot be written.
    """
    stem = out / result["name"]
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("json", "md", "png")]
    write_json(files[0], result)
    write_text(files[1], page(result))
    draw(result, files[2])
    return files


def page(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    measured_on = "; ".join(f"{name} ({count})" for name, count in result["data"].items())
    lines = [
        f"# {result['name']}",
        "",
        result["question"],
        "",
        f"Measured on {measured_on or 'nothing yet'}: validation, used for selection. Figures are "
        f"percent of the normaliser of errors, {result['normaliser']}, means over "
        f"{len(result['seeds'])} seeds ± their standard deviation; claims with missing "
        "seeds are not decided. In brackets: the difference from the baseline and its 95 % "
        "interval, by a bootstrap over seeds and, paired, over faces (those of a photo together) "
        "or clips.",
        "",
    ]
    maps = [arm["name"] for arm in result["arms"] if arm["readout"] == "maps"]
    if maps:
        lines += [f"Points are read from the maps in: {', '.join(maps)}; else from f_REG.", ""]
    lines += _verdicts(result["claims"])
    for on, figure in panels(result):
        lines += _table(result, on, figure)
    lines += [f"![{result['name']}]({result['name']}.png)", ""]
    broken = [run for run in result["runs"] if run["state"] == FAILED]
    lines += [f"- {run['arm']}, seed {run['seed']} failed: {run['reason']}" for run in broken]
    lines += [""] * bool(broken)
    lines += [f"Made by `{result['provenance']['command']}`.", ""]
    return "\n".join(lines)


def _verdicts(claims: list[dict[str, Any]]) -> list[str]:
    if not claims:
        return []
    lines = ["| claim | lower | higher | difference | verdict |", "|---|---|---|---|---|"]
    for claim in claims:
        difference = difference_text(claim["difference"], claim["interval"])
        verdict = f"**{claim['verdict']}**" + (f" ({claim['why']})" if claim["why"] else "")
        cells = (claim["sentence"], claim["lower"], claim["higher"], difference, verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def difference_text(value: float | None, interval: list[float] | None, digits: int = 2) -> str:
    """Returns a difference and its interval, rounded to `digits` after the point; `-` for None."""
    if value is None:
        return "-"
    bounds = "" if interval is None else f", {interval[0]:+.{digits}f} to {interval[1]:+.{digits}f}"
    return f"{value:+.{digits}f}{bounds}"


def panels(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the tables of a result: pairs of `on` and figure that at least one arm has."""
    rows = [row for row in result["rows"] if row["state"] != "not measured"]
    return list(dict.fromkeys((row["on"], row["figure"]) for row in rows))


def _table(result: dict[str, Any], on: str, figure: str) -> list[str]:
    rows = [row for row in result["rows"] if (row["on"], row["figure"]) == (on, figure)]
    steps = list(dict.fromkeys(row["feedback_steps"] for row in rows))
    lines = [
        f"## {_FIGURES[figure].removesuffix(', %')}: {TITLES[on]}",
        "",
        f"| arm | {' | '.join(f'K = {k}' for k in steps)} |",
        "|---|" + "---|" * len(steps),
    ]
    for arm in result["arms"]:
        own = [row for row in rows if row["arm"] == arm["name"]]
        name = arm["name"] + (" (baseline)" if arm["name"] == result["baseline"] else "")
        lines.append(f"| {name} | {' | '.join(_cell(row, result['seeds']) for row in own)} |")
    return [*lines, ""]


def _cell(row: dict[str, Any], seeds: list[int]) -> str:
    if row["state"] not in (MEASURED, MISSING) or row["mean"] is None:
        return str(row["state"])
    text = f"{row['mean']:.2f}" + (f" ± {row['spread']:.2f}" if row["spread"] is not None else "")
    if row["state"] == MISSING:
        text += f", {len(row['by_seed'])} of {len(seeds)} seeds"
    if row["difference"] is not None:
        text += f" ({difference_text(row['difference'], row['difference_interval'])})"
    return text


def draw(result: dict[str, Any], path: Path) -> None:
    """Plots the figures over K, and below them each arm's difference from the baseline.

    Error bars are 95 % intervals.

    Args:
        result: of `tabulate`.
        path: of the PNG file.

    Raises:
        RednetError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    shown = panels(result) or [(result["rows"][0]["on"], result["rows"][0]["figure"])]
    names = [arm["name"] for arm in result["arms"]]
    figure = Figure(figsize=(1 + 3.2 * len(shown), 6.4), dpi=130, layout="constrained")
    axes = figure.subplots(2, len(shown), squeeze=False, sharex="col")
    for (on, what), (upper, lower) in zip(shown, axes.T, strict=True):
        for number, name in enumerate(names):
            rows = [
                row
                for row in result["rows"]
                if (row["on"], row["figure"], row["arm"]) == (on, what, name)
            ]
            # Shifted, so that error bars do not overlap.
            shift = 0.4 * ((number + 0.5) / len(names) - 0.5)
            style = {"color": f"C{number % 10}", "marker": "osD^v<>Px*"[number % 10]}
            _bars(upper, rows, shift, "mean", "interval", label=name, **style)
            _bars(lower, rows, shift, "difference", "difference_interval", **style)
        lower.axhline(0, color="0.6", linewidth=1, zorder=0)
        upper.set(title=TITLES[on], ylabel=_FIGURES[what])
        lower.set(xlabel="K, passes")
        lower.set_xticks(sorted({row["feedback_steps"] for row in result["rows"]}))
        for axis in (upper, lower):
            axis.grid(axis="y", color="0.92")
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
    axes[1, 0].set_ylabel(f"difference from '{result['baseline']}'")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        # As many columns as fit: a letter is about 0.09 inches wide.
        ncols=max(1, int(figure.get_figwidth() / (0.7 + 0.09 * max(map(len, names))))),
        frameon=False,
    )
    seeds = len(result["seeds"])
    whole = all(row["state"] != MISSING for row in result["rows"])
    count = f"{seeds} seeds" if whole else f"up to {seeds} seeds"
    figure.suptitle(f"{result['name']}: {count}, bars are 95 % intervals")
    with replacing(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def _bars(
    axis: Any, rows: list[dict[str, Any]], shift: float, value: str, interval: str, **style: Any
) -> None:
    known = [row for row in rows if row[value] is not None]
    ends = [row[interval] or [row[value]] * 2 for row in known]
    middle = [row[value] for row in known]
    # A percentile interval does not always contain the mean.
    below = [max(m - low, 0) for m, (low, _) in zip(middle, ends, strict=True)]
    above = [max(high - m, 0) for m, (_, high) in zip(middle, ends, strict=True)]
    axis.errorbar(
        [row["feedback_steps"] + shift for row in known],
        middle,
        [below, above],
        markersize=4,
        capsize=2,
        linewidth=0.8,
        **style,
    )
