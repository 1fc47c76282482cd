"""Loading as a whole: whatever is given ends in a config or in an error that says where."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runner.config import Config, Limits, load, loads, overridden
from runner.errors import ConfigError, UsageError
from tests.config.strategies import ANY_TEXT, INDICATORS, LINEAR, WORDS, YAML_LIKE
from tests.effort import tried

MINIMAL = "parameters: {x: 1}\nexpression: f = x\n"


def outcome(text: str, overrides: tuple[str, ...] = ()) -> Config | ConfigError:
    try:
        return loads(text, base="/nowhere", overrides=overrides)
    except ConfigError as error:
        refused = error
    for problem in refused.problems:
        assert problem.message
        assert problem.hint
        assert problem.mark is None or (problem.mark.line >= 1 and problem.mark.column >= 1)
    assert str(refused)
    return refused


@settings(max_examples=tried(400), deadline=None)
@given(ANY_TEXT)
@example('extends: "\\0"\n')
@example("? [a]\n: b\n")
@example("\ud800")
@example("{a: 1, <<: {b: 2}}")
@example("extends: [[a]]")
@example('"\\U0001F600": 3')
def test_any_text_ends_in_a_config_or_a_config_error(text: str) -> None:
    outcome(text)


OVERRIDES = st.one_of(
    st.text(max_size=40),
    INDICATORS,
    st.tuples(
        st.lists(st.sampled_from([*WORDS, "0", "1", "2", "7", '"x1.grad"', ""]), min_size=1, max_size=5).map(".".join),
        YAML_LIKE | st.text(max_size=20),
    ).map("=".join),
    st.lists(st.sampled_from([*WORDS, "0", "1"]), min_size=1, max_size=4).map(lambda path: "~" + ".".join(path)),
)


@settings(max_examples=tried(400), deadline=None)
@given(st.lists(OVERRIDES, min_size=1, max_size=3))
@example(["steps.1.expect.x1.grad=null"])
@example(["=3"])
@example(["~"])
@example(["a=\x00"])
@example(["steps.99999999999999999999=3"])
@example([""])
def test_any_override_ends_in_a_config_or_a_config_error(overrides: list[str]) -> None:
    outcome(LINEAR, tuple(overrides))


def test_the_name_is_that_of_the_file_unless_said(tmp_path: Path) -> None:
    path = tmp_path / "my first.run.yaml"
    path.write_text(MINIMAL)
    assert load(path).name == "my-first-run"
    assert load(path, ["name=other"]).name == "other"


def test_a_missing_file_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"there is no file no/such\.yaml"):
        load("no/such.yaml")


def test_a_link_to_what_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").symlink_to(tmp_path / "gone.yaml")
    with pytest.raises(UsageError, match=rf"run\.yaml is a link to {tmp_path}/gone\.yaml, which is not there"):
        load(tmp_path / "run.yaml")


def test_a_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder, not a config file"):
        load(tmp_path)


def test_faults_come_in_the_order_of_the_text_with_overrides_last(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("seed: x\n")
    text = "extends: base.yaml\nparameters: {x: }\nexpression: [f]\nengin: 3\n"
    with pytest.raises(ConfigError, match="expected") as caught:
        loads(text, base=tmp_path, name="a.yaml", overrides=["device=3", "dtype=3"])
    sources = [problem.source for problem in caught.value.problems]
    assert sources == [
        "a.yaml",
        "a.yaml",
        "a.yaml",
        str(tmp_path / "base.yaml"),
        "override device=3",
        "override dtype=3",
    ]
    assert [problem.line for problem in caught.value.problems[:3]] == [2, 3, 4]


def test_no_more_faults_are_shown_than_a_person_reads() -> None:
    text = MINIMAL + "".join(f"key{number}: 1\n" for number in range(500))
    with pytest.raises(ConfigError, match="there are more problems than these") as caught:
        loads(text, limits=Limits(problems=20))
    assert len(caught.value.problems) == 21


def test_yaml_faults_and_faults_of_values_are_told_together() -> None:
    with pytest.raises(ConfigError, match="duplicate key `") as caught:
        loads("parameters: {x: 1, x: 2}\nexpression: f = x\nseed: 1.5\ndevice: gpu\n")
    assert len(caught.value.problems) == 3


def test_a_value_that_could_not_be_read_is_reported_once() -> None:
    with pytest.raises(ConfigError, match="no anchor") as caught:
        loads("parameters: {x: 1}\nexpression: *f\n")
    assert len(caught.value.problems) == 1


def test_a_config_is_frozen() -> None:
    config = loads(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


def test_control_characters_of_a_config_never_reach_the_terminal() -> None:
    with pytest.raises(ConfigError, match="has no key") as caught:
        loads(MINIMAL + '"\\e[31mred\\n": 3\n')
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize("field", ["file_bytes", "nesting", "alias_nodes", "files", "problems"])
def test_a_limit_is_at_least_one(field: str) -> None:
    with pytest.raises(UsageError, match=f"the limit `{field}` is 0"):
        Limits(**{field: 0})


def test_nesting_cannot_be_raised_past_what_python_recurses() -> None:
    with pytest.raises(UsageError, match="it can be raised to 200"):
        Limits(nesting=201)
    deep = MINIMAL + "constants: {a: " + "[" * 198 + "1" + "]" * 198 + "}\n"
    assert loads(deep, limits=Limits(nesting=200)).constants


def test_bytes_are_read_as_utf_8() -> None:
    assert loads("parameters: {é: 1}\nexpression: f = é\n".encode()).expression == "f = é"
    with pytest.raises(ConfigError, match="0xe9 is not UTF-8"):
        loads(b"\xe9")


def test_a_file_without_leave_to_read_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UsageError, match=r"cannot read a\.yaml: permission denied"):
        load("a.yaml")


def test_further_overrides_give_the_config_that_all_of_them_at_once_give(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("constants: {rate: 0.5}\n")
    path = tmp_path / "config.yaml"
    path.write_text(f"extends: base.yaml\n{MINIMAL}optimizer: {{sgd: {{lr: rate}}}}\nsteps: 3\n")
    further = overridden(load(path, ["rate=0.25"]), ["steps=5", "optimizer={adam: {}}"])
    assert further == load(path, ["rate=0.25", "steps=5", "optimizer={adam: {}}"])
    assert further != load(path, ["rate=0.25"])


def test_a_fault_of_a_further_override_names_it() -> None:
    with pytest.raises(ConfigError, match=r"override dtype=flaot32:1:7  dtype"):
        overridden(loads(MINIMAL), ["dtype=flaot32"])
