"""The cases evaluated with plain PyTorch, as a person would write them: the oracle for bits and for faults."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .cases import DTYPES, Case, in_dtype
from .evaluation import evaluated
from .states import torch_optimizer, torch_views


def reference_results(case: Case, dtype: str) -> dict[str, Tensor]:
    """What torch finds for `case`, by result key; optimizers are torch.optim's."""
    results = RUN[case.kind](_Reference(case, DTYPES[dtype]))
    return {key: value.detach().clone() for key, value in results.items()}


class _Reference:
    def __init__(self, case: Case, dtype: torch.dtype) -> None:
        self.case, self.record, self.dtype = case, case.record, dtype
        self.parameters = {n: v.clone().requires_grad_() for n, v in self.tensors("params").items()}
        self.constants = self.tensors("constants")
        self.optimizer = torch_optimizer(case, self.parameters, dtype) if "optimizer" in self.record else None

    def tensors(self, field: str) -> dict[str, Tensor]:
        return {name: in_dtype(value, self.dtype) for name, value in self.case.arrays(field).items()}

    def tensor(self, number: float) -> Tensor:
        return torch.tensor(number, dtype=self.dtype if isinstance(number, float) else None)

    def forward(self) -> tuple[Tensor, dict[str, Any]]:
        names: dict[str, Any] = {**self.constants, **self.parameters}
        for name, expression in self.case.lets():
            names[name] = evaluated(expression, names)
        return evaluated(self.record["loss"], names), names

    def backward(self) -> tuple[Tensor, dict[str, Any]]:
        loss, names = self.forward()
        loss.backward()
        return loss.detach().clone(), names

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def step(self) -> None:
        assert self.optimizer is not None

        def closure() -> float:
            self.zero_grad()
            return float(self.backward()[0])

        if isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.step(closure)
        else:
            self.optimizer.step()

    def gradient(self, name: str) -> Tensor:
        gradient = self.parameters[name].grad
        return torch.zeros_like(self.parameters[name]) if gradient is None else gradient.detach().clone()

    def weight(self, name: str) -> Tensor:
        return self.parameters[name].detach().clone()

    def states(self, entry: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """The state that an entry of `expected` asks for and torch's optimizer has, by the end of its key."""
        for name, entries in (entry.get("state") or {}).items():
            assert self.optimizer is not None
            kept = self.optimizer.state[self.parameters[name]]
            for state, (key, view) in torch_views(self.case, name, entries).items():
                yield f"state:{name}:{state}", view.read(kept[key])


def _run_expr(reference: _Reference) -> dict[str, Tensor]:
    record = reference.record
    inputs = reference.tensors("inputs")
    wrt = list(record.get("grads") or ())
    names: dict[str, Any] = {n: v.clone().requires_grad_() if n in wrt else v for n, v in inputs.items()}
    origins = {name: names[name] for name in wrt}
    for name, expression in reference.case.lets():
        names[name] = evaluated(expression, names)
    results = {}
    for output in record["outputs"]:
        names[output["name"]] = found = evaluated(output["expr"], names)
        results[f"out:{output['name']}"] = found.clone() if isinstance(found, Tensor) else reference.tensor(found)
    if wrt:
        evaluated(record["loss"], names).backward()
        for name, tensor in origins.items():
            results[f"grad:{name}"] = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
    return results


def _run_train(reference: _Reference) -> dict[str, Tensor]:
    record, results = reference.record, {}
    scheduled = {
        name: [in_dtype(reference.case.array(value), reference.dtype) for value in values]
        for name, values in (record.get("scheduled") or {}).items()
    }
    rates = record["optimizer"].get("lr_schedule")
    entries = {entry["iteration"]: entry for entry in record["expected"]}
    for name in entries.get(0, {}).get("params") or ():
        results[f"0:param:{name}"] = reference.weight(name)
    for iteration in range(1, record["iterations"] + 1):
        reference.constants.update({name: values[iteration - 1] for name, values in scheduled.items()})
        entry = entries.get(iteration, {})
        reference.zero_grad()
        loss, names = reference.backward()
        results[f"{iteration}:loss"] = loss
        for name in entry.get("values") or ():
            results[f"{iteration}:value:{name}"] = names[name].detach().clone()
        for name in entry.get("grads") or ():
            results[f"{iteration}:grad:{name}"] = reference.gradient(name)
        if rates is not None and reference.optimizer is not None:
            for group in reference.optimizer.param_groups:
                group["lr"] = rates[iteration - 1]
        reference.step()
        for name in entry.get("params") or ():
            results[f"{iteration}:param:{name}"] = reference.weight(name)
        results.update({f"{iteration}:{key}": value for key, value in reference.states(entry)})
    return results


def _run_program(reference: _Reference) -> dict[str, Tensor]:
    record, results = reference.record, {}
    entries = {entry["after"]: entry for entry in record["expected"]}
    loss: Tensor | None = None
    for position, step in enumerate(record["program"], 1):
        match step:
            case "zero_grad":
                reference.zero_grad()
            case "backward":
                loss, _ = reference.backward()
            case "step":
                reference.step()
            case {"set": values}:
                reference.constants.update(
                    {name: in_dtype(reference.case.array(value), reference.dtype) for name, value in values.items()}
                )
            case {"assign": assigned}:
                for name, expression in assigned.items():
                    weights = {other: value.detach() for other, value in reference.parameters.items()}
                    with torch.no_grad():
                        reference.parameters[name].copy_(evaluated(expression, {**reference.constants, **weights}))
        entry = entries.get(position, {})
        if loss is not None:
            results[f"{position}:loss"] = loss
        for name in entry.get("grads") or ():
            results[f"{position}:grad:{name}"] = reference.gradient(name)
        for name in entry.get("params") or ():
            results[f"{position}:param:{name}"] = reference.weight(name)
        results.update({f"{position}:{key}": value for key, value in reference.states(entry)})
    return results


def _run_minimize(reference: _Reference) -> dict[str, Tensor]:
    results = {}
    for at, probe in enumerate(reference.record["probes"]):
        reference.parameters = {
            name: in_dtype(reference.case.array(value), reference.dtype).clone().requires_grad_()
            for name, value in probe["params"].items()
        }
        results[f"{at}:loss"], _ = reference.backward()
        for name in probe.get("grads") or ():
            results[f"{at}:grad:{name}"] = reference.gradient(name)
    return results


RUN: Mapping[str, Callable[[_Reference], dict[str, Tensor]]] = {
    "expr": _run_expr,
    "train": _run_train,
    "program": _run_program,
    "minimize": _run_minimize,
}
