"""Optimizers as another library writes them: state names and equations, and what the state is called in torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ZEROS = "torch.zeros_like(p)"
START = [[0.5, -1.25, 2.0], [0.75, 1.5, -0.25]]
VECTOR = [0.5, -1.25, 2.0]
ITERATIONS = 5
ADAM = {"lr": 0.1, "beta1": 0.8, "beta2": 0.95, "eps": 1e-8}
ADAM_ARGUMENTS = {"lr": 0.1, "betas": [0.8, 0.95], "eps": 1e-8}
MOMENTS = [["m", "beta1 * m + (1 - beta1) * g"], ["v", "beta2 * v + (1 - beta2) * g * g"]]
ADAM_STEP = "p - lr / (1 - beta1 ** t) * m / (torch.sqrt(v) / math.sqrt(1 - beta2 ** t) + eps)"


def rule(state: Mapping[str, str], *update: list[str]) -> dict[str, Any]:
    return {"state": dict(state), "update": list(update)}


def optimizer(torch_class: str, arguments: Mapping[str, Any], hyper: Mapping[str, Any], equations: Any) -> Any:
    known = {"class": torch_class, "kwargs": dict(arguments), "reproduces": True}
    return {"algo": "made", "hyper": dict(hyper), "rule": equations, "torch": known}


SOURCES: Mapping[str, tuple[Any, dict[str, str], Any]] = {
    "sgd, the learning rate outside": (
        optimizer(
            "SGD",
            {"lr": 0.1, "momentum": 0.9},
            {"lr": 0.1, "mu": 0.9},
            rule({"trace": ZEROS}, ["trace", "mu * trace + g"], ["p", "p - lr * trace"]),
        ),
        {"trace": "momentum_buffer"},
        START,
    ),
    "sgd, the learning rate inside and subtracted": (
        optimizer(
            "SGD",
            {"lr": 0.1, "momentum": 0.9, "nesterov": True},
            {"lr": 0.1, "mu": 0.9},
            rule({"v": ZEROS}, ["v", "mu * v - lr * g"], ["p", "p + mu * v - lr * g"]),
        ),
        {"v": "momentum_buffer"},
        START,
    ),
    "sgd, the learning rate inside": (
        optimizer(
            "SGD",
            {"lr": 0.1, "momentum": 0.9},
            {"lr": 0.1, "mu": 0.9},
            rule({"v": ZEROS}, ["v", "mu * v + lr * g"], ["p", "p - v"]),
        ),
        {"v": "momentum_buffer"},
        START,
    ),
    "sgd, an average": (
        optimizer(
            "SGD",
            {"lr": 0.01, "momentum": 0.9},
            {"lr": 0.1, "mu": 0.9},
            rule({"m": ZEROS}, ["m", "mu * m + (1 - mu) * g"], ["p", "p - lr * m"]),
        ),
        {"m": "momentum_buffer"},
        START,
    ),
    "adam": (
        optimizer("Adam", ADAM_ARGUMENTS, ADAM, rule({"m": ZEROS, "v": ZEROS}, *MOMENTS, ["p", ADAM_STEP])),
        {"m": "exp_avg", "v": "exp_avg_sq"},
        START,
    ),
    "adam, its letters exchanged": (
        optimizer(
            "Adam",
            ADAM_ARGUMENTS,
            ADAM,
            rule(
                {"v": ZEROS, "m": ZEROS},
                ["v", "beta1 * v + (1 - beta1) * g"],
                ["m", "beta2 * m + (1 - beta2) * g * g"],
                ["p", "p - lr / (1 - beta1 ** t) * v / (torch.sqrt(m) / math.sqrt(1 - beta2 ** t) + eps)"],
            ),
        ),
        {"v": "exp_avg", "m": "exp_avg_sq"},
        START,
    ),
    "adam, averages before their weights": (
        optimizer(
            "Adam",
            ADAM_ARGUMENTS,
            ADAM,
            rule(
                {"a": ZEROS, "b": ZEROS},
                ["a", "beta1 * a + g"],
                ["b", "beta2 * b + g * g"],
                ["m", "(1 - beta1) * a"],
                ["v", "(1 - beta2) * b"],
                ["p", ADAM_STEP],
            ),
        ),
        {"a": "exp_avg", "b": "exp_avg_sq"},
        START,
    ),
    "adam with the maximum, and a count": (
        optimizer(
            "Adam",
            ADAM_ARGUMENTS | {"amsgrad": True},
            ADAM,
            rule(
                {"m": ZEROS, "v": ZEROS, "vhat": ZEROS, "n": "torch.tensor(0.0)"},
                *MOMENTS,
                ["vhat", "torch.maximum(vhat, v)"],
                ["n", "n + 1"],
                ["p", ADAM_STEP.replace("(v)", "(vhat)")],
            ),
        ),
        {"m": "exp_avg", "v": "exp_avg_sq", "vhat": "max_exp_avg_sq", "n": "step"},
        START,
    ),
    "adamw": (
        optimizer(
            "AdamW",
            ADAM_ARGUMENTS | {"weight_decay": 0.1},
            ADAM,
            rule({"mu": ZEROS, "nu": ZEROS}, ["p", "p - lr * 0.1 * p"], ["m", "mu"], ["v", "nu"], *MOMENTS)
            | {
                "update": [
                    ["p", "p - lr * 0.1 * p"],
                    ["mu", "beta1 * mu + (1 - beta1) * g"],
                    ["nu", "beta2 * nu + (1 - beta2) * g * g"],
                    ["p", ADAM_STEP.replace("* m", "* mu").replace("(v)", "(nu)")],
                ]
            },
        ),
        {"mu": "exp_avg", "nu": "exp_avg_sq"},
        START,
    ),
    "nadam": (
        optimizer(
            "NAdam",
            ADAM_ARGUMENTS | {"momentum_decay": 1.0},
            ADAM,
            rule(
                {"m": ZEROS, "v": ZEROS, "up": "torch.tensor(1.0, dtype=p.dtype)"},
                ["u", "beta1 * (1 - 0.5 * 0.96 ** t)"],
                ["u1", "beta1 * (1 - 0.5 * 0.96 ** (t + 1))"],
                ["up", "up * u"],
                *MOMENTS,
                ["mh", "u1 * m / (1 - up * u1) + (1 - u) * g / (1 - up)"],
                ["p", "p - lr * mh / (torch.sqrt(v / (1 - beta2 ** t)) + eps)"],
            ),
        ),
        {"m": "exp_avg", "v": "exp_avg_sq", "up": "mu_product"},
        START,
    ),
    "radam": (
        optimizer(
            "RAdam",
            ADAM_ARGUMENTS,
            ADAM,
            rule({"m": ZEROS, "v": ZEROS}, *MOMENTS, ["p", "p - lr * m / (1 - beta1 ** t)"]),
        ),
        {"m": "exp_avg", "v": "exp_avg_sq"},
        START,
    ),
    "adamax": (
        optimizer(
            "Adamax",
            ADAM_ARGUMENTS,
            ADAM,
            rule(
                {"m": ZEROS, "u": ZEROS},
                MOMENTS[0],
                ["u", "torch.maximum(beta2 * u, torch.abs(g) + eps)"],
                ["p", "p - lr / (1 - beta1 ** t) * m / u"],
            ),
        ),
        {"m": "exp_avg", "u": "exp_inf"},
        START,
    ),
    "rmsprop, centered, with momentum": (
        optimizer(
            "RMSprop",
            {"lr": 0.1, "alpha": 0.9, "eps": 1e-7, "momentum": 0.5, "centered": True},
            {"lr": 0.1, "rho": 0.9, "eps": 1e-7},
            rule(
                {"h": ZEROS, "ga": ZEROS, "mo": ZEROS},
                ["h", "rho * h + (1 - rho) * g * g"],
                ["ga", "rho * ga + (1 - rho) * g"],
                ["mo", "0.5 * mo + g / (torch.sqrt(h - ga * ga) + eps)"],
                ["p", "p - lr * mo"],
            ),
        ),
        {"h": "square_avg", "ga": "grad_avg", "mo": "momentum_buffer"},
        START,
    ),
    "rmsprop, the learning rate inside": (
        optimizer(
            "RMSprop",
            {"lr": 0.1, "alpha": 0.9, "eps": 1e-7, "momentum": 0.5},
            {"lr": 0.1, "rho": 0.9, "eps": 1e-7},
            rule(
                {"v": ZEROS, "b": ZEROS},
                ["v", "rho * v + (1 - rho) * g * g"],
                ["b", "0.5 * b + lr * g / (torch.sqrt(v) + eps)"],
                ["p", "p - b"],
            ),
        ),
        {"v": "square_avg", "b": "momentum_buffer"},
        START,
    ),
    "rmsprop, the learning rate inside and subtracted": (
        optimizer(
            "RMSprop",
            {"lr": 0.1, "alpha": 0.9, "eps": 1e-7, "momentum": 0.5},
            {"lr": 0.1, "rho": 0.9, "eps": 1e-7},
            rule(
                {"n": ZEROS, "delta": ZEROS},
                ["n", "rho * n + (1 - rho) * g * g"],
                ["delta", "0.5 * delta - lr * g / (torch.sqrt(n) + eps)"],
                ["p", "p + delta"],
            ),
        ),
        {"n": "square_avg", "delta": "momentum_buffer"},
        START,
    ),
    "adagrad": (
        optimizer(
            "Adagrad",
            {"lr": 0.1, "initial_accumulator_value": 0.25, "eps": 1e-8},
            {"lr": 0.1, "eps": 1e-8},
            rule({"h": f"{ZEROS} + 0.25"}, ["h", "h + g * g"], ["p", "p - lr * g / (torch.sqrt(h) + eps)"]),
        ),
        {"h": "sum"},
        START,
    ),
    "adadelta": (
        optimizer(
            "Adadelta",
            {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
            {"rho": 0.9, "eps": 1e-6},
            rule(
                {"msg": ZEROS, "msdx": ZEROS},
                ["msg", "rho * msg + (1 - rho) * g * g"],
                ["dx", "torch.sqrt(msdx + eps) / torch.sqrt(msg + eps) * g"],
                ["msdx", "rho * msdx + (1 - rho) * dx * dx"],
                ["p", "p - dx"],
            ),
        ),
        {"msg": "square_avg", "msdx": "acc_delta"},
        START,
    ),
    "asgd": (
        optimizer(
            "ASGD",
            {"lr": 0.1, "lambd": 0.01, "alpha": 0.75, "t0": 1},
            {"lr": 0.1, "lambda": 0.01},
            rule(
                {"average": ZEROS, "weight": "torch.tensor(1.0, dtype=p.dtype)", "rate": f"{ZEROS} + lr"},
                ["p", "p * (1 - 0.01 * rate) - rate * g"],
                ["average", "average + weight * (p - average)"],
                ["rate", "lr / (1 + 0.01 * lr * t) ** 0.75 + 0.0 * rate"],
                ["weight", "1.0 / max(1, t - 1) + 0.0 * weight"],
            ),
        ),
        {"average": "ax", "weight": "mu", "rate": "eta"},
        START,
    ),
    "rprop": (
        optimizer(
            "Rprop",
            {"lr": 0.1, "etas": [0.5, 1.2], "step_sizes": [1e-6, 50]},
            {"lr": 0.1},
            rule(
                {"last": ZEROS, "delta": f"{ZEROS} + lr"},
                ["s", "torch.sign(g * last)"],
                ["f", "1.0 + 0.35 * s - 0.15 * s * s"],
                ["delta", "torch.clamp(delta * f, 1e-6, 50)"],
                ["last", "torch.where(s < 0, 0.0, g)"],
                ["p", "p - torch.sign(last) * delta"],
            ),
        ),
        {"last": "prev", "delta": "step_size"},
        START,
    ),
    "adafactor of a matrix": (
        optimizer(
            "Adafactor",
            {"lr": 0.1, "beta2_decay": -0.8, "eps": [1e-15, 0.001], "d": 1.0},
            {"lr": 0.1, "eps": 0.001},
            rule(
                {"r": "torch.zeros(p.shape[:-1], dtype=p.dtype)", "c": "torch.zeros(p.shape[1:], dtype=p.dtype)"},
                ["a", "torch.clamp(torch.sqrt(torch.mean(p * p)), min=eps) * min(lr, 1 / math.sqrt(t))"],
                ["b", "1 - t ** -0.8"],
                ["r", "b * r + (1 - b) * torch.mean(g * g, dim=-1)"],
                ["c", "b * c + (1 - b) * torch.mean(g * g, dim=-2)"],
                ["u", "g / torch.sqrt(torch.unsqueeze(r / torch.mean(r), -1) * torch.unsqueeze(c, -2))"],
                ["p", "p - a * u / torch.clamp(torch.sqrt(torch.mean(u * u)), min=1.0)"],
            ),
        ),
        {"r": "row_var", "c": "col_var"},
        START,
    ),
    "adafactor of a vector": (
        optimizer(
            "Adafactor",
            {"lr": 0.1, "beta2_decay": -0.8, "eps": [1e-15, 0.001], "d": 1.0},
            {"lr": 0.1, "eps": 0.001},
            rule(
                {"v": ZEROS},
                ["a", "torch.clamp(torch.sqrt(torch.mean(p * p)), min=eps) * min(lr, 1 / math.sqrt(t))"],
                ["b", "1 - t ** -0.8"],
                ["v", "b * v + (1 - b) * g * g"],
                ["u", "g / torch.sqrt(v)"],
                ["p", "p - a * u / torch.clamp(torch.sqrt(torch.mean(u * u)), min=1.0)"],
            ),
        ),
        {"v": "variance"},
        VECTOR,
    ),
}


ONLY_FLOAT32 = {"float64": {"atol": 1e-7, "rtol": 1e-6}, "float32": {"atol": 1e-6, "rtol": 3e-5}}
NEAR: Mapping[str, dict[str, Any]] = {"nadam": {"tolerance": ONLY_FLOAT32}, "asgd": {"tolerance": ONLY_FLOAT32}}
"""torch keeps `mu_product` and `eta` in float32 and computes the step with them."""
