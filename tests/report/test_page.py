"""The file of a page: what it allows, the same bytes, text that stays text, and the library that it needs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import webbrowser
from pathlib import Path

import numpy
import pytest

import runner
from runner.record.manifest import this_process
from runner.report import library
from runner.report.markup import tag, text
from runner.report.page import MARK, Arrays, page
from runner.report.run.sections import report_of_run
from runner.report.section import Report, Section
from runner.report.writing import check_target, follow, state_of
from tests.cli.commands import steprun
from tests.manifests import manifest_fields
from tests.report.runs import LINEAR, record


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runner.run(LINEAR, runs_dir=tmp_path_factory.mktemp("linear") / "runs").path


def digests_of(found: str, name: str) -> set[str]:
    """The digests of the elements that the policy is about."""
    contents = re.findall(rf"<{name}>(.*?)</{name}>", found, re.DOTALL)
    return {f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in contents}


def test_the_policy_allows_the_scripts_and_the_style_of_the_page_and_nothing_else(run: Path) -> None:
    found = page(report_of_run(run)).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', found)
    assert policy is not None
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy[1].split(";"))
    assert set(rules) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert set(rules["script-src"].split()) == digests_of(found, "script")
    assert set(rules["style-src"].split()) == digests_of(found, "style")
    assert len(digests_of(found, "script")) == 2
    assert not re.search(r"\b(src|href)=\"(?!#)", found)
    assert not re.search(r"\son[a-z]+=|javascript:|style=", found.split("</style>")[1].split('<script type="app')[0])


def test_a_finished_run_has_the_same_bytes_each_time_and_wherever_it_lies(run: Path, tmp_path: Path) -> None:
    first = page(report_of_run(run))
    assert first.startswith(MARK.encode())
    moved = tmp_path / run.parent.name / run.name
    shutil.copytree(run, moved)
    assert page(report_of_run(run)) == first
    assert page(report_of_run(moved)) == first


def test_arrays_come_back_bit_for_bit_and_are_stored_once() -> None:
    arrays = Arrays()
    values = numpy.asarray([numpy.nan, -0.0, numpy.inf, 1e-40], dtype=numpy.float32)
    numbers = numpy.arange(5, dtype=numpy.uint8)
    placed = arrays.placed({"a": [values, numbers], "b": values.copy(), "c": "text"})
    assert placed["a"][0] == placed["b"]
    assert placed["c"] == "text"
    block = base64.b64decode(arrays.base64())
    assert len(block) <= values.nbytes + numbers.nbytes + 8
    for found, expected in ((placed["a"][0], values), (placed["a"][1], numbers)):
        assert found["at"] % 8 == 0
        read = numpy.frombuffer(block, expected.dtype, found["length"], found["at"])
        assert read.tobytes() == expected.tobytes()


def test_text_in_a_page_ends_no_element_and_begins_none() -> None:
    evil = "</script><script>alert(1)</script><!--\u202e\ud800\x00&\"'"
    section = Section("a", evil, tag("p", text(evil), title=evil), "curves", {evil: [evil, float("nan")]})
    found = page(Report(evil, text(evil), (section,))).decode()
    assert found.count("<script") == found.count("</script>") == 4
    assert "alert(1)" in found
    assert "<!--" not in found.removeprefix(MARK)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', found, re.DOTALL)
    assert data is not None
    (placed,) = json.loads(data[1])["sections"]
    assert next(iter(placed["data"].values()))[0].startswith(
        "</script><script>alert(1)</script><!--\N{REPLACEMENT CHARACTER}"
    )


def test_without_the_library_the_message_says_what_to_install(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "PACKAGE", "youplot_that_is_not_there")
    done = steprun("report", str(run), "-o", str(tmp_path / "a.html"))
    assert done.code == 2
    assert done.err == (
        "steprun\n      a report draws with uPlot, which is not installed\n"
        "      = install it: `pip install 'steprun[report]'`\n"
    )


def test_a_library_with_other_bytes_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "otherplot"
    (folder / "vendor").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('the package was imported')\n")
    (folder / "vendor" / "uplot.iife.min.js").write_text("alert(1)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(library, "PACKAGE", "otherplot")
    with pytest.raises(runner.UsageError) as caught:
        library.library()
    (problem,) = caught.value.problems
    path = folder / "vendor" / "uplot.iife.min.js"
    assert problem.message == f"{path} is not of a release of uPlot that steprun has reviewed"
    assert problem.hint == "install the one it knows: `pip install 'otherplot==1.0.0'`"
    path.unlink()
    with pytest.raises(runner.UsageError, match="cannot be read: No such file or directory"):
        library.library()


def test_the_command_writes_a_page_and_says_where(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = steprun("report", str(run))
    assert (done.code, done.out, done.err) == (0, f"linear-{run.name}.html\n", "")
    first = (tmp_path / f"linear-{run.name}.html").read_bytes()
    again = steprun("report", str(run.parent / "latest"))
    assert again.code == 0
    assert (tmp_path / f"linear-{run.name}.html").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"linear-{run.name}.html"]


def test_the_command_opens_the_page_and_follows_a_finished_run_to_its_end(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: launched.append(address) is None)
    path = tmp_path / "page.html"
    done = steprun("report", str(run), "-o", str(path), "--open", "--follow")
    assert (done.code, done.out, done.err) == (0, f"{path}\n", "")
    assert launched == [path.as_uri()]
    assert path.read_bytes() == page(report_of_run(run))


def test_without_a_browser_the_page_is_there_to_open(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    done = steprun("report", str(run), "-o", "page.html", "--open", cwd=tmp_path)
    assert (done.code, done.out) == (0, "page.html\n")
    assert done.err == "no browser was found here: open page.html in one\n"
    assert (tmp_path / "page.html").exists()


def test_a_file_that_is_no_report_is_not_replaced(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("parameters: {}\n")
    done = steprun("report", str(run), "-o", str(path))
    assert done.code == 2
    assert done.err == f"steprun\n      {path} exists, and is not a report\n      = name another file with -o\n"
    assert path.read_text() == "parameters: {}\n"
    with pytest.raises(runner.UsageError, match=f"there is no folder {tmp_path / 'nowhere'}"):
        check_target(tmp_path / "nowhere" / "a.html")
    (tmp_path / "link.html").symlink_to(path)
    with pytest.raises(runner.UsageError, match=r"cannot write .*: it is a link"):
        check_target(tmp_path / "link.html")
    with pytest.raises(runner.UsageError, match=r"cannot write .*: it is a folder"):
        check_target(tmp_path)


def test_following_writes_the_page_again_as_rows_come_and_ends_with_the_run(run: Path, tmp_path: Path) -> None:
    """The run of another process is played by a directory whose manifest and parts change between two looks."""
    going_on = tmp_path / "linear" / run.name
    shutil.copytree(run, going_on)
    manifest = manifest_fields(going_on / "run.json")
    part = (going_on / "rows" / "00000.parquet").read_bytes()

    def say(status: str) -> None:
        (going_on / "run.json").write_text(json.dumps({**manifest, "status": status, "process": this_process()}))

    say("running")
    (going_on / "rows.json").unlink()  # it has the digests of finished parts
    (going_on / "rows" / "00000.parquet").unlink()
    pauses: list[float] = []
    clock = iter(range(100))

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            (going_on / "rows" / "00000.parquet").write_bytes(part)
        if len(pauses) == 4:
            say("finished")

    path = tmp_path / "page.html"

    def write_page() -> None:
        path.write_bytes(page(report_of_run(going_on)))

    count = follow(going_on, write_page, pause=pause, clock=lambda: float(next(clock)))
    assert count == 3  # without rows, with rows, and at the end
    assert pauses == [10.0] * 4
    assert b"going on when this page was written" not in path.read_bytes()
    assert follow(going_on, lambda: pytest.fail("the page is there"), seen=state_of(going_on)) == 0


def test_following_ends_with_the_message_when_the_run_is_damaged(run: Path, tmp_path: Path) -> None:
    going_on = tmp_path / "linear" / run.name
    shutil.copytree(run, going_on)
    manifest = manifest_fields(going_on / "run.json")
    (going_on / "run.json").write_text(json.dumps({**manifest, "status": "running", "process": this_process()}))
    (going_on / "rows" / "00000.parquet").write_bytes(b"")
    done = steprun("report", going_on, "-o", "page.html", "--follow", cwd=tmp_path)
    assert (done.code, done.out) == (1, "page.html\n")
    assert "00000.parquet is damaged: its digest does not match" in done.err
    assert "going on when this page was written" in (tmp_path / "page.html").read_text()

    def write_page() -> None:
        raise runner.RunError("rows/00000.parquet is damaged")

    seen = state_of(going_on)
    (going_on / "run.json").write_text("")
    assert state_of(going_on) == ("unreadable", None)
    with pytest.raises(runner.RunError, match="is damaged"):
        follow(going_on, write_page, seen=seen, pause=lambda seconds: pytest.fail("it is over"))


def test_a_run_that_goes_on_is_reported_as_of_now(run: Path, tmp_path: Path) -> None:
    going_on = tmp_path / "linear" / run.name
    shutil.copytree(run, going_on)
    manifest = manifest_fields(going_on / "run.json")
    (going_on / "run.json").write_text(json.dumps({**manifest, "status": "running", "process": this_process()}))
    found = page(report_of_run(going_on)).decode()
    assert "The run was going on when this page was written: later rows are not on it." in found
    (going_on / "rows" / "00000.parquet").unlink()
    (going_on / "rows.json").unlink()
    empty = page(report_of_run(going_on)).decode()
    assert 'id="config"' in empty
    assert 'id="curves"' not in empty


FAULTY = """\
parameters: {w: {shape: [2], init: ones}}
expression: loss = exp(w * 60).sum()
optimizer: {sgd: {lr: 1.0e-25, maximize: true}}
steps: [{repeat: {times: 9, steps: [zero_grad, backward, step]}}]
"""


def test_a_failed_run_opens_at_its_top_with_the_row_and_the_tensor_that_went_wrong_first(tmp_path: Path) -> None:
    report = report_of_run(record(FAULTY, tmp_path, fails=True))
    assert report.opens_at is None
    assert [section.name for section in report.sections][:2] == ["steps", "curves"]
    at = report.shared["rows"][report.shared["at"]]
    assert at["step"] == "backward"
    assert report.shared["name"] in ("loss", "w.grad")
    message = re.search(r"\(row (\d+)", str(report.head))
    assert message is not None
    assert at["row"] == int(message[1])
