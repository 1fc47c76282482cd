"""Settings that make torch's C++ compilation start sooner on a fresh machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor import config, cpp_builder, cpu_vec_isa
from torch._inductor.exc import CppCompileError

_WITHOUT_HEADER = {"cpp_cache_precompile_headers": False}
"""torch compiles a header of 147 MB for each new temporary folder. It pays off after about five compilations."""


def compile_quickly(compile_now: Callable[[], object]) -> None:
    """Calls the function that compiles, without torch's probes, and with less optimisation than torch asks for.

    Calls it again with the probes if the compiler fails.

    For each new cache folder torch compiles and loads some small programs, to learn which instructions the compiler
    knows. The environment variable `TORCHINDUCTOR_VEC_ISA_OK` decides where it is set.
    """
    with config.patch(_WITHOUT_HEADER), _optimised_less():
        if config.cpp.vec_isa_ok is not None:
            compile_now()
            return
        try:
            with _without_probes():
                compile_now()
        except BackendCompilerFailed as error:
            if not isinstance(error.inner_exception, CppCompileError):
                raise
            _forget_instructions()
            compile_now()


_usual_flags = cpp_builder._get_optimization_cflags


@contextmanager
def _optimised_less() -> Iterator[None]:
    """Has the compiler optimise at `-O2`, in three quarters of the time of `-O3`.

    The code is as fast, and computes the same bits: torch has vectorised its loops, and allows no other order of sums.
    """
    with mock.patch.object(cpp_builder, "_get_optimization_cflags", _flags):
        yield


def _flags(*given: Any, **options: Any) -> tuple[list[str], list[str]]:
    compiling, linking = _usual_flags(*given, **options)
    return ["O2" if flag == "O3" else flag for flag in compiling], linking


@contextmanager
def _without_probes() -> Iterator[None]:
    """Assumes that the compiler knows all instructions of the processor."""
    probe = cpu_vec_isa.VecISA.check_build
    cpu_vec_isa.VecISA.check_build = lambda self, code: True  # type: ignore[method-assign]
    try:
        with config.patch({"cpp.vec_isa_ok": True}):
            yield
    finally:
        cpu_vec_isa.VecISA.check_build = probe  # type: ignore[method-assign]


def _forget_instructions() -> None:
    """Clears what torch has assumed of the compiler, so that it probes."""
    cpu_vec_isa.valid_vec_isa_list.cache_clear()
    for known in cpu_vec_isa.supported_vec_isa_list:
        known.__dict__.pop("_is_avx512_bf16_supported", None)
        clear = getattr(type(known).__bool__, "cache_clear", None)
        if clear is not None:
            clear()
