# ruff: noqa: E501 — configs in one line
"""Promise 5: a config executes no code, reads below its own folder alone, writes nothing, and takes neither the
machine's memory nor its time."""

from __future__ import annotations

import builtins
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import runner
from tests.tables import over

ROOT = Path(__file__).parents[2]

CODE = [
    "__import__('os').system('touch {mark}')",
    "().__class__.__bases__[0].__subclasses__()",
    "x.__class__",
    "x.__getattribute__('data')",
    "x.__reduce__()",
    "x._backward_hooks",
    "x.register_hook(print)",
    "x.data_ptr()",
    "x.numpy()",
    "x.tolist()",
    "x.item()",
    "x.apply_(abs)",
    "x.map_(x, abs)",
    "eval('1')",
    "exec('1')",
    "compile('1', '', 'eval')",
    "open('{mark}', 'w')",
    "print(x)",
    "input()",
    "globals()",
    "getattr(x, 'data')",
    "breakpoint()",
    "torch.load('{mark}')",
    "torch.save(x, '{mark}')",
    "torch.from_file('{mark}')",
    "torch.hub.load('a', 'b')",
    "torch.ops.aten.add(x, x)",
    "torch.utils.cpp_extension.load('a', ['b'])",
    "torch.manual_seed(0)",
    "torch.set_default_dtype(float64)",
    "torch.set_num_threads(1)",
    "torch.os.system('touch {mark}')",
    "torch.sys.exit(0)",
    "torch.nn.functional.torch.load('{mark}')",
    "F.__builtins__",
    "torch.jit.script(x)",
    "torch.compile(x)",
    "lambda: x",
    "[v for v in x]",
    "f'{x}'",
    "(y := x)",
    "'{0.__class__}'.format(x)",
    "x.share_memory_()",
    "x.storage()",
    "torch.empty(3)",
    "x.new_empty(3)",
    "torch.as_strided(x, (100,), (1,))",
    "x.as_strided((100,), (1,))",
    "x.set_(x)",
    "x.resize_(100)",
    "x.requires_grad_()",
    "x.to('cuda')",
    "os.system('touch {mark}')",
    "await x",
    "yield x",
    "exit()",
]


@pytest.mark.slow
@over("line", CODE)
def test_an_expression_reaches_nothing_but_operations(line: str, tmp_path: Path) -> None:
    text = line.replace("{mark}", str(tmp_path / "mark"))
    wheres = (
        "{parameters: {x: [1.0, 2.0]}, expression: %s}",
        "{parameters: {x: [1.0, 2.0], y: {init: {expression: %s}}}, expression: x.sum() + y.sum()}",
        "{parameters: {x: [1.0, 2.0]}, constants: {c: %s}, expression: x.sum() * c}",
        "{parameters: {x: [1.0, 2.0]}, expression: x.sum(), steps: [backward, assign: {x: %s}]}",
        "{parameters: {x: [1.0, 2.0]}, expression: x.sum(), steps: [backward, expect: {%s: 1}]}",
        "{parameters: {x: [1.0, 2.0]}, expression: x.sum(), steps: [{backward: , when: %s}]}",
        "{parameters: {x: [1.0, 2.0]}, expression: x.sum(), optimizer: {sgd: {lr: %s}}, steps: 1}",
        "{parameters: {x: [1.0, 2.0]}, expression: f(x), functions: {f(x): %s}}",
    )
    for where in wheres:
        quoted = '"' + text.replace('"', '\\"') + '"'
        with pytest.raises(runner.SteprunError, match=r"."):
            list(runner.execute(runner.compile(runner.loads(where % quoted, base=str(tmp_path)))))
    assert list(tmp_path.iterdir()) == []


