"""The pages of sweeps and differences in headless Chromium: every control works, and no text is obeyed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.report.page import page
from runner.report.sweep.sections import report_of_sweep
from runner.sweep.record.reading import open_sweep
from tests.report.browser import chromium, opened
from tests.report.differences import NETWORK, report_of_runs
from tests.report.runs import record
from tests.report.sweeps import EVIL, record_sweep, with_points, write_sweep_page
from tests.report.test_in_the_browser import names_of


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sweep with a point that fails, and its page."""
    folder = tmp_path_factory.mktemp("sweep")
    directory = record_sweep(folder)
    return directory, write_sweep_page(directory, folder / "sweep.html")


@pytest.fixture(scope="module")
def difference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("difference")
    runs = [record(NETWORK.replace("lr: 0.1", f"lr: {rate}"), folder / str(rate)) for rate in (0.1, 0.12)]
    path = folder / "difference.html"
    path.write_bytes(page(report_of_runs(runs[1], runs[0])))
    return path


def picture(page: Any, selector: str) -> str:
    return str(page.evaluate("path => document.querySelector(path).toDataURL()", selector))


@pytest.mark.slow
def test_a_sweep_opens_at_its_best_point_and_a_click_leads_to_others(browser: Any, sweep: tuple[Path, Path]) -> None:
    directory, path = sweep
    table = open_sweep(directory).table().to_pydict()
    finite = [(value, place) for place, value in enumerate(table["objective"]) if value is not None and value == value]
    best, then = (place for _, place in sorted(finite)[:2])
    with opened(browser, path) as found:
        found.draw_all()
        page = found.page
        chosen = "#points .stepper output"
        assert page.text_content(chosen).startswith(f"point {best}: rate {table['rate'][best]:g}, ")
        assert page.locator("#points .static").count() == 0
        page.locator("#points").get_by_role("button", name="Next point").click()
        for section in ("points", "curves", "coordinates", "effects", "config"):
            assert page.text_content(f"#{section} .stepper output").startswith(f"point {then}: ")
        assert f"rate: {table['rate'][then]}" in page.text_content("#config .listing li.set")
        assert f"steprun report '{directory}#{then}'" in page.text_content("#config pre >> nth=-1")
        before = picture(page, "#curves canvas")
        page.locator("#points").get_by_role("button", name=str(best), exact=True).click()
        assert page.text_content("#curves .stepper output").startswith(f"point {best}: ")
        assert picture(page, "#curves canvas") != before
        for selector in ("#curves .u-over", "#coordinates canvas"):  # a click on a line chooses its point
            page.locator("#points").get_by_role("button", name=str(best), exact=True).click()
            box = page.locator(selector).bounding_box()
            page.locator(selector).click(position={"x": box["width"] * 0.9, "y": box["height"] * 0.16})
            assert not page.text_content("#points .stepper output").startswith(f"point {best}: ")


@pytest.mark.slow
def test_a_table_sorts_and_filters(browser: Any, sweep: tuple[Path, Path]) -> None:
    directory, path = sweep
    table = open_sweep(directory).table().to_pydict()
    with opened(browser, path) as found:
        found.draw_all()
        page, section = found.page, found.page.locator("#points")

        def numbers() -> list[int]:
            return [int(each) for each in page.locator("#points tbody th").all_text_contents()]

        section.get_by_role("button", name="rate", exact=True).click()
        rates = [table["rate"][number] for number in numbers()]
        assert rates == sorted(rates)
        assert page.locator("#points th[aria-sort]").get_attribute("aria-sort") == "ascending"
        section.get_by_role("button", name="rate", exact=True).click()
        assert [table["rate"][number] for number in numbers()] == sorted(rates, reverse=True)
        lines = picture(page, "#coordinates canvas")

        def keep(text: str) -> list[int]:
            section.get_by_label("Filter").fill(text)
            section.get_by_label("Filter").press("Enter")
            return sorted(numbers())

        every = list(range(len(table["rate"])))
        assert keep("rate < 0.1 and power = 3") == [
            each for each in every if table["rate"][each] < 0.1 and table["power"][each] == 3
        ]
        assert picture(page, "#coordinates canvas") != lines
        assert keep("status = failed") == [each for each in every if table["status"][each] == "failed"]
        assert keep('failure ~ "inf", rate > 1') == [each for each in every if table["rate"][each] > 1]
        numbered = sorted((v, place) for place, v in enumerate(table["objective"]) if v is not None and v == v)
        assert keep("objective >= 0, rank <= 2") == sorted(place for _, place in numbered[:2])
        kept = numbers()
        keep("rates < 1")
        assert "columns are rank, point, rate, power" in page.text_content("#points .where")
        assert section.get_by_label("Filter").get_attribute("aria-invalid") == "true"
        keep("rate < much")
        assert page.text_content("#points .where") == "rate is a number, and much is none"
        keep('rate < ""')
        assert page.text_content("#points .where") == "rate is a number, and a blank is none"
        keep("rate <")
        assert page.text_content("#points .where") == "a value is missing after rate"
        assert numbers() == kept
        section.get_by_role("button", name="All points").click()
        assert sorted(numbers()) == every


DIVERGES = """\
sweep:
  grid: {rate: [0.001, 3.0], power: [3.0]}  # the last one grows for some rows, then fails
  objective: {minimize: loss}
"""


