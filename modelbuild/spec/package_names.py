"""Names of Python packages."""

from __future__ import annotations

import re


def normalised_name(name: str) -> str:
    """As indexes and wheels know it. `packaging` does the same, and takes time to import."""
    return re.sub(r"[-_.]+", "-", name).lower()
