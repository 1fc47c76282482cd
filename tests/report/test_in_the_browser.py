"""The page of a run in headless Chromium: it draws, asks for nothing, obeys no text, and every control works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import runner
from runner.report.markup import facts, paragraph, table, text
from runner.report.page import page as page_of
from runner.report.section import Report, Section
from tests.report.browser import chromium, opened
from tests.report.runs import FAILING, LINEAR, record, write_page

NETWORK = """\
description: A small network.
parameters: {w: {shape: [8, 70], init: normal}, b: {shape: [70], init: zeros}, s: {shape: [1], init: 0.5}}
constants: {x: {shape: [5, 8], init: normal}}
expression: |
  h = tanh(x @ w + b)
  loss = (h * s).square().mean() + 0.01
metrics: {size: linalg.norm(w), a_metric_with_a_rather_long_name: linalg.norm(b)}
optimizer: {adam: {lr: 0.01}}
steps: [{repeat: {times: 100, steps: [train]}}]
"""

INJECTIONS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</ScRiPt ><script>alert(1)</script>",
    "<!--<script>alert(1)</script>-->",
    "<!--<script>",
    "--><script>alert(1)</script>",
    "]]><script>alert(1)</script>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</pre><img src=x onerror=alert(1)>",
    "</textarea><svg onload=alert(1)>",
    "</noscript><img src=x onerror=alert(1)>",
    "<img src=x onerror=alert(1)>",
    "<img src='https://example.com/a.png'>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math><mtext><img src=x onerror=alert(1)></mtext></math>",
    "<body onload=alert(1)>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data=javascript:alert(1)></object>",
    "<embed src=javascript:alert(1)>",
    "<link rel=stylesheet href=https://example.com/a.css>",
    "<style>@import 'https://example.com/a.css';</style>",
    "<style>*{background:url(https://example.com/a)}</style>",
    "<meta http-equiv=refresh content='0;url=https://example.com'>",
    "<base href=https://example.com>",
    "<form action=https://example.com><input name=a autofocus onfocus=alert(1)></form>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)></video>",
    "<audio src=x onerror=alert(1)>",
    "<a href=javascript:alert(1)>a</a>",
    "<template><script>alert(1)</script></template>",
    "\" onmouseover=alert(1) x=\"",
    "' onmouseover=alert(1) x='",
    "\" autofocus onfocus=alert(1) x=\"",
    "` onerror=alert(1) `",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e",
    "\\x3cscript\\x3ealert(1)\\x3c/script\\x3e",
    "${alert(1)}",
    "{{constructor.constructor('alert(1)')()}}",
    "__proto__",
    "constructor",
    "\u2028alert(1)\u2029",
    "\u202e>tpircs/<>tpircs<",
    "<\u0000script>alert(1)</script>",
    "javascript:alert(1)",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the four rows of `linear.yaml`."""
    folder = tmp_path_factory.mktemp("linear")
    return write_page(runner.run(LINEAR, runs_dir=folder / "runs").path, folder / "linear.html")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with every section."""
    folder = tmp_path_factory.mktemp("network")
    return write_page(record(NETWORK, folder), folder / "network.html")


def move(page: Any, place: int) -> None:
    """Move the slider over rows."""
    page.evaluate(
        "place => { const slider = document.querySelector('#steps input[type=range]'); "
        "slider.value = place; slider.dispatchEvent(new Event('input')); }",
        place,
    )


@pytest.mark.slow
def test_the_chain_rule_is_visible_row_by_row(browser: Any, linear: Path) -> None:
    """The notebook's numbers: gradients 10, 20 and 30, an update, and gradients that accumulate to 20, 40 and 60."""
    with opened(browser, linear) as found:
        found.draw_all()
        page = found.page
        programs, gradients, changes, nodes = [], [], [], []
        for place in range(4):
            move(page, place)
            programs.append(page.text_content("#steps [aria-current]"))
            rows = [row.split("\t") for row in page.locator("#steps .tensors tbody tr").all_inner_texts()]
            gradients.append([row[2] for row in rows if row[0].endswith(".grad")])
            changes.append({row[0]: row[3] for row in rows if row[3]})
            nodes.append(sorted(filter(None, page.locator("#steps .node .gradient").all_text_contents())))
        assert programs == [
            "start: the initial weights row 0",
            "backward f row 1",
            "step with optimizer (sgd) row 2",
            "backward f row 3",
        ]
        assert gradients == [["none"] * 3, ["[10]", "[20]", "[30]"], ["[10]", "[20]", "[30]"], ["[20]", "[40]", "[60]"]]
        came = dict.fromkeys(("x1.grad", "x2.grad", "x3.grad"), "new")
        assert changes == [
            {},
            {**came, "f": "new"},
            {"x1": "-0.0999985", "x2": "-0.199997", "x3": "-0.299988"},
            {"x1.grad": "+10", "x2.grad": "+20", "x3.grad": "+30", "f": "-14"},
        ]
        assert nodes[1] == nodes[3] == sorted(["∂ [10]", "∂ [20]", "∂ [30]", *["∂ [1]"] * 5])
        values = page.locator("#steps .node .value").all_text_contents()
        assert {"[99.9]", "[999]", "[3996]", "[8991]", "[13986]"} <= set(values)


