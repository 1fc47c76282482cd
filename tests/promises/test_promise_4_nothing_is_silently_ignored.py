# ruff: noqa: E501 — configs in one line
"""Promise 4: what could be ignored is an error, or a named warning where it may be meant."""

from __future__ import annotations

import pytest

import runner
from tests.engine.running import compiled
from tests.tables import over

ERRORS = {
    "a misspelt key at the top": ("{parameters: {x: 1}, expression: x ** 2, stepps: 3}", "stepps"),
    "a misspelt key of a tensor": (
        "{parameters: {x: {init: 1, requires_gard: false}}, expression: x}",
        "requires_gard",
    ),
    "a misspelt key of an optimizer": (
        "{parameters: {x: 1}, expression: x, optimizer: {sgd: {lrr: 1}}, steps: 1}",
        "lrr",
    ),
    "a misspelt key of a step": ("{parameters: {x: 1}, expression: x, steps: [backward: {objektive: x}]}", "objektive"),
    "a misspelt key of the log": ("{parameters: {x: 1}, expression: x, log: {evry: 2}}", "evry"),
    "a parameter that nothing reads": (
        "{parameters: {x: 1, y: 2}, expression: x ** 2}",
        "`y` never reaches the objective",
    ),
    "a parameter that no step computes with": (
        '{parameters: {x: 1, y: 2}, expression: "a = x\\nb = y", steps: [backward: a]}',
        "`y` never reaches the objective",
    ),
    "an objective without a parameter": (
        "{parameters: {x: 1}, expression: x.detach() * 2}",
        "no trainable parameter reaches the objective",
    ),
    "an optimizer that holds nothing": (
        "{parameters: {x: {init: 1, requires_grad: false}}, expression: x * 2, optimizer: {sgd: {lr: 1}}, steps: [forward]}",
        "this optimizer has no parameters",
    ),
    "a training that steps nothing of its objective": (
        """\
parameters: {x: 1, y: 1}
expression: |
  a = x ** 2
  b = a + y
optimizers: {one: {sgd: {}, parameters: [x]}, two: {sgd: {}, parameters: [y]}}
steps: [train: {objective: a, optimizer: two}, train]
""",
        "the objective `a` does not depend on the parameters of `two`",
    ),
    "a step without an optimizer": (
        "{parameters: {x: 1}, expression: x, steps: [backward, step]}",
        "there is no optimizer",
    ),
    "a value in the expression that nothing reads": (
        '{parameters: {x: 1}, expression: "x * 3\\ny = x * 2"}',
        "this value is not used",
    ),
    "a pattern of the log that matches nothing": (
        "{parameters: {x: 1}, expression: x, log: {include: [y]}}",
        "`y` matches no column",
    ),
    "a tolerance of integers": (
        "{parameters: {x: {init: 1, dtype: int64, requires_grad: false}, y: 1}, expression: x * y, steps: [backward, expect: {x: {value: 1, rtol: 0.1}}]}",
        "compared exactly",
    ),
    "a fraction that an integer would lose": (
        "{parameters: {n: {init: 1, dtype: int64, requires_grad: false}, y: 1}, expression: n * y, steps: [backward, assign: {n: n / 2}]}",
        "this value is float32, and `n` is int64",
    ),
    "an imaginary part that a real weight would lose": (
        "{parameters: {x: 1.0}, expression: x * 2, steps: [backward, assign: {x: 'complex(x, x)'}]}",
        "this value is complex64, and `x` is float32",
    ),
    "an imaginary part of the objective": (
        "{parameters: {x: 1.0}, expression: 'complex(x, x)'}",
        "the objective `value` is complex64",
    ),
    "the gradient of a frozen parameter": (
        "{parameters: {x: 1.0, m: {init: 1, requires_grad: false}}, expression: x * m, steps: [backward, assign: {m.grad: 1}]}",
        "`m` is frozen",
    ),
    "`every` outside a loop": (
        "{parameters: {x: 1}, expression: x, steps: [{backward: , every: 2}]}",
        "outside a loop",
    ),
    "`stop` outside a loop": ("{parameters: {x: 1}, expression: x, steps: [backward, stop]}", "outside a loop"),
    "accumulating with lbfgs": (
        "{parameters: {x: 1}, expression: x, optimizer: {lbfgs: {}}, steps: [train: {accumulate: 3}]}",
        "cannot accumulate",
    ),
    "an engine that is not there": ("{parameters: {x: 1}, expression: x, engine: compile}", "engine"),
    "a metric that hides behind a value": (
        "{parameters: {x: 1}, expression: loss = x, metrics: {loss: x * 2}}",
        "would share a column",
    ),
    "a group that holds nothing": (
        "{parameters: {x: 1}, expression: x, optimizer: {sgd: {}, groups: [{parameters: ['b*'], lr: 1}]}, steps: 1}",
        r"`b\*` matches no parameter",
    ),
    "the state of a parameter that is not held": (
        "{parameters: {x: 1}, expression: x, optimizer: {adam: {}, state: {y: {exp_avg: 1}}}, steps: 1}",
        "`y`",
    ),
    "a shape that the list does not have": (
        "{parameters: {x: {shape: [3], init: [1, 2]}}, expression: x.sum()}",
        "shape",
    ),
    "columns without a file": ("{parameters: {x: {init: 1, columns: [a]}}, expression: x}", "columns"),
}


