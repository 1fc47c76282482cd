"""What a source's optimizer state is of torch's: the same numbers under another name, scale or shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .cases import Case, expected_results, in_dtype
from .evaluation import evaluated

STEPS = 4
"""Steps with made gradients that confirm a relation: equations that differ in one term differ by then."""
RTOL = 1e-9, 1e-5
"""How near: as near as the case's tolerance, within these bounds. torch keeps some scalars in float32 only."""
COARSE = frozenset({"step", "mu_product", "eta", "mu"})
"""Scalars that torch keeps in its default dtype, whatever the parameter's."""
COARSE_RTOL = 1e-6


@dataclass(frozen=True, slots=True)
class Relation:
    """A source's state as `factor` times the entry `key` of torch's state."""

    key: str
    names: frozenset[str]  # what sources call it; they decide only where a case states no equations
    source: str  # where the relation is written
    factor: str = "1"  # over the arguments of torch's class, `beta1` and `beta2` for its pair

    def scale(self, arguments: Mapping[str, Any]) -> float:
        beta1, beta2 = arguments.get("betas", (None, None))
        return float(evaluated(self.factor, {**arguments, "beta1": beta1, "beta2": beta2}))


def _named(key: str, names: str, source: str, factor: str = "1") -> Relation:
    return Relation(key, frozenset(names.split()) | {key}, source, factor)


_STEP = _named("step", "t count iterations local_step n_iter", "torch.optim: `step_t += 1` in each step")
_FIRST = (
    _named("exp_avg", "m mu m_t m1 mom moment_1 momentum first_moment", "Kingma & Ba 2015, algorithm 1: m_t"),
    _named("exp_avg", "", "m = beta1 * m + g, the average before its weight", "1 / (1 - beta1)"),
)
_SECOND = (
    _named("exp_avg_sq", "v nu v_t m2 vr moment_2 velocity second_moment", "Kingma & Ba 2015, algorithm 1: v_t"),
    _named("exp_avg_sq", "", "v = beta2 * v + g ** 2, the average before its weight", "1 / (1 - beta2)"),
)
_AMSGRAD = (
    _named("max_exp_avg_sq", "vmax vhat v_hat vh max_v nu_max max_exp_avg_sqs", "Reddi et al. 2018, algorithm 2: v^"),
)
_ADAM = (*_FIRST, *_SECOND, *_AMSGRAD, _STEP)

RELATIONS: Mapping[str, Sequence[Relation]] = {
    "SGD": (
        _named("momentum_buffer", "buf b v m u trace velocity momentum", "torch.optim.SGD: b = momentum * b + g"),
        _named("momentum_buffer", "", "Keras, Chainer: v = momentum * v - lr * g; p = p + v", "-lr"),
        _named("momentum_buffer", "", "Sutskever et al. 2013 as torch.optim.SGD notes it: v = mu * v + lr * g", "lr"),
        _named("momentum_buffer", "", "an average: v = momentum * v + (1 - momentum) * g", "1 - momentum"),
    ),
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "NAdam": (
        *_ADAM,
        _named("mu_product", "up u_product mu_prod schedule m_schedule", "Dozat 2016: the product of mu_1 … mu_t"),
    ),
    "RAdam": _ADAM,
    "Adamax": (
        *_FIRST,
        _named("exp_inf", "u v nu exp_inf norm infinity u_t", "Kingma & Ba 2015, algorithm 2: u_t"),
        _STEP,
    ),
    "RMSprop": (
        _named(
            "square_avg", "v ms h r s n nu rms mean_square accumulator cache", "Hinton 2012, lecture 6e: MeanSquare"
        ),
        _named("grad_avg", "mg ga g mean_grad average_grad", "Graves 2013, equation 39: g_i"),
        _named("momentum_buffer", "buf b mo m mom delta trace momentum", "torch.optim.RMSprop: b = momentum * b + q"),
        _named("momentum_buffer", "", "TensorFlow, Keras: mom = momentum * mom + lr * q; p = p - mom", "lr"),
        _named("momentum_buffer", "", "Graves 2013, equation 40: d = momentum * d - lr * q; p = p + d", "-lr"),
        _STEP,
    ),
    "Adagrad": (
        _named("sum", "h a v n s g G acc accum accumulator cache sum_of_squares", "Duchi et al. 2011: diagonal of G"),
        _STEP,
    ),
    "Adadelta": (
        _named("square_avg", "a v msg e_g acc accum accumulated_grad", "Zeiler 2012, algorithm 1: E[g^2]"),
        _named("acc_delta", "d u s msdx e_x delta accumulated_delta", "Zeiler 2012, algorithm 1: E[dx^2]"),
        _STEP,
    ),
    "ASGD": (
        _named("ax", "a average averaged", "Polyak & Juditsky 1992: the average of the iterates"),
        _named("eta", "lr_t rate", "Bottou 2012, section 5.1: eta_t"),
        _named("mu", "mu_t weight", "Bottou 2012, section 5.1: mu_t"),
        _STEP,
    ),
    "Rprop": (
        _named("prev", "g prev_grad g_prev last_grad", "Riedmiller & Braun 1993: the derivative of the step before"),
        _named("step_size", "eta delta d lr step_sizes update", "Riedmiller & Braun 1993: Delta_ij"),
        _STEP,
    ),
    "Adafactor": (
        _named("row_var", "r vr v_row row rows", "Shazeer & Stern 2018, algorithm 4: R_t, without the last axis"),
        _named("col_var", "c vc v_col col cols", "Shazeer & Stern 2018, algorithm 4: C_t, without the axis before it"),
        _named("variance", "v nu", "Shazeer & Stern 2018, algorithm 4 for vectors: V_t"),
        _STEP,
    ),
    "Muon": (
        _named("momentum_buffer", "buf v", "torch.optim.Muon: b = momentum * b + (1 - momentum) * g"),
        _named("momentum_buffer", "m trace", "Jordan 2024: B = momentum * B + g", "1 / (1 - momentum)"),
    ),
}
"""By class of torch.optim, in the order in which they are tried. L-BFGS keeps no state of a parameter."""


