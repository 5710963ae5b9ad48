"""What is written: by one process at a time, whole or absent, and never over what is somebody else's.

:class:`Output` is for one file that takes long to make (the table of a run): its parts and its job are kept in
a folder beside it, ``NAME.parts``. :func:`locked`, :func:`publish` and :func:`numbered` are its
pieces, for whoever writes a folder. A disk that is full or read-only, a name that is too long or not
permitted end in one :class:`OutputError`.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from rali_zoo.errors import RaliZooError
from rali_zoo.paths import atomic_path, sha256
from rali_zoo.report import write_json

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOTDIR: "a part of its path is a file",
}
_FORMULA = (*"=+-@\t\r\n'", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four as wide as an ideograph
_JOB, _LOCK = "job.json", "lock"


class OutputError(RaliZooError):
    """Something that cannot be written, or that somebody else has written or is writing."""


@contextmanager
def explained(target: str | Path, advice: str = "") -> Iterator[None]:
    """Turn what an operating system says into an :class:`OutputError` that names the file.

    Args:
        target: what is being written.
        advice: what to do then.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, RaliZooError | BrokenPipeError) or error.errno is None:
            raise
        reason = _REASONS.get(error.errno) or error.strerror or str(error)
        place = f" ({error.filename})" if error.filename and str(error.filename) != str(target) else ""
        end = f"; {advice}" if advice else ""
        raise OutputError(f"{target} cannot be written: {reason}{place}{end}") from error


@contextmanager
def locked(lock: Path, target: str | Path) -> Iterator[None]:
    """Hold a lock while a block runs; it goes with the process, however that ends.

    Args:
        lock: the file of the lock; its folder is made.
        target: what is written under it.

    Raises:
        OutputError: another process holds it.
    """
    from filelock import FileLock, Timeout

    with explained(target):
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock, thread_local=False)
        try:
            held.acquire(blocking=False)
        except Timeout:
            raise OutputError(
                f"another process is writing {target}; wait for it or give another --output"
            ) from None
    try:
        yield
    finally:
        try:
            with suppress(OSError):
                lock.unlink()  # while it is held: whoever waits for a lock without a name takes a new one
        finally:
            held.release()
        with suppress(OSError):
            lock.parent.rmdir()  # only where nothing else is in it


def publish(made: Path, target: Path, overwrite: bool = False) -> None:
    """Give a finished file its name, at once, and not over another one.

    Args:
        made: the file, on the same file system; it is gone afterwards.
        target: its name.
        overwrite: whether a file of that name may be replaced.

    Raises:
        OutputError: there is a file of that name.
    """
    with explained(target):
        if overwrite:
            os.replace(made, target)
            return
        try:
            os.link(made, target)  # fails where the name is taken, which a rename does not
            made.unlink()
        except FileExistsError:
            raise _taken(target) from None
        except OSError:  # a file system without links
            if target.exists():
                raise _taken(target) from None
            os.replace(made, target)


def write_new(target: Path, data: bytes, overwrite: bool = False) -> None:
    """Write a small file, whole or not at all, and not over another one.

    Args:
        target: its name.
        data: what is in it.
        overwrite: whether a file of that name may be replaced.

    Raises:
        OutputError: there is a file of that name, or it cannot be written.
    """
    made = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            made.write_bytes(data)
            publish(made, target, overwrite)
        finally:
            made.unlink(missing_ok=True)


def _taken(target: Path) -> OutputError:
    return OutputError(f"{target} is there already; remove it, or give another --output")


def numbered(folder: Path) -> Path:
    """Make a new folder of this name, or ``NAME-2``, ``NAME-3`` … where that is taken; two processes get two."""
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        count = 1
        while True:
            found = folder if count == 1 else folder.with_name(f"{folder.name}-{count}")
            try:
                found.mkdir()
                return found
            except FileExistsError:
                count += 1


def csv_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula (OWASP, CSV injection).

    A cell that begins with ``= + - @``, a tab, an end of line or ``'`` gets a ``'`` in front, so that
    :func:`from_csv_cell` gives back any text.
    """
    return f"'{text}" if text[:1] in _FORMULA else text


def from_csv_cell(cell: str) -> str:
    """The text behind :func:`csv_cell`; a cell without its mark is itself."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULA else cell


def printable(text: str) -> str:
    """A text as a terminal may show it: control characters and bytes that are no UTF-8 become ``\\xNN``."""
    readable = os.fsencode(text).decode("utf-8", "backslashreplace") if not text.isprintable() else text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in readable)


