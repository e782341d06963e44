"""Memory of a training run: how glibc's allocator keeps it from one step to the next, and when there was too little."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress

ONEDNN_GOT_NONE = "could not create a primitive"  # all that it says
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h


def keep_memory() -> bool:
    """Serve large blocks from the heap and never shrink it; False where the C library has no mallopt.

    By default each activation map over 32 MiB comes fresh from the system, and is given back, at every layer of every
    step: page faults then take half the time of a step on a CPU.
    """
    if not sys.platform.startswith("linux") or is_limited():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, 2**31 - 1), mallopt(M_TOP_PAD, 64 * 2**20)])


def is_limited() -> bool:
    """Whether addresses are rationed (ulimit -v). A heap that keeps them all would leave none for anything else."""
    import resource  # not everywhere

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def give_back() -> None:
    """Return what a step that failed has left: its tensors refer to each other, and allocators keep what is free."""
    import torch  # a run that only waits for its turn does without

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def ran_out(error: Exception) -> bool:
    """Whether there was too little of it, on a GPU or a CPU, for Python, PyTorch or its oneDNN."""
    words = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, which need not be loaded to ask
        or "allocate memory" in words  # can't, cannot
        or words == ONEDNN_GOT_NONE
    )
