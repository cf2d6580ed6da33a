"""Prints, for every probe, its name and a digest of the bits that it gives.

A probe is a name and a function. The first argument of a script is how many probes to skip:
an emulator can end the process in the middle of one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from typing import Any

Probe = tuple[str, Callable[[], Any]]


def show(groups: Mapping[str, Callable[[], Iterable[Probe]]]) -> None:
    probes = chain.from_iterable(
        ((f"{group}: {name}", probe) for name, probe in make()) for group, make in groups.items()
    )
    for name, probe in islice(probes, int(sys.argv[1]), None):
        # The name first: it is the last thing printed by a process that does not survive this one.
        print(name, end="\t", flush=True)
        try:
            shown = hashlib.sha256(_bits(probe())).hexdigest()[:12]
        except (RuntimeError, NotImplementedError) as error:
            shown = f"no kernel: {str(error).splitlines()[0][:60]}"
        print(shown, flush=True)


def _bits(result: Any) -> bytes:
    """Of bytes, an array or a tensor."""
    if isinstance(result, bytes):
        return result
    if hasattr(result, "detach"):
        import torch  # whoever made the tensor has imported it

        result = result.detach().contiguous().flatten().view(torch.uint8).numpy()
    return result.tobytes()