@over("what", ERRORS)
def test_what_would_be_ignored_is_an_error(what: str) -> None:
    text, message = ERRORS[what]
    with pytest.raises(runner.ConfigError, match=message) as caught:
        compiled(text)
    assert all(problem.hint and problem.line for problem in caught.value.problems)


WARNINGS = {
    "a constant tensor": (
        "{parameters: {x: 1}, constants: {c: [1.0]}, expression: x}",
        "the constant `c` is not used",
    ),
    "a scalar constant": ("{parameters: {x: 1}, constants: {c: 2}, expression: x}", "the constant `c` is not used"),
    "a scalar constant of its own name only": (
        "{parameters: {x: 1}, constants: {c: 2, cc: c}, expression: x * cc}",
        None,
    ),
    "a function": ("{parameters: {x: 1}, functions: {f(v): v * 2}, expression: x}", "the function `f` is not used"),
    "a function with the name of a value": (
        "{parameters: {x: 1}, functions: {f(v): v * 2}, expression: f = x}",
        "the function `f` is not used",
    ),
    "an optimizer": (
        "{parameters: {x: 1}, expression: x, optimizer: {sgd: {lr: 1}}}",
        "no step uses the optimizer",
    ),
    "a parameter that no optimizer holds": (
        "{parameters: {x: 1, y: 1}, expression: x * y, optimizer: {sgd: {lr: 1}, parameters: [x]}, steps: 1}",
        "no optimizer updates the trainable parameter `y`",
    ),
    "a trainable parameter without a gradient": (
        "{parameters: {x: 1, y: 1}, expression: x * y.detach()}",
        "the parameter `y` never reaches an objective, and has no gradient",
    ),
    "a metric": (
        '{parameters: {x: 1}, expression: "a = x\\nb = x * 2", metrics: {m: b + 1}, steps: [backward: a]}',
        "no step computes what the metric `m` reads",
    ),
}


@over("what", WARNINGS)
def test_what_may_be_meant_is_a_warning_with_its_place(what: str) -> None:
    text, message = WARNINGS[what]
    warnings = compiled(text).warnings
    assert [warning.message for warning in warnings] == ([] if message is None else [message])
    assert all(warning.line and warning.hint for warning in warnings)


USED = {
    "in a shape": "{parameters: {x: {shape: [n], init: ones}}, constants: {n: 2}, expression: x.sum()}",
    "in another constant": "{parameters: {x: 1}, constants: {n: 2, m: n * 2}, expression: x * m}",
    "in an initialiser": "{parameters: {x: {init: {normal: {std: n}}}}, constants: {n: 2}, expression: x}",
    "in a hyperparameter": "{parameters: {x: 1}, constants: {n: 2}, expression: x, optimizer: {sgd: {lr: n / 10}}, steps: 1}",
    "in a count": "{parameters: {x: 1}, constants: {n: 2}, expression: x, optimizer: {sgd: {}}, steps: n}",
    "in an expectation": "{parameters: {x: 1}, constants: {n: 1}, expression: x, steps: [backward, expect: {x.grad * n: 1}]}",
    "in a function": "{parameters: {x: 1}, constants: {n: 1}, functions: {f(v): v * n}, expression: f(x)}",
    "as an initial state": "{parameters: {x: 1}, constants: {m0: {init: 1}}, expression: x, optimizer: {adam: {}, state: {x: {exp_avg: m0}}}, steps: 1}",
    "as a table of rates": "{parameters: {x: 1}, constants: {lrs: [0.1, 0.2]}, expression: x, optimizer: {sgd: {lr: 'lrs[t - 1]'}}, steps: 2}",
    "in the start of another tensor": "{parameters: {x: {init: {expression: c * 2}}}, constants: {c: [1.0]}, expression: x.sum()}",
    "in a condition": "{parameters: {x: 1}, constants: {c: [1.0]}, expression: x, steps: [{backward: , when: 'c[0] > 0'}]}",
    "in a metric": "{parameters: {x: 1}, constants: {c: [1.0]}, expression: loss = x, metrics: {m: loss + c.sum()}}",
}


@over("where", USED)
def test_what_is_used_somewhere_is_not_warned_of(where: str) -> None:
    assert compiled(USED[where]).warnings == ()
