"""Has MKL take the path that the recipe names on CPUs of every vendor.

MKL honours `MKL_CBWR=AVX2,STRICT` where its function `mkl_serv_intel_cpu_true` answers 1; on other
vendors' CPUs it takes a path of its own, with other bits. That function is overwritten, in this
process's memory, by one that answers 1: measured on an AMD EPYC, torch then gave the bits of
emulated Intel CPUs in all operations tried. No file is changed, and nothing of MKL is copied or
distributed. Its licence forbids to alter its operation, see docs/determinism.md: a recipe says
`[hardware] mkl = "unchanged"` to leave it alone, and nothing here runs.

Where it can't be done (torch without MKL, a system that forbids writing to code), nothing is
changed, and a line in the log says so.
"""

from __future__ import annotations

import os

FUNCTION = "mkl_serv_intel_cpu_true"
ANSWER_1 = b"\xb8\x01\x00\x00\x00\xc3"  # mov eax, 1; ret
READ, WRITE, EXECUTE = 1, 2, 4  # of <sys/mman.h>


def answer_intel(library: str) -> bool:
    """Whether the function answers 1 from now on. To be called before MKL's first computation."""
    try:
        return _overwrite(library)
    except (AttributeError, ImportError, OSError) as error:
        message = f"modelbuild: MKL's instruction set is not pinned, its bits may differ: {error}\n"
        os.write(2, message.encode())
        return False


def _overwrite(library: str) -> bool:
    import ctypes
    import mmap

    function = getattr(ctypes.CDLL(library), FUNCTION)
    if function() == 1:
        return True
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    page = address & -mmap.PAGESIZE
    size = address + len(ANSWER_1) - page
    protect = ctypes.CDLL(None, use_errno=True).mprotect

    def allow(mode: int) -> None:
        if protect(ctypes.c_void_p(page), ctypes.c_size_t(size), mode):
            raise OSError(ctypes.get_errno(), f"{FUNCTION} can't be overwritten")

    allow(READ | WRITE | EXECUTE)
    try:
        ctypes.memmove(address, ANSWER_1, len(ANSWER_1))
    finally:
        allow(READ | EXECUTE)
    return bool(function() == 1)