@pytest.mark.slow
def test_a_point_that_failed_does_not_decide_the_range_of_the_curves(browser: Any, tmp_path: Path) -> None:
    path = write_sweep_page(record_sweep(tmp_path, DIVERGES), tmp_path / "sweep.html")
    with opened(browser, path) as found:
        found.draw_all()
        sound = picture(found.page, "#curves canvas")
        found.page.get_by_label("Whole range of points that failed").click()
        assert picture(found.page, "#curves canvas") != sound
        found.page.get_by_label("Whole range of points that failed").click()
        assert picture(found.page, "#curves canvas") == sound


@pytest.mark.slow
def test_every_control_of_a_sweep_works_and_has_a_name(browser: Any, sweep: tuple[Path, Path]) -> None:
    with opened(browser, sweep[1]) as found:
        found.draw_all()
        page = found.page
        named = names_of(page)
        assert [role for role, name in named if not name] == []
        assert {role for role, _ in named} >= {"button", "checkbox", "combobox", "link", "region", "textbox"}
        for act in (
            lambda: page.get_by_label("Logarithmic").click(),
            lambda: page.locator("#curves .chart").press("ArrowDown"),
        ):
            before = picture(page, "#curves canvas")
            act()
            page.wait_for_timeout(30)
            assert picture(page, "#curves canvas") != before
        before = picture(page, "#effects canvas")
        page.locator("#effects select").select_option(label="loss.max")
        assert picture(page, "#effects canvas") != before
        chosen = page.text_content("#points .stepper output")
        page.locator("#effects canvas >> nth=1").press("ArrowRight")
        assert page.text_content("#points .stepper output") != chosen
        page.locator("#coordinates canvas").press("ArrowLeft")
        assert page.text_content("#points .stepper output") == chosen
        page.locator("#points").get_by_role("link", name="its config").click()
        assert page.evaluate("location.hash") == "#config"


@pytest.mark.slow
def test_text_of_a_sweep_is_never_obeyed_and_strange_values_are_drawn(browser: Any, tmp_path: Path) -> None:
    directory = record_sweep(tmp_path, runs=False)
    nan, inf = float("nan"), float("inf")
    columns = {
        EVIL: [EVIL, "'\" onload=alert(1)", "", None],
        "__proto__": [1.5, nan, inf, None],
        "a, b and c": [2**62, -1, 0, 1],
        "objective": [nan, inf, -inf, None],
        "failure": [EVIL, None, None, None],
    }
    with_points(directory, columns)
    path = tmp_path / "evil.html"
    path.write_bytes(page(report_of_sweep(directory)))
    with opened(browser, path) as found:
        found.draw_all()
        assert found.page.locator("script").count() == 4
        assert EVIL in found.page.text_content("#points table")
        assert EVIL in found.page.text_content("header")
        found.page.locator("#points").get_by_role("button", name=EVIL).click()
        found.page.locator("#points").get_by_role("button", name="Next point").click()


@pytest.mark.slow
def test_a_difference_opens_where_it_begins_and_leads_to_the_config(browser: Any, difference: Path) -> None:
    with opened(browser, difference) as found:
        page = found.page
        assert page.evaluate("scrollY") == 0
        assert page.locator("header .alert").bounding_box()["y"] < 300
        found.draw_all()
        said = "#first .stepper output"
        assert page.text_content(said) == "row 1: repeat[1].train, iteration 1"
        assert page.text_content("#first tr.marked th button") == page.text_content("#first select option:checked")
        assert page.locator("#first .pictures canvas").count() == 3
        before = picture(page, "#first .pictures canvas")
        page.locator("#first").get_by_role("button", name="Next row").click()
        assert page.text_content(said).startswith("row 2: ")
        assert picture(page, "#first .pictures canvas") != before
        page.locator("#first select").select_option(label="h")
        assert page.text_content("#first tr.marked th button") == "h"
        page.locator("#first tr.marked a").click()
        target = page.evaluate("document.querySelector(':target').textContent")
        assert target == "  h = tanh(x @ w + b)"
        assert page.locator(":target").bounding_box()["y"] < 900
        page.locator("#first p a").first.click()
        assert "repeat" in page.evaluate("document.querySelector(':target').textContent")
        page.locator("#first th button", has_text="loss").click()
        assert page.text_content("#first .pictures") == "loss has no picture: choose another tensor."
        page.locator("#errors .chart").focus()
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        assert page.text_content(said) == "row 1: repeat[1].train, iteration 1"
        before = picture(page, "#errors canvas")
        page.locator("#errors").get_by_label("Logarithmic").click()
        page.wait_for_timeout(30)
        assert picture(page, "#errors canvas") != before
        assert [role for role, name in names_of(page) if not name] == []


@pytest.mark.slow
def test_the_pages_fit_a_phone_in_light_and_dark_and_print(
    browser: Any, sweep: tuple[Path, Path], difference: Path
) -> None:
    for path in (sweep[1], difference):
        for scheme in ("light", "dark"):
            with opened(browser, path, viewport={"width": 360, "height": 740}, color_scheme=scheme) as found:
                found.draw_all()
                assert found.page.evaluate("document.documentElement.scrollWidth") <= 360
                found.page.emulate_media(media="print")
                assert not found.page.locator("nav").is_visible()


@pytest.mark.slow
def test_without_scripts_the_best_points_and_the_first_difference_are_there(
    browser: Any, sweep: tuple[Path, Path], difference: Path
) -> None:
    with opened(browser, sweep[1], java_script_enabled=False) as found:
        assert found.page.locator("#points .static tbody tr").count() == 10
    with opened(browser, difference, java_script_enabled=False) as found:
        assert "passes at" in found.page.text_content("#first table")
