"""The one way in which structured data becomes bytes before it is hashed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from modelbuild.spec.digest import Digest

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"


def canonical_bytes(value: Json) -> bytes:
    """JSON with sorted keys, no spaces, UTF-8, and floats in their shortest exact form.

    NaN and infinities raise ValueError: JSON has no form for them.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def canonical_digest(value: Json) -> Digest:
    return Digest.of(canonical_bytes(value))
