"""The table of scores of a run that may be killed at any moment and goes on where it was.

Beside ``scores.parquet`` stands, while it is made, the folder ``scores.parquet.parts``:

- ``images.jsonl``, the frozen list: one line an image, in the order of the table;
- ``job.json``, what makes two runs the same one, and the number of images; with it the list is complete;
- ``00000012.parquet``, scores of the images of one part of the list, of about :data:`PART` lines.

Each file is whole or absent, and a part's name says which images are in it: whatever order parts come in,
and however often a run is stopped, each image is in the table exactly once. The table is assembled in the
folder, renamed, and then the folder goes. Nothing is written anywhere else.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rali_zoo.data.sources import Item
from rali_zoo.errors import ConfigError
from rali_zoo.paths import atomic_path
from rali_zoo.types import Score

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("path", "score", "std", "error", "model")
#: Images in a part: what a killed run can lose at most, besides what is in the model.
PART = 256
#: Rows of a row group of the table, and at the same time what is in memory while it is assembled.
_GROUP = 16_384


@dataclass(frozen=True)
class Job:
    """What makes two runs the same one.

    Attributes:
        paths: where the images are, as typed.
        folder: the folder that relative paths begin at.
        shard: which share of them.
        model: reference of the scorer.
        revision: hash of its weights.
        decode: how images are decoded.
        precision: number type of the encoder.
    """

    paths: list[str]
    folder: str
    shard: str
    model: str
    revision: str
    decode: str
    precision: str


class Sink(AbstractContextManager["Sink"]):
    """Takes scores in any order and makes one table of them.

    Args:
        output: the table, ``.parquet`` or ``.csv``.

    Raises:
        ConfigError: another suffix, a table that is there already, or another process that writes it now.
    """

    def __init__(self, output: str | Path) -> None:
        self.output = Path(output)
        self.folder = self.output.with_name(f"{self.output.name}.parts")
        self._job, self._list = self.folder / "job.json", self.folder / "images.jsonl"
        if self.output.suffix not in (".parquet", ".csv"):
            raise ConfigError(f"--output {output}: the file ends in .parquet or .csv")
        if self.output.exists() and not self._job.exists():
            with contextlib.suppress(OSError):
                self.folder.rmdir()  # empty: all that a run killed at its very end left to do
            raise ConfigError(f"{output} is there already; remove it, or give another --output")
        self.total = self.done = self.part = 0
        self._open: dict[int, dict[int, Sequence[Score]]] = {}
        self._lock: IO[str] | None = None

    # ---- beginning, or going on ---------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether an earlier run has frozen the list of images."""
        return self._job.exists()

    def start(self, job: Job, items: Iterable[Item], batch_size: int = 1) -> None:
        """Freeze the list of images, or take up an earlier run's; sets ``total`` and ``done``.

        Args:
            job: what is done.
            items: the images; not asked for if the list is there.
            batch_size: of the model; a new list is cut into parts of whole batches.

        Raises:
            ConfigError: the folder belongs to another job.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        for left in self.folder.glob(".*.tmp"):
            left.unlink()  # of a run that was killed while it wrote
        if not self.started:
            self._freeze(job, items, -(-PART // batch_size) * batch_size)
        state = json.loads(self._job.read_text())
        now = asdict(job)
        changed = [f"{k}: {state[k]!r} before, {now[k]!r} now" for k in now if state.get(k) != now[k]]
        if changed:
            raise ConfigError(
                f"{self.folder} holds parts of another run ({'; '.join(changed)}); remove the folder, or "
                "give another --output"
            )
        self.total, self.part = state["images"], state["part"]
        self.done = self.total
        if not self.output.exists():  # else the earlier run had only the folder left to remove
            self.done = sum(self._rows(n) for n in self._parts() if self._is_done(n))

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: two runs at once do double work, and no harm
            return
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
        except OSError:
            raise ConfigError(
                f"another process is writing {self.output}; wait for it or give another --output"
            ) from None

    def _freeze(self, job: Job, items: Iterable[Item], part: int) -> None:
        count = 0
        with atomic_path(self._list) as path, path.open("w", encoding="ascii") as file:
            for item in items:
                file.write(json.dumps(item) + "\n")  # ASCII: names need not be UTF-8
                count += 1
        with atomic_path(self._job) as path:
            path.write_text(json.dumps({**asdict(job), "images": count, "part": part}, indent=1))

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.close()

    # ---- parts --------------------------------------------------------------------------------

    def missing(self) -> Iterator[tuple[int, list[Item]]]:
        """Number and images of each part that is not there, in order."""
        if self.done == self.total:
            return
        number = 0
        with self._list.open(encoding="ascii") as file:
            while lines := list(islice(file, self.part)):
                if not self._is_done(number):
                    yield number, [Item(*json.loads(line)) for line in lines]
                number += 1

    def add(self, number: int, start: int, scores: Sequence[Score]) -> None:
        """Take the scores of images ``start`` onwards of a part; a part that is complete is written."""
        batches = self._open.setdefault(number, {})
        batches[start] = scores
        rows = self._rows(number)
        if sum(map(len, batches.values())) == rows:
            self._write(number, [score for _, batch in sorted(batches.items()) for score in batch])
            del self._open[number]
            self.done += rows

    def _parts(self) -> range:
        return range(-(-self.total // self.part))

    def _rows(self, number: int) -> int:
        return min(self.part, self.total - number * self.part)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:08d}.parquet"

    def _is_done(self, number: int) -> bool:
        """Whether a part is there with all its rows: a power cut may leave a file that is not."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.read_metadata(self._file(number)).num_rows == self._rows(number)
        except (OSError, pa.ArrowException):
            return False

    def _write(self, number: int, scores: Sequence[Score]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {
            "path": pa.array([os.fsencode(s.path) for s in scores], pa.binary()),
            "score": pa.array([s.score for s in scores], pa.float64()),
            "std": pa.array([s.std for s in scores], pa.float64()),
            "error": pa.array([s.error for s in scores], pa.string()),
        }
        with atomic_path(self._file(number)) as path:
            pq.write_table(pa.table(columns), path)

    # ---- the table ----------------------------------------------------------------------------

    def finish(self) -> int:
        """Make one table of all parts, remove the folder, and return the number of rows with an error.

        Raises:
            ConfigError: parts are missing.
        """
        if not self.output.exists():
            missing = sum(not self._is_done(n) for n in self._parts())
            if missing:
                raise ConfigError(f"{missing} parts of {self.output} are missing; run the same command again")
            made = self.folder / f"table{self.output.suffix}"
            with atomic_path(made) as path:
                state = json.loads(self._job.read_text())
                (_to_parquet if self.output.suffix == ".parquet" else _to_csv)(path, self._groups(), state)
            os.replace(made, self.output)
        # job.json last: until it goes, the table is known to be of this run.
        for file in (*self.folder.glob("*.parquet"), self._list, self.folder / "lock", self._job):
            file.unlink(missing_ok=True)
        self.folder.rmdir()
        return _failed(self.output)

    def _groups(self) -> Iterator[pa.Table]:
        """The parts in order, joined to tables of about :data:`_GROUP` rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        waiting: list[pa.Table] = []
        for number in self._parts():
            waiting.append(pq.read_table(self._file(number)))
            if sum(map(len, waiting)) >= _GROUP:
                yield pa.concat_tables(waiting)
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting)


def readable(path: bytes) -> str:
    """A file name as text; bytes that are no UTF-8 are written as ``\\xNN``."""
    return path.decode("utf-8", "backslashreplace")


def _to_parquet(target: Path, groups: Iterator[pa.Table], state: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (pa.string(), pa.float64(), pa.float64(), pa.string(), pa.string())
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)), metadata={"rali_zoo": json.dumps(state)})
    with pq.ParquetWriter(target, schema) as writer:
        for group in groups:
            names = pa.array([readable(path) for path in group["path"].to_pylist()], pa.string())
            model = pa.array([state["model"]] * len(group), pa.string())
            columns = [names, group["score"], group["std"], group["error"], model]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _to_csv(target: Path, groups: Iterator[pa.Table], state: dict[str, Any]) -> None:
    with target.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for group in groups:
            for row in group.to_pylist():
                numbers = ["" if row[k] is None else f"{row[k]:.6f}" for k in ("score", "std")]
                writer.writerow([os.fsdecode(row["path"]), *numbers, row["error"] or "", state["model"]])


def _failed(table: Path) -> int:
    """Rows of a table that have an error."""
    import pyarrow.parquet as pq

    if table.suffix == ".parquet":
        batches = pq.ParquetFile(table).iter_batches(columns=["error"])
        return sum(len(batch) - batch.column(0).null_count for batch in batches)
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return sum(row["error"] != "" for row in csv.DictReader(file))
