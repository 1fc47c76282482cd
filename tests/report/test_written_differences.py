"""The commands that write pages of differences, and what they refuse."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch

from tests.cli.commands import steprun
from tests.report.differences import NETWORK, network
from tests.report.runs import record

__all__ = ["network"]

EVIL = "<script>alert(1)</script>"


def test_a_difference_within_the_tolerance_is_shown_and_does_not_alarm(network: Path, tmp_path: Path) -> None:
    other = record(NETWORK.replace("lr: 0.1", "lr: 0.10000001"), tmp_path)
    done = steprun("diff", network, other, "--tolerance", "rtol=1e-3", "--report", "diff.html", cwd=tmp_path)
    assert done.code == 0, done.err
    made = (tmp_path / "diff.html").read_text()
    assert "nothing differs beyond the tolerance" in made
    assert "Within the tolerance, numbers differ from" in made
    assert 'class="alert"' not in made


def test_check_writes_a_page_of_what_differs(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        (tmp_path / f"{name}.yaml").write_text(NETWORK.replace("times: 40", "times: 3"))
    assert steprun("snapshot", "good.yaml", "bad.yaml", "--uncertainty=0", cwd=tmp_path).code == 0
    done = steprun("check", "--report", "check.html", "-q", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "Every snapshot holds." in (tmp_path / "check.html").read_text()
    bad = tmp_path / "bad.yaml"
    bad.write_text(bad.read_text().replace("lr: 0.1", "lr: 0.2"))
    done = steprun("check", "--report", "check.html", "-q", cwd=tmp_path)
    made = (tmp_path / "check.html").read_text()
    assert done.code == 3
    assert '"opensAt":"c0-first"' in made
    assert '<a href="#c0-found-6">edited</a>' in made
    assert "which can explain this" in made
    assert re.search(r'<th scope="row">good.yaml</th><td>holds</td>', made)


def test_compare_writes_a_page(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(NETWORK.replace("times: 40", "times: 3"))
    done = steprun("compare", "net.yaml", "--with", "dtype=float64", "--report", "c.html", "--json", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    made = (tmp_path / "c.html").read_text()
    assert "net as it is, and with dtype=float64: 4 rows in lockstep." in made
    assert "<td>float32</td><td>float64</td>" in made


def test_a_page_is_asked_for_before_the_work(network: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "net.yaml").write_text(NETWORK)
    commands = (["diff", network, network], ["check"], ["compare", "net.yaml", "--with", "dtype=float64"])
    for command in commands:
        done = steprun(*command, "--report", "notes.txt", cwd=tmp_path)
        assert (done.code, done.out) == (2, "")
        assert "notes.txt exists, and is not a report" in done.err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_text_of_a_config_is_text_on_the_page(tmp_path: Path) -> None:
    config = f"description: {EVIL}\nparameters: {{w: 1.0}}\nexpression: loss = w * VALUE\nsteps: [forward]\n"
    runs = [record(config.replace("VALUE", str(value)), tmp_path / str(value)) for value in (1, 2)]
    done = steprun("report", *runs, "-o", "page.html", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    made = (tmp_path / "page.html").read_text()
    assert EVIL not in made
    assert made.count("&lt;script&gt;alert(1)") == 2
    again = steprun("report", *runs, "-o", "again.html", cwd=tmp_path)
    assert again.code == 0
    assert (tmp_path / "again.html").read_text() == made


def test_runs_without_rows_and_damaged_runs_are_refused(network: Path, tmp_path: Path) -> None:

    copy = tmp_path / "copy"
    shutil.copytree(network, copy)
    part = next((copy / "rows").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    done = steprun("report", network, copy, cwd=tmp_path)
    assert done.code == 1
    assert "is damaged" in done.err
    shutil.rmtree(copy / "rows")
    done = steprun("report", network, copy, cwd=tmp_path)
    assert done.code != 0
    assert "Traceback" not in done.err
    assert torch.is_grad_enabled()
