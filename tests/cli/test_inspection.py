"""`steprun validate` and `steprun show`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from runner.catalogue import shipped_rules
from tests.cli.commands import Outcome, steprun, steprun_process

CONFIG = """\
description: Two losses and a loop.
parameters:
  w: {shape: [3, 2], init: {normal: {std: 0.1}}}
  b: [0.5, -0.5]
  frozen: {shape: [2], init: 1, requires_grad: false}
constants: {x: [[1.0, 2.0, 3.0]], rate: 0.1}
expression: |
  h = x @ w + b * frozen
  loss = (h ** 2).sum()
optimizer: {adam: {lr: rate}, groups: [{parameters: [b], weight_decay: 0.1}]}
steps:
  - repeat:
      times: 5
      steps:
        - train
        - {stop: , when: loss < 0.01}
  - expect: {loss.isnan(): false}
log: {every: 2}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(CONFIG)
    return path


def test_validate_says_that_a_config_is_valid(config: Path) -> None:
    assert steprun("validate", config) == Outcome(0, f"{config}: valid\n", "")


def test_validate_as_json(config: Path) -> None:
    assert json.loads(steprun("validate", config, "--json").out) == {"valid": True, "name": "two", "warnings": []}


def test_validate_as_json_says_that_a_config_is_not_valid(config: Path) -> None:
    config.write_text(CONFIG.replace("times: 5", "tiems: 5"))
    done = steprun("validate", config, "--json")
    told = json.loads(done.out)
    assert (done.code, told["valid"], [problem["line"] for problem in told["problems"]]) == (
        2,
        False,
        [line_of("tiems", config)],
    )
    assert "did you mean `times`?" in done.err


def test_names_that_no_operation_has_are_told_together(config: Path) -> None:
    config.write_text(
        """
parameters: {x: [1.0, 2.0]}
functions: {double(y): y + y}
expression: |
  for i in range(2):
    a = rleu(x) * len(x.shape)
  b = sgmoid(double(x)) + sofmax(x).sum() + sqrt(2)
metrics: {m: x.armgax(), n: q + 1, o: maen(b), p: b * 2}
steps: [forward]
"""
    )
    done = steprun("validate", config)
    assert re.findall(r"`(?:\.)?(rleu|sgmoid|sofmax|armgax|q|maen|range|len|double|sqrt|b)`", done.err) == [
        "rleu",
        "sgmoid",
        "sofmax",
        "armgax",
        "q",
        "maen",
    ]


MANY = " + ".join(f"a{number}(w)" for number in range(15))


@pytest.mark.parametrize(
    ("expression", "metric", "faults"),
    [
        ("foo(x).sum() + w.sum()", "value * 2", ["foo"]),
        ("h = x * 2; h = reshpe(h, 4); loss = h.sum() + w.sum()", "h @ ones(4)", ["reshpe"]),
        ("y = (foo(x) if 1 > 2 else x) @ ones(5); loss = y.sum()", "w.sum()", ["inner sizes"]),
        ("y = x @ ones(5) if 1 < 2 or foo(1) else x; loss = y.sum()", "w.sum()", ["inner sizes"]),
        ("for j in range(0): y = foo(x); loss = rleu(w).sum()", "w.sum()", ["rleu"]),
        (MANY, "w.sum()", [f"a{number}" for number in range(10)]),
        (f"w @ ones(9) + {MANY}", "w.sum()", ["inner sizes", *(f"a{number}" for number in range(9))]),
    ],
    ids=["value", "stale", "branch", "condition", "loop", "many", "many beside another"],
)
def test_no_fault_is_told_that_another_one_makes(config: Path, expression: str, metric: str, faults: list[str]) -> None:
    lines = "".join(f"  {line}\n" for line in expression.split("; "))
    config.write_text(
        f"parameters: {{x: [[1.0, 2.0], [3.0, 4.0]], w: [1.0, 2.0]}}\nexpression: |\n{lines}"
        f"metrics: {{m: {metric}}}\nsteps: [forward]\n"
    )
    told = json.loads(steprun("validate", config, "--json").out)
    found = [problem["message"] for problem in told.get("problems", ())]
    assert [re.sub(r".*no operation `(\w+)`|.*(inner sizes).*", r"\1\2", message) for message in found] == faults


def line_of(text: str, config: Path) -> int:
    return next(number for number, line in enumerate(config.read_text().splitlines(), 1) if text in line)


def test_validate_tells_every_fault(config: Path) -> None:
    config.write_text(CONFIG.replace("times: 5", "tiems: 5").replace("every: 2", "evry: 2"))
    done = steprun("validate", config)
    assert (done.code, done.out) == (2, "")
    assert "did you mean `times`?" in done.err
    assert "did you mean `every`?" in done.err