@pytest.mark.slow
def test_a_finished_run_opens_at_its_curves_and_a_failed_one_where_it_went_wrong(
    browser: Any, network: Path, tmp_path: Path
) -> None:
    with opened(browser, network) as found:
        assert found.page.evaluate("scrollY") == 0
        assert found.page.locator("#curves canvas").bounding_box()["y"] < 900
    run = record(FAILING, tmp_path, fails=True)
    failed = runner.open_run(run)
    with opened(browser, write_page(run, tmp_path / "failed.html")) as found:
        page = found.page
        assert page.evaluate("scrollY") == 0
        for seen in ("header .alert", "header .story", "#steps-title"):
            assert page.locator(seen).first.bounding_box()["y"] < 900
        last = max(row.number for row in failed)
        alert = page.text_content("header .alert")
        assert f"(row {last}, " in alert
        assert page.text_content("#steps output").startswith(f"row {last}: ")
        assert "backward" in page.text_content("#steps [aria-current]")
        assert page.text_content("#steps tr.marked th") in alert
        origin, around = (page.locator(each).bounding_box() for each in ("#steps .node.origin", "#steps .scroll"))
        assert around["x"] <= origin["x"]
        assert origin["x"] + origin["width"] <= around["x"] + around["width"]
        found.draw_all()
        assert page.locator("#tensors select option:checked").text_content() in alert


