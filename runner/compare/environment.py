"""What the bits of a run depend on besides its config. Two equal environments compute the same bits."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from runner.language.dtypes import dtype_name
from runner.plan import Plan
from runner.record.manifest import fingerprint
from runner.record.rows.digest import bits

Environment = Mapping[str, Any]

SWITCHES = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
)
"""Environment variables by which math libraries choose their kernels."""

SWITCHES_OF_XLA = (
    "JAX_ALLOW_F16_REDUCTIONS",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_DISABLE_MOST_OPTIMIZATIONS",
    "JAX_EXEC_TIME_OPTIMIZATION_EFFORT",
    "JAX_MEMORY_FITTING_EFFORT",
    "JAX_MEMORY_FITTING_LEVEL",
    "JAX_OPTIMIZATION_LEVEL",
    "JAX_USE_MAGMA",
    "NPROC",
    "PJRT_NPROC",
    "XLA_FLAGS",
)
"""Environment variables by which XLA compiles other code, or divides a sum among more threads."""

_VERSIONS = (
    ("mkl", re.compile(r"Math Kernel Library Version (\S+)")),
    ("onednn", re.compile(r"MKL-DNN (v\S+)")),
    ("blas", re.compile(r"BLAS_INFO=([^,\s]+)")),
)


def environment_of(plan: Plan) -> Environment:
    """The environment of this process, as a snapshot of a plan stores it.

    Versions and switches are what a user can change. `battery` is a digest of the bits that a fixed set of operations
    computes here. It also reflects processors, libraries and settings that no other field names.
    """
    fields = fingerprint(plan.device, dtype_name(plan.dtype), plan.config.engine)
    return {
        **fields,
        "engine": plan.config.engine,
        "processor": processor(),
        "libraries": libraries(plan.config.engine),
        "battery": battery(plan.device, torch.get_num_threads()),
    }


@cache
def processor() -> str:
    """The model of this machine's processor, and a digest of its instruction sets: `AMD EPYC 26.2.1 flags 1f2e3d4c`."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    name = fields.get("model name") or fields.get("CPU part") or platform.machine()
    keys = ("cpu family", "model", "stepping", "CPU implementer", "CPU variant")
    numbers = [fields[key] for key in keys if key in fields]
    flags = " ".join(sorted((fields.get("flags") or fields.get("Features") or "").split()))
    return f"{name} {'.'.join(numbers)} flags {hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def libraries(engine: str) -> str:
    """The math libraries that torch was built with, and what selects their kernels: `mkl 2024.2, onednn v3.7; …`.

    Args:
        engine: `xla` has switches of its own.
    """
    built = torch.__config__.show()
    versions = [f"{name} {found[1]}" for name, pattern in _VERSIONS if (found := pattern.search(built))]
    switches = [f"{name}={os.environ[name]}" for name in SWITCHES if os.environ.get(name)]
    if not torch.backends.mkldnn.enabled:
        switches.append("onednn off")
    if engine == "xla":
        given = {name: " ".join(os.environ.get(name, "").split()) for name in SWITCHES_OF_XLA}
        switches += [f"{name}={value}" for name, value in given.items() if value]
        switches.append(f"xla threads {_cores()}")
    return "; ".join([", ".join(versions) or "unknown", *switches])


def _cores() -> int | None:
    """The number of cores that this process may use, and so of XLA's threads."""
    affinity = getattr(os, "sched_getaffinity", None)
    return os.cpu_count() if affinity is None else len(affinity(0))


@cache
def battery(device: str, threads: int) -> str:
    """A digest of the bits that a fixed set of operations computes on a device; cached for each number of threads."""
    digest = hashlib.sha256()
    with torch.enable_grad():
        for result in _results(torch.device(device)):
            digest.update(bits(result.cpu()).numpy().tobytes())
    return digest.hexdigest()[:16]


def _results(device: torch.device) -> Iterator[Tensor]:
    """Products, convolutions, reductions, transcendental functions and draws, at sizes that use different kernels."""
    generator = torch.Generator().manual_seed(20_260_101)

    def uniform(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1).to(dtype).to(device)

    for dtype in (torch.float32, torch.float64):
        for rows, inner, columns in ((3, 5, 2), (8, 64, 10), (64, 64, 48), (33, 257, 19), (160, 512, 96)):
            a, b = uniform(rows, inner, dtype=dtype), uniform(inner, columns, dtype=dtype)
            yield a @ b
            yield b.mT @ a.mT
            yield a @ b[:, 0]
            yield torch.addmm(a[:, :1], a, b)
        yield uniform(4, 9, 17, dtype=dtype) @ uniform(4, 17, 11, dtype=dtype)
        for size in (7, 64, 1000, 40_000):
            x = uniform(size, dtype=dtype)
            yield torch.stack([x.sum(), x.mean(), x.var(), x.norm(), x.logsumexp(0)])
            yield x.view(1, -1).softmax(-1)
        x = uniform(1003, dtype=dtype)
        for function in (torch.exp, torch.tanh, torch.sin, torch.erf, torch.sigmoid, torch.expm1, functional.gelu):
            yield function(3 * x)
        positive = x.abs() + 0.01
        for function in (torch.log, torch.sqrt, torch.rsqrt, torch.lgamma):
            yield function(positive)
        yield positive**1.7
        square = uniform(12, 12, dtype=dtype)
        yield torch.linalg.solve(square, square.mT)
        yield torch.linalg.svdvals(square)
        yield functional.layer_norm(uniform(6, 33, dtype=dtype), (33,))
    weight, image = uniform(6, 3, 3, 3).requires_grad_(), uniform(4, 3, 12, 12)
    convolved = functional.conv2d(image, weight, padding=1)
    yield convolved.detach()
    convolved.square().sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    yield weight.grad
    yield functional.conv1d(uniform(2, 4, 30), uniform(5, 4, 3))
    yield (uniform(16, 64).bfloat16() @ uniform(64, 16).bfloat16()).float()
    for size in (1, 15, 16, 1000):
        yield torch.randn(size, generator=generator)
