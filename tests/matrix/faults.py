"""Small faults of configs, and changes that leave the numbers as they are: edits of a config's text or data."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True, slots=True)
class Change:
    """One edit of a config of `tests/matrix/configs`."""

    name: str
    config: str
    edits: tuple[tuple[str, str], ...] = ()  # of its text: what is there, and what takes its place
    data: Callable[[dict[str, np.ndarray]], None] | None = None  # of the arrays that it reads

    @property
    def slug(self) -> str:
        return f"{self.config}-{''.join(each if each.isalnum() else '-' for each in self.name)}"

    def write(self, folder: Path) -> Path:
        """Write the edited config into a folder, with its data.

        Raises:
            AssertionError: the text has no such place.
        """
        text = (CONFIGS / f"{self.config}.yaml").read_text(encoding="utf-8")
        for old, new in self.edits:
            assert old in text, f"{self.config}.yaml has no `{old}`"
            text = text.replace(old, new, 1)
        shutil.copytree(CONFIGS / "data", folder / "data")  # makes the folder
        if self.data is not None:
            self._write_data(folder / "data" / "blobs.npz", self.data)
        path = folder / f"{self.config}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    @staticmethod
    def _write_data(path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
        with np.load(path) as held:
            arrays = {name: held[name] for name in held.files}
        change(arrays)
        np.savez(path, **arrays)


def _edited(config: str, edits: Mapping[str, tuple[str, str]]) -> tuple[Change, ...]:
    return tuple(Change(name, config, (edit,)) for name, edit in edits.items())


def _one_label(arrays: dict[str, np.ndarray]) -> None:
    arrays["labels"][41] = (arrays["labels"][41] + 1) % 3


def _one_coordinate(arrays: dict[str, np.ndarray]) -> None:
    arrays["points"][7, 2] += 1e-3


def _one_test_point(arrays: dict[str, np.ndarray]) -> None:
    arrays["test_points"][3, 0] += 1e-2


FAULTS = (
    *_edited("layer-norm", {
        "layer_norm's eps 1e-5 → 1e-6": ("scale, shift, eps=1e-5", "scale, shift, eps=1e-6"),
        "group_norm's eps 1e-5 → 1.1e-5": ("4, eps=1e-5", "4, eps=1.1e-5"),
        "gelu's approximation by tanh": ("gelu(normed)", 'gelu(normed, approximate="tanh")'),
        "scale begins at 1.00001": ("[24], init: ones", "[24], init: 1.00001"),
        "Adam's lr 0.002 → 0.002002": ("lr: 0.002", "lr: 0.002002"),
        "Adam's beta2 0.999 → 0.9989": ("lr: 0.002", "lr: 0.002, betas: [0.9, 0.9989]"),
        "loss × (1 + 1e-5)": ("loss = mse", "loss = (1 + 1e-5) * mse"),
        "shift + 1e-6": ("scale, shift,", "scale, shift + 1e-6,"),
    }),
    *_edited("mlp-adam", {
        "Adam's beta2 0.999 → 0.9989": ("0.999]", "0.9989]"),
        "Adam's beta1 0.9 → 0.9001": ("[0.9,", "[0.9001,"),
        "Adam's eps 1e-8 → 1e-7": ("eps: 1e-8", "eps: 1e-7"),
        "loss × (1 + 1e-5)": ("loss = cross", "loss = (1 + 1e-5) * cross"),
        "lr off by 0.1% at step 17": ("lr: 0.01", "lr: 0.01 * (1.001 if t == 17 else 1)"),
        "weight decay of 1e-6": ("lr: 0.01", "lr: 0.01, weight_decay: 1e-6"),
        "0.999 of a bias": ("h @ w2 + b2", "h @ w2 + 0.999 * b2"),
        "a missing bias": ("h @ w2 + b2", "h @ w2 + 0 * b2"),
        "relu with a slope of 1e-4": ("relu(x @ w1 + b1)", "leaky_relu(x @ w1 + b1, 1e-4)"),
        "another seed": ("seed: 3", "seed: 4"),
    }),
    Change("one wrong label", "mlp-adam", data=_one_label),
    Change("one coordinate off by 1e-3", "mlp-adam", data=_one_coordinate),
    *_edited("small-lstm", {
        "tanh(1.00001 x)": ("tanh(g)", "tanh(1.00001 * g)"),
        "sigmoid(1.00001 x)": ("sigmoid(o)", "sigmoid(1.00001 * o)"),
        "forget bias 1 → 1.0001": ("f + 1)", "f + 1.0001)"),
        "cell begins at 1e-6": ("c = zeros(5, width)", "c = zeros(5, width) + 1e-6"),
        "targets + 1e-6": ("out, target)", "out, target + 1e-6)"),
        "lr 0.01 → 0.01001": ("lr: 0.01", "lr: 0.01001"),
        "one step of time early": ("x[k] @", "x[min(k + 1, 8)] @"),
        "gradients × 1.00002": ("loss = mse_loss(h @ out, target)",
                                "l = mse_loss(h @ out, target)\n  loss = 1.00002 * l - 0.00002 * l.detach()"),
    }),
    *_edited("attention", {
        "scores / 4 → / 4.0001": (".mT / 4", ".mT / 4.0001"),
        "layer_norm's eps 1e-5 → 1e-6": ("eps=1e-5", "eps=1e-6"),
        "AdamW's weight decay 0.01 → 0.0101": ("weight_decay: 0.01", "weight_decay: 0.0101"),
        "a residual × 1.00001": ("(x + mixed", "(1.00001 * x + mixed"),
        "AdamW's eps 1e-8 → 1e-7": ("lr: 0.003", "lr: 0.003, eps: 1e-7"),
    }),
    *_edited("small-gan", {
        "leaky_relu's slope 0.2 → 0.20001": ("0.2)", "0.20001)"),
        "a draw's deviation 0.3 → 0.30001": ("0.3 * randn", "0.30001 * randn"),
        "one beta1 0.5 → 0.5001": ("betas: [0.5,", "betas: [0.5001,"),
        "the generator's lr 0.005 → 0.005005": ("lr: 0.005", "lr: 0.005005"),
        "softplus's beta 1 → 1.0001": ("generator_loss = softplus(-critic(fake))",
                                       "generator_loss = softplus(-critic(fake), 1.0001)"),
    }),
    *_edited("lbfgs", {
        "a penalty 0.01 → 0.010001": ("0.01 *", "0.010001 *"),
        "lr 1 → 0.99999": ("lr: 1,", "lr: 0.99999,"),
        "a history of 4 for 5": ("history_size: 5", "history_size: 4"),
        "one wrong label": (" > 0).to(float64)", " > 0).to(float64) * (x[:, 0] < x[:, 0].max())"),
        "one input × (1 + 1e-9)": ("logits(x @", "logits(x * (1 + 1e-9) @"),
    }),
    *_edited("small-batch-norm", {
        "batch_norm's eps 1e-5 → 1.1e-5": ("0.1, 1e-5", "0.1, 1.1e-5"),
        "momentum 0.9 → 0.9001": ("momentum: 0.9", "momentum: 0.9001"),
        "a running mean's 0.1 → 0.10001": ("0.1 * now_mean", "0.10001 * now_mean"),
        "the biased variance": ("z.var(0)", "z.var(0, correction=0)"),
        "lr 0.05 → 0.05001": ("lr: 0.05", "lr: 0.05001"),
    }),
    *_edited("dropout", {
        "a rate 0.3 → 0.30001": ("0.3, training", "0.30001, training"),
        "gelu's approximation by tanh": ("gelu((x + 0.1 * randn(20, 10)) @ w1)",
                                         'gelu((x + 0.1 * randn(20, 10)) @ w1, approximate="tanh")'),
        "noise of 0.1 → 0.10001": ("0.1 * randn", "0.10001 * randn"),
        "Adagrad's eps 1e-10 → 1e-8": ("lr: 0.05", "lr: 0.05, eps: 1e-8"),
        "smooth_l1's beta 1 → 1.0001": ("h @ w2, y)", "h @ w2, y, beta=1.0001)"),
    }),
    *_edited("float64", {
        "sin(1.0000001 x)": ("sin(x @ w1 + b1)", "sin(1.0000001 * (x @ w1 + b1))"),
        "/ 50 → / 50.000001": ("/ 50", "/ 50.000001"),
        "NAdam's momentum decay 0.004 → 0.00401": ("lr: 0.01", "lr: 0.01, momentum_decay: 0.00401"),
        "targets of 3 → 3.0000001": ("sin(3 *", "sin(3.0000001 *"),
        "float32 on the way": ("sin(x @ w1 + b1)", "sin((x @ w1 + b1).to(float32).to(float64))"),
    }),
    *_edited("narrow", {
        "lr 0.1 → 0.2": ("lr: 0.1", "lr: 0.2"),
        "a missing tanh": ("tanh(x @ w1)", "(x @ w1)"),
    }),
    *_edited("embedding", {
        "weight decay 1e-4 → 1.1e-4": ("weight_decay: 1e-4", "weight_decay: 1.1e-4"),
        "one token is another": ("% words\"", "% words + 2 * (arange(40) == 13)\""),
        "lr 0.02 → 0.02002": ("lr: 0.02", "lr: 0.02002"),
        "scores × 1.00001": ("table) @ out", "table) @ (1.00001 * out)"),
    }),
    *_edited("einsum", {
        "a penalty 0.01 → 0.010001": ("0.01 * einsum", "0.010001 * einsum"),
        "Rprop's step up 1.2 → 1.2001": ("lr: 0.01", "lr: 0.01, etas: [0.5, 1.2001]"),
        "x × 1.00001": ("bk\", x,", "bk\", 1.00001 * x,"),
    }),
    *_edited("conv1d", {
        "label smoothing 0.1 → 0.10001": ("label_smoothing=0.1", "label_smoothing=0.10001"),
        "elu's alpha 1 → 1.0001": ("padding=2))", "padding=2), 1.0001)"),
        "a bias begins at 1e-6": ("[8], init: zeros", "[8], init: 1e-6"),
        "Adamax's beta2 0.999 → 0.9989": ("lr: 0.01", "lr: 0.01, betas: [0.9, 0.9989]"),
    }),
    *_edited("rule", {
        "a coefficient 0.99 → 0.9901": ("0.99 * m", "0.9901 * m"),
        "a decay 0.01 → 0.0101": ("0.01 * param", "0.0101 * param"),
        "tanh(50.005 x)": ("tanh(50 *", "tanh(50.005 *"),
    }),
    *_edited("momentum-schedule", {
        "momentum 0.9 → 0.9001": ("momentum: 0.9", "momentum: 0.9001"),
        "a warm-up that begins one step late": ("t / 5)", "max(t - 1, 0.5) / 5)"),
        "lr off by 0.1% at step 17": ("min(1, t / 5)", "min(1, t / 5) * (1.001 if t == 17 else 1)"),
        "T_max 20 → 21": ("T_max=20", "T_max=21"),
        "clipped at 1.0001": ("clip_grad_norm: 1.0", "clip_grad_norm: 1.0001"),
        "huber's delta 1 → 1.0001": ("@ w2, y)", "@ w2, y, delta=1.0001)"),
    }),
    *_edited("rmsprop", {
        "alpha 0.95 → 0.9501": ("alpha: 0.95", "alpha: 0.9501"),
        "momentum 0.5 → 0.5001": ("momentum: 0.5", "momentum: 0.5001"),
        "eps 1e-8 → 1e-7": ("lr: 0.003", "lr: 0.003, eps: 1e-7"),
        "/ 24 → / 24.0002": ("/ 24", "/ 24.0002"),
    }),
    *_edited("complex", {
        "a penalty 0.001 → 0.00101": ("0.001 *", "0.00101 *"),
        "an imaginary part begins at 1e-6": ("[17], init: zeros", "[17], init: 1e-6"),
        "the conjugate weight": ("complex(real, imaginary)", "complex(real, -imaginary)"),
    }),
    *_edited("solve", {
        "weight decay 0.001 → 0.001001": ("weight_decay: 0.001", "weight_decay: 0.001001"),
        "a penalty 0.1 → 0.1000001": ("0.1 * volume", "0.1000001 * volume"),
        "one element + 1e-9": ("+ randn(6, 6)", "+ randn(6, 6) + 1e-9 * eye(6)[0]"),
    }),
    *_edited("evaluate", {
        "AdamW's weight decay 0.01 → 0.0101": ("lr: 0.01", "lr: 0.01, weight_decay: 0.0101"),
        "a relu below 1e-5": ("relu(x @ w1)", "relu(x @ w1 - 1e-5)"),
    }),
    Change("one held-out point off by 0.01", "evaluate", data=_one_test_point),
    *_edited("class-weights", {
        "a class weighs 2.5 → 2.50001": ("2.5]", "2.50001]"),
        "Adadelta's rho 0.9 → 0.9001": ("lr: 0.5", "lr: 0.5, rho: 0.9001"),
        "hardtanh up to 1.0001": ("hardtanh(x @ w1)", "hardtanh(x @ w1, -1, 1.0001)"),
        "another quantile": ("[0][22]", "[0][21]"),
    }),
    *_edited("wide-matrix", {
        "one weight of 512 × 512 off by 1e-3": (
            "/ sqrt(512)\"", "/ sqrt(512) + 1e-3 * (arange(512 * 512) == 77777).reshape(512, 512)\""),
        "tanh(1.00001 x)": ("tanh(x @ w)", "tanh(1.00001 * (x @ w))"),
        "lr 0.05 → 0.05005": ("lr: 0.05", "lr: 0.05005"),
        "one input off by 1e-4": ("tanh(x @ w)", "tanh((x + 1e-4 * (arange(512) == 99)) @ w)"),
    }),
    *_edited("accumulate", {
        "an average's 0.95 → 0.9501": ("0.95 * average", "0.9501 * average"),
        "clipped at 0.010001": ("clip_grad_value: 0.01", "clip_grad_value: 0.010001"),
        "three micro-batches for two": ("accumulate: 2", "accumulate: 3"),
        "a penalty 0.001 → 0.00101": ("1e-3 * kl", "1.01e-3 * kl"),
    }),
    *_edited("logistic-map", {
        "a 3.9 → 3.900001": ("a: 3.9", "a: 3.900001"),
        "one start 0.4 → 0.400001": ("0.4,", "0.400001,"),
    }),
)  # fmt: skip
"""Faults that a snapshot should find, however small."""

ROUNDING = (
    *_edited("mlp-adam", {
        "Adam's beta2 off by 1e-7": ("0.999]", "0.9990001]"),
        "loss × (1 + 1e-7)": ("loss = cross", "loss = (1 + 1e-7) * cross"),
    }),
    *_edited("small-lstm", {"tanh(1.0000001 x)": ("tanh(g)", "tanh(1.0000001 * g)")}),
    *_edited("momentum-schedule", {"lr off by 1e-7": ("cosine_annealing_lr(0.1,", "cosine_annealing_lr(0.10000001,")}),
    *_edited("narrow", {"lr 0.1 → 0.1001 in bfloat16": ("lr: 0.1", "lr: 0.1001")}),
    *_edited("logistic-map", {"a 3.9 → 3.9000001, less than a unit of float32": ("a: 3.9", "a: 3.9000001")}),
)  # fmt: skip
"""Faults that are no larger than rounding is: no comparison between two machines can find them."""

HARMLESS = (
    *_edited("mlp-adam", {
        "addmm for a product and a sum": ("relu(x @ w1 + b1)", "relu(addmm(b1, x, w1))"),
        "log_softmax and nll_loss for cross_entropy": ("cross_entropy(scores, y)",
                                                       "nll_loss(log_softmax(scores, 1), y)"),
        "linear for a product": ("h @ w2 + b2", "linear(h, w2.T, b2)"),
        "a mean by sum": ("(scores.argmax(1) == y).to(float32).mean()",
                          "(scores.argmax(1) == y).to(float32).sum() / x.shape[0]"),
    }),
    *_edited("small-lstm", {
        "sigmoid by exp": ("sigmoid(i)", "(1 / (1 + exp(-i)))"),
        "tanh by sigmoid": ("tanh(c)", "(2 * sigmoid(2 * c) - 1)"),
        "one product of what stands side by side": ("x[k] @ wx + h @ wh + b", "cat([x[k], h], 1) @ cat([wx, wh]) + b"),
    }),
    *_edited("attention", {
        "a product by einsum": ("normed @ q", 'einsum("bte,ef->btf", normed, q)'),
        "layer_norm written out": (
            "layer_norm(x, [16], scale, shift, eps=1e-5)",
            "(x - x.mean(-1, keepdim=True)) / sqrt(x.var(-1, keepdim=True, correction=0) + 1e-5) * scale + shift"),
        "softmax written out": (
            "mixed = softmax(normed @ q @ (normed @ k).mT / 4, dim=-1)",
            "powers = exp(normed @ q @ (normed @ k).mT / 4)\n  mixed = powers / powers.sum(-1, keepdim=True)"),
        "fused attention": ("softmax(normed @ q @ (normed @ k).mT / 4, dim=-1) @ (normed @ v)",
                            "scaled_dot_product_attention(normed @ q, normed @ k, normed @ v)"),
    }),
    *_edited("layer-norm", {
        "layer_norm written out": (
            "layer_norm(z, [24], scale, shift, eps=1e-5)",
            "(z - z.mean(1, keepdim=True)) * rsqrt(z.var(1, keepdim=True, correction=0) + 1e-5) * scale + shift"),
        "gelu by erf": ("gelu(normed)", "normed * 0.5 * (1 + erf(normed / sqrt(2)))"),
    }),
    *_edited("small-batch-norm", {
        "batch_norm written out": (
            "batch_norm(z, None, None, scale, shift, True, 0.1, 1e-5)",
            "(z - z.mean(0)) / sqrt(((z - z.mean(0)) ** 2).mean(0) + 1e-5) * scale + shift"),
    }),
    *_edited("small-gan", {"-logsigmoid for softplus": ("softplus(-critic(real))", "(-logsigmoid(critic(real)))")}),
    *_edited("lbfgs", {
        "a loss of logits written out": ("binary_cross_entropy_with_logits(x @ w + b, y)",
                                         "(softplus(x @ w + b) - y * (x @ w + b)).mean()"),
    }),
    *_edited("dropout", {"a product by sum": ("h @ w2", "(h * w2).sum(1)")}),
    *_edited("float64", {
        "another order of a sum": ("((p - y) ** 2).sum()", "((p - y) ** 2).flip(0).cumsum(0)[-1]"),
        "mean for a sum": ("((p - y) ** 2).sum() / 50", "mse_loss(p, y)"),
    }),
    *_edited("narrow", {"another order of a mean": ("((p - y) ** 2).mean()", "((p - y) ** 2).mean(0).mean()")}),
    *_edited("embedding", {
        "cross_entropy for log_softmax and nll_loss": ("nll_loss(scores, text", "cross_entropy(scores, text"),
        "an index for embedding": ("embedding(text[:-1], table)", "table[text[:-1]]"),
    }),
    *_edited("einsum", {
        "einsum by products": ('einsum("bi,bj,ijk->bk", x, z, w)',
                               "((x @ w.reshape(5, 21)).reshape(12, 7, 3) * z[:, :, None]).sum(1)"),
    }),
    *_edited("conv1d", {
        "a convolution by unfold": (
            "conv1d(x, filters, bias, stride=2, padding=2)",
            '(einsum("bclk,fck->bfl", pad(x, [2, 2]).unfold(2, 5, 2), filters) + bias[:, None])'),
    }),
    *_edited("rule", {
        "silu written out": ("silu(x @ w1)", "((x @ w1) * sigmoid(x @ w1))"),
        "a decay that is factored out": ("param - lr * (direction + 0.01 * param)",
                                         "(1 - 0.01 * lr) * param - lr * direction"),
    }),
    *_edited("momentum-schedule", {
        "softplus by log1p": ("softplus(x @ w1 + b1)", "log1p(exp(x @ w1 + b1))"),
        "the rate in another order": ("min(1, t / 5) * cosine_annealing_lr(0.1, T_max=20)",
                                      "cosine_annealing_lr(min(0.1, 0.02 * t), T_max=20)"),
    }),
    *_edited("rmsprop", {
        "cross_entropy for one-hot labels": ("-(one_hot(y, 4) * log_softmax(scores, 1)).sum() / 24",
                                             "cross_entropy(scores, y)"),
    }),
    *_edited("complex", {
        "a magnitude by its parts": ("abs(spectrum).sum()", "sqrt(real(spectrum) ** 2 + imag(spectrum) ** 2).sum()"),
    }),
    *_edited("solve", {
        "inv for solve": ("linalg.solve(m, b)", "linalg.inv(m) @ b"),
        "det for slogdet": ("linalg.slogdet(m)[1]", "log(abs(linalg.det(m)))"),
    }),
    *_edited("class-weights", {
        "a weighted mean written out": ("cross_entropy(scores, y, importance)",
                                        "(each * importance[y]).sum() / importance[y].sum()"),
    }),
    *_edited("wide-matrix", {
        "a product in two parts": ("x @ w)", "x[:, :200] @ w[:200] + x[:, 200:] @ w[200:])"),
        "the transposed product": ("x @ w)", "(w.T @ x.T).T)"),
    }),
    *_edited("logistic-map", {
        "a map multiplied out": ("early = a * early * (1 - early)", "early = a * early - a * early * early"),
    }),
)  # fmt: skip
"""Other ways to compute the same numbers."""

UNCHANGED = tuple(Change("nothing", path.stem) for path in sorted(CONFIGS.glob("*.yaml")))
"""The configs themselves."""
