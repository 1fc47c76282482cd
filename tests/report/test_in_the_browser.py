"""The page of a run in headless Chromium: it draws, asks for nothing, and every control works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.report.page import page
from runner.report.run.sections import report_of_run
from tests.report.browser import chromium, opened

LINEAR = Path(runner.__file__).parents[1] / "configs" / "linear.yaml"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the four rows of `linear.yaml`."""
    folder = tmp_path_factory.mktemp("linear")
    run = runner.run(LINEAR, runs_dir=folder / "runs")
    path = folder / "linear.html"
    path.write_bytes(page(report_of_run(run.path)))
    return path


def test_the_chain_rule_is_visible_row_by_row(browser: Any, linear: Path) -> None:
    """The notebook's numbers: gradients 10, 20 and 30, an update, and gradients that accumulate to 20, 40 and 60."""
    with opened(browser, linear) as found:
        found.draw_all()
        page = found.page
        gradients = []
        for place in range(4):
            page.evaluate(
                "place => { const e = document.querySelector('#steps input[type=range]'); "
                "e.value = place; e.dispatchEvent(new Event('input')); }",
                place,
            )
            current = page.text_content("#steps [aria-current]")
            cells = page.locator("#steps .tensors tbody tr").all_inner_texts()
            nodes = page.locator("#steps .node .gradient").all_text_contents()
            gradients.append((current, [cell.split("\t")[2] for cell in cells if ".grad" in cell], nodes))
        assert [current for current, *_ in gradients] == [
            "start: the initial weights",
            "backward f",
            "step with optimizer",
            "backward f",
        ]
        assert [grads for _, grads, _ in gradients] == [
            ["none"] * 3,
            ["[10]", "[20]", "[30]"],
            ["[10]", "[20]", "[30]"],
            ["[20]", "[40]", "[60]"],
        ]
        assert sorted(filter(None, gradients[1][2])) == sorted(["∂ [10]", "∂ [20]", "∂ [30]", *["∂ [1]"] * 5])
        assert list(filter(None, gradients[2][2])) == ["∂ [10]", "∂ [20]", "∂ [30]"]