def names_of(page: Any) -> list[tuple[str, str]]:
    """The role and the name of everything that can have the focus or is an image, as a screen reader has them."""
    client = page.context.new_cdp_session(page)
    nodes = client.send("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "checkbox", "slider", "spinbutton", "combobox", "link", "image", "region", "img", "textbox")
    return [
        (node["role"]["value"], node.get("name", {}).get("value", "").strip())
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in roles
    ]


@pytest.mark.slow
def test_every_control_has_a_name(browser: Any, network: Path) -> None:
    with opened(browser, network) as found:
        found.draw_all()
        named = names_of(found.page)
        assert len(named) > 25
        assert {role for role, _ in named} >= {"button", "checkbox", "slider", "spinbutton", "combobox", "link"}
        assert [role for role, name in named if not name] == []
        assert found.page.evaluate("document.querySelectorAll('[id]').length") == found.page.evaluate(
            "new Set([...document.querySelectorAll('[id]')].map((each) => each.id)).size"
        )


@pytest.mark.slow
def test_every_control_works(browser: Any, network: Path) -> None:
    with opened(browser, network) as found:
        found.draw_all()
        page = found.page

        def picture(section: str) -> str:
            return str(page.evaluate("id => document.querySelector(id + ' canvas').toDataURL()", f"#{section}"))

        def changes(section: str, act: Any) -> None:
            before = picture(section)
            act()
            page.wait_for_timeout(30)
            assert picture(section) != before

        changes("curves", lambda: page.get_by_label("Logarithmic").click())
        changes("curves", lambda: page.get_by_role("checkbox", name="size").click())
        changes("curves", lambda: page.get_by_label("From row").fill("40") or page.get_by_label("To row").fill("60"))
        changes("curves", lambda: page.get_by_label("To row").press("Enter"))
        changes("curves", lambda: page.get_by_role("button", name="All rows").click())
        changes(
            "curves",
            lambda: page.get_by_label("Smoothing").evaluate(
                "slider => { slider.value = 0.9; slider.dispatchEvent(new Event('input')); }"
            ),
        )
        page.locator("#curves .chart").focus()
        page.keyboard.press("Home")
        assert page.text_content("#curves .where") == "row 1: repeat[1].train, iteration 1 of 100"
        page.keyboard.press("ArrowRight")
        assert page.text_content("#curves .where") == "row 2"
        page.keyboard.press("End")
        assert page.text_content("#curves .where") == "row 100: repeat[100].train, iteration 100 of 100"
        said = "#steps .stepper output"
        last = "row 100: repeat[100].train, iteration 100 of 100"
        assert page.text_content(said) == last
        page.locator("#steps").get_by_role("button", name="Row before").click()
        assert page.text_content(said) != last
        page.locator("#tensors").get_by_role("button", name="Next row").click()
        assert page.text_content(said) == last
        page.locator("#steps input[type=range]").focus()
        changes("tensors", lambda: page.keyboard.press("Home"))
        assert page.text_content(said) == "row 0: start"
        changes("norms", lambda: page.locator("#norms select").select_option(label="Update-to-weight ratio"))
        changes("norms", lambda: page.get_by_label("A scale for each line").click())
        page.locator("#norms canvas").focus()
        before = page.text_content("#norms output")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowDown")
        assert page.text_content("#norms output") != before
        assert page.text_content("#norms output").startswith("b, row")
        changes("distributions", lambda: page.locator("#distributions select").select_option(index=2))
        page.locator("#distributions .chart").focus()
        page.keyboard.press("End")
        assert re.match(r"\S+, row \d+: least .*, median .*, largest ", page.text_content("#distributions output"))
        changes("tensors", lambda: page.locator("#tensors select").select_option(label="b"))
        page.locator("#steps summary").first.click()
        assert page.locator("#steps details table tbody tr").first.is_visible()


@pytest.mark.slow
def test_a_drag_zooms_and_a_double_click_shows_all(browser: Any, network: Path) -> None:
    with opened(browser, network) as found:
        page = found.page
        before = page.evaluate("document.querySelector('#curves canvas').toDataURL()")
        box = page.locator("#curves .u-over").bounding_box()
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] * 0.2, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.5, middle)
        page.mouse.up()
        page.wait_for_timeout(50)
        assert page.evaluate("document.querySelector('#curves canvas').toDataURL()") != before
        page.mouse.dblclick(box["x"] + box["width"] * 0.5, middle)
        page.wait_for_timeout(50)
        assert page.evaluate("document.querySelector('#curves canvas').toDataURL()") == before


