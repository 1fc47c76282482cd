# ruff: noqa: E501 — configs in one line
"""The program: loops, conditions, counting, the paths of rows, and which rows the log keeps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import runner
from runner.engine import initial_state
from tests.engine.running import compiled, rows_of, same
from tests.tables import over

COUNTER = """\
parameters: {x: 0.0, y: 0.0, z: 0.0}
expression: f = x + y + z
"""
"""Parameters that `assign` steps count in."""


def count(name: str, by: str = "1") -> str:
    return f"{{assign: {{{name}: {name} + {by}}}}}"


def counting(text: str) -> list[runner.Row]:
    """The rows of steps that count, before which the expression is computed once, so that all is in use."""
    start, _, *rows = rows_of(COUNTER + text.replace("steps: [", "steps: [forward, ", 1))
    return [start, *rows]


def counts(text: str) -> list[float]:
    last = counting(text)[-1]
    return [last[name].item() for name in ("x", "y", "z")]


# repeat


def test_loops_nest() -> None:
    steps = f"steps: [{{repeat: {{times: 3, steps: [{count('x')}, {{repeat: {{times: 4, steps: [{count('y')}]}}}}]}}}}, {count('z')}]"
    assert counts(steps) == [3, 12, 1]


def test_a_loop_of_no_times_is_skipped() -> None:
    assert counts(f"steps: [{{repeat: {{times: 0, steps: [{count('x')}]}}}}, {count('z')}]") == [0, 0, 1]


def test_a_loop_of_no_times_inside_a_loop_is_skipped_each_time() -> None:
    inner = f"{{repeat: {{times: 0, steps: [{count('y')}]}}}}"
    assert counts(f"steps: [{{repeat: {{times: 2, steps: [{count('x')}, {inner}, {count('z')}]}}}}]") == [2, 0, 2]


def test_times_is_an_expression_of_scalar_constants() -> None:
    constants = "constants: {epochs: 2, batches: 'epochs + 1'}\n"
    assert counts(constants + f"steps: [{{repeat: {{times: epochs * batches, steps: [{count('x')}]}}}}]")[0] == 6


def test_a_count_of_steps_is_so_many_train_steps() -> None:
    text = "parameters: {x: 1.0}\nexpression: f = x ** 2\noptimizer: {sgd: {lr: 0.1}}\n"
    short, long = rows_of(text + "steps: 3"), rows_of(text + "steps: [{repeat: {times: 3, steps: [train]}}]")
    assert [(row.path, row.iteration) for row in short] == [(row.path, row.iteration) for row in long]
    assert all(same(one["x"], other["x"]) for one, other in zip(short, long, strict=True))


# stop


def test_stop_leaves_the_innermost_loop() -> None:
    inner = f"{{repeat: {{times: 10, steps: [{count('y')}, {{stop: , when: iteration == 3}}, {count('z')}]}}}}"
    assert counts(f"steps: [{{repeat: {{times: 2, steps: [{count('x')}, {inner}]}}}}]") == [2, 6, 4]


def test_a_bare_stop_leaves_at_once() -> None:
    assert counts(f"steps: [{{repeat: {{times: 5, steps: [{count('x')}, stop, {count('y')}]}}}}, {count('z')}]") == [
        1,
        0,
        1,
    ]


def test_stop_when_a_value_is_reached() -> None:
    text = """\
parameters: {x: 1.0}
expression: f = x ** 2
optimizer: {sgd: {lr: 0.25}}
steps:
  - repeat:
      times: 100
      steps: [train, {stop: , when: f < 0.1}]
