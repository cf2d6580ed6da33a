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
       and is not in the derivation. Threads are the exception: they are in both, because
       libraries take them together with the caches.
    2. Hardware counts by what software may ask it for: vendor, family, model, caches, and the
       instruction set below the cap that the recipe sets. Not by clock, stepping, microcode,
       number of cores, memory, or name of the host.
    3. Software of the host counts by content, not by version or path: loader, libc, libm,
       libstdc++, compilers, the interpreter. What the environment brings is in the derivation.
       The kernel counts by major and minor version.
    4. A fact that can't be read is `unknown`, and one that is not there `absent`. Each is a value
       like any other: two machines that both hide a fact may share a class.
    5. The isolation level and the outcome of probes are evidence beside the class, not part of it.

    A class explains; bits are always compared first.
    """

    facts: Mapping[str, str]

    @property
    def key(self) -> str:
        """Its name in the lock."""
        return canonical_digest(dict(self.facts)).hex[:KEY_DIGITS]
