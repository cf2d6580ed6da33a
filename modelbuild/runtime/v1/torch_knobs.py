"""What torch is set to in a stage, right after it was imported."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

REFUSAL = "does not have a deterministic implementation"


def pin(torch: Any, seed: int, answer_intel: Callable[[str], bool]) -> None:
    """The seed, and algorithms that give the same bits in every run.

    1. MKL first: it chooses its path at its first call. Its vector functions do that without a
       lock (`mkl_vml_serv_cpu_detect` stores a number, then what that stands for): of two threads
       that make the first call together, one may take another path. That happened in 4 of 2,700
       processes whose first call was a `sqrt` on two threads. So one thread makes it, here.
    2. Deterministic algorithms by the private switch, since the public one imports Inductor, which
       takes 3 to 4 seconds; Inductor has its own variable in the environment.
    3. Fresh memory is not filled: that is most of the cost on a GPU, and changes no defined result.
    4. The number of threads is the environment's. It is set here only for a process that was
       started without it; others, such as joblib's workers, lower theirs on purpose. The number of
       inter-op threads changes no bits, and a script can set it only once: it is left alone.
    """
    if os.environ.get("MODELBUILD_MKL") == "patched":
        answer_intel(torch.__path__[0] + "/lib/libtorch_cpu.so")
    torch.ones(1, device="cpu").sqrt()
    if os.environ.get("ONEDNN_MAX_CPU_ISA") in ("SSE41", "AVX2"):
        _compute_int8_products_exactly(torch)
    allowed = [name for name in os.environ.get("MODELBUILD_ALLOW", "").split(",") if name]
    _set_deterministic(torch, warn_only=bool(allowed))
    if allowed:
        _refuse_all_but(allowed)
        if "CUBLAS_WORKSPACE_CONFIG" in os.environ:  # only where the recipe declares a GPU
            _compute_attention_plainly(torch)
    _explain_refusals()
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(int(os.environ["MODELBUILD_THREADS"]))
    torch.manual_seed(seed)


def _compute_int8_products_exactly(torch: Any) -> None:
    """`torch._int_mm`, whoever calls it, in float64, which holds all its sums exactly.

    torch has oneDNN compute it where the CPU has the VNNI instructions. With these capped, oneDNN
    saturates: wrong sums of values above 64, and other ones than on CPUs that have no VNNI.
    """
    import warnings

    def int_mm(a: Any, b: Any) -> Any:
        return (a.double() @ b.double()).int()

    def int_mm_out(a: Any, b: Any, *, out: Any) -> Any:
        return out.resize_(a.shape[0], b.shape[1]).copy_(int_mm(a, b))

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there was an operation of that name
        library.impl("_int_mm", int_mm, "CPU")
        library.impl("_int_mm.out", int_mm_out, "CPU")
    _kept.append(library)


_kept: list[Any] = []
"""What torch would take back as soon as nobody holds it."""


def _set_deterministic(torch: Any, *, warn_only: bool) -> None:
    try:
        switch = torch._C._set_deterministic_algorithms
    except AttributeError:
        switch = torch.use_deterministic_algorithms
    switch(True, warn_only=warn_only)


def _compute_attention_plainly(torch: Any) -> None:
    """Where torch only warns, its fast attentions sum in any order, and cuDNN's does not even warn.

    In strict mode it chooses their deterministic variants by itself (PyTorch 2.13: the CUDA
    sources of `sdp_utils` and `attention_backward`).
    """
    for name in ("flash", "mem_efficient", "cudnn"):
        switch = getattr(torch.backends.cuda, f"enable_{name}_sdp", None)
        if switch:
            switch(False)


def _refuse_all_but(allowed: list[str]) -> None:
    """torch warns for all operations or for none: make it an error again for those not named.

    A script that silences every warning silences this too. Naming an operation lowers what the
    recipe promises, so that nothing false is said.
    """
    import re
    import warnings

    names = "|".join(re.escape(name) for name in allowed)
    warnings.filterwarnings("error", rf"(?!(?:{names}) )\S+ {REFUSAL}")


def _explain_refusals() -> None:
    """After the traceback of a refused operation, how to allow it."""
    plain_hook = sys.excepthook

    def excepthook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        plain_hook(kind, error, traceback)
        before, found, _ = str(error).partition(f" {REFUSAL}")
        if found:
            name = before.split()[-1]
            sys.stderr.write(
                f"modelbuild: the operation '{name}' can give other bits in every run. To accept"
                ' that, add to the recipe: [determinism] level = "functional",'
                f' allow = ["{name}"]\n'
            )

    sys.excepthook = excepthook