def test_validate_warns_of_what_may_be_meant(config: Path) -> None:
    config.write_text(CONFIG.replace("rate: 0.1}", "rate: 0.1, unused: [1.0]}"))
    done = steprun("validate", config)
    assert done.code == 0
    assert done.out == f"{config}: valid, 1 warning\n"
    assert done.err.startswith(f"warning: {config}:6:")
    assert "`unused` is not used" in done.err


def test_show_tells_tensors_with_their_bytes(config: Path) -> None:
    shown = json.loads(steprun("show", config, "--json").out)
    assert {tensor["name"]: (tensor["shape"], tensor["dtype"], tensor["bytes"]) for tensor in shown["tensors"]} == {
        "w": ([3, 2], "float32", 24),
        "b": ([2], "float32", 8),
        "frozen": ([2], "float32", 8),
        "x": ([1, 3], "float32", 12),
    }
    assert shown["memory_bytes"]["tensors"] == 24 + 8 + 8 + 12
    assert shown["memory_bytes"]["gradients"] == 24 + 8
    memory = shown["memory_bytes"]
    assert memory["peak"] == memory["process"] + memory["total"] + memory["rows"]
    assert "memory: about 290.0 MiB: 290.0 MiB of Python, torch and pyarrow, " in steprun("show", config).out


def test_show_tells_which_parameters_reach_which_objective(config: Path) -> None:
    shown = json.loads(steprun("show", config, "--json").out)
    assert shown["objectives"]["loss"]["reached_by"] == ["w", "b"]


def test_show_tells_the_graph_with_shapes(config: Path) -> None:
    graph = json.loads(steprun("show", config, "--json").out)["objectives"]["loss"]["graph"]
    assert [(node["operation"], node["arguments"], node["shape"]) for node in graph] == [
        ("matmul", ["x", "w"], [1, 2]),
        ("mul", ["b", "frozen"], [2]),
        ("add", ["matmul", "mul"], [1, 2]),
        ("pow", ["h", "2"], [1, 2]),
        (".sum", ["pow_1"], []),
    ]
    assert [node["value"] for node in graph] == [None, None, "h", None, "loss"]


def test_show_tells_the_program_with_its_loops(config: Path) -> None:
    steps = json.loads(steprun("show", config, "--json").out)["program"]
    assert [step["step"] for step in steps] == ["repeat", "expect"]
    assert (steps[0]["times"], [step["step"] for step in steps[0]["steps"]]) == (5, ["train", "stop"])
    assert steps[0]["steps"][1]["when"] == "loss < 0.01"


def test_show_tells_the_loop_of_a_short_form_and_mixed_precision(config: Path) -> None:
    (config.parent / "samples.csv").write_text("x,y\n1,2\n2,4\n3,6\n")
    config.write_text(
        """
autocast: {dtype: float16, loss_scale: dynamic}
parameters: {w: 1.0}
data:
  train: {file: samples.csv, columns: {x: x, y: y}, batch_size: 1}
  valid: {file: samples.csv, columns: {x: x, y: y}}
expression: loss = mse_loss(w * x, y)
optimizer: {sgd: {lr: 0.01}}
steps: {epochs: 10, evaluate: valid, patience: 3}
"""
    )
    told = steprun("show", config).out
    assert "seed 0, float32, autocast float16, scaled loss, cpu, eager engine\n" in told
    assert (
        "  1. repeat 10 times\n"
        "     1. for_each 3 times over train\n"
        "        1. train loss over train\n"
        "     2. evaluate loss over valid\n"
        "     3. checkpoint best on valid.loss\n"
        "     4. patience on valid.loss of 3 evaluations\n"
    ) in told
    autocast = json.loads(steprun("show", config, "--json").out)["autocast"]
    assert autocast["loss_scale"] == {
        "init_scale": 65536.0,
        "growth_factor": 2.0,
        "backoff_factor": 0.5,
        "growth_interval": 2000,
    }


def test_show_estimates_the_log(config: Path) -> None:
    shown = json.loads(steprun("show", config, "--json").out)
    assert shown["log_bytes"]["rows"] == 1 + 3  # start, iterations 2, 4 and the last
    assert shown["log_bytes"]["row"] == sum(
        4 * elements for elements in (2, 1, 6, 6, 2, 2, 2)
    )  # h, loss, w, w.grad, b, b.grad, frozen


def test_show_tells_what_the_log_keeps_of_a_tensor(config: Path) -> None:
    page = steprun("show", config, "log.tensors=stats").out
    logged = [line.split() for line in page[page.index("\nlog:") :].splitlines()]
    assert ["w", "weight", "[3,", "2]", "float32", "stats"] in logged
    assert ["loss", "value", "[]", "float32"] in logged


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["engine=compile"], "compile engine\n"),  # a `stop` stands in the loop
        (["engine=compile", "steps=20"], "compile engine, up to 256 iterations at once\n"),
        (["engine=compile", "steps=20", "expression=loss = (dropout(x @ w) + b * frozen).sum()"], "compile engine\n"),
        (["steps=20"], "eager engine\n"),
    ],
)
def test_show_says_how_many_iterations_are_taken_at_once(config: Path, overrides: list[str], told: str) -> None:
    assert steprun("show", config, *overrides).out.splitlines(keepends=True)[1].endswith(f"cpu, {told}")


