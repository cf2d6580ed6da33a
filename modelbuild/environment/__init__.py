"""From locked packages to a virtual environment, and the interpreter under it."""