def read_state(path: Path) -> dict[str, object]:
    """A json object; empty where there is none, or none that is whole."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_state(path: Path, state: Mapping[str, object]) -> None:
    """Write a json object, whole or not at all."""
    with explained(path):
        write_json(path, state)


class Output(AbstractContextManager["Output"]):
    """One file that is made in parts, by a job that may be stopped and goes on.

    Args:
        target: the file.
        parts: what the names of its parts look like; other files in the folder are not touched.
        overwrite: whether a file of that name is replaced, and parts of another job are thrown away.

    Raises:
        OutputError: the file is there and no run of ours is under way.
    """

    def __init__(self, target: str | Path, parts: str, overwrite: bool = False) -> None:
        self.target, self.overwrite = Path(target), overwrite
        self._own = re.compile(rf"{parts}|{re.escape(_JOB)}|\..*\.tmp")
        self.folder = self.target.with_name(f"{self.target.name}.parts")
        self.state: dict[str, object] = {}
        self.complete = False  #: whether the file is there, made by this job
        self._stack = ExitStack()
        self._check()

    @property
    def started(self) -> bool:
        """Whether an earlier run has left its job."""
        return "job" in read_state(self.folder / _JOB)

    def _check(self) -> None:
        with explained(self.target):
            there = self.target.is_dir() or (os.path.lexists(self.target) and not self.overwrite)
        if there and not self.started:
            with suppress(OSError):
                self.folder.rmdir()  # empty: all that a run killed at its very end left to do
            raise _taken(self.target)

    def begin(self, job: Mapping[str, object]) -> None:
        """Take the lock, and the state of an earlier run of the same job.

        Raises:
            OutputError: another process writes the file, it was written meanwhile, or the parts are of
                another job.
        """
        self._stack.enter_context(locked(self.folder / _LOCK, self.target))
        self._check()  # again: whoever held the lock before may have finished
        with explained(self.target):
            for left in self.folder.glob(".*.tmp"):
                left.unlink()  # of a run that was killed while it wrote
        self.state = read_state(self.folder / _JOB)
        if reason := self._differs(job):
            self._start_anew(reason)
            self.state = {"job": dict(job)}
        elif os.path.lexists(self.target):
            self.complete = sha256(self.target) == self.state.get("sha256")
            if not (self.complete or self.overwrite):
                raise OutputError(
                    f"{self.target} was written by something else while this run was under way; move it away "
                    f"and give the same command again (the finished parts are kept in {self.folder})"
                )

    def _differs(self, job: Mapping[str, object]) -> str:
        """Why what is in the folder is not of this job; empty if it is."""
        if "job" not in self.state:
            return "has parts and no job.json that can be read"
        before = self.state["job"]
        if not isinstance(before, dict):
            return "has a damaged job.json"
        changed = [f"{k}: {before.get(k)!r} before, {v!r} now" for k, v in job.items() if before.get(k) != v]
        return f"holds parts of another run ({'; '.join(changed)})" if changed else ""

    def _start_anew(self, reason: str) -> None:
        """Without the parts that are there, if that was asked for."""
        there = [file for file in self.folder.iterdir() if file.name != _LOCK]
        if there and not self.overwrite:
            raise OutputError(
                f"{self.folder} {reason}; remove the folder, give --overwrite, or another --output"
            )
        self._remove(there)

    def _remove(self, files: Iterable[Path]) -> None:
        with explained(self.folder):
            for file in files:
                if self._own.fullmatch(file.name) and not file.is_dir():
                    file.unlink()

    def save(self, state: Mapping[str, object]) -> None:
        """Keep the job, and what else a later run is to know of it."""
        self.state |= state
        write_state(self.folder / _JOB, self.state)

    @contextmanager
    def part(self, name: str) -> Iterator[Path]:
        """A path to write a part to; it is there under its name when the block ends well."""
        with (
            explained(self.target, "finished parts are kept, and the same command goes on with them"),
            atomic_path(self.folder / name) as path,
        ):
            yield path

    def publish(self, made: Path) -> None:
        """Give the finished file its name; it is known as this job's from then on."""
        self.save({"sha256": sha256(made)})
        # else another process has made the very same
        if not self.target.is_file() or sha256(self.target) != self.state["sha256"]:
            publish(made, self.target, self.overwrite)
        self.complete = True

    def clear(self) -> None:
        """Remove the parts, the job last: until it goes, the file is known to be of this run."""
        self._remove(sorted(self.folder.iterdir(), key=lambda file: file.name == _JOB))

    def __exit__(self, *error: object) -> None:
        self._stack.close()