@pytest.mark.slow
def test_numbers_are_those_of_their_row_and_every_view_follows_it(browser: Any, linear: Path) -> None:
    with opened(browser, linear) as found:
        found.draw_all()
        page = found.page
        said, where, reading = "#steps .stepper output", "#curves .where", "#curves .keys output"
        assert page.text_content(said) == "row 0: start"
        assert page.text_content(reading) == "–"
        page.locator("#steps .program button", has_text="step with optimizer").click()
        assert page.text_content(said) == page.text_content(where) == "row 2: 3.step"
        assert page.text_content(reading) == "– (row 1: 14000)"
        assert page.text_content("#norms output") == "x1.grad, row 2: 10"
        assert page.text_content("#steps .sums p").endswith("= 100 − 0.01 × 10 = 99.9, rounded to float32: 99.9000015")
        forward = page.locator("#steps").get_by_role("button", name="Next row")
        for _ in range(2):
            forward.press("Enter")
            assert page.text_content(said) == "row 3: 5.backward"
            assert forward.evaluate("element => element === document.activeElement")
        page.get_by_label("Smoothing").evaluate(
            "slider => { slider.value = 0.5; slider.dispatchEvent(new Event('input')); }"
        )
        mean = (0.25 * 14000 + 0.5 * 13986) / 0.75  # the weights of the two values
        assert page.text_content(reading) == f"13986, smoothed {mean:.6g}"
        over = page.locator("#curves .u-over")
        over.scroll_into_view_if_needed()
        over.click(position={"x": 3, "y": 40})
        assert page.text_content(said) == "row 1: 1.backward"
        box = page.locator("#norms canvas").bounding_box()
        page.mouse.click(box["x"] + box["width"] - 3, box["y"] + 3)
        assert page.text_content(said) == "row 3: 5.backward"
        page.locator("#steps .node", has_text="constant").click()
        assert page.text_content("#steps output.where") == "constant, (1,) float32; value [30]; gradient none"


@pytest.mark.slow
def test_a_value_that_is_not_finite_is_no_other_one_and_a_zoom_shows_its_rows(browser: Any, tmp_path: Path) -> None:
    run = record(FAILING, tmp_path, fails=True)
    last = max(row.number for row in runner.open_run(run))
    with opened(browser, write_page(run, tmp_path / "failed.html")) as found:
        found.draw_all()
        page = found.page
        assert page.text_content("#curves .where").startswith(f"row {last}: ")
        assert page.text_content("#curves .keys output") in ("Infinity", "NaN")
        assert page.locator("#steps td.broken").first.is_visible()
        page.get_by_label("To row").fill(str(last - 5))
        page.get_by_label("To row").press("Enter")
        page.wait_for_timeout(50)
        assert int(re.match(r"row (\d+)", page.text_content("#curves .where"))[1]) <= last - 5
        page.locator("#distributions select").select_option(index=1)
        name = page.locator("#distributions select option:checked").text_content().split()[0]
        assert page.text_content("#distributions output").startswith(f"{name}, row ")


def evil_sections(number: int, evil: str) -> tuple[Section, ...]:
    """Sections with a text in every place that text of a config or a file can have."""
    rows = numpy.arange(3, dtype=numpy.uint32)
    values = numpy.asarray([1, 2, 4], dtype=numpy.float32)
    curve = {"name": evil, "rows": rows, "values": values, "visible": True, "range": evil}
    node = {"label": evil, "kind": "operation", "name": evil, "shape": evil, "from": []}
    graph = {"objective": evil, "nodes": [node], "left": 0, "flows": [[[evil, evil]]] * 3, "states": [evil] * 3}
    tensor = {"name": evil, "role": evil, "kind": evil, "values": [evil] * 3, "changed": [1] * 3, "by": [evil] * 3}
    heat = {"title": evil, "names": [evil], "starts": rows, "ends": rows, "values": values}
    band = {"name": evil, "kind": evil, "labels": [evil] * 3, "rows": rows, "values": numpy.tile(values, 3)}
    cells = numpy.asarray([0, 1, 255], dtype=numpy.uint8)
    size = {"height": 1, "width": 3, "whole": True}
    picture = {"name": evil, "kind": evil, **size, "at": [0, None, None], "ranges": [[evil, evil]], "cells": cells}
    program = [{"text": evil, "depth": 0, "verdict": evil}]
    notes = {"note": evil, "sums": [[evil]] * 3}
    steps = {"program": program, "lines": [0] * 3, "tensors": [tensor], "graphs": [graph], **notes}
    said = [paragraph(evil), facts([(evil, evil)]), table([evil], [[evil]], evil)]
    return (
        Section(f"curves{number}", evil, said[0], "curves", {"curves": [curve], "log": False}),
        Section(f"steps{number}", evil, said[1], "steps", steps),
        Section(f"tensors{number}", evil, said[2], "pictures", {"tensors": [picture]}),
        Section(f"norms{number}", evil, text(evil), "heatmap", {"maps": [heat]}),
        Section(f"distributions{number}", evil, text(evil), "bands", {"tensors": [band]}),
    )


