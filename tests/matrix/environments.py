"""Environments that stand for other machines: other kernels for the same operations, each in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from runner.compare.environment import SWITCHES

_TIMEOUT = 3600

_WITHOUT_ONEDNN = """\
import sys
import torch
torch.backends.mkldnn.set_flags(False)
from runner.cli.main import entry
entry()
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a process is started with."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    onednn: bool = True
    needs: str | None = None  # the instruction set that the processor must have; "x86" for any processor of that kind

    @property
    def is_available(self) -> bool:
        """Whether this machine can run it; an instruction that a processor lacks would end the process."""
        return self.needs is None or self.needs in _instruction_sets()


PLAIN = Environment("plain")

ENVIRONMENTS = (
    Environment("aten-default", {"ATEN_CPU_CAPABILITY": "default"}),
    Environment("aten-avx2", {"ATEN_CPU_CAPABILITY": "avx2"}, needs="avx2"),
    Environment("aten-avx512", {"ATEN_CPU_CAPABILITY": "avx512"}, needs="avx512f"),
    Environment("mkl-compatible", {"MKL_CBWR": "COMPATIBLE"}, needs="x86"),
    Environment("mkl-avx2", {"MKL_CBWR": "AVX2"}, needs="avx2"),
    Environment("mkl-avx512", {"MKL_CBWR": "AVX512"}, needs="avx512f"),
    Environment("mkl-sse42", {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}, needs="x86"),
    Environment("onednn-sse41", {"ONEDNN_MAX_CPU_ISA": "SSE41"}, needs="x86"),
    Environment("onednn-avx2", {"ONEDNN_MAX_CPU_ISA": "AVX2"}, needs="avx2"),
    Environment("onednn-off", onednn=False),
    Environment("two-threads", threads=2),
    Environment(
        "all-sse",
        {
            "ATEN_CPU_CAPABILITY": "default",
            "MKL_CBWR": "COMPATIBLE",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
        },
        threads=2,
        onednn=False,
    ),
)
"""All that one x86-64 machine can be made to differ by; the last is the harshest."""

HARSHEST = ENVIRONMENTS[-1]


def steprun(
    environment: Environment, arguments: Sequence[str], folder: Path, codes: Sequence[int] = (0,)
) -> subprocess.CompletedProcess[str]:
    """Run `steprun` with arguments in a process of its own, in a folder.

    Raises:
        AssertionError: it ended with a code that is none of `codes`.
    """
    command = ["-m", "runner"] if environment.onednn else ["-c", _WITHOUT_ONEDNN]
    return python(environment, [*command, *arguments], folder, codes)


def python(
    environment: Environment, arguments: Sequence[str], folder: Path, codes: Sequence[int] = (0,)
) -> subprocess.CompletedProcess[str]:
    """Run Python likewise; `onednn` is the business of what it runs."""
    inherited = {name: value for name, value in os.environ.items() if name not in (*SWITCHES, "MKL_NUM_THREADS")}
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={
            **inherited,
            "OMP_NUM_THREADS": str(environment.threads),
            "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
            **environment.variables,
        },
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    assert done.returncode in codes, f"{environment.name}: {done.stdout}{done.stderr}"
    return done


def check(environment: Environment, folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `steprun check --json` says of each config of a folder in an environment."""
    files = [f"{name}.yaml" for name in names]
    done = steprun(environment, ["check", "--json", *files], folder, (0, 3))
    return {Path(each["name"]).stem: each for each in json.loads(done.stdout)["snapshots"]}


def copied(sources: Mapping[str, Path], folder: Path) -> None:
    """Copy configs and the data beside them into a folder, without snapshots."""
    for source in {path.parent for path in sources.values()}:
        shutil.copytree(source / "data", folder / "data", dirs_exist_ok=True)
    for name, path in sources.items():
        shutil.copy(path, folder / f"{name}.yaml")


@cache
def _instruction_sets() -> frozenset[str]:
    if platform.machine() not in ("x86_64", "AMD64"):
        return frozenset()
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return frozenset({"x86"})
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset({"x86", *flags.partition(":")[2].split()})
