"""How Sphinx builds these pages: `sphinx-build -W docs build/docs`."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import PurePosixPath
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import rednet_jax
from rednet_jax.cli import options

project = "rednet_jax"
author = "The rednet_jax maintainers"
release = version = rednet_jax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]

html_theme = "furo"
html_title = f"rednet_jax {version}"
html_copy_source = False
html_show_copyright = False
# Blocks without a language are commands.
highlight_language = "none"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# A test runs the notebooks; their outputs are not kept.
nb_execution_mode = "off"

napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# Docstrings have code between single backticks.
default_role = "code"


class Commands(SphinxDirective):
    """What `rednet COMMAND --help` prints, for every command."""

    def run(self) -> list[nodes.Node]:
        """Returns a section for each command."""
        return list(_sections(options.parser()))


def _sections(parser: argparse.ArgumentParser) -> list[nodes.Node]:
    found: list[nodes.Node] = []
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for command in action.choices.values():
            if nested := _sections(command):
                found += nested
                continue
            section = nodes.section(ids=[nodes.make_id(command.prog)])
            section += nodes.title(text=command.prog)
            section += nodes.literal_block(text=command.format_help(), language="text")
            found.append(section)
    return found


def skip(app: Sphinx, what: str, name: str, thing: Any, skipped: bool, opts: Any) -> bool | None:
    """Leaves out what has no docstring of its own: fields of named tuples, inherited `__call__`."""
    text = inspect.getdoc(thing) or ""
    inherited = text.startswith("Alias for field number") or text == "Call self as a function."
    return True if inherited else None


def examples(app: Sphinx, what: str, name: str, thing: Any, opts: Any, lines: list[str]) -> None:
    """Makes code blocks of the indented lines before a docstring's first section."""
    end = next((i for i, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    for i in range(end - 1, 0, -1):
        if lines[i].startswith("    ") and not lines[i - 1].strip():
            before = next((line for line in lines[i - 1 :: -1] if line.strip()), "")
            if not before.startswith("    "):
                lines[i:i] = [".. code-block:: python", ""]


def escape(app: Sphinx, what: str, name: str, thing: Any, opts: Any, lines: list[str]) -> None:
    """Keeps `numpy.str_` in the types that napoleon adds from being read as a link."""
    lines[:] = [
        re.sub(r"\bstr_\b", r"str\\_", line) if ":vartype" in line else line for line in lines
    ]


def outside(app: Sphinx, name: str, source: list[str]) -> None:
    """Makes downloads of links to pages that lie outside this folder."""
    climb = "../" * len(PurePosixPath(name).parts)
    pattern = rf"\[([^\]]+)\]\(({re.escape(climb)}(?!\.\./)[^)#]+\.md)(?:#[^)]*)?\)"
    source[0] = re.sub(pattern, r"{download}`\1 <\2>`", source[0])


_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields):$")


def setup(app: Sphinx) -> None:
    """Registers what the pages need beside the extensions."""
    app.add_directive("commands", Commands)
    app.connect("autodoc-skip-member", skip)
    # Before napoleon (500) and after it.
    app.connect("autodoc-process-docstring", examples, priority=400)
    app.connect("autodoc-process-docstring", escape, priority=600)
    app.connect("source-read", outside)
