"""RUN/report.html: one self-contained page about a run, without scripts or network access."""

from __future__ import annotations

import base64
import importlib.resources
import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rednet_jax.errors import RednetError
from rednet_jax.files import write_text
from rednet_jax.reading import read_json
from rednet_jax.train.watch import (
    ENVIRONMENT,
    METRICS,
    VALIDATION,
    Row,
    best_of,
    image_files,
    image_step,
    read_rows,
)
from rednet_jax.weights.store import BEST

REPORT = "report.html"

# Placeholder colours of plots, replaced by CSS variables, which differ in dark mode.
_INK, _RULE = "#000001", "#000002"
_SERIES = [f"#0000{number:02x}" for number in range(16, 24)]
_VARIABLES = {_INK: "ink", _RULE: "rule"} | {
    colour: f"series-{number}" for number, colour in enumerate(_SERIES, 1)
}

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _RULE,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.figsize": (5, 3),
    "font.size": 8.5,
    "grid.color": _RULE,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _RULE,
    "xtick.labelcolor": _INK,
    "ytick.color": _RULE,
    "ytick.labelcolor": _INK,
}

_NEEDED = {"name", "steps", "data", "losses"}
"""The fields of a stage's config that the report needs."""

_FEW = 40
"""Largest number of points of a curve that is drawn with markers."""


class Curve(NamedTuple):
    """A curve of a plot.

    Attributes:
        name: in the legend.
        points: (step, value) of each point, at least one.
    """

    name: str
    points: list[tuple[int, float]]


class Plot(NamedTuple):
    """Curves over the steps.

    Attributes:
        title: with the unit.
        curves: of the plot.
        logarithmic: whether the y axis is logarithmic; otherwise it starts at 0.
    """

    title: str
    curves: list[Curve]
    logarithmic: bool


def write_report(run_dir: Path) -> Path:
    """Writes RUN/report.html from the files of the run so far, and returns its path.

    Args:
        run_dir: the folder of a run that is finished, stopped, or still running.

    Raises:
        RednetError: the folder is not that of a run, or the page cannot be written.
    """
    try:
        page = _page(run_dir)
    except OSError as error:
        raise RednetError(f"{error.filename or run_dir}: {error.strerror or error}") from error
    write_text(run_dir / REPORT, page)
    return run_dir / REPORT


def _page(run_dir: Path) -> str:
    import jinja2

    config = _read_config(run_dir / "config.json")
    rows = read_rows(run_dir / METRICS)
    done = max((row["step"] for row in rows), default=0)
    names = [stage["name"] for stage in config["stages"]]
    *begins, total = itertools.accumulate((s["steps"] for s in config["stages"]), initial=0)
    started = [stage for stage in zip(begins, names, strict=True) if stage[0] < max(done, 1)]
    measured = [(row[VALIDATION][-1], row["step"]) for row in rows if VALIDATION in row]
    images = image_files(run_dir)
    machines = [(row.pop("step"), row) for row in read_rows(run_dir / ENVIRONMENT)]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["group"] = _is_group
    environment.filters["plain"] = _plain
    template = importlib.resources.files(__package__).joinpath(f"{REPORT}.jinja")
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        config=config,
        done=done,
        total=total,
        stage=started[-1][1],
        best=best_of(rows, config["stages"]),
        has_best_weights=(run_dir / BEST).exists(),
        newest=measured[-1] if measured else None,
        plots=[(plot.title, _svg(plot, started, done)) for plot in plots(config, rows)],
        image=_data_uri(images[-1]) if images else None,
        image_step=image_step(images[-1]) if images else None,
        # A resumption on the same machine with the same versions is left out.
        machines=[next(same) for _, same in itertools.groupby(machines, _without_command)],
    )


def _without_command(start: tuple[int, Row]) -> Row:
    """Returns the record of a start of the run without its command."""
    return {key: value for key, value in start[1].items() if key != "command"}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = read_json(path)
        stages = config["stages"]
        if config["name"] and stages and all(map(_is_stage, stages)):
            return config
    except FileNotFoundError as error:
        raise RednetError(f"{path.parent}: not a run folder, it has no {path.name}") from error
    except (ValueError, LookupError, TypeError):
        pass
    raise RednetError(f"{path}: not the config of a run with stages")


