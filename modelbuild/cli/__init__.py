"""The command line: parses, calls one library function, renders."""

from modelbuild.cli.main import main

__all__ = ["main"]
