"""A config from a stranger is refused in seconds and megabytes: nothing hangs, grows or ends the process."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any

import pytest

import runner
from runner.errors import SteprunError
from tests.forking import fork

SECONDS = 20  # of processor time, after which a process is ended: far more than any refusal takes
MEBIBYTES = 300

DOUBLING = {f"f{i}(a)": f"f{i + 1}(a) * f{i + 1}(a)" for i in range(40)} | {"f40(a)": "a"}

EXPRESSIONS: list[tuple[str, dict[str, str]]] = [
    ("-" * 10_000 + "x", {}),
    ("not " * 5_000 + "n", {}),
    ("x" + ".T" * 10_000, {}),
    ("x" + ".b" * 20_000, {}),
    ("(" * 10_000 + "x" + ")" * 10_000, {}),
    ("x[" * 5_000 + "x" + "]" * 5_000, {}),
    ("1" + "<1" * 30_000, {}),
    ("iteration" + "<iteration" * 5_000, {}),
    ("x" + "+x" * 30_000, {}),
    ("x * " + "9" * 64_000, {}),
    ("x * 0x" + "f" * 60_000, {}),
    ("x.a" + "a" * 60_000, {}),
    ("a" * 60_000 + "(x)", {}),
    ("for i in range(10 ** 18):\n  y = x\nx", {}),
    ("for i in range(40000):\n  for j in range(40000):\n    y = 1\nx", {}),
    ("f0(x)", DOUBLING),
    ("x * f0(1)", DOUBLING),
    ("f0(x)", {f"f{i}(a)": "-" * 90 + f"f{i + 1}(a)" for i in range(62)} | {"f62(a)": "a"}),
    ("y = (x, x)\nfor i in range(60):\n  y = (y, y)\nrelu(y)", {}),
    ("y = (x,)\nfor i in range(20000):\n  y = (y,)\nx", {}),
    ("y = [1]\nfor i in range(9000):\n  y = y + [y]\nx", {}),
    ("y = x\nfor i in range(30000):\n  y = y if iteration > i else x\ny", {}),
    ("[0] * 10 ** 9", {}),
    ("x * round(7, -10 ** 18)", {}),
    ("x * 9 ** 9 ** 9", {}),
    ("x * factorial(10 ** 9)", {}),
    ("x * (1 << 10 ** 10)", {}),
    ("zeros(10 ** 12)", {}),
    ("ones(1).expand(10 ** 12) * x.sum()", {}),
    ("eye(10 ** 6)", {}),
    ("arange(10 ** 12)", {}),
    ("x.repeat(10 ** 9, 10 ** 9)", {}),
    ("one_hot(tensor([1]), 10 ** 12)", {}),
    ("combinations(arange(1000), 5)", {}),
    ("combinations(arange(30), 30)", {}),
    ("cartesian_prod(*[arange(100)] * 9)", {}),
    ("cartesian_prod(arange(10 ** 6), arange(10 ** 6))", {}),
    ("kaiser_window(10 ** 11)", {}),
    ("matrix_power(x, -2 ** 62 * 2)", {}),
    ("lobpcg(x, 1, niter=10 ** 12)", {}),
    ("linalg.multi_dot([x] * 9000)", {}),
    ("zeros(10 ** 6).split(1)", {}),
    ("zeros(10 ** 7).unbind()", {}),
    ("y = x\nfor i in range(60):\n  y = cat([y, y])\ny", {}),
    ("F.interpolate(x[None, None], scale_factor=10 ** 9)", {}),
    ("linalg.eigvals(x / 0)", {}),
    ("repeat_interleave(x, tensor([2 ** 62, 2 ** 62, 2 ** 62]), 0)", {}),
    ("lstm(x[None], [zeros(1, 3, 4)] * 2, [ones(1, 1)] * 2, False, 1, 0.0, False, False, False)[0]", {}),
    ("div(tensor([-2 ** 63]), tensor([-1]), rounding_mode='trunc')", {}),
    ("segment_reduce(x, 'sum', lengths=tensor([2 ** 62, 3]), unsafe=True)", {}),
    ("special.zeta(x, tensor(-4503599627370495.5))", {}),
    ("polygamma(2, x - 2 ** 52)", {}),
    ("special.laguerre_polynomial_l(x, tensor(1e15))", {}),
    ("mvlgamma(x + 2 ** 33, 2 ** 32)", {}),
    ("grid_sample(x[None, None], zeros(1, 3, 3, 2) / 0, padding_mode='border')", {}),
    ("y = x.sum()\nfor i in range(60):\n  y = grad(y * y * y, x).sum()\ny", {}),
    ("pdist(x[:0])", {}),
    ("F.pad(x, (2 ** 62, 0))", {}),
    ("x.view(2 ** 62, 2 ** 62)", {}),
    ("max_pool1d(x, 2 ** 62)", {}),
    ("max_pool1d(x, [tensor(2 ** 62)])", {}),
    ("matrix_power(x, tensor(2 ** 62))", {}),
    ("F.adaptive_max_pool2d(x[None], [2 ** 40, 0])", {}),
    ("F.interpolate(x[None, None, :0], [2 ** 31 - 1, 3], mode='bicubic')", {}),
    ("affine_grid_generator(x[None, :2], [1, 1, 2 ** 40, 0], True)", {}),
    ("zeros(2 ** 40, 0).diff(2 ** 40, 0)", {}),
    ("zeros(2 ** 31, 0, 2).qr()[0]", {}),
    ("torch.native_group_norm(x[:0], x[0], x[0], 2, 6, 2 ** 62, 2, 1.0)[0]", {}),
    ("torch.embedding_bag(x, tensor([1, 2]), tensor([0])[:0], mode=1)[0]", {}),
]


def _config(expression: str, functions: dict[str, str]) -> str:
    lines = [
        "parameters: {x: {shape: [3, 3], init: 2}}",
        "constants: {n: 3}",
        f"expression: {json.dumps(expression)}",
        "steps: [forward]",
    ]
    declared = [f"  {json.dumps(head)}: {json.dumps(body)}" for head, body in functions.items()]
    return "\n".join([*lines, *(["functions:", *declared] if declared else [])])


def _planned(text: str) -> dict[str, Any]:
    """What planning ends in, tried in a process of its own: the error's text, and the memory it took."""
    reading, writing = os.pipe()
    process = fork()
    if process == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # forgets the peak that came with the fork
        found: dict[str, Any] = {"error": None}
        before = _peak()
        try:
            runner.compile(runner.loads(text))
        except SteprunError as error:
            found["error"] = str(error)
        except BaseException as error:
            found["escaped"] = repr(error)
        found["memory"] = _peak() - before
        os.write(writing, json.dumps(found).encode()[:60_000])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        answer = file.read()
    _, status = os.waitpid(process, 0)
    assert not os.WIFSIGNALED(status), f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    result: dict[str, Any] = json.loads(answer)
    return result


def _peak() -> float:
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Everything is imported once, before processes are forked."""
    runner.compile(runner.loads(_config("x * 2", {})))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads memory from /proc")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.parametrize(("expression", "functions"), EXPRESSIONS, ids=[text[:40] for text, _ in EXPRESSIONS])
def test_a_hostile_expression_is_refused_in_seconds_and_megabytes(expression: str, functions: dict[str, str]) -> None:
    found = _planned(_config(expression, functions))
    assert "escaped" not in found, found["escaped"]
    assert found["error"], "it was planned"
    assert "Traceback" not in found["error"]
    assert found["memory"] < MEBIBYTES
