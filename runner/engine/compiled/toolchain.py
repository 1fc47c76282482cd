"""Settings that make torch's C++ compilation start sooner on a fresh machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor import config, cpu_vec_isa
from torch._inductor.exc import CppCompileError

_WITHOUT_HEADER = {"cpp_cache_precompile_headers": False}
"""torch compiles a header of 147 MB for each new temporary folder. It pays off after about five compilations."""


def compile_quickly(compile_now: Callable[[], object]) -> None:
    """Calls the function that compiles, without torch's probes. Calls it again with them if the compiler fails.

    For each new cache folder torch compiles and loads some small programs, to learn which instructions the compiler
    knows. The environment variable `TORCHINDUCTOR_VEC_ISA_OK` decides where it is set.
    """
    with config.patch(_WITHOUT_HEADER):
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