@pytest.mark.slow
def test_text_is_never_obeyed(browser: Any, tmp_path: Path) -> None:
    assert len(INJECTIONS) >= 50
    sections = [section for number, evil in enumerate(INJECTIONS) for section in evil_sections(number, evil)]
    everything = " ".join(INJECTIONS)
    rows = [{"row": 1, "step": evil, "path": evil, "iteration": 1} for evil in INJECTIONS[:3]]
    shared = {"rows": rows, "count": 3, "at": 0, "name": INJECTIONS[0]}
    path = tmp_path / "evil.html"
    path.write_bytes(page_of(Report(everything, text(everything), tuple(sections), shared)))
    with opened(browser, path) as found:
        found.draw_all()
        read = found.page.evaluate
        count = "document.querySelectorAll('script, style, img, iframe, object, embed, link, base, form, math').length"
        assert read(count) == 5
        assert read("document.querySelectorAll('meta').length") == 5
        assert read("document.querySelectorAll('.view:empty').length") == 0
        shown = [evil.translate(dict.fromkeys((0, 0x202E, 0x2028, 0x2029), "\ufffd")) for evil in INJECTIONS]
        assert found.page.locator(".program .what").all_text_contents() == [each.replace("`", "") for each in shown]
        assert found.page.locator("dt").all_text_contents() == shown
        assert read("document.title") == " ".join(shown)


@pytest.mark.slow
def test_names_descriptions_columns_and_cells_of_a_config_are_text(browser: Any, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    (tmp_path / "people.csv").write_text(f'"{evil}",kind\n1,{evil}\n2,b\n3,{evil}\n', encoding="utf-8")
    config = f"""\
description: "</pre>{evil}"
parameters: {{w: 1.0}}
data:
  train:
    file: people.csv
    columns: {{x: "{evil}", y: kind}}
    classes: {{y: sorted}}
    dtype: {{x: float32}}
    batch_size: 3
expression: loss = (x * w - y).square().mean()
optimizer: {{sgd: {{lr: 0.01}}}}
steps: {{epochs: 3}}
"""
    run = record(config, tmp_path)
    with opened(browser, write_page(run, tmp_path / "page.html", tmp_path)) as found:
        found.draw_all()
        assert found.page.locator("script").count() == 4
        assert f"</pre>{evil}" in found.page.text_content("header")
        assert found.page.text_content("#config .listing").count(evil) == 3  # the cell is a class


@pytest.mark.slow
def test_a_page_fits_a_phone_in_light_and_dark_and_prints(browser: Any, network: Path) -> None:
    shots = []
    for scheme in ("light", "dark"):
        with opened(browser, network, viewport={"width": 360, "height": 740}, color_scheme=scheme) as found:
            found.draw_all()
            assert found.page.evaluate("document.documentElement.scrollWidth") <= 360
            shots.append(found.page.evaluate("getComputedStyle(document.body).backgroundColor"))
            found.page.emulate_media(media="print")
            assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            assert not found.page.locator("nav").is_visible()
    assert shots == ["rgb(255, 255, 255)", "rgb(20, 24, 30)"]


@pytest.mark.slow
def test_without_scripts_the_text_and_the_tables_are_there(browser: Any, network: Path) -> None:
    with opened(browser, network, java_script_enabled=False) as found:
        text = found.page.text_content("body")
        assert "This page draws with JavaScript, which is off." in text
        assert "adam: {lr: 0.01}" in text
