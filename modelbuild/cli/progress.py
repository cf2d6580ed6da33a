"""Live progress on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from modelbuild.build.request import Observer, Silent
from modelbuild.cli.render import seconds
from modelbuild.spec.derivation import StageId
from modelbuild.store.realisations import Realisation

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text


@contextmanager
def progress(*, quiet: bool) -> Iterator[Observer]:
    """An observer that draws as long as the block runs."""
    if quiet:
        yield Silent()
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        live = LiveProgress()
        try:
            yield live
        finally:
            live.close()
    else:
        yield PlainProgress()


class PlainProgress(Silent):
    """One line for each thing that happens: for logs and CI."""

    def message(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def notice(self, text: str) -> None:
        self.message(text)

    def stage_started(
        self, identity: StageId, index: int, count: int, last_line: Callable[[], str]
    ) -> None:
        print(f"[{index}/{count}] {identity}: building", file=sys.stderr, flush=True)

    def stage_finished(self, identity: StageId, realisation: Realisation) -> None:
        taken = seconds(realisation.resources.wall_seconds)
        print(f"{identity}: built in {taken}", file=sys.stderr, flush=True)


class LiveProgress(Silent):
    """Stage, elapsed time and last line, redrawn in place.

    The display starts with the first thing to show: with nothing to do, rich is not imported.
    """

    def __init__(self) -> None:
        self._live: Live | None = None
        self._title = ""
        self._last_line: Callable[[], str] = str
        self._started = time.monotonic()

    def close(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def message(self, text: str) -> None:
        if not self._title:
            self._title, self._started = "preparing", time.monotonic()
        line = text.splitlines()[-1] if text else ""
        self._last_line = lambda: line
        self._show()

    def notice(self, text: str) -> None:
        self.close()
        print(text, file=sys.stderr, flush=True)

    def stage_started(
        self, identity: StageId, index: int, count: int, last_line: Callable[[], str]
    ) -> None:
        self._title, self._last_line = f"[{index}/{count}] {identity}", last_line
        self._started = time.monotonic()
        self._show()

    def stage_finished(self, identity: StageId, realisation: Realisation) -> None:
        self.close()
        self._title = ""

    def _show(self) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(stderr=True),
                get_renderable=self._render,
                refresh_per_second=8,
                transient=True,
            )
            self._live.start()

    def _render(self) -> Text:
        from rich.text import Text

        elapsed = seconds(time.monotonic() - self._started)
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(self._title, style="bold")
        text.append(f"  {elapsed}  ", style="cyan")
        text.append(self._last_line(), style="dim")
        return text