@dataclass(frozen=True, slots=True)
class View:
    """How a source's state is read from a tensor that a run keeps: a multiple of its first elements, reshaped."""

    shape: tuple[int, ...]
    scale: float = 1.0
    packed: bool = False  # the state is the first elements of what is kept

    def read(self, kept: Tensor) -> Tensor:
        """The state, or `kept` where it does not have the shape: then a comparison names both shapes."""
        count = torch.Size(self.shape).numel()
        if self.packed:
            kept = kept.flatten()[:count].reshape(self.shape)
        elif kept.dim() == 0:
            kept = kept.expand(self.shape)
        elif kept.numel() == count:
            kept = kept.reshape(self.shape)
        elif self.shape == () and kept.numel() and bool((kept == kept.flatten()[0]).all()):
            kept = kept.flatten()[0]
        return kept * self.scale if self.scale != 1 else kept


def torch_optimizer(case: Case, parameters: Mapping[str, Tensor], dtype: torch.dtype) -> torch.optim.Optimizer:
    """The class of torch.optim that is nearest to the case's optimizer, in the state that the case starts it from."""
    known = case.record["optimizer"]["torch"]
    arguments = {key: tuple(v) if isinstance(v, list) else v for key, v in known["kwargs"].items()}
    optimizer: torch.optim.Optimizer = getattr(torch.optim, known["class"])(parameters.values(), **arguments)
    for name, state in (known.get("init_state") or {}).items():
        if name in parameters:
            optimizer.state[parameters[name]] = {
                key: in_dtype(case.array(value), dtype).clone()
                if isinstance(value, Mapping)
                else torch.tensor(float(value))
                for key, value in state.items()
            }
    return optimizer


def torch_views(case: Case, parameter: str, entries: Mapping[str, Any]) -> dict[str, tuple[str, View]]:
    """For each of a parameter's entries that torch's optimizer has: the key of torch's state, and how it is read.

    Where the case states equations, a relation holds if made gradients confirm it; where not, by its name.
    """
    spec = case.record["optimizer"]
    known = spec.get("torch")
    if not known:
        return {}
    shapes = {name: tuple(case.array(value).shape) for name, value in entries.items()}
    relations = RELATIONS.get(known["class"])
    if relations is None:
        return {}
    if spec.get("rule") is None:
        chosen = {name: next((each for each in relations if name in each.names), None) for name in entries}
    else:
        chosen = _confirmed(case, parameter, entries, relations)
    arguments = torch_optimizer(case, {"": torch.zeros(1, 1)}, torch.float64).defaults
    return {
        name: (relation.key, View(shapes[name], relation.scale(arguments)))
        for name, relation in chosen.items()
        if relation is not None
    }


