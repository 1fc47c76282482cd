"""The bad configs as a schema sees them: those that are YAML, and those whose fault stands in their keys and values."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from runner.config.limits import Limits
from runner.config.text.compose import compose
from runner.config.text.nodes import plain
from runner.config.text.source import read_source
from runner.errors import ConfigError, Problem
from tests.bad_config_files import BAD_CONFIGS

BAD = {path.stem: path for path in BAD_CONFIGS}

DETECTED = (
    "argument_not_indented", "boolean_words", "clip_by_nothing", "columns_without_file", "constant_requires_grad",
    "data_declaration", "data_epochs", "data_names", "data_steps", "empty_assign",
    "empty_optimizers_entry", "engine_unknown", "every_bare", "every_outside_loop", "every_zero",
    "expect_null_of_a_value", "extends_faulty", "extends_type", "function_signatures", "group_unknown_argument",
    "group_without_parameters", "health_keys", "health_threshold_expressions", "health_thresholds", "health_type",
    "init_and_file", "initialiser_as_a_call", "initialiser_needs_mapping", "keys_of_other_tools",
    "log_tensors_unknown", "missing_everything", "missing_expectation_value", "missing_expression", "missing_init",
    "missing_initialiser_argument", "missing_space_after_dash", "misspelt_at_every_depth", "name_too_long",
    "no_parameters", "no_space_in_flow", "non_ascii_columns", "on_nonfinite", "optimizer_and_optimizers",
    "optimizer_argument_not_indented", "optimizer_bad_value", "optimizer_number", "optimizer_state_not_mapping",
    "optimizer_without_class", "optimizer_word", "optimizers_list", "parameters_list", "refused_optimizer",
    "refused_optimizer_argument", "reserved_names", "rule_state_called_grad", "rule_unknown_key",
    "rule_update_beside", "rule_with_groups", "rule_without_update", "rule_word", "seed_negative", "several_layers",
    "several_steps", "snapshot", "snapshot_number", "snapshot_planned", "snapshot_restart", "snapshot_restart_form",
    "step_argument_types", "step_without_argument", "steps_mapping", "steps_word", "stop_argument",
    "times_negative", "top_level_not_built", "two_initialisers", "two_optimizers_in_one", "two_steps_in_one",
    "unknown_expectation_key", "unknown_initialiser_argument", "unknown_initialiser_mapping",
    "unknown_key_beside_step", "unknown_key_in_nested_step", "unknown_log_key", "unknown_optimizer",
    "unknown_optimizer_argument", "unknown_optimizer_case", "unknown_step", "unknown_step_key",
    "unknown_step_mapping", "unknown_tensor_key", "unknown_top_level_key", "wrong_type_number", "wrong_types",
    "wrong_types_in_init", "wrong_types_in_optimizers", "wrong_types_in_steps",
)  # fmt: skip
"""Those that the schema rejects; the others are wrong in what a name, an expression, a file or an override means."""


@cache
def readable() -> dict[str, Any]:
    """The values of those that are YAML, by name."""
    found = {}
    for name, path in BAD.items():
        problems: list[Problem] = []
        try:
            node = compose(read_source(path, Limits()), Limits(), problems)
        except ConfigError:
            continue
        if not problems:
            found[name] = plain(node)
    return found


def lines_of_faults(name: str) -> set[int]:
    """The lines, from 1, that steprun names in what it says of a bad config."""
    path = BAD[name]
    told = path.with_suffix(".txt").read_text(encoding="utf-8")
    return {int(line) for line in re.findall(rf"^{re.escape(path.name)}:(\d+):", told, flags=re.MULTILINE)}