def _is_stage(plain: Any) -> bool:
    known = isinstance(plain, dict) and set(plain) >= _NEEDED
    return known and type(plain["steps"]) is int and isinstance(plain["data"], dict)


def plots(config: Mapping[str, Any], rows: Sequence[Row]) -> list[Plot]:
    """Returns the plots for which a run's rows have values.

    Args:
        config: of the run.
        rows: as `RunLog` writes them.
    """
    # A term of the loss has the name of its weight.
    weights = dict.fromkeys(name for stage in config["stages"] for name in stage["losses"])
    passes = max((len(row.get(VALIDATION, ())) for row in rows), default=0)

    def entry(name: str, shown: str | None = None) -> Curve:
        return _curve(shown or name, [(row["step"], row[name]) for row in rows if name in row])

    def validation(number: int) -> Curve:
        measured = [row for row in rows if number <= len(row.get(VALIDATION, ()))]
        points = [(row["step"], row[VALIDATION][number - 1]) for row in measured]
        return _curve(f"validation, pass {number}", points)

    by_pass = map(validation, range(1, passes + 1))
    candidates = [
        ("Loss, and its parts before weighting", map(entry, ("loss", *weights)), True),
        ("NME, percent", (entry("nme", "training"), *by_pass), True),
        ("Learning rate", [entry("learning_rate")], True),
        # A clip counts as its frames.
        ("Frames per second", [entry("frames_per_second")], False),
        ("Norm of the gradient", [entry("gradient_norm")], True),
        ("Time spent waiting for data, percent", [entry("waiting")], False),
    ]
    return [
        Plot(title, drawn, logarithmic)
        for title, curves, logarithmic in candidates
        if (drawn := [curve for curve in curves if curve.points])
    ]


def _curve(name: str, points: Sequence[tuple[int, float]]) -> Curve:
    # A damaged file may hold other values than numbers.
    drawn = [point for point in points if type(point[1]) in (int, float)]
    return Curve(name.replace("_", " "), [point for point in drawn if math.isfinite(point[1])])


def _svg(plot: Plot, started: Sequence[tuple[int, str]], last: int) -> str:
    """Draws a plot as an SVG element in the page's colours.

    Args:
        plot: what is drawn.
        started: first step and name of each stage that has started.
        last: step that the axis ends at.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogFormatter

    slug = re.sub(r"\W+", "-", plot.title.lower())
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": slug}):
        figure = Figure(layout="constrained")
        axes = figure.add_subplot()
        for curve, colour in zip(plot.curves, itertools.cycle(_SERIES), strict=False):
            marker = "." if len(curve.points) <= _FEW else ""
            steps, values = zip(*curve.points, strict=True)
            (line,) = axes.plot(steps, values, color=colour, label=curve.name, marker=marker)
            # The last point is on the border.
            line.set_clip_on(False)
        axes.grid(axis="y")
        axes.set_xlim(0, last)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        # The learning rate of a run of one step may be 0.
        if plot.logarithmic and any(y > 0 for curve in plot.curves for _, y in curve.points):
            axes.set_yscale("log", nonpositive="mask")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.6)))
        else:
            axes.set_ylim(bottom=0)
        for step, name in started if len(started) > 1 else ():
            axes.axvline(step, color=_INK, linewidth=0.8, linestyle=(0, (2, 2)))
            above = axes.get_xaxis_transform()
            # Slanted, so that the names of short stages do not run into each other.
            axes.text(step, 1.03, name, transform=above, rotation=25, rotation_mode="anchor")
        if len(plot.curves) > 1:
            figure.legend(loc="outside upper left", ncols=4)
        file = io.StringIO()
        omitted = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=omitted)
    _, start, rest = file.getvalue().partition("<svg ")
    svg = f'{start}role="img" aria-label="{plot.title}" {rest}'
    # Ids must be unique in the page, which has several plots.
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{slug}-", svg)
    for colour, name in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _is_group(value: Any) -> bool:
    """Returns whether an entry of the config is a dict or a list of dicts."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(entry, dict) for entry in value)
    return isinstance(value, dict)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    words = {None: "none", True: "yes", False: "no"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
