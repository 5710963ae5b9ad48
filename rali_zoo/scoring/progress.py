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
        self.total, self.done, self.first = total, done, done
        self.started = self.reported = time.monotonic()
        self._bar = self._task = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            rate = TextColumn("{task.fields[rate]}")
            columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(what, total=total, completed=done, rate="")

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def rate(self) -> float:
        """Images a second, of this run."""
        return (self.done - self.first) / max(time.monotonic() - self.started, 1e-9)

    def advance(self, images: int) -> None:
        """Count images that have a score, or a reason for none."""
        self.done += images
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{self.rate:.1f} a second")
            return
        now = time.monotonic()
        if now - self.reported > SECONDS or (self.done == self.total and self.total > 1):
            self.reported = now
            left = (self.total - self.done) / max(self.rate, 1e-9)
            print(
                f"{self.done}/{self.total} images, {self.rate:.1f} a second, {left:.0f} s left",
                file=sys.stderr,
            )
