"""BLAKE3 digests, as text `b3:<64 hexadecimal digits>`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from blake3 import blake3

_TEXT = re.compile(r"b3:[0-9a-f]{64}")
STORE_DIGITS = 40
"""Digits of a digest in a store path: 160 bits, as many as Nix uses."""


@dataclass(frozen=True, order=True, slots=True)
class Digest:
    """The BLAKE3 digest of canonical bytes."""

    hex: str

    def __post_init__(self) -> None:
        if not _TEXT.fullmatch(str(self)):
            raise ValueError(f"not a BLAKE3 digest: {self.hex!r}")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `b3:<hex>`. Raises ValueError."""
        if not _TEXT.fullmatch(text):
            raise ValueError(f"not a digest of the form b3:<64 hexadecimal digits>: {text!r}")
        return cls(text[3:])

    @classmethod
    def of(cls, data: bytes) -> Digest:
        return cls(blake3(data).hexdigest())

    @property
    def short(self) -> str:
        """For people: `b3:` and 12 digits."""
        return f"b3:{self.hex[:12]}"

    @property
    def store_key(self) -> str:
        return self.hex[:STORE_DIGITS]

    def __str__(self) -> str:
        return f"b3:{self.hex}"
