"""Predictions, one an image, kept by what they depend on: the image's bytes, the model, its settings.

``$RALI_ZOO_CACHE/predictions/<model>/*.parquet`` holds shards that are written whole or not at all, so a run
that was killed goes on where it was; two processes may write at once. A shard is called by the hash of its
bytes: one that was damaged is found out, removed, and its images are scored again. A failure is never kept:
whether it was the image's or the machine's (a missing library, a full disk), only another try can tell. What
a file contains is hashed once and remembered by its path, size and times.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rali_zoo.outputs import OutputError
from rali_zoo.paths import atomic_path, cache_dir, sha256, text_sha256

SHARD = 256  # predictions that are held before they are written …
SECONDS = 10.0  # … or the time since the last write, so that a slow metric loses little

FOLDER = "predictions"
_DAMAGE = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


@dataclass(frozen=True)
class Outcome:
    """What a scorer gave for one image: a score (higher is better), or why there is none."""

    score: float | None
    error: str = ""


def content_digests(paths: Sequence[str]) -> list[str | None]:
    """SHA-256 of each file's bytes; ``None`` for a file that cannot be read."""
    with _memory() as memory:
        new: dict[str, str] = {}
        found: list[str | None] = []
        for path in paths:
            try:
                stat = os.stat(path)
                # The time of change too: a copy can bring the time of modification along.
                name = os.fsencode(os.path.abspath(path)).decode("utf-8", "backslashreplace")
                key = f"{name}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}"
                digest = new.get(key) or _remembered(memory, key)
                if digest is None:
                    digest = new[key] = sha256(path)
                found.append(digest)
            except OSError:
                found.append(None)
        with memory:
            rows = [(key, digest, _mark(key, digest)) for key, digest in new.items()]
            memory.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows)
    return found


@contextmanager
def _memory() -> Iterator[sqlite3.Connection]:
    """The data base of digests; one that cannot be read is made anew."""
    path = cache_dir(FOLDER) / "contents.sqlite"
    create = "CREATE TABLE IF NOT EXISTS digests (file TEXT PRIMARY KEY, digest TEXT, mark TEXT)"
    if not _sound(path, create):
        path.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(path, timeout=60)) as memory:
            memory.text_factory = _lenient
            memory.execute(create)
            yield memory
    except sqlite3.Error as error:
        raise OutputError(f"{path} cannot be read or written: {error}") from error


def _sound(path: Path, create: str) -> bool:
    """Whether a data base is whole and has our table; raises for what is no damage: a lock, a full disk."""
    try:
        with closing(sqlite3.connect(path, timeout=60)) as memory:
            memory.execute(create)
            memory.execute("SELECT file, digest, mark FROM digests LIMIT 1")
            return memory.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    except UnicodeDecodeError:  # sqlite quotes the damage in its message
        return False
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _DAMAGE:
            return False
        raise OutputError(f"{path} cannot be read or written: {error}") from error


def _lenient(text: bytes) -> str:
    return text.decode("utf-8", "replace")  # a damaged row then lacks its mark


def _remembered(memory: sqlite3.Connection, key: str) -> str | None:
    row = memory.execute("SELECT digest, mark FROM digests WHERE file = ?", (key,)).fetchone()
    return row[0] if row is not None and row[1] == _mark(key, row[0]) else None


def _mark(key: str, digest: str) -> str:
    return text_sha256(f"{key}\n{digest}")[:16]


class Predictions:
    """The predictions of one model.

    Args:
        model: everything that a prediction depends on besides the image: model, revision, preprocessing,
            precision, versions.
    """

    def __init__(self, model: str) -> None:
        self.folder = cache_dir(FOLDER, text_sha256(model)[:24])
        note = self.folder / "model.txt"  # for whoever looks into the cache
        if not note.exists():
            with atomic_path(note) as path:
                path.write_text(model + "\n", encoding="utf-8")
        self._new: dict[str, float] = {}
        self._written = time.monotonic()
        self.known = {key: Outcome(score) for key, score in self._read().items()}

    def _read(self) -> dict[str, float]:
        import pandas as pd

        found: dict[str, float] = {}
        for shard in sorted(self.folder.glob("*.parquet")):
            if not _whole(shard):
                shard.unlink(missing_ok=True)
                continue
            table = pd.read_parquet(shard)
            found |= dict(zip(table["key"], table["score"].astype(float), strict=True)) | found
        return found

    def add(self, key: str, outcome: Outcome) -> None:
        """Remember a prediction; a score is written with the next shard, a failure is not."""
        self.known[key] = outcome
        if outcome.score is not None:
            self._new[key] = outcome.score

    def tick(self) -> None:
        """Write a shard if there is enough for one, or enough time has passed."""
        if len(self._new) >= SHARD or time.monotonic() - self._written >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is not yet on disk."""
        import pandas as pd

        self._written = time.monotonic()
        if not self._new:
            return
        table = pd.DataFrame({"key": list(self._new), "score": list(self._new.values())})
        draft = self.folder / f".{os.getpid()}.draft"
        with atomic_path(draft) as path:
            table.astype({"score": "float64"}).to_parquet(path, index=False)
        os.replace(draft, self.folder / f"{sha256(draft)[:24]}.parquet")
        self._new = {}


def _whole(shard: Path) -> bool:
    """Whether a shard holds the bytes that it was written with."""
    try:
        return sha256(shard)[:24] == shard.stem
    except FileNotFoundError:  # another process found the damage first
        return False
