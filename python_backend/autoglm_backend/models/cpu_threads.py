"""torch's own OpenMP threads, for compiled kernels: they are awake between two products, others would be asleep."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from llvmlite import ir
from numba import njit, types

from autoglm_backend.models.cpu_kernels import intrinsic

_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@intrinsic
def _call(typingctx: Any, address: Any) -> tuple[Any, Callable[..., Any]]:
    """Call the C function `int f(void)` at this address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = ir.FunctionType(ir.IntType(32), ()).as_pointer()
        return builder.call(builder.inttoptr(args[0], pointer), ())

    return types.int32(types.int64), codegen


@njit(nogil=True)
def part_of(thread_num: int, num_threads: int) -> tuple[int, int]:
    """In a kernel: which part of its work this thread does, of how many. The arguments are those of its `Team`."""
    if thread_num == 0:
        return 0, 1
    return _call(thread_num), _call(num_threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """Who runs a kernel `void f(int64_t *arguments)`."""

    run: Callable[[int, int], None]
    """`run(kernel, arguments)`, both addresses: every thread calls the kernel with the same arguments."""
    thread_num: int = 0
    """Address of omp_get_thread_num, for `part_of`; 0 for a team of one."""
    num_threads: int = 0


ALONE = Team(run=lambda kernel, arguments: _CALL(kernel)(arguments))


@cache
def together() -> Team:
    """As many as `torch.set_num_threads` said last in the calling thread; one where torch brings another OpenMP."""
    library = _libgomp()
    if library is None:
        return ALONE
    parallel = library.GOMP_parallel
    parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None

    def address(name: str) -> int:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0

    return Team(
        run=lambda kernel, arguments: parallel(kernel, arguments, 0, 0),
        thread_num=address("omp_get_thread_num"),
        num_threads=address("omp_get_num_threads"),
    )


def _libgomp() -> ctypes.CDLL | None:
    """The one that this process has loaded with torch."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = {line.split()[-1] for line in maps if "libgomp" in line}
    return ctypes.CDLL(paths.pop()) if len(paths) == 1 else None
