"""Version 1: `init.py` runs as the first process of a stage, `bootstrap.py` before its code."""
