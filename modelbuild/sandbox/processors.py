"""Which processors a stage runs on: exactly as many as its recipe declares."""

from __future__ import annotations

import os


def chosen_processors(threads: int) -> tuple[int, ...]:
    """`threads` processors for one stage; empty where there are no more than that.

    Libraries that ask for the affinity (rayon, OpenMP, `nproc`) split sums by what they find, so
    it has to be the declared number. One of each core before its siblings; stages of different
    processes begin at different cores.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if threads >= len(allowed):
        return ()
    cores: dict[str, list[int]] = {}
    for number in allowed:
        cores.setdefault(_core(number), []).append(number)
    groups = list(cores.values())
    first = os.getpid() % len(groups)
    groups = groups[first:] + groups[:first]
    deepest = max(len(group) for group in groups)
    spread = [group[depth] for depth in range(deepest) for group in groups if depth < len(group)]
    return tuple(sorted(spread[:threads]))


def _core(number: int) -> str:
    """What the threads of one core have in common."""
    path = f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
    try:
        with open(path) as siblings:
            return siblings.read().strip()
    except OSError:
        return str(number)
