"""Predictions, one an image, kept by what they depend on: the image's bytes, the model, its preprocessing.

``$RALI_ZOO_CACHE/predictions/<model>/*.parquet`` holds shards that are written whole or not at all, so a run
that was killed goes on where it was. What a file contains is hashed once and remembered by its path, size and
time. Failures that would come out the same again are kept too.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from rali_zoo.paths import atomic_path, cache_dir

SHARD = 256  # predictions that are held before they are written …
SECONDS = 10.0  # … or the time since the last write, so that a slow metric loses little

FOLDER = "predictions"


@dataclass(frozen=True)
class Outcome:
    """What a scorer said of one image: a score (higher is better), or why there is none."""

    score: float | None
    error: str = ""

    @property
    def keep(self) -> bool:
        """Whether the same would come out again; running out of memory need not."""
        return "memory" not in self.error.lower()


def content_digests(paths: Sequence[str]) -> list[str | None]:
    """SHA-256 of each file's bytes; ``None`` for a file that cannot be read."""
    with closing(sqlite3.connect(cache_dir(FOLDER) / "contents.sqlite", timeout=60)) as memory:
        memory.execute("CREATE TABLE IF NOT EXISTS contents (file TEXT PRIMARY KEY, digest TEXT)")
        known: dict[str, str] = {}
        new: dict[str, str] = {}
        found: list[str | None] = []
        for path in paths:
            try:
                stat = os.stat(path)
                key = f"{os.path.abspath(path)}|{stat.st_size}|{stat.st_mtime_ns}"
                if key not in known:
                    row = memory.execute("SELECT digest FROM contents WHERE file = ?", (key,)).fetchone()
                    known[key] = row[0] if row else new.setdefault(key, _sha256(path))
                found.append(known[key])
            except OSError:
                found.append(None)
        with memory:
            memory.executemany("INSERT OR REPLACE INTO contents VALUES (?, ?)", new.items())
    return found


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Predictions:
    """The predictions of one model.

    Args:
        model: everything that a prediction depends on besides the image: model, revision,
            preprocessing, precision.
    """

    def __init__(self, model: str) -> None:
        self.folder = cache_dir(FOLDER, hashlib.sha256(model.encode()).hexdigest()[:24])
        note = self.folder / "model.txt"  # for whoever looks into the cache
        if not note.exists():
            with atomic_path(note) as path:
                path.write_text(model + "\n", encoding="utf-8")
        self._new: dict[str, Outcome] = {}
        self._written = time.monotonic()
        self.known = self._read()

    def _read(self) -> dict[str, Outcome]:
        import pandas as pd

        found: dict[str, Outcome] = {}
        for shard in sorted(self.folder.glob("*.parquet")):
            table = pd.read_parquet(shard)
            for key, score, error in zip(table["key"], table["score"], table["error"], strict=True):
                found.setdefault(key, Outcome(None if error else float(score), error))
        return found

    def add(self, key: str, outcome: Outcome) -> None:
        """Remember a prediction; written with the next shard, if it would come out the same again."""
        self.known[key] = outcome
        if outcome.keep:
            self._new[key] = outcome

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
        name = hashlib.sha256("\n".join(self._new).encode()).hexdigest()[:24]
        rows = [
            {"key": k, "score": float("nan") if o.score is None else o.score, "error": o.error}
            for k, o in self._new.items()
        ]
        with atomic_path(self.folder / f"{name}.parquet") as path:
            pd.DataFrame(rows).astype({"score": "float64"}).to_parquet(path, index=False)
        self._new = {}
