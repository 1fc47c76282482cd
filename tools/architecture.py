"""Generates `docs/architecture.svg` and the list of packages in `docs/architecture.md` from the code.

    python -m tools.architecture

Imports between packages decide the floors, sub-packages are the rooms, and docstrings are the texts.
"""

from __future__ import annotations

import ast
import html
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "runner"
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "architecture.svg"
BEGIN, END = "<!-- packages -->", "<!-- end of packages -->"

ENTRIES = {"__init__", "__main__"}
"""Modules of the top folder that only use the packages."""

GROUND = "runner/*.py"

FLOW = (
    ("YAML text", None, "config"),
    ("Config", "config", "plan"),
    ("Plan", "plan", "engine"),
    ("rows", "engine", "record"),
    ("", "record", "run directory"),
    ("rows", "record", "compare"),
    ("differences", "compare", "cli"),
)
"""What passes between packages while a config runs and is compared: its name, its source, its target."""

WIDTH, LEFT, RIGHT = 1080, 70, 210
FULL = 500  # a narrower box shows only the first clause of the docstring
ROOM_HEIGHT, GAP, FLOOR_GAP, TITLE = 26, 8, 22, 30
COLOURS = ("#f3f6fb", "#e7eef8")


def packages() -> list[str]:
    return sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def ground() -> list[str]:
    """The modules of the top folder that every package may use: those that import none."""
    known = set(packages())
    return sorted(
        path.stem
        for path in PACKAGE.glob("*.py")
        if path.stem not in ENTRIES and not any(parts[0] in known for parts in imports(path))
    )


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


@cache
def imports(path: Path) -> tuple[tuple[str, ...], ...]:
    """Returns each name that a file imports from `runner`, split into its parts, without `runner`."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, ...]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, *rest = name.split(".")
            if first == "runner" and rest:
                yield tuple(rest)


def edges() -> dict[str, set[str]]:
    """Returns the packages that each package imports."""
    known = set(packages())
    found: dict[str, set[str]] = {name: set() for name in known}
    for name in known:
        for path in (PACKAGE / name).rglob("*.py"):
            found[name] |= {parts[0] for parts in imports(path) if parts[0] in known and parts[0] != name}
    return found


def levels(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """Returns the length of the longest chain of imports below each package.

    Raises:
        ValueError: the imports form a cycle.
    """
    found: dict[str, int] = {}
    while len(found) < len(graph):
        ready = [name for name in graph if name not in found and graph[name] <= found.keys()]
        if not ready:
            raise ValueError(f"a circle of imports among {sorted(graph.keys() - found.keys())}")
        found |= {name: 1 + max((found[below] for below in graph[name]), default=0) for name in ready}
    return found


def nearest(graph: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Returns the imports that no chain of other imports implies: the transitive reduction."""

    def below(name: str) -> set[str]:
        return graph[name].union(*map(below, graph[name]))

    return [
        (name, other)
        for name in sorted(graph)
        for other in sorted(graph[name])
        if not any(other in below(between) for between in graph[name] - {other})
    ]


def floors() -> list[list[str]]:
    """Returns the packages by floor, the top one first; packages of one floor do not import one another."""
    level_of = levels(edges())
    return [
        sorted((name for name in level_of if level_of[name] == level), reverse=True)
        for level in sorted(set(level_of.values()), reverse=True)
    ]


def rooms(package: str) -> list[str]:
    return sorted(path.parent.name for path in (PACKAGE / package).glob("*/__init__.py"))


def modules(package: str) -> list[str]:
    return sorted(path.stem for path in (PACKAGE / package).glob("*.py") if path.stem != "__init__")


def text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{html.escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, radius: int, fill: str = "") -> str:
    colour = f' fill="{fill}"' if fill else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" class="{kind}"{colour}/>'


def arrow(points: str, kind: str) -> str:
    return f'<path d="{points}" class="{kind}" marker-end="url(#{kind})"/>'