def test_show_is_a_page_of_sections(config: Path) -> None:
    page = steprun("show", config).out
    assert page.startswith("two: Two losses and a loop.\nseed 0, float32, cpu, eager engine\n\ntensors\n")
    words = [line.split() for line in page.splitlines()]
    assert ["frozen", "parameter,", "frozen", "[2]", "float32", "1", "8", "B"] in words
    assert ["w", "parameter", "[3,", "2]", "float32", "normal(std=0.1)", "24", "B"] in words
    assert "\nobjective loss: reached by w, b\n" in page
    assert "\n  adam(lr=0.1)\n    holds w\n    holds b, with weight_decay=0.1\n" in page
    assert (
        "\nprogram\n  1. repeat 5 times\n     1. train loss\n     2. stop when loss < 0.01\n  2. expect loss.isnan()\n"
        in page
    )


def test_show_of_a_config_that_is_not_valid_exits_2(config: Path) -> None:
    config.write_text(CONFIG.replace("x @ w", "x @ b @ w"))
    done = steprun("show", config)
    assert (done.code, done.out) == (2, "")
    assert f"{config}:8:7  expression\n" in done.err


def test_show_prints_a_shipped_rule_as_it_is_in_its_file() -> None:
    shown = steprun("show", "rule:adam")
    assert shown == Outcome(0, shipped_rules()["adam"], "")
    assert "optimizer:\n  rule:\n" in shown.out


def test_show_prints_a_shipped_rule_as_json() -> None:
    assert json.loads(steprun("show", "rule:lion", "--json").out) == {"name": "lion", "text": shipped_rules()["lion"]}


def test_show_suggests_the_rule_that_was_meant() -> None:
    assert steprun("show", "rule:adm") == Outcome(
        2, "", "steprun\n      there is no rule `adm`\n      = did you mean `adam`?\n"
    )
    assert "rules are adadelta, adagrad, adam" in steprun("show", "rule:").err


def test_show_tells_the_equations_of_a_rule(config: Path) -> None:
    old = "optimizer: {adam: {lr: rate}, groups: [{parameters: [b], weight_decay: 0.1}]}"
    update = "      m = 0.9 * m + grad\n      param = param - rate * m\n"
    config.write_text(CONFIG.replace(old, f"optimizer:\n  rule:\n    state: {{m: 0}}\n    update: |\n{update}"))
    shown = steprun("show", config).out
    expected = ["optimizers", "  rule", "    m = 0.9 * m + grad", "    param = param - rate * m", "    holds w, b"]
    assert "\n".join([*expected, "    keeps m"]) in shown
    (told,) = json.loads(steprun("show", config, "--json").out)["optimizers"]
    assert (told["kind"], told["update"]) == ("rule", ["m = 0.9 * m + grad", "param = param - rate * m"])


SLOW = """\
parameters: {x: {shape: [1], init: ones}}
expression: |
  a = x.expand(700, 700)
  s = 0.0
  for i in range(20000):
    s = s + linalg.svdvals(a)[0]
  s
"""

ONE_LONG = """\
parameters: {x: {shape: [1], init: ones}}
expression: |
  loss = local_response_norm(x.expand(1, 3000, 1000), 2999).sum()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "places"),
    # How far planning comes in a second depends on the machine: it lowers the loop first, then infers its operations.
    [(SLOW, ("linalg.svdvals(a)", "for i in range(20000):")), (ONE_LONG, ("local_response_norm(",))],
)
def test_validate_ends_at_the_operation_that_takes_too_long(text: str, places: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(text, encoding="utf-8")
    done = steprun_process("validate", "slow.yaml", "--max-seconds", "1", cwd=tmp_path)
    assert done.code == 2
    assert "planning takes longer than 1 seconds" in done.err
    assert "= raise it with --max-seconds" in done.err
    assert any(place in done.err for place in places)


def test_show_shows_a_model_that_is_larger_than_the_machine(tmp_path: Path) -> None:
    text = "{parameters: {x: {shape: [10000, 1000000000], init: normal}}, expression: x.sum(), log: {tensors: none}}"
    (tmp_path / "large.yaml").write_text(text, encoding="utf-8")
    assert steprun("validate", "large.yaml", cwd=tmp_path).code == 2
    done = steprun("show", "large.yaml", "--max-memory", "1GB", cwd=tmp_path)
    assert done.code == 0
    assert "warning: large.yaml:1:" in done.err
    assert "this run needs about 72.8 TiB, but only 953.7 MiB are available" in done.err
    assert "x     parameter  [10000, 1000000000]  float32  normal  36.4 TiB" in done.out
