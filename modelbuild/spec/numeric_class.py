"""The numeric class: the readable facts about a machine that can change floating-point bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelbuild.spec.canonical import canonical_digest

KEY_DIGITS = 12


@dataclass(frozen=True, slots=True)
class NumericClass:
    """Two machines are in one class where every one of these facts is equal.

    What makes a new class, the rule:

    1. A fact belongs here if it can change the result of a floating-point operation of a stage,
       is not in the derivation, and can be read without running anything of the stage.
    2. Hardware counts by what software may ask it for: vendor, family, model, caches, and the
       instruction set as the recipe's cap leaves it. Not by clock, stepping, microcode, number of
       cores, memory, or name of the host. Threads are the recipe's: they are in the derivation.
    3. Software of the host counts by content, not by version or path: loader, libc, libm,
       libstdc++ and the like, compilers, the interpreter. The kernel counts by major and minor
       version, the GPU's driver by its version. What wheels bring is in the derivation: torch,
       MKL, oneDNN, OpenBLAS, CUDA's runtime, cuDNN.
    4. A fact that can't be read is `unknown`, and one that is not there `absent`. Each is a value
       like any other: two machines that both hide a fact may share a class.
    5. What shows only when something runs is evidence beside the class (`probes.py`): what probe
       operations give, how many threads each library counts, which libraries were loaded. One
       class with other probes is a fault: of this rule, or of a machine.

    A class explains; bits are always compared first.
    """

    facts: Mapping[str, str]

    @property
    def key(self) -> str:
        """Its name in the lock."""
        return canonical_digest(dict(self.facts)).hex[:KEY_DIGITS]
