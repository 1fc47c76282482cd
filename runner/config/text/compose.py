"""Builds a tree of nodes with places from the events of libyaml's parser.

The event parser keeps its stack on the heap and looks at most 1,024 characters ahead. Reading stops at the first level
that is too deep, so nesting is bounded before anything recurses. (libyaml's own composer recurses on the C stack, and
deep text crashes the process.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml._yaml import CParser

from runner.config.limits import Limits
from runner.config.text.nodes import Entry, ListNode, MapNode, Node, Path, ScalarNode, dotted, weight_of
from runner.config.text.scalars import NumberRangeError, ScalarValue, resolve_plain
from runner.config.text.source import Source, whole_file_problem
from runner.config.text.yaml_errors import QUOTE_OR_BLOCK, explain, unbalanced
from runner.errors import ConfigError, Problem

Event = Any
"""An event of libyaml's parser; the event classes share no base that declares their attributes."""

EMPTY_HINT = "a config needs at least `parameters` and `expression`"
_PROPERTIES = r"(?:[&!]\S*\s*)*"
_FREE_TEXT: tuple[Path, ...] = (("description",),)
"""Values that are prose, where brackets need not match."""


def compose(source: Source, limits: Limits, problems: list[Problem], *, value: bool = False, shift: int = 0) -> Node:
    """Returns the tree of a text.

    Args:
        problems: collects the problems that do not stop the parser.
        value: the text is the value of an override, of any type, instead of a whole config.
        shift: the number of characters before the YAML starts.
    Raises:
        ConfigError: the text is not YAML, is empty, or exceeds a limit.
    """
    composer = _Composer(source, limits, problems, CParser(source.text[shift:]), shift)
    try:
        return composer.document(value)
    except yaml.YAMLError as error:
        fatal = explain(error, source, shift)
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None and composer.bracket is not None:
            at, reported = composer.bracket
            if at == error.problem_mark.index + shift and reported in problems:
                problems.remove(reported)  # `fatal` already explains it: YAML ended the text there
        raise ConfigError(
            [*(problem for problem in problems if problem.mark is None or problem.line != fatal.line), fatal]
        ) from error


