"""What went into each output that was built: its resolved derivation, kept beside its records."""

from __future__ import annotations

import json

from modelbuild.spec.canonical import Json, canonical_bytes, canonical_digest
from modelbuild.spec.derivation import Derivation
from modelbuild.spec.digest import Digest
from modelbuild.store.store import Store


def keep_derivation(resolved: Derivation, store: Store) -> None:
    """Write it, under its digest. What is there already is the same."""
    path = _path(resolved.digest)
    if not (store.root / path).exists():
        upstream = {name: str(digest) for name, digest in resolved.upstream.items()}
        content: dict[str, Json] = {**resolved.fields, "upstream": upstream}
        store.write_file(path, canonical_bytes(content) + b"\n")


def find_derivation(resolved: Digest, store: Store) -> Derivation | None:
    """None where it is not there, or is not what its name says."""
    try:
        content = json.loads((store.root / _path(resolved)).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(content, dict) or canonical_digest(content) != resolved:
        return None
    upstream = {name: Digest.parse(str(each)) for name, each in content.pop("upstream").items()}
    return Derivation(fields=content, upstream=upstream)


def _path(resolved: Digest) -> str:
    return f"derivations/{resolved.store_key}.json"
