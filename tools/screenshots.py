"""Draws the pages of reports that `docs/report.md` shows: `python -m tools.screenshots`.

Records eight runs, sweeps and differences in a temporary folder, writes their pages, and saves the first screens of
each as `docs/images/report-NAME.png`. It needs Chromium and Playwright.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1200, 1500

DIVERGING = """\
name: diverging
description: A step size that is too large for the curvature.
parameters: {x: {shape: [2], init: [-1.2, 1.0]}}
expression: |
  a, b = x[0], x[1]
  height = (1 - a) ** 2 + 100 * (b - a ** 2) ** 2
optimizer: {sgd: {lr: 0.01}}
steps: 60
"""

SWEPT = """\
name: swept
description: Gradient descent on a quadratic bowl, from random starts.
parameters: {x: {shape: [4], init: normal}}
constants: {rate: 0.1, momentum: 0.0}
expression: loss = (x ** 2 * tensor([1.0, 2.0, 4.0, 8.0])).sum()
optimizer: {sgd: {lr: rate, momentum: momentum}}
steps: 40
sweep:
  grid: {rate: "logspace(-2.5, -0.5, 10)", momentum: [0.0, 0.5, 0.9, 0.95], seed: "range(25)"}
  objective: {minimize: loss, over: last}
"""

ORDER = """\
name: order
parameters: {x: {shape: [3], init: [START, 0.2, 0.3]}, w: {shape: [3], init: [0.5, -0.25, 2.0]}}
expression: |
  hidden = tanh(x * w)
  loss = EXPRESSION
optimizer: {sgd: {lr: 0.1}}
steps: 12
"""


def steprun(folder: Path, *arguments: str, codes: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runner", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode not in codes:
        raise SystemExit(f"steprun {' '.join(arguments)}\n{done.stdout}{done.stderr}")


def gallery(name: str) -> Callable[[Path, Path], None]:
    def draw(folder: Path, page: Path) -> None:
        shutil.copytree(ROOT / "configs", folder / "configs")
        steprun(folder, f"configs/{name}.yaml", "--quiet")
        steprun(folder, "report", f"runs/{name}/latest", "-o", str(page))

    return draw


def failed(folder: Path, page: Path) -> None:
    (folder / "diverging.yaml").write_text(DIVERGING, encoding="utf-8")
    steprun(folder, "diverging.yaml", "--quiet", codes=(1,))
    steprun(folder, "report", "runs/diverging/latest", "-o", str(page))


def sweep(folder: Path, page: Path) -> None:
    (folder / "swept.yaml").write_text(SWEPT, encoding="utf-8")
    steprun(folder, "sweep", "swept.yaml", "--quiet", codes=(0, 1))
    steprun(folder, "report", "sweeps/swept/latest", "-o", str(page))


def difference(*sides: tuple[str, str]) -> Callable[[Path, Path], None]:
    def draw(folder: Path, page: Path) -> None:
        for name, (start, expression) in zip(("before", "after"), sides, strict=True):
            text = ORDER.replace("START", start).replace("EXPRESSION", expression)
            (folder / "order.yaml").write_text(text, encoding="utf-8")
            steprun(folder, "order.yaml", "--quiet", "--name", name)
        steprun(folder, "report", "runs/before/latest", "runs/after/latest", "-o", str(page), codes=(0, 3))

    return draw


SUM, NORM = "(hidden ** 2).sum()", "linalg.vector_norm(hidden) ** 2"

PAGES: dict[str, Callable[[Path, Path], None]] = {
    "linear": gallery("linear"),
    "digits": gallery("digits"),
    "transformer": gallery("transformer"),
    "gan": gallery("gan"),
    "failed": failed,
    "sweep": sweep,
    "one-ulp": difference(("0.1", SUM), ("0.10000001", SUM)),
    "refactored": difference(("0.1", SUM), ("0.1", NORM)),
}


def main(names: list[str]) -> None:
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as running, tempfile.TemporaryDirectory() as temporary:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for name in names or list(PAGES):
            folder = Path(temporary) / name
            folder.mkdir()
            PAGES[name](folder, folder / "page.html")
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto((folder / "page.html").as_uri())
            page.wait_for_timeout(500)
            page.screenshot(path=IMAGES / f"report-{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
