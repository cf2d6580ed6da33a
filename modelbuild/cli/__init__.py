"""The command line: parses, calls one library function, renders."""

try:
    from modelbuild.cli.main import main
except KeyboardInterrupt:
    # The handler is not there yet. Only commands import this package.
    import sys

    print("interrupted", file=sys.stderr)
    raise SystemExit(130) from None

__all__ = ["main"]
