"""Memory for results, in large pages where the system has them."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor

HUGE_PAGE = 2 << 20  # bytes; x86-64 and ARM with 4 KiB pages
MADV_HUGEPAGE = getattr(mmap, "MADV_HUGEPAGE", None)  # madvise(2); Linux only


@cache
def _madvise() -> Any:
    if MADV_HUGEPAGE is None or sys.platform != "linux":
        return None
    call = ctypes.CDLL(None).madvise
    call.argtypes, call.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return call


def empty_like(x: Tensor) -> Tensor:
    """``torch.empty_like``, contiguous; 4 MiB and more on a CPU in large pages.

    The first write to each page of new memory enters the kernel, and a large result is new memory each time. Pages of
    2 MiB rather than 4 KiB make that 512 times rarer (benchmarks/operators.py). Advice only: a system without them says no.
    """
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    size = out.numel() * out.element_size()
    if out.device.type == "cpu" and size >= 2 * HUGE_PAGE and (call := _madvise()) is not None:
        start = -(-out.data_ptr() // HUGE_PAGE) * HUGE_PAGE
        end = (out.data_ptr() + size) // HUGE_PAGE * HUGE_PAGE
        if end > start:
            call(start, end - start, MADV_HUGEPAGE)
    return out
