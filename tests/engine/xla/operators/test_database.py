"""Functions of PyTorch's operator database in XLA, with their gradients: some of each topic.

`python -m tools.xla_operators` compares all of them, which takes minutes.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db

from tests.effort import thinned
from tests.engine.xla.operators.traced import Traced, assert_agrees, run, traced
from tests.language.samples import said_samples

TOPICS = {
    "choices": ("clamp", "where", "isclose", "fmax", "bitwise_left_shift", "heaviside"),
    "arithmetic": ("div", "remainder", "atan2", "round", "sgn", "lerp", "logaddexp"),
    "activations": ("softmax", "log_softmax", "nn.functional.gelu", "nn.functional.elu", "nn.functional.softshrink"),
    "reductions": ("sum", "prod", "std", "amax", "logsumexp", "cummax", "argmin"),
    "order": ("sort", "topk", "median", "searchsorted", "mode"),
    "shapes": ("cat", "roll", "unfold", "diag_embed", "nn.functional.pad", "repeat", "flip"),
    "indices": ("index_add", "index_put", "scatter_reduce", "take_along_dim", "nn.functional.embedding"),
    "products": ("matmul", "einsum", "baddbmm", "nn.functional.bilinear", "nn.functional.linear"),
    "factors": ("linalg.cholesky", "linalg.solve", "linalg.det", "linalg.svd"),
    "transforms": ("fft.irfft2", "fft.hfft"),
    "convolutions": ("nn.functional.conv2d", "nn.functional.conv_transpose2d"),
    "pools": ("nn.functional.max_pool2d", "nn.functional.avg_pool2d", "nn.functional.adaptive_max_pool2d"),
    "images": ("nn.functional.interpolate", "nn.functional.grid_sample"),
    "norms": ("nn.functional.layer_norm", "nn.functional.group_norm", "nn.functional.batch_norm"),
    "losses": ("nn.functional.cross_entropy", "nn.functional.ctc_loss", "nn.functional.multi_margin_loss", "cdist"),
    "special": ("special.erfcx", "polygamma", "special.laguerre_polynomial_l", "special.modified_bessel_k1"),
}
DTYPES = (torch.float64, torch.int64, torch.bfloat16, torch.complex128)
IN_FEW = ("fmax", "div", "sum", "cat", "index_add", "matmul", "fft.hfft")
"""Functions tried with every dtype that they take; others with float64."""


def rows() -> list[tuple[str, str, Any]]:
    entries: dict[str, Any] = {}
    for entry in op_db:
        entries.setdefault(entry.name, entry)
    every = [(topic, name, entries[name]) for topic, names in TOPICS.items() for name in names]
    return thinned(every, lambda row: row[0], every=4)


@pytest.mark.slow
@pytest.mark.parametrize("topic", TOPICS)
def test_values_and_gradients_agree_with_torch(topic: str) -> None:
    samples: dict[str, Traced] = {}
    for name, entry in [(name, entry) for own, name, entry in rows() if own == topic]:
        forward, backward = entry.supported_dtypes("cpu"), entry.supported_backward_dtypes("cpu")
        for dtype in [each for each in DTYPES if each in forward][: None if name in IN_FEW else 1]:
            with warnings.catch_warnings(), torch.random.fork_rng():
                warnings.simplefilter("ignore")
                gradients = entry.supports_autograd and dtype in backward
                for said in said_samples(entry, dtype, gradients, 1):
                    sample = traced(said, gradients)
                    assert sample is not None
                    samples[f"{said.call} of {dtype}"] = sample
    assert samples
    for (call, sample), found in zip(samples.items(), run(list(samples.values())), strict=True):
        try:
            assert_agrees(found, sample.expected())
        except AssertionError as error:
            raise AssertionError(call) from error
