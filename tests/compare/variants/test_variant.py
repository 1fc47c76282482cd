"""What `--with` asks for."""

from __future__ import annotations

import re

import pytest

import runner
from runner.compare.variants.variant import variant_of
from runner.errors import ConfigError, UsageError
from tests.tables import over

CONFIG = runner.loads(
    "parameters: {x: 1}\nconstants: {rate: 0.5}\nexpression: x * rate\noptimizer: {sgd: {lr: rate}}\nsteps: 2\n"
)


def test_all_pairs_together_are_one_variant() -> None:
    variant = variant_of(CONFIG, ["dtype=float64", "rate=0.25", "threads=3", "optimizer=rule:sgd"])
    assert (variant.threads, variant.config.dtype, variant.config.constants["rate"]) == (3, "float64", 0.25)
    rule = variant.config.optimizers["optimizer"].rule
    assert rule is not None
    assert rule.update == "param = add(param, grad, alpha=-rate)"
    assert CONFIG.dtype == "float32"


def test_with_another_dtype_what_is_declared_in_the_same_one_changes_along() -> None:
    text = (
        "dtype: float16\nparameters: {a: {init: 1, dtype: float16}, b: {init: 1, dtype: float32}, c: 1}\n"
        "constants: {n: {init: [1], dtype: int64}, k: {init: [1.0], dtype: float16}}\n"
        "data: {d: {file: data.npz, columns: {x: x, y: y}, dtype: {x: float16, y: int64}}}\nexpression: a + b + c\n"
    )
    config = variant_of(runner.loads(text), ["dtype=float64"]).config
    assert {name: tensor.dtype for name, tensor in config.parameters.items()} == {
        "a": "float64",
        "b": "float32",
        "c": None,
    }
    assert {name: tensor.dtype for name, tensor in config.constants.items()} == {"n": "int64", "k": "float64"}
    assert config.data["d"].dtype == {"x": "float64", "y": "int64"}


def test_a_deletion_is_a_variant() -> None:
    with pytest.raises(ConfigError, match="there is no optimizer"):
        runner.compile(variant_of(CONFIG, ["~optimizer"]).config)
    assert variant_of(CONFIG, ["~optimizer"]).config.optimizers == {}


@over(
    ("pair", "told", "hint"),
    [
        ("dtype", "`--with dtype` has no value", "write `--with dtype=…`"),
        ("dtype=", "`--with dtype=` has no value", "write `--with dtype=…`"),
        ("", "`--with ` has no value", "write `--with dtype=…`"),
        ("threads=0", "`--with threads=0`: threads are a number from 1 to 1024", None),
        ("threads=two", "`--with threads=two`: threads are a number from 1 to 1024", None),
        ("threads=²", "`--with threads=²`: threads are a number from 1 to 1024", None),
    ],
)
def test_a_pair_that_asks_for_nothing_is_told(pair: str, told: str, hint: str | None) -> None:
    with pytest.raises(UsageError, match=re.escape(told)) as raised:
        variant_of(CONFIG, [pair])
    assert (raised.value.problems[0].message, raised.value.problems[0].hint) == (told, hint)


def test_threads_of_the_process_are_no_constant_of_the_config() -> None:
    config = runner.loads("parameters: {x: 1}\nconstants: {threads: 2}\nexpression: x * threads\n")
    with pytest.raises(UsageError, match="sets the threads of the process") as raised:
        variant_of(config, ["threads=1"])
    assert raised.value.problems[0].message == (
        "`--with threads=…` sets the threads of the process, and the config has a constant `threads`"
    )
    assert raised.value.problems[0].hint == "write `--with constants.threads=…` for the constant, or rename it"
    assert variant_of(config, ["constants.threads=1"]).config.constants["threads"] == 1


def test_a_key_that_there_is_not_is_a_fault_of_the_override() -> None:
    with pytest.raises(ConfigError, match="override dtpe=float64:1:1"):
        variant_of(CONFIG, ["dtpe=float64"])