@dataclass(frozen=True, slots=True)
class Placed:
    """A package in the picture: its box and the SVG elements inside."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    drawn: tuple[str, ...]

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    def lines(self) -> list[str]:
        return [box(self.x, self.y, self.width, self.height, "floor", 6, self.colour), *self.drawn]


def place(name: str, x: float, y: float, width: float, colour: str) -> Placed:
    """Lays out a package: its title, then its sub-packages, or its modules if it has none."""
    first = docstring(PACKAGE / name / "__init__.py").partition("\n")[0].replace("`", "")
    if width < FULL:
        first = first.partition(":")[0]
    drawn = [text(x + 12, y + 20, name, "name"), text(x + 30 + 9 * len(name), y + 20, first, "what")]
    labels = [(room, "room") for room in rooms(name)] or [(module, "module") for module in modules(name)]
    left, top = x + 12, y + TITLE
    for label, kind in labels:
        wide = 7.4 * len(label) + 18
        if left + wide > x + width - 8:
            left, top = x + 12, top + ROOM_HEIGHT + GAP
        drawn.append(box(left, top, wide, ROOM_HEIGHT, kind, 4))
        drawn.append(text(left + wide / 2, top + 17, label, "label", "middle"))
        left += wide + GAP
    return Placed(x, y, width, top + ROOM_HEIGHT + 10 - y, colour, tuple(drawn))


def place_all() -> dict[str, Placed]:
    """Lays out all floors from top to bottom, the ground last."""
    placed: dict[str, Placed] = {}
    y, whole = 46.0, WIDTH - LEFT - RIGHT
    for number, names in enumerate(floors()):
        share = (whole - FLOOR_GAP * (len(names) - 1)) / len(names)
        row = {
            name: place(name, LEFT + index * (share + FLOOR_GAP), y, share, COLOURS[number % 2])
            for index, name in enumerate(names)
        }
        height = max(each.height for each in row.values())
        placed |= {name: replace(each, height=height) for name, each in row.items()}
        y += height + FLOOR_GAP
    drawn = (
        text(LEFT + 12, y + 23, GROUND, "name"),
        text(LEFT + 130, y + 23, f"what every package may use: {', '.join(ground())}", "what"),
    )
    placed[GROUND] = Placed(LEFT, y, whole, 36, "#eeeeee", drawn)
    return placed


def picture() -> str:
    """Returns the whole SVG."""
    placed, graph = place_all(), edges()
    drawn = [line for each in placed.values() for line in each.lines()]
    for above, below in [*nearest(graph), *((name, GROUND) for name in graph if not graph[name])]:
        one, other = placed[above], placed[below]
        x = one.middle if one.width < other.width else other.middle
        drawn.append(arrow(f"M{x:g} {one.y + one.height:g} V{other.y - 2:g}", "import"))
    edge = WIDTH - RIGHT
    for words, source, target in FLOW:
        low = placed[target].y + placed[target].height / 2 + 10 if target in placed else 0
        if source is None:
            drawn += [arrow(f"M{edge + 60} {low:g} H{edge + 4}", "flow"), text(edge + 66, low + 4, words, "thing")]
            continue
        high = placed[source].y + placed[source].height / 2 - 10
        if target not in placed:
            high += 10
            drawn += [arrow(f"M{edge} {high:g} H{edge + 96}", "flow"), text(edge + 102, high + 4, target, "thing")]
            continue
        drawn.append(arrow(f"M{edge} {high:g} H{edge + 46} V{low:g} H{edge + 4}", "flow"))
        drawn.append(text(edge + 54, (high + low) / 2 + 4, words, "thing"))
    drawn.append(text(LEFT, 28, "Grey arrows are imports: a package may import any package below it.", "head"))
    drawn.append(text(edge + 20, 28, "The way of one config", "head blue"))
    height = placed[GROUND].y + placed[GROUND].height + 24
    return "\n".join([HEAD.format(width=WIDTH, height=f"{height:g}"), *drawn, "</svg>", ""])


HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">
<title>The packages of runner, what each contains and imports, and the way of a config through them</title>
<defs>
<marker id="import" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto">
<path d="M0 0 L8 4 L0 8 z" fill="#7a8699"/></marker>
<marker id="flow" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto">
<path d="M0 0 L8 4 L0 8 z" fill="#1f6fd6"/></marker>
</defs>
<style>
text {{ font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1d2633 }}
.name {{ font-weight: 700; font-family: ui-monospace, "DejaVu Sans Mono", monospace }}
.what {{ fill: #4a5668 }} .head {{ fill: #4a5668; font-size: 12px }} .blue, .thing {{ fill: #1f6fd6 }}
.label {{ font: 12px ui-monospace, "DejaVu Sans Mono", monospace }}
.floor {{ stroke: #b9c5d6 }} .room {{ fill: #ffffff; stroke: #8fa3bf }} .module {{ fill: none; stroke: #b9c5d6 }}
.import {{ stroke: #7a8699; fill: none }} .flow {{ stroke: #1f6fd6; fill: none; stroke-width: 1.5 }}
</style>
<rect width="{width}" height="{height}" fill="#ffffff"/>"""


def listing() -> str:
    """Returns the list of packages as Markdown, from their docstrings, the top floor first."""
    lines: list[str] = []
    for name in itertools.chain.from_iterable(floors()):
        lines += [f"### {name}", "", *summary(PACKAGE / name / "__init__.py"), ""]
        for room in rooms(name):
            first = summary(PACKAGE / name / room / "__init__.py")[0]
            lines.append(f"- `{name}/{room}`: {first}")
        lines += [""] if rooms(name) else []
    return "\n".join(lines).strip()


def summary(path: Path) -> list[str]:
    """Returns the lines of a docstring that describe the package, its input and its output; not its examples."""
    paragraphs = docstring(path).split("\n\n")
    kept = [paragraphs[0], *(paragraph for paragraph in paragraphs[1:] if paragraph.startswith("In:"))]
    return [line for paragraph in kept for line in paragraph.splitlines()]


def page() -> str:
    """Returns the page with a new list of packages."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{listing()}\n\n{END}{after}"


def main() -> None:
    PICTURE.write_text(picture(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)}\n{PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