"""
    rows = rows_of(text)
    values = [row["f"].item() for row in rows[1:]]
    assert values[-1] < 0.1 <= values[-2]
    assert len(values) < 100


def test_stop_with_every() -> None:
    assert counts(f"steps: [{{repeat: {{times: 10, steps: [{count('x')}, {{stop: , every: 4}}]}}}}]")[0] == 4


# every, when, iteration


def test_every_runs_a_step_on_iterations_n_2n_and_so_on() -> None:
    text = "steps: [{repeat: {times: 10, steps: [{assign: {x: x + iteration}, every: 3}]}}]"
    rows = counting(text)
    assert [row.iteration for row in rows[1:]] == [3, 6, 9]
    assert rows[-1]["x"].item() == 18


def test_every_is_an_expression_of_scalar_constants() -> None:
    text = (
        "constants: {half: 2}\n"
        + f"steps: [{{repeat: {{times: 10, steps: [{{{count('x')[1:-1]}, every: half * 2}}]}}}}]"
    )
    assert counts(text)[0] == 2


def test_every_counts_the_innermost_loop() -> None:
    inner = f"{{repeat: {{times: 3, steps: [{{{count('y')[1:-1]}, every: 2}}]}}}}"
    assert counts(f"steps: [{{repeat: {{times: 3, steps: [{inner}]}}}}]")[1] == 3


def test_when_is_read_just_before_the_step() -> None:
    steps = f"steps: [{{repeat: {{times: 5, steps: [{count('x')}, {{{count('y')[1:-1]}, when: x >= 3}}]}}}}]"
    assert counts(steps)[:2] == [5, 3]


def test_every_and_when_must_both_hold() -> None:
    steps = f"steps: [{{repeat: {{times: 8, steps: [{{{count('x')[1:-1]}, every: 2, when: iteration > 4}}]}}}}]"
    assert [row.iteration for row in counting(steps)[1:]] == [6, 8]


def test_every_is_asked_before_when() -> None:
    """A condition that cannot be read yet is not read on iterations that `every` skips."""
    steps = "steps: [{repeat: {times: 2, steps: [{assign: {x: 1}, every: 2, when: f < 1}, forward]}}]"
    assert [row.step for row in rows_of(COUNTER + steps)] == ["start", "forward", "assign", "forward"]


def test_a_skipped_step_logs_no_row_and_takes_no_number() -> None:
    rows = counting(f"steps: [{{{count('x')[1:-1]}, when: x > 5}}, {count('y')}]")
    assert [(row.number, row.step) for row in rows] == [(0, "start"), (2, "assign")]
    assert rows[1]["x"].item() == 0


@over("condition", ["x == 0", "true", "iteration == 1", "(x == 0) & (y == 0)", "x == 0 and y == 0", "1"])
def test_conditions_are_tensors_of_one_element_or_scalars(condition: str) -> None:
    if condition == "x == 0 and y == 0":
        with pytest.raises(runner.ConfigError, match="`and` takes scalar conditions"):
            counts(f"steps: [{{{count('z')[1:-1]}, when: {condition}}}, forward]")
        return
    assert counts(f"steps: [{{{count('z')[1:-1]}, when: {condition}}}, forward]")[2] == 1


def test_iteration_counts_the_innermost_loop_from_1_and_is_1_outside() -> None:
    inner = "{repeat: {times: 3, steps: [{assign: {y: y * 10 + iteration}}]}}"
    outer = f"{{repeat: {{times: 2, steps: [{{assign: {{x: x * 10 + iteration}}}}, {inner}]}}}}"
    assert counts(f"steps: [{outer}, {{assign: {{z: iteration}}}}]") == [12, 123123, 1]


def test_iteration_in_the_expression_is_that_of_the_steps_loop() -> None:
    text = """\
parameters: {x: 1.0}
constants: {targets: [10, 20, 30]}
expression: f = x * targets[iteration - 1] + iteration
steps: [forward, {repeat: {times: 3, steps: [forward]}}]
"""
    assert [row["f"].item() for row in rows_of(text)[1:]] == [11, 11, 22, 33]


# rows and their paths


def paths(steps: str) -> list[str]:
    text = "parameters: {x: 1.0}\nexpression: f = x ** 2\noptimizer: {sgd: {lr: 0.1}}\n"
    return [row.path for row in rows_of(text + f"steps: {steps}")][1:]


def test_a_path_numbers_a_step_where_its_list_has_more_than_one() -> None:
    assert paths("[train]") == ["train"]
    assert paths("[backward, step]") == ["1.backward", "2.step"]
    assert paths("2") == ["repeat[1].train", "repeat[2].train"]
    assert paths("[{repeat: {times: 2, steps: [backward, train]}}]") == [
        "repeat[1].1.backward",
        "repeat[1].2.train",
        "repeat[2].1.backward",
        "repeat[2].2.train",
    ]
    assert paths("[backward, {repeat: {times: 1, steps: [{repeat: {times: 2, steps: [train]}}, step]}}]") == [
        "1.backward",
        "2.repeat[1].1.repeat[1].train",
        "2.repeat[1].1.repeat[2].train",
        "2.repeat[1].2.step",
    ]


def test_rows_are_numbered_from_0_without_gaps() -> None:
    rows = rows_of(
        COUNTER + f"steps: [{{repeat: {{times: 3, steps: [{count('x')}, {{{count('y')[1:-1]}, every: 2}}]}}}}, forward]"
    )
    assert [row.number for row in rows] == list(range(len(rows)))


def test_a_rows_iteration_is_that_of_its_innermost_loop() -> None:
    rows = rows_of(
        COUNTER + "steps: [forward, {repeat: {times: 2, steps: [forward, {repeat: {times: 2, steps: [backward]}}]}}]"
    )
    assert [(row.step, row.iteration) for row in rows] == [
        ("start", 1),
        ("forward", 1),
        ("forward", 1),
        ("backward", 1),
        ("backward", 2),
        ("forward", 2),
        ("backward", 1),
        ("backward", 2),
    ]


def test_a_value_that_a_step_did_not_compute_is_null_and_weights_are_always_there() -> None:
    rows = rows_of(COUNTER + f"steps: [forward, {count('x')}, backward]")
    assert [row["f"] is None for row in rows] == [True, False, True, False]
    assert all(row[name] is not None for row in rows for name in ("x", "y", "z"))
    assert [row["x.grad"] is None for row in rows] == [True, True, True, False]


def test_tensors_of_a_row_are_never_written_again() -> None:
    text = """\