@dataclass(slots=True, eq=False, repr=False)
class _Composer:
    source: Source
    limits: Limits
    problems: list[Problem]
    parser: Any
    shift: int
    path: list[str | int] = field(default_factory=list)
    anchors: dict[str, Node | None] = field(default_factory=dict)
    alias_nodes: int = 0
    bracket: tuple[int, Problem] | None = None
    """The end offset of the last text with an unmatched bracket, and the problem reported for it."""

    def document(self, value: bool) -> Node:
        self.parser.get_event()
        start = self.parser.get_event()
        if isinstance(start, yaml.StreamEndEvent):
            if value:
                return ScalarNode(None, self.source, self.shift, self.shift)
            raise ConfigError(whole_file_problem(self.source.name, "the file is empty", EMPTY_HINT))
        if start.version or start.tags:
            problem = self._problem(
                start, "a line that begins with `%` is a YAML directive", "remove it: configs have no directives"
            )
            raise ConfigError(problem)
        node = self._node(self.parser.get_event(), 0)
        self.parser.get_event()
        end = self.parser.get_event()
        if not isinstance(end, yaml.StreamEndEvent):
            raise ConfigError(
                self._problem(end, "a second document begins here", "a file holds one config: remove `---`")
            )
        if value:
            return node
        if isinstance(node, ScalarNode) and node.value is None:
            raise ConfigError(whole_file_problem(self.source.name, "the file is empty", EMPTY_HINT))
        if not isinstance(node, MapNode):
            what = "a list" if isinstance(node, ListNode) else "a text"
            message = f"expected a mapping of keys such as `parameters:`, found {what}"
            raise ConfigError(
                [
                    *self.problems,
                    self._node_problem(node, message, "put a space after each `:`" if what == "a text" else EMPTY_HINT),
                ]
            )
        return node

    def _node(self, event: Event, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        anchor = event.anchor
        if event.tag is not None:
            self._report(
                event,
                f"a tag, `{_tag_shown(event.tag)}`, which configs do not allow",
                "remove it; text that begins with `!` is quoted",
            )
        if anchor is not None:
            if anchor in self.anchors:
                self._report(event, f"the anchor `&{anchor}` is defined twice", "give the second one another name")
            self.anchors[anchor] = None
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event)
            if anchor is not None and event.value == "" and node.style == "":
                self._report(
                    event,
                    f"the anchor `&{anchor}` is on an empty value",
                    "give it a value, or quote the text that begins with `&`",
                )
        else:
            if depth >= self.limits.nesting:
                message = f"more than {self.limits.nesting} lists and mappings inside one another"
                raise ConfigError(self._problem(event, message, "flatten them, or raise the limit with --max-nesting"))
            node = self._list(event, depth) if isinstance(event, yaml.SequenceStartEvent) else self._map(event, depth)
        if anchor is not None:
            self.anchors[anchor] = node
        return node

    def _alias(self, event: Event) -> Node:
        name = event.anchor
        node = self.anchors.get(name)
        if node is None:
            if name in self.anchors:
                self._report(event, f"the alias `*{name}` is inside its own anchor", "write the value out")
            else:
                self._report(
                    event, f"YAML reads `*{name}` as an alias, and there is no anchor `&{name}` above", QUOTE_OR_BLOCK
                )
            return ScalarNode(None, self.source, event.start_mark.index + self.shift, event.end_mark.index + self.shift)
        self.alias_nodes += weight_of(node)
        if self.alias_nodes > self.limits.alias_nodes:
            message = f"aliases that expand to more than {self.limits.alias_nodes:,} values"
            raise ConfigError(self._problem(event, message, "write fewer, or raise the limit with --max-alias-nodes"))
        return node

    def _scalar(self, event: Event) -> ScalarNode:
        start, end = event.start_mark.index + self.shift, event.end_mark.index + self.shift
        if event.anchor is not None:
            start = min(end, re.compile(_PROPERTIES).match(self.source.text, start).end())  # type: ignore[union-attr]
        style = event.style or ""
        if style:
            return ScalarNode(event.value, self.source, start, end, style)
        try:
            value: ScalarValue = resolve_plain(event.value)
        except NumberRangeError as error:
            self._report(event, f"this number {error}", "write a smaller one")
            value = 0
        return ScalarNode(value, self.source, start, end)

    def _list(self, event: Event, depth: int) -> ListNode:
        items: list[Node] = []
        weight = 1
        split = False
        while not _is(item := self.parser.get_event(), yaml.SequenceEndEvent):
            self.path.append(len(items))
            node = self._node(item, depth + 1)
            split = self._check_brackets(node, event.flow_style, split)
            items.append(node)
            weight += weight_of(node)
            self.path.pop()
        start, end = event.start_mark.index + self.shift, item.end_mark.index + self.shift
        return ListNode(tuple(items), self.source, start, end, bool(event.flow_style), weight)

    def _map(self, event: Event, depth: int) -> MapNode:
        entries: dict[str, Entry] = {}
        weight = 1
        split = False
        while not _is(key_event := self.parser.get_event(), yaml.MappingEndEvent):
            key = self._key(key_event, depth)
            text = key_event.value if isinstance(key_event, yaml.ScalarEvent) else str(key.value)
            self.path.append(text)
            was_split = split
            split = self._check_brackets(key, event.flow_style, split)
            value = self._node(self.parser.get_event(), depth + 1)
            split = self._check_brackets(value, event.flow_style, split)
            if not was_split:
                self._add_entry(entries, key, text, value)
            weight += 1 + weight_of(value)
            self.path.pop()
        start, end = event.start_mark.index + self.shift, key_event.end_mark.index + self.shift
        return MapNode(entries, self.source, start, end, bool(event.flow_style), weight)

    def _key(self, event: Event, depth: int) -> ScalarNode:
        key = self._node(event, depth + 1)
        if not isinstance(key, ScalarNode):
            self._report(event, "a list or mapping as a key", "a key is text: quote it")
            return ScalarNode(None, self.source, key.start, key.end, "?")
        return key

    def _add_entry(self, entries: dict[str, Entry], key: ScalarNode, text: str, value: Node) -> None:
        if key.style == "?":
            return
        if text == "<<" and key.style == "":
            self._report_node(key, "a merge key, which configs do not allow", "write the keys out, or use `extends`")
        elif text in entries:
            first = entries[text].key
            hint = f"the first is at {first.source.mark(first.start)}; remove one"
            self._report_node(key, f"duplicate key `{text}`", hint)
        elif text == "" and key.style == "":
            self._report_node(key, "a key is missing before `:`", "name it, or quote the text")
        else:
            entries[text] = Entry(key, value)

    def _check_brackets(self, node: Node, flow: bool, split: bool) -> bool:
        """Reports an unmatched bracket in unquoted text.

        Args:
            split: whether this flow collection has reported one; it then reports no more.
        Returns:
            `split` for the next node.
        """
        if (
            split
            or not isinstance(node, ScalarNode)
            or node.style
            or not isinstance(node.value, str)
            or (bracket := unbalanced(node.value)) is None
            or tuple(self.path) in _FREE_TEXT
            or node.source is not self.source
        ):
            return split
        if flow and bracket in "([{":
            message = f"`{bracket}` has no partner: in `{{…}}` and `[…]` a comma ends the value"
        else:
            message = f"`{bracket}` has no partner"
        self._report_node(node, message, QUOTE_OR_BLOCK)
        self.bracket = node.end, self.problems[-1]
        return flow

    def _problem(self, event: Event, message: str, hint: str) -> Problem:
        start, end = event.start_mark.index + self.shift, event.end_mark.index + self.shift
        return self.source.problem(start, max(end, start + 1), message, hint, dotted(tuple(self.path)))

    def _node_problem(self, node: Node, message: str, hint: str) -> Problem:
        return node.source.problem(node.start, node.end, message, hint, dotted(tuple(self.path)))

    def _report(self, event: Event, message: str, hint: str) -> None:
        self._add(self._problem(event, message, hint))

    def _report_node(self, node: Node, message: str, hint: str) -> None:
        self._add(self._node_problem(node, message, hint))

    def _add(self, problem: Problem) -> None:
        self.problems.append(problem)
        if len(self.problems) > self.limits.problems:
            raise ConfigError(self.problems)  # stop here: nobody reads more


def _is(event: Event, kind: type[yaml.Event]) -> bool:
    return isinstance(event, kind)


def _tag_shown(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")
