"""Names of classes in place of class indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow
from torch import Tensor

from runner.config import Config
from runner.errors import Problem, RunError, UsageError, did_you_mean, listing


def classes_of(texts: Sequence[str], values: Sequence[str], config: Config) -> dict[str, tuple[Any, ...]]:
    """The classes of values: `label=y` says that the value `label` has indices of the classes of the column `y`.

    Raises:
        UsageError: there is no such value, or no such column with classes.
    """
    known: dict[str, tuple[Any, ...]] = {}
    for source in config.data.values():
        for column, classes in source.classes.items():
            if not isinstance(classes, str):
                known.setdefault(column, tuple(classes))
    found = {}
    for text in texts:
        value, equals, column = (part.strip() for part in text.partition("="))
        if not equals:
            raise UsageError(Problem(f"--classes {text} names no column", f"write --classes {text}=COLUMN"))
        if value not in values:
            hint = did_you_mean(value, values, f"values are {listing(values)}")
            raise UsageError(Problem(f"--classes names `{value}`, which is not in --values", hint))
        if column not in known:
            shown = f"columns with classes are {listing(known)}" if known else "no column of the run has classes"
            raise UsageError(Problem(f"the column `{column}` has no classes", did_you_mean(column, known, shown)))
        found[value] = known[column]
    return found


def named(name: str, indices: Tensor, classes: Mapping[str, tuple[Any, ...]]) -> Any:
    """An Arrow array with the class of each index.

    Raises:
        RunError: the indices are not integers, or there is no such class.
    """
    listed = classes[name]
    if indices.is_floating_point() or indices.is_complex() or indices.dim() != 1:
        message = f"`{name}` is not one class index for each sample"
        raise RunError(Problem(message, "name a value of integers, such as `argmax(logits, -1)`"))
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(listed):
        wrong = indices[(indices < 0) | (indices >= len(listed))][0]
        message = f"`{name}` is {int(wrong)}, and there are {len(listed)} classes"
        raise RunError(Problem(message, "name the column whose classes it counts"))
    return pyarrow.array(list(listed)).take(pyarrow.array(indices.cpu().numpy()))