parameters: {w: [1.0, 2.0]}
expression: |
  v = w.reshape(2)
  f = (v ** 2).sum()
optimizer: {adam: {lr: 0.1}}
steps: [{repeat: {times: 3, steps: [backward, step, clip_grad_norm: 0.1, assign: {w.grad: w, w: w * 2}, {zero_grad: {set_to_none: false}}]}}]
log: {state: true}
"""
    check_never_written_again(text)


def test_tensors_of_train_rows_are_never_written_again() -> None:
    check_never_written_again(
        "{parameters: {w: [1.0, 2.0]}, expression: f = (w ** 2).sum(), optimizer: {sgd: {lr: 0.1, momentum: 0.9}}, steps: 5}"
    )


def check_never_written_again(text: str) -> None:
    kept, copies = [], []
    for row in runner.execute(compiled(text)):
        kept.append(row.values)
        copies.append([None if value is None else value.clone() for value in row.values])
    for values, copied in zip(kept, copies, strict=True):
        assert all(same(one, other) for one, other in zip(values, copied, strict=True))


def test_rows_come_as_they_happen() -> None:
    rows = runner.execute(
        compiled(COUNTER + "steps: [{repeat: {times: 1000000000, steps: [forward]}}]\nlog: {budget: 1e12}")
    )
    assert isinstance(rows, Iterator)
    assert [next(rows).number for _ in range(5)] == [0, 1, 2, 3, 4]


# log


LOGGED = """\
parameters: {w: [1.0, 2.0], v: {shape: [3], init: ones}}
expression: |
  h = w * v.sum()
  loss = (h ** 2).sum()
