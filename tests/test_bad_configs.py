"""Each bad config beside the exact text that a person sees, and the machine left whole by the worst of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_config_files import BAD_CONFIGS, FOLDER, refused
from tests.tables import over

MOST_FILES = 60
"""How many files one topic may have, so that a person finds one by looking."""


OLDER_WORDS = {"expected scalar type Long but found Float": "expected target dtype to be Long or Byte, but got Float"}
"""Words of torch before 2.13, and those of the same error since."""


@over("path", BAD_CONFIGS)
def test_a_bad_config_is_refused_with_this_text(path: Path) -> None:
    text = str(refused(path)) + "\n"
    for before, since in OLDER_WORDS.items():
        text = text.replace(before, since)
    assert text == path.with_suffix(".txt").read_text(encoding="utf-8")


def test_every_text_belongs_to_a_config_of_its_own_name() -> None:
    assert sorted(FOLDER.rglob("*.txt")) == [path.with_suffix(".txt") for path in BAD_CONFIGS]
    assert len({path.name for path in BAD_CONFIGS}) == len(BAD_CONFIGS) > 300


def test_topics_are_folders_of_few_files() -> None:
    assert [path.name for path in FOLDER.iterdir() if not path.is_dir()] == []
    files = {topic.name: sum(path.is_file() for path in topic.iterdir()) for topic in FOLDER.iterdir()}
    assert {topic: count for topic, count in files.items() if count > MOST_FILES} == {}


@over("path", BAD_CONFIGS)
def test_errors_are_lower_case_without_a_full_stop_and_say_what_to_do(path: Path) -> None:
    for problem in refused(path).problems:
        assert problem.hint, problem.message
        for sentence in (problem.message, problem.hint):
            assert sentence[0] == sentence[0].lower() or sentence.startswith("YAML"), sentence
            assert not sentence.endswith("."), sentence


HEAD = b"parameters: {x: 1}\nexpression: f = x\n"


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.write(HEAD)
        file.truncate(2**30)


def content(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a file of 1 GiB": (sparse, "the file has 1,073,741,824 bytes, and a config may have 4,194,304"),
    "a NUL byte": (content(HEAD + b"seed: \0\n"), "3:7\n    3 | seed: \ufffd\n      |       ^ a NUL byte in the text"),
    "invalid UTF-8": (
        content(HEAD + b"seed: \xff\n"),
        "3:7\n    3 | seed: \ufffd\n      |       ^ the byte 0xff is not UTF-8 (byte 43 of the file)",
    ),
    "UTF-16": (content("seed: 1\n".encode("utf-16")), "the file is UTF-16\n      = save it as UTF-8"),
    "an empty file": (content(b""), "the file is empty"),
    "only a byte order mark": (content(b"\xef\xbb\xbf"), "the file is empty"),
    "10,000 nested brackets": (
        content(HEAD + b"constants: {c: " + b"[" * 10_000 + b"]" * 10_000 + b"}\n"),
        "more than 64 lists and mappings inside one another",
    ),
    "4 MiB of brackets": (content(b"[" * (4 * 2**20)), "more than 64 lists and mappings inside one another"),
    "4 MiB of dashes": (content(b"- " * (2 * 2**20)), "more than 64 lists and mappings inside one another"),
    "4 MiB of question marks": (content(b"? " * (2 * 2**20)), "more than 64 lists and mappings inside one another"),
    "4 MiB of quotes": (content(b"'" * (4 * 2**20)), "expected a mapping of keys"),
    "one key of 4 MiB": (content(b"x" * (4 * 2**20 - 5) + b": 1\n"), "a key longer than 1,024 characters"),
    "one quoted key of 4 MiB": (
        content(HEAD + b'? "' + b"x" * (4 * 2**20 - 60) + b'"\n: 1\n'),
        "a config has no key `xxx",
    ),
    "one line with 100,000 faults": (
        content(HEAD + b"metrics: {" + b"1x: [], " * 100_000 + b"}"),
        "duplicate key `1x`",
    ),
    "50,000 unknown top-level keys": (
        content(HEAD + b"".join(b"k%d: 1\n" % number for number in range(50_000))),
        "there are more problems than these",
    ),
    "an alias bomb": (
        content(
            HEAD
            + b"constants:\n  a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + b"".join(b"  %c: &%c [%s]\n" % (98 + i, 98 + i, b", ".join([b"*%c" % (97 + i)] * 9)) for i in range(20))
        ),
        "aliases that expand to more than 10,000 values",
    ),
    "many aliases": (
        content(HEAD + b"constants:\n  a: &a [1, 1]\n  b: [" + b"*a, " * 500_000 + b"]\n"),
        "aliases that expand to more than 10,000 values",
    ),
    "a hundred thousand faults in one list": (
        content(b"parameters: {x: {init: 1, shape: [" + b"[], " * 100_000 + b"]}}\nexpression: f\n"),
        "there are more problems than these",
    ),
    "50,000 unknown keys": (
        content(
            b"expression: f\nparameters: {x: {init: 1, "
            + b"".join(b"k%d: , " % number for number in range(50_000))
            + b"}}\n"
        ),
        "there are more problems than these",
    ),
    "50,000 faulty metrics": (
        content(HEAD + b"metrics: {" + b"".join(b"k%d: , " % number for number in range(50_000)) + b"}\n"),
        "there are more problems than these",
    ),
    "a number of 4 million digits": (
        content(HEAD + b"seed: " + b"9" * 4_000_000 + b"\n"),
        "this number is beyond 64 bits",
    ),
}
"""Files too odd to keep, with a part of what is said of them."""

PROBE = """
import re, resource, sys
import runner, runner.config
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])  # this program's alone
runner.loads("parameters: {x: 1}\\nexpression: f = x\\n")
before, held = resource.getrusage(resource.RUSAGE_SELF), peak()
try:
    runner.load(sys.argv[1])
except runner.ConfigError as error:
    print(error)
after = resource.getrusage(resource.RUSAGE_SELF)
print((peak() - held) // 1024, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory in Linux's units")
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_quickly_and_in_little_memory(what: str, tmp_path: Path) -> None:
    write, message = HOSTILE[what]
    write(tmp_path / "hostile.yaml")
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "hostile.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(FOLDER.parents[1]), "PYTHONUTF8": "1"},
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    *said, spent = done.stdout.splitlines()
    assert message in "\n".join(said)
    assert len("\n".join(said)) < 200_000
    mebibytes, seconds = spent.split()
    assert int(mebibytes) < 300
    assert float(seconds) < 2  # of processor time, so that a busy machine does not matter