def test_planning_and_running_open_files_below_the_configs_folder_only_and_write_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inside").mkdir()
    numpy.save(tmp_path / "inside" / "x.npy", numpy.ones((2, 2), dtype="float32"))
    text = """\
parameters: {w: {shape: [2], init: normal}}
constants: {x: {file: x.npy}}
expression: loss = dropout(x @ w, 0.5).square().sum()
optimizer: {adam: {lr: 0.1}}
steps: [{repeat: {times: 3, steps: [train: {clip_grad_norm: 1.0}]}}, expect: {w.grad.isfinite(): true}]
"""
    list(runner.execute(runner.compile(runner.loads(text, base=str(tmp_path / "inside")))))  # imports are done
    opened: list[tuple[str, str]] = []
    usual, usual_os = builtins.open, os.open

    def spy(file, mode="r", *args, **kwargs):
        opened.append((str(file), mode))
        return usual(file, mode, *args, **kwargs)

    def spy_os(file, flags, *args, **kwargs):
        opened.append((str(file), "w" if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else "r"))
        return usual_os(file, flags, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", spy)
    monkeypatch.setattr(os, "open", spy_os)
    for name in ("system", "popen", "fork", "execv", "posix_spawn"):
        monkeypatch.setattr(os, name, _forbidden)
    monkeypatch.setattr(subprocess, "Popen", _forbidden)
    monkeypatch.setattr(socket, "socket", _forbidden)
    list(runner.execute(runner.compile(runner.loads(text, base=str(tmp_path / "inside")))))
    outside = [
        (file, mode)
        for file, mode in opened
        if not Path(file).resolve().is_relative_to(tmp_path / "inside") and not file.startswith(("/proc/", "/sys/"))
    ]
    assert outside == []
    assert {mode for _, mode in opened} <= {"r", "rb"}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "x.npy"]


def _forbidden(*args: object, **kwargs: object) -> None:
    raise AssertionError("a config started a process or a connection")