optimizer: {adam: {lr: 0.1}}
"""


def kept(log: str, steps: str) -> list[str]:
    return [row.path for row in rows_of(LOGGED + f"steps: {steps}\nlog: {log}\n")]


def test_log_every_keeps_every_nth_iteration_and_the_last() -> None:
    assert kept("{every: 3}", "7") == ["start", "repeat[3].train", "repeat[6].train", "repeat[7].train"]
    assert kept("{every: 3}", "6") == ["start", "repeat[3].train", "repeat[6].train"]
    assert kept("{every: 100}", "2") == ["start", "repeat[2].train"]


def test_log_every_keeps_steps_outside_loops() -> None:
    assert kept("{every: 3}", "[forward, backward]") == ["start", "1.forward", "2.backward"]


def test_log_every_counts_the_innermost_loop() -> None:
    steps = "[{repeat: {times: 3, steps: [forward, {repeat: {times: 4, steps: [train]}}]}}]"
    assert kept("{every: 2}", steps) == [
        "start",
        "repeat[1].2.repeat[2].train",
        "repeat[1].2.repeat[4].train",
        "repeat[2].1.forward",
        "repeat[2].2.repeat[2].train",
        "repeat[2].2.repeat[4].train",
        "repeat[3].1.forward",
        "repeat[3].2.repeat[2].train",
        "repeat[3].2.repeat[4].train",
    ]


def test_log_every_keeps_the_last_iteration_of_a_loop_that_stops() -> None:
    steps = "[{repeat: {times: 10, steps: [train, {stop: , when: iteration == 5}]}}, forward]"
    assert kept("{every: 3}", steps) == ["start", "1.repeat[3].1.train", "1.repeat[5].1.train", "2.forward"]
    steps = (
        "[{repeat: {times: 2, steps: [{repeat: {times: 9, steps: [forward, train, {stop: , when: iteration == 4}]}}]}}]"
    )
    assert kept("{every: 3}", steps) == ["start"] + [
        f"repeat[{outer}].repeat[{inner}].{step}"
        for outer in (1, 2)
        for inner in (3, 4)
        for step in ("1.forward", "2.train")
    ]


def test_log_every_keeps_no_row_of_an_earlier_pass_when_a_later_one_stops() -> None:
    inner = "{repeat: {times: 9, steps: [{train: , when: 'w[0] > 0.75'}, {stop: , when: iteration == 2}]}}"
    rows = kept("{every: 5}", f"[{{repeat: {{times: 3, steps: [{inner}]}}}}]")
    assert len(rows) == len(set(rows))


def test_log_every_changes_no_number_of_a_kept_row() -> None:
    all_rows = rows_of(LOGGED + "steps: 7\n")
    some = rows_of(LOGGED + "steps: 7\nlog: {every: 3}\n")
    assert [row.number for row in some] == [0, 1, 2, 3]
    for row in some:
        (whole,) = [other for other in all_rows if other.path == row.path]
        assert all(same(one, other) for one, other in zip(row.values, whole.values, strict=True))


def test_log_include_keeps_columns_by_name_and_glob() -> None:
    rows = rows_of(LOGGED + 'steps: 1\nlog: {include: ["w*", loss]}\n')
    assert [column.name for column in rows[0].columns] == ["loss", "w", "w.grad"]


def test_log_tensors_none_keeps_numbers_alone() -> None:
    rows = rows_of(LOGGED + "steps: [train: {clip_grad_norm: 1.0}]\nlog: {tensors: none}\n")
    assert [column.name for column in rows[0].columns] == ["loss", "total_norm"]


def test_log_state_adds_optimizer_state() -> None:
    rows = rows_of(LOGGED + "steps: 2\nlog: {state: true}\n")
    names = [column.name for column in rows[0].columns]
    assert names == [
        "h", "loss", "w", "w.grad", "w.step", "w.exp_avg", "w.exp_avg_sq", "v", "v.grad", "v.step", "v.exp_avg", "v.exp_avg_sq",
    ]  # fmt: skip
    w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    v = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([w, v], lr=0.1)
    assert rows[0]["w.exp_avg"] is None
    for row in rows[1:]:
        optimizer.zero_grad()
        ((w * v.sum()) ** 2).sum().backward()
        optimizer.step()
        for key, value in optimizer.state[v].items():
            assert same(row[f"v.{key}"], value)


def test_without_log_state_no_state_is_logged() -> None:
    assert [column.role for column in rows_of(LOGGED + "steps: 1")[0].columns if column.role == "state"] == []


# state


def test_a_state_is_changed_in_place_and_can_be_gone_on_from() -> None:
    plan = compiled(LOGGED + "steps: 6\n")
    whole = list(runner.execute(plan))
    state = initial_state(plan)
    first = runner.execute(plan, state)
    rows = [next(first) for _ in range(4)]
    first.close()
    rows += runner.execute(plan, state)
    assert [row.path for row in rows] == [row.path for row in whole]
    for one, other in zip(rows, whole, strict=True):
        assert all(same(left, right) for left, right in zip(one.values[2:], other.values[2:], strict=True))
    assert same(state.tensors()["w"], whole[-1]["w"])


def test_two_runs_of_one_plan_are_alike_and_apart() -> None:
    plan = compiled(LOGGED + "steps: 3\n")
    first, second = list(runner.execute(plan)), list(runner.execute(plan))
    for one, other in zip(first, second, strict=True):
        assert all(same(left, right) for left, right in zip(one.values, other.values, strict=True))


def test_runs_of_one_plan_may_alternate() -> None:
    text = "{seed: 1, parameters: {w: [1.0, 2.0]}, expression: 'dropout(w, 0.5).sum()', optimizer: {sgd: {lr: 0.1}}, steps: 4}"
    plan = compiled(text)
    alone = [row["w"] for row in runner.execute(plan)]
    pairs = list(zip(runner.execute(plan), runner.execute(plan), strict=True))
    assert all(
        same(one["w"], value) and same(other["w"], value) for (one, other), value in zip(pairs, alone, strict=True)
    )


def test_the_callers_gradient_mode_does_not_matter() -> None:
    plan = compiled(LOGGED + "steps: [train, forward, backward]\n")
    usual = list(runner.execute(plan))
    with torch.no_grad():
        unusual = list(runner.execute(plan))
    for one, other in zip(usual, unusual, strict=True):
        assert all(same(left, right) for left, right in zip(one.values, other.values, strict=True))