def stated_entries(case: Case) -> dict[str, dict[str, Any]]:
    """A value of every entry of state that the case expects, by parameter and name."""
    stated: dict[str, dict[str, Any]] = {}
    for entry in case.record.get("expected") or ():
        for name, entries in (entry.get("state") or {}).items():
            stated.setdefault(name, {}).update(entries)
    return stated


def kept_keys(case: Case) -> dict[str, str]:
    """The keys of the expected state that torch's optimizer keeps in some form, and under which key it does."""
    kept = {
        (name, state): key
        for name, entries in stated_entries(case).items()
        for state, (key, _) in torch_views(case, name, entries).items()
    }
    stated = {key: tuple(key.split(":", 3)[2:]) for key in expected_results(case) if ":state:" in key}
    return {key: kept[entry] for key, entry in stated.items() if entry in kept}


def _confirmed(
    case: Case, parameter: str, entries: Mapping[str, Any], relations: Sequence[Relation]
) -> dict[str, Relation | None]:
    """The relation of each entry that holds after every one of some steps along made gradients."""
    start = case.array(case.record["params"][parameter]).double()
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(start.shape, generator=generator, dtype=torch.float64) for _ in range(STEPS)]
    by_rule, by_torch = _states_of_the_rule(case, parameter, start, gradients), []
    weight = start.clone().requires_grad_()
    optimizer = torch_optimizer(case, {parameter: weight}, torch.float64)
    rates = case.record["optimizer"].get("lr_schedule")
    for step, gradient in enumerate(gradients):
        for group in optimizer.param_groups if rates is not None else ():
            group["lr"] = rates[min(step, len(rates) - 1)]
        weight.grad = gradient.clone()
        optimizer.step()
        by_torch.append({key: torch.as_tensor(value).clone() for key, value in optimizer.state[weight].items()})
    stated = case.tolerances("float64") or {"atol": 0.0, "rtol": 0.0}
    near = min(max(RTOL[0], stated["atol"], stated["rtol"]), RTOL[1])
    held: dict[str, Relation | None] = {}
    for name in entries:
        named = sorted(relations, key=lambda relation: name not in relation.names)
        held[name] = next(
            (each for each in named if _holds(each, name, by_rule, by_torch, optimizer.defaults, near)), None
        )
    return held


def _holds(
    relation: Relation,
    name: str,
    by_rule: Sequence[Mapping[str, Tensor]],
    by_torch: Sequence[Mapping[str, Tensor]],
    arguments: Mapping[str, Any],
    near: float,
) -> bool:
    if any(relation.key not in state for state in by_torch) or any(name not in state for state in by_rule):
        return False
    try:
        scale = relation.scale(arguments)
    except ZeroDivisionError:
        return False
    near = COARSE_RTOL if relation.key in COARSE else near
    for ours, theirs in zip(by_rule, by_torch, strict=True):
        read = View(tuple(ours[name].shape), scale).read(theirs[relation.key]).double()
        if read.shape != ours[name].shape or not torch.allclose(read, ours[name].double(), rtol=near, atol=1e-15):
            return False
    return True


def _states_of_the_rule(
    case: Case, parameter: str, start: Tensor, gradients: Sequence[Tensor]
) -> list[dict[str, Tensor]]:
    """The source's own state after each step of its equations."""
    spec = case.record["optimizer"]
    hyper = {name: value for name, value in spec["hyper"].items() if value is not None}
    given = (spec.get("initial_state") or {}).get(parameter, {})
    names = {"p": start}
    state = {
        name: case.array(given[name]) if name in given else evaluated(str(expression), {**hyper, **names})
        for name, expression in spec["rule"].get("state", {}).items()
    }
    first, rates, after = int(spec.get("initial_step", 0)), spec.get("lr_schedule"), []
    for step, gradient in enumerate(gradients):
        if rates is not None:
            hyper["lr"] = rates[min(step, len(rates) - 1)]
        scope = {**hyper, **state, **names, "g": gradient, "t": first + step + 1}
        for name, expression in spec["rule"]["update"]:
            scope[name] = evaluated(expression, scope)
        names = {"p": scope["p"]}
        state = {name: scope[name] for name in state}
        after.append({name: torch.as_tensor(value).clone() for name, value in state.items()})
    return after
