"""`like`: a data source with the keys of another one is the same config as one that writes them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.config import load, loads, overridden
from runner.errors import ConfigError
from tests.effort import tried
from tests.tables import over

HEAD = "parameters: {w: 1}\nexpression: f = w * x.sum()\n"
KEYS = {
    "file": ["a.csv", "b.csv"],
    "columns": ["{x: p}", "{x: q}"],
    "shuffle": ["true", "false"],
    "batch_size": ["1", "2"],
    "select": ["{share: [0, 0.5]}", "{from: 1}"],
    "delimiter": ['";"', '"|"'],
}
SOURCES = st.lists(
    st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in KEYS.items()}),
    min_size=2,
    max_size=5,
)


def config(sources: dict[str, dict[str, str]]) -> str:
    lines = [
        f"  {name}: {{{', '.join(f'{key}: {value}' for key, value in keys.items())}}}" for name, keys in sources.items()
    ]
    return HEAD + "data:\n" + "\n".join(lines) + "\n"


@settings(max_examples=tried(60), deadline=None)
@given(SOURCES, st.randoms())
def test_a_source_with_like_is_one_that_writes_the_keys(written: list[dict[str, str]], random: object) -> None:
    written[0] = {"file": "a.csv", "columns": "{x: p}", **written[0]}
    like: dict[str, dict[str, str]] = {"s0": written[0]}
    whole = {"s0": written[0]}
    for place, own in enumerate(written[1:], 1):
        other = f"s{random.randrange(place)}"  # type: ignore[attr-defined]
        like[f"s{place}"] = {"like": other, **own}
        whole[f"s{place}"] = {**whole[other], **own}
    order = list(like)
    random.shuffle(order)  # type: ignore[attr-defined]
    found = loads(config({name: like[name] for name in order}))
    assert found.data == loads(config({name: whole[name] for name in order})).data
    assert loads(found.document.to_yaml()).data == found.data
    assert "like" not in found.document.to_yaml()


def test_a_later_override_changes_the_sources_that_are_like_it() -> None:
    found = loads(config({"a": {"file": "a.csv", "columns": "{x: p}", "batch_size": "2"}, "b": {"like": "a"}}))
    changed = overridden(found, ["data.a.batch_size=7"])
    assert [source.batch_size for source in changed.data.values()] == [7, 7]
    own = overridden(changed, ["data.b.batch_size=5", "data.a.file=c.csv"])
    assert [(source.batch_size, source.file) for source in own.data.values()] == [(7, "c.csv"), (5, "c.csv")]


@over("where", ["base.yaml", "over.yaml"])
def test_keys_that_a_file_merges_into_a_source_count_too(where: str, tmp_path: Path) -> None:
    many, one = "{" + ", ".join(f"k{number}: 1" for number in range(100)) + "}", "{k0: 2}"
    like = "".join(f"  s{number}: {{like: s0}}\n" for number in range(1, 300))
    base, above = (many, one) if where == "base.yaml" else (one, many)
    (tmp_path / "base.yaml").write_text(f"{HEAD}data:\n  s0: {base}\n{like}")
    (tmp_path / "over.yaml").write_text(f"extends: base.yaml\ndata: {{s0: {above}}}\n")
    with pytest.raises(ConfigError, match=r"data sources take more than 10,000 values from others by `like`"):
        load(tmp_path / "over.yaml")


def test_many_sources_that_are_like_others_are_one_problem_with_their_count() -> None:
    keys = ", ".join(f"k{number}: 1" for number in range(100))
    names = [f"s{number}" for number in range(300)]
    chain = [f"  {name}: {{like: {other}}}" for other, name in pairwise(names)]
    with pytest.raises(ConfigError) as caught:
        loads(HEAD + f"data:\n  s0: {{{keys}}}\n" + "\n".join(chain))
    (problem,) = caught.value.problems
    taken = [sum(201 + 3 * other for other in range(number)) for number in range(300)]  # nodes, before each source
    first = next(number for number, nodes in enumerate(taken, 1) if nodes > 10_000)
    assert problem.path == f"data.s{first}.like" == "data.s40.like"
    assert problem.message == (
        "data sources take more than 10,000 values from others by `like`: 260 of the 300 sources exceed this"
    )
    assert problem.hint == "write fewer of them, or raise the limit with --max-alias-nodes"