@over(
    "path",
    [
        "../x.npy",
        "{absolute}",
        "link.npy",
        "folder/x.npy",
        "sub/../../x.npy",
        "~/x.npy",
        "/dev/zero.npy",
        "/proc/self/mem.npy",
    ],
)
def test_data_files_are_read_below_the_configs_folder_alone(path: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    numpy.save(tmp_path / "x.npy", numpy.ones(2, dtype="float32"))
    (inside / "link.npy").symlink_to(tmp_path / "x.npy")
    (inside / "folder").symlink_to(tmp_path)
    text = f"{{parameters: {{x: 1}}, constants: {{c: {{file: {path.format(absolute=tmp_path / 'x.npy')}}}}}, expression: x * c.sum()}}"
    config = runner.loads(text, base=str(inside))
    with pytest.raises(runner.ConfigError, match=r"outside the folders|there is no file"):
        runner.compile(config)
    if "~" not in path and not path.startswith(("/dev", "/proc")):
        assert runner.compile(config, allowed=[tmp_path]).tensors["c"].shape == (2,)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    numpy.save(tmp_path / "x.npy", numpy.array([{"a": 1}], dtype=object), allow_pickle=True)
    text = "{parameters: {x: 1}, constants: {c: {file: x.npy}}, expression: x * c.sum()}"
    with pytest.raises(runner.ConfigError, match=r"x\.npy"):
        runner.compile(runner.loads(text, base=str(tmp_path)))


HUNGRY = {
    "zeros": "h = zeros(10 ** 12)\n  loss = x + h.sum()",
    "ones of many dimensions": "h = ones(1000, 1000, 1000, 1000)\n  loss = x + h.sum()",
    "a view": "h = ones(1).expand(10 ** 13)\n  loss = x + h.sum()",
    "a repetition": "h = ones(1000).repeat(10 ** 8)\n  loss = x + h.sum()",
    "an outer product": "h = arange(1000000) * 1.0\n  loss = x + outer(h, h).sum()",
    "broadcasting": "h = ones(1000000)\n  loss = x + (h[:, None] * h).sum()",
    "one hot": "h = one_hot(arange(100000))\n  loss = x + h.sum()",
    "doubling": "h = ones(1000)\n  for i in range(60):\n    h = cat([h, h])\n  loss = x + h.sum()",
    "a loop": "h = x\n  for i in range(10 ** 9):\n    h = h + 1\n  loss = h",
    "loops in loops": "h = x\n  for i in range(1000):\n    for j in range(1000):\n      for k in range(1000):\n        h = h + 1\n  loss = h",
    "a power": "loss = x * 9 ** 9 ** 9",
    "a product of powers": "loss = x * (2 ** 62 * 2 ** 62 * 2 ** 62)",
    "a factorial": "loss = x * factorial(10 ** 9)",
    "a long string": "loss = einsum('i' * 10 ** 10, x)",
    "a long list": "loss = x + tensor([1] * 10 ** 10).sum()",
    "nesting": "loss = " + "(" * 10_000 + "x" + ")" * 10_000,
    "functions": "loss = f9(x)",
}

FUNCTIONS = "".join(
    f"  f{n}(v): f{n - 1}(v) + f{n - 1}(v) * f{n - 1}(v) + f{n - 1}(v) + f{n - 1}(v)\n" for n in range(1, 10)
)
CONFIGS = {
    what: f"parameters: {{x: 1.0}}\nfunctions:\n  f0(v): v * 2 + v * 3\n{FUNCTIONS}expression: |\n  {statements}\n"
    for what, statements in HUNGRY.items()
} | {
    "a parameter": "parameters: {x: {shape: [1000000, 1000000], init: ones}}\nexpression: x.sum()\n",
    "a random parameter": "parameters: {x: {shape: [10000000000], init: normal}}\nexpression: x.sum()\n",
    "an init": "parameters: {x: {init: {expression: 'ones(10 ** 12)'}}}\nexpression: x.sum()\n",
    "a scalar": "parameters: {x: 1.0}\nconstants: {n: 10 ** 18, m: n * n * n}\nexpression: x * m\n",
    "steps": "parameters: {x: {shape: [1000, 1000], init: ones}}\nexpression: x.sum()\noptimizer: {sgd: {lr: 1}}\nsteps: 1000000000000\n",
    "an assign": "parameters: {x: 1.0}\nexpression: x\nsteps: [backward, assign: {x: 'zeros(10 ** 12).sum()'}]\n",
    "an expect": "parameters: {x: 1.0}\nexpression: x\nsteps: [backward, expect: {x: 'zeros(10 ** 12).sum()'}]\n",
}

WATCH = """\
import json, re, sys
import torch, runner, runner.plan, runner.engine
for shape in ([1], [20_000_000]):  # and what torch imports for fake tensors
    runner.compile(runner.loads(f"{{parameters: {{x: {{shape: {shape}, init: ones}}}}, expression: x.sum()}}"))
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])  # this program's alone
calls = 0
def count(frame, event, argument):
    global calls
    calls += 1
for what, text in json.load(sys.stdin).items():
    calls, before = 0, peak()
    sys.setprofile(count)
    try:
        runner.compile(runner.loads(text))
    except runner.ConfigError:
        sys.setprofile(None)
        print(json.dumps([what, calls, (peak() - before) / 1024]), flush=True)
    sys.setprofile(None)
"""

AT_ONCE = 500_000
"""Calls and returns of functions, C's included, that count as at once: a quarter of a second of them."""


@pytest.fixture(scope="module")
def refused() -> dict[str, tuple[int, float]]:
    """For each config that was refused, the calls that it took and the MiB by which the peak of memory grew."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH],
        input=json.dumps(CONFIGS),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {what: (calls, grown) for what, calls, grown in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("what", CONFIGS)
def test_a_hungry_config_is_refused_at_once(what: str, refused: dict[str, tuple[int, float]]) -> None:
    calls, grown = refused[what]
    assert calls < AT_ONCE
    assert grown < 300
