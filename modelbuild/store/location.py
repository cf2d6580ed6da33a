"""Where the store is."""

from __future__ import annotations

import os
from collections.abc import Mapping


def store_root(environ: Mapping[str, str]) -> str:
    """$MODELBUILD_STORE, else $XDG_DATA_HOME/modelbuild, else ~/.local/share/modelbuild."""
    named = environ.get("MODELBUILD_STORE")
    data_home = environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.abspath(named or os.path.join(data_home, "modelbuild"))
