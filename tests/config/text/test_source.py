"""Reading texts: what is refused before it is read, and where places are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from yaml._yaml import CParser

from runner.config.limits import Limits
from runner.config.text.source import Source, read_source, text_source
from runner.errors import ConfigError, Mark, UsageError

LIMITS = Limits()


def written(folder: Path, data: bytes) -> Path:
    path = folder / "a.yaml"
    path.write_bytes(data)
    return path


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    source = read_source(written(tmp_path, b"\xef\xbb\xbfa: 1\n"), LIMITS)
    assert source.text == "a: 1\n"
    assert source.mark(0) == Mark(str(tmp_path / "a.yaml"), 1, 1)


def test_a_file_past_the_limit_is_refused_by_its_size_alone(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(2**40)  # more than any machine would read
    with pytest.raises(ConfigError, match=r"has 1,099,511,627,776 bytes, and a config may have 4,194,304") as caught:
        read_source(path, LIMITS)
    assert "--max-file-bytes" in str(caught.value)


def test_the_size_limit_can_be_raised(tmp_path: Path) -> None:
    path = written(tmp_path, b"# " + b"x" * 100)
    with pytest.raises(ConfigError, match="102 bytes, and a config may have 101"):
        read_source(path, Limits(file_bytes=101))
    assert len(read_source(path, Limits(file_bytes=102)).text) == 102


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_an_endless_device_is_read_no_further_than_the_limit() -> None:
    with pytest.raises(ConfigError, match="more than 4,194,304 bytes"):
        read_source("/dev/zero", LIMITS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_no_base_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is not an ordinary file"):
        read_source(tmp_path / "pipe", LIMITS, ordinary=True)


def test_bytes_that_are_not_utf_8_are_placed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the byte 0xe9 is not UTF-8") as caught:
        read_source(written(tmp_path, "# é\na: caf".encode() + b"\xe9\nb: 1\n"), LIMITS)
    problem = caught.value.problems[0]
    assert (problem.line, problem.column) == (2, 7)
    assert problem.excerpt == "a: caf�"


@pytest.mark.parametrize(
    ("char", "message"),
    [
        ("\0", "a NUL byte"),
        ("\x07", r"the unprintable character U\+0007"),
        ("\ufeff", r"U\+FEFF"),
        ("\ud800", r"U\+D800"),
        ("\uffff", r"U\+FFFF"),
    ],
)
def test_characters_that_no_text_holds_are_placed(char: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        text_source(f"a: é\nb: c{char}d\n", Path(), "a.yaml", LIMITS)
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (2, 5)


LINES = st.lists(
    st.tuples(st.text("abé😀 ", max_size=4), st.sampled_from(["\n", "\r\n", "\r", "\x85", "\u2028", "\u2029"])),
    max_size=8,
)


@given(LINES, st.text("abé", max_size=3))
def test_places_are_those_that_libyaml_counts(lines: list[tuple[str, str]], last: str) -> None:
    text = "".join("# " + line + end for line, end in lines) + "x: " + last
    mark = next(
        event.start_mark for event in iter(CParser(text).get_event, None) if isinstance(event, yaml.ScalarEvent)
    )
    source = Source("a.yaml", text, Path())
    assert source.mark(mark.index) == Mark("a.yaml", mark.line + 1, mark.column + 1)
    assert source.excerpt(mark.line + 1) == "x: " + last


def test_a_fault_covers_no_more_than_its_line() -> None:
    source = Source("a.yaml", "ab\ncd\n", Path())
    assert source.problem(1, 5, "message").width == 1


def test_a_thousand_faults_on_one_long_line_share_its_text() -> None:
    source = Source("a.yaml", "x" * 1000, Path())
    assert source.problem(0, 1, "one").excerpt is source.problem(5, 6, "two").excerpt
