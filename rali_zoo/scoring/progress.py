"""Progress, rate and the time that is left, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

SECONDS = 30.0


class Progress:
    """Counts images while a block runs.

    Args:
        total: images in all.
        done: images that an earlier run has done.
        what: the first word of the bar.
    """

    def __init__(self, total: int, done: int = 0, what: str = "scoring") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.total, self.done, self.first = total, done, done
        self.started = self.said = time.monotonic()
        console = Console(stderr=True)
        columns = (
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(what, total=total, completed=done, rate="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    @property
    def rate(self) -> float:
        """Images a second, of this run."""
        return (self.done - self.first) / max(time.monotonic() - self.started, 1e-9)

    def advance(self, images: int) -> None:
        """Count images that have a score, or a reason for none."""
        self.done += images
        self._bar.update(self._task, completed=self.done, rate=f"{self.rate:.1f} a second")
        now = time.monotonic()
        if self._bar.disable and (now - self.said > SECONDS or self.done == self.total):
            self.said = now
            left = (self.total - self.done) / max(self.rate, 1e-9)
            said = f"{self.done}/{self.total} images, {self.rate:.1f} a second, {left:.0f} s left"
            print(said, file=sys.stderr)
