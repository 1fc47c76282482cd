"""Data sources that take the keys of another one: `valid: {like: train, …}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from runner.config.text.nodes import Entry, MapNode, Node, ScalarNode, describe
from runner.errors import Problem, did_you_mean, listing
from runner.text import counted

LIKE = "like"


def with_likes(root: MapNode, problems: list[Problem], most: int) -> MapNode:
    """The tree of a config in which each data source with `like` has the keys of the source that it names.

    Its own keys win, as a whole. Keys that it takes keep their place in the text of the other source.

    Args:
        problems: receives each `like` that names no other source, or itself by way of others.
        most: the most values that sources may take, counted at each use.
    """
    data = root.entries.get("data")
    if data is None or not isinstance(data.value, MapNode):
        return root
    sources = data.value.entries
    if not any(isinstance(entry.value, MapNode) and LIKE in entry.value.entries for entry in sources.values()):
        return root
    taking = _Taking(sources, problems, most)
    made = {name: Entry(entry.key, taking.resolved(name)) for name, entry in sources.items()}
    taking.report_size()
    return replace(root, entries={**root.entries, "data": Entry(data.key, replace(data.value, entries=made))})


class _Taking:
    """Takes keys from sources, at most a number of values in all.

    Args:
        problems: receives each problem once.
    """

    def __init__(self, sources: Mapping[str, Entry], problems: list[Problem], most: int) -> None:
        self._sources = sources
        self._problems = problems
        self._left = self._most = most
        self._reported: set[str] = set()
        self._beyond: list[tuple[str, Node]] = []  # for each source that takes no more values, where it stops

    def resolved(self, name: str) -> Node:
        """A source with the keys of those that it is like; without some after a problem."""
        own = self._sources[name].value
        if not isinstance(own, MapNode):
            return own
        names, nodes = [name], [own]
        while LIKE in nodes[-1].entries:
            like = nodes[-1].entries[LIKE].value
            other = like.value if isinstance(like, ScalarNode) else None
            fault = _fault(other, names, self._sources)
            if fault is not None:
                self._report(names, like, fault)
                break
            if self._left < 0:
                self._beyond.append((names[-1], like))
                break
            names.append(str(other))
            node = self._sources[str(other)].value
            if not isinstance(node, MapNode):  # reported where it is
                break
            nodes.append(node)
            self._left -= node.weight
        entries: dict[str, Entry] = {}
        for node in reversed(nodes):
            entries |= {key: entry for key, entry in node.entries.items() if key != LIKE}
        return replace(own, entries=entries, weight=sum(node.weight for node in nodes))

    def report_size(self) -> None:
        """Report in one problem all sources that take no more values, because others have taken too many."""
        if not self._beyond:
            return
        name, like = self._beyond[0]
        message = (
            f"data sources take more than {self._most:,} values from others by `like`: "
            f"{len(self._beyond):,} of the {counted(len(self._sources), 'source')} exceed this"
        )
        hint = "write fewer of them, or raise the limit with --max-alias-nodes"
        self._problems.append(like.source.problem(like.start, like.end, message, hint, f"data.{name}.{LIKE}"))

    def _report(self, names: Sequence[str], like: Node, fault: tuple[str, str]) -> None:
        if self._reported.isdisjoint(names):
            self._problems.append(like.source.problem(like.start, like.end, *fault, f"data.{names[-1]}.{LIKE}"))
        self._reported.update(names)


def _fault(other: object, names: Sequence[str], sources: Mapping[str, Entry]) -> tuple[str, str] | None:
    """What is wrong with a `like`, and what to do."""
    others = [name for name in sources if name != names[-1]]
    known = f"other sources are {listing(others)}" if others else "there is no other source"
    if not isinstance(other, str):
        return f"expected the name of a data source, found {describe(other)}", f"write one: {known}"
    if other not in sources:
        return f"there is no data source `{other}`", did_you_mean(other, others, known) or known
    if other in names:
        way = " → ".join([*names[names.index(other) :], other])
        return f"`{other}` is like itself: {way}", "write the keys of one of them"
    return None
