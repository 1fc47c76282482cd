"""The closed catalogue of operations, optimizers, schedules and initialisers that a config may name.

In: reviewed text tables and rule files. Out: `Operation`, `Optimizer` and other entries, found by name.
Only `installed` imports torch, so that the schema and completion start quickly.
"""

from runner.catalogue.calls import ALIASES, CallFault, check_call
from runner.catalogue.shipped import shipped_rules
from runner.catalogue.signatures import Argument, Overload, signature_text
from runner.catalogue.tables import (
    Operation,
    argument_refusal,
    attributes,
    bare_names,
    denied,
    find_attribute,
    find_method,
    find_operation,
    measures,
    methods,
    operations,
    refusal,
)
from runner.catalogue.training import (
    REFUSED_OPTIMIZERS,
    Initialiser,
    Optimizer,
    ScheduleEntry,
    initialisers,
    optimizers,
    schedules,
)
from runner.catalogue.versions import absence, argument_absence, installed, newer_arguments, spans

__all__ = [
    "ALIASES",
    "REFUSED_OPTIMIZERS",
    "Argument",
    "CallFault",
    "Initialiser",
    "Operation",
    "Optimizer",
    "Overload",
    "ScheduleEntry",
    "absence",
    "argument_absence",
    "argument_refusal",
    "attributes",
    "bare_names",
    "check_call",
    "denied",
    "find_attribute",
    "find_method",
    "find_operation",
    "initialisers",
    "installed",
    "measures",
    "methods",
    "newer_arguments",
    "operations",
    "optimizers",
    "refusal",
    "schedules",
    "shipped_rules",
    "signature_text",
    "spans",
]
