"""Recipes without packages, for tests and benchmarks: what is the same in all of them."""

from __future__ import annotations

BEGINNING = """\
schema = 1

[model]
name = "{name}"

[environment]
python = "3.11"
packages = []

[code]
include = ["*.py"]
"""


def small_recipe(name: str, *tables: str) -> str:
    """`tables` follow, each from its header on."""
    return "\n".join([BEGINNING.format(name=name), *(f"{table.strip()}\n" for table in tables)])
