"""PyTorch's threads, on which the kernels run as well.

PyTorch computes with OpenMP, whose threads wait in a loop for their next work and keep their cores from the threads of any other
pool. So calls run on OpenMP's threads, where it can be found: it is the library that PyTorch's own module was linked with.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os

import torch


class _Team(ctypes.Structure):
    """`Team` of the library (`native/src/lib.rs`)."""

    _fields_ = (("process", ctypes.c_uint32), ("parallel", ctypes.c_void_p))


def _is_forked() -> bool:
    """Whether `multiprocessing` made this process by `fork`."""
    if multiprocessing.parent_process() is None:
        return False
    method = getattr(multiprocessing.current_process(), "_start_method", None)
    return (method or multiprocessing.get_start_method()) == "fork"


def _openmp() -> int | None:
    """The address of OpenMP's `GOMP_parallel`, which GNU's library and LLVM's have; `None` where PyTorch has neither.

    In a child of `fork` it must not be called, since the threads of its parent do not exist there. The library knows that of a
    child whose parent has imported this module.
    """
    if _is_forked():
        return None
    try:
        # A library that is loaded already. Its symbols are looked up in the libraries that it was linked with, too.
        function = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    return ctypes.cast(function, ctypes.c_void_p).value


_openmp_parallel = _openmp()
# It lives as long as the process: plans hold its address.
_team = _Team(os.getpid(), _openmp_parallel)

#: What `Plan` takes as `team`: PyTorch's threads, or `None` where they were not found.
TEAM: int | None = None if _openmp_parallel is None else ctypes.addressof(_team)
