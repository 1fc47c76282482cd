"""Writes a report as one HTML file: its text, its data, the style and the scripts, and a policy that allows no more.

The policy names the digest of each script and style, so nothing else can run, and no address can be asked for.
Data are JSON, which names arrays, and one block of base64 with the bytes of all arrays.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy

from runner.report.library import library
from runner.report.markup import Markup, joined, tag, text
from runner.report.section import Report, Section
from runner.text import finite_json, printable, shortened

MARK = "<!doctype html>\n<!-- steprun report -->\n"
"""How each report begins, so that a later one may replace it."""

SCRIPTS = (
    *("data", "elements", "colours", "chart", "canvas"),
    *("run/curves", "run/rows", "run/layout", "run/graph", "run/steps", "run/heatmap", "run/bands", "run/pictures"),
    *("sweep/points", "sweep/table", "sweep/curves", "sweep/coordinates", "sweep/effects", "sweep/config"),
    "difference/rows",
    "start",
)
"""The scripts of `assets`, in the order in which they are joined."""

LONGEST = 1000
"""The most characters of one text in the data of a page."""

ALIGNMENT = 8  # of an array in the block, so that it can be viewed in place
_DTYPES = {"u1": "u1", "i4": "i4", "u4": "u4", "f4": "f4", "f8": "f8"}


def page(report: Report) -> bytes:
    """The report as a file: UTF-8, the same bytes for the same report.

    Raises:
        UsageError: the drawing library is not installed.
    """
    found = library()
    style, scripts = f"{found.style}\n{_asset('report.css')}", (found.script, _script())
    arrays = Arrays()
    content = {
        "shared": arrays.placed(report.shared),
        "sections": [
            {"name": section.name, "view": section.view, "data": arrays.placed(section.data)}
            for section in report.sections
            if section.view is not None
        ],
        "opensAt": report.opens_at,
    }
    written = [
        MARK,
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, scripts)}">\n',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n',
        tag("title", text(report.title)),
        f"\n<style>{style}</style>\n</head>\n<body>\n",
        tag("a", text("Skip to the content"), href="#content", class_="skip"),
        tag("header", report.head),
        "\n",
        _contents(report.sections),
        "\n",
        tag("main", joined(map(_section, report.sections)), id="content", tabindex="-1"),
        "\n",
        tag("noscript", tag("p", text("This page draws with JavaScript, which is off. Text and tables are complete."))),
        f'\n<script type="application/json" id="data">{_json(content)}</script>\n',
        f'<script type="text/plain" id="arrays">{arrays.base64()}</script>\n',
        *(f"<script>{script}</script>\n" for script in scripts),
        "</body>\n</html>\n",
    ]
    return "".join(written).encode("utf-8", "replace")


class Arrays:
    """Collects the arrays of a page into one block; equal arrays are stored once."""

    def __init__(self) -> None:
        self._block = bytearray()
        self._places: dict[tuple[str, bytes], int] = {}

    def placed(self, value: Any) -> Any:
        """The value with each array replaced by its place in the block."""
        match value:
            case numpy.ndarray():
                return self._place(value)
            case Mapping():
                return {str(key): self.placed(item) for key, item in value.items()}
            case list() | tuple():
                return [self.placed(item) for item in value]
        return value

    def base64(self) -> str:
        return base64.b64encode(self._block).decode()

    def _place(self, array: numpy.ndarray[Any, Any]) -> dict[str, Any]:
        kind = _DTYPES[array.dtype.str[1:]]
        data = numpy.ascontiguousarray(array).tobytes()
        key = (kind, hashlib.sha256(data).digest())
        if key not in self._places:
            self._block += bytes(-len(self._block) % ALIGNMENT)
            self._places[key] = len(self._block)
            self._block += data
        return {"$array": kind, "at": self._places[key], "length": array.size}


def _section(section: Section) -> Markup:
    heading = tag("h2", text(section.title), id=f"{section.name}-title")
    view = [tag("div", class_="view")] if section.view is not None else []
    return tag("section", heading, section.text, *view, id=section.name, aria_labelledby=f"{section.name}-title")


def _contents(sections: tuple[Section, ...]) -> Markup:
    links = (tag("li", tag("a", text(section.title), href=f"#{section.name}")) for section in sections)
    return tag("nav", tag("ul", joined(links)), aria_label="Sections")


def _policy(style: str, scripts: tuple[str, ...]) -> str:
    sources = " ".join(map(_digest, scripts))
    return f"default-src 'none'; script-src {sources}; style-src {_digest(style)}; base-uri 'none'; form-action 'none'"


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _json(content: Any) -> str:
    """The content as JSON that ends no element: `<`, `>` and `&` are escaped."""
    made = json.dumps(_printable(finite_json(content)), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return made.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _printable(value: Any) -> Any:
    match value:
        case str():
            return printable(shortened(value, LONGEST))
        case dict():
            return {printable(key): _printable(item) for key, item in value.items()}
        case list():
            return [_printable(item) for item in value]
    return value


def _asset(name: str) -> str:
    return files("runner.report").joinpath("assets", *name.split("/")).read_text(encoding="utf-8")


def _without_comments(script: str) -> str:
    """A script without lines of comments and without indentation, so that pages are smaller."""
    lines = (line.strip() for line in script.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def _script() -> str:
    parts = "\n".join(_without_comments(_asset(f"{name}.js")) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'
