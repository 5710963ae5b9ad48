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

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rali_zoo.data.attributes import SHOWN
from rali_zoo.data.sources import Item
from rali_zoo.errors import ConfigError
from rali_zoo.outputs import Output, OutputError, csv_cell
from rali_zoo.paths import sha256
from rali_zoo.types import Score

if TYPE_CHECKING:
    import pyarrow as pa

    from rali_zoo.scoring.runtime import Sort

COLUMNS = ("path", "score", "std", "error", "model")
#: Columns that ``--attributes`` adds.
ATTRIBUTES = (*SHOWN, "words")
#: Column of a model that knows on how small images it was trained.
WARNING = "warning"
_TEXTS = ("words", WARNING)
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
        runtime: what computes it, as asked for.
        attributes: whether the table has :data:`ATTRIBUTES` too.
        warns: whether it has the column ``warning``: the model knows on how small images it was trained.
    """

    paths: list[str]
    folder: str
    shard: str
    model: str
    revision: str
    decode: str
    precision: str
    runtime: str = "torch"
    attributes: bool = False
    warns: bool = False


class Sink(AbstractContextManager["Sink"]):
    """Takes scores in any order and makes one table of them.

    Args:
        output: the table, ``.parquet``, ``.csv`` or ``.jsonl``.
        overwrite: whether a table that is there is replaced.

    Raises:
        ConfigError: another suffix.
        OutputError: a table that is there already, or another process that writes it now.
    """

    def __init__(self, output: str | Path, overwrite: bool = False) -> None:
        target = Path(output)
        if target.suffix not in _WRITERS:
            raise ConfigError(f"--output {output}: the file ends in {', '.join(_WRITERS)}")
        self.output = Output(target, r"\d{8}\.parquet|images\.jsonl|table\.\w+", overwrite)
        self._list = self.output.folder / "images.jsonl"
        self.total = self.done = self.part = 0
        self._open: dict[int, dict[int, Sequence[Score]]] = {}

    # ---- beginning, or going on ---------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether an earlier run has frozen the list of images."""
        return self.output.started

    def start(self, job: Job, items: Iterable[Item], batch_size: int = 1) -> None:
        """Freeze the list of images, or take up an earlier run's; sets ``total`` and ``done``.

        Args:
            job: what is done.
            items: the images; not asked for if the list is there.
            batch_size: of the model; a new list is cut into parts of whole batches.

        Raises:
            OutputError: the folder belongs to another job, or the list in it is damaged.
        """
        self._job = job
        self.output.begin(asdict(job))
        if "images" not in self.output.state:
            self._freeze(items, -(-PART // batch_size) * batch_size)
        total, part = self.output.state["images"], self.output.state.get("part")
        if not (isinstance(total, int) and isinstance(part, int) and total >= 0 and part > 0):
            raise self._damaged("job.json")
        self.total = self.done = total
        self.part = part
        if not self.output.complete:  # else the earlier run had only the folder left to remove
            whole = self._list.is_file() and sha256(self._list) == self.output.state.get("list")
            if not whole or sum(1 for _ in self.items()) != total:
                raise self._damaged(self._list.name)
            self.done = sum(self._rows(n) for n in self._parts() if self._is_done(n))

    def _damaged(self, name: str) -> OutputError:
        return OutputError(
            f"{self.output.folder / name} is damaged, so nobody knows which images the parts are of; "
            "remove the folder, or give --overwrite"
        )

    def _freeze(self, items: Iterable[Item], part: int) -> None:
        count = 0
        with self.output.part(self._list.name) as path, path.open("w", encoding="ascii") as file:
            for item in items:
                file.write(json.dumps(item) + "\n")  # ASCII: names need not be UTF-8
                count += 1
        self.output.save({"images": count, "part": part, "list": sha256(self._list)})

    def __exit__(self, *error: object) -> None:
        self.output.__exit__(*error)

    # ---- parts --------------------------------------------------------------------------------

    def missing(self) -> Iterator[tuple[int, list[Item]]]:
        """Number and images of each part that is not there, in order."""
        items = self.items()
        for number in self._parts() if self.done < self.total else ():
            part = list(islice(items, self.part))
            if not self._is_done(number):
                yield number, part

    def items(self) -> Iterator[Item]:
        """All images of the list."""
        if not self.output.complete:
            with self._list.open(encoding="ascii") as file:
                yield from (Item(*json.loads(line)) for line in file)

    def scores(self) -> Iterator[tuple[Item, Score]]:
        """Every image with its score, once all parts are there; explanations are not kept.

        Raises:
            OutputError: parts are missing.
        """
        items = self.items()
        for part in self._all():
            for row, item in zip(part.to_pylist(), items, strict=False):
                yield item, _score(row, item.path, self._job.model)

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
        return self.output.folder / f"{number:08d}.parquet"

    def _is_done(self, number: int) -> bool:
        return self._read(number) is not None

    def _read(self, number: int) -> pa.Table | None:
        """A part, if it is there whole: a power cut or a bad disk may leave a file that is not."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            found = pq.read_table(self._file(number), page_checksum_verification=True)
        except (OSError, pa.ArrowException):
            return None
        return (
            found
            if len(found) == self._rows(number) and found.schema.equals(_part_schema(self._job))
            else None
        )

    def _write(self, number: int, scores: Sequence[Score]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        more = [name for name, _ in _more_fields(self._job)]
        rows = [(os.fsencode(s.path), s.score, s.std, s.error, *_more(s, more)) for s in scores]
        schema = _part_schema(self._job)
        columns = [
            pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), schema.types, strict=True)
        ]
        with self.output.part(self._file(number).name) as path:
            table = pa.Table.from_arrays(columns, schema=schema)
            pq.write_table(table, path, write_page_checksum=True)

    # ---- the table ----------------------------------------------------------------------------

    def finish(self, sort: Sort = "none") -> int:
        """Make one table of all parts, remove the folder, and return the number of rows with an error.

        Args:
            sort: the order of the rows; one by score takes the whole table in memory.

        Raises:
            OutputError: parts are missing, the table cannot be written, or another one has taken its name.
        """
        if not self.output.complete:
            made = self.output.folder / f"table{self.output.target.suffix}"
            failed = 0
            writer = _WRITERS[self.output.target.suffix]
            with self.output.part(made.name) as path, writer(path, self._job, self.total) as write:
                for group in self._groups(sort):
                    failed += len(group) - group["error"].null_count
                    write(group)
            self.output.save({"failed": failed})
            self.output.publish(made)
        found = self.output.state.get("failed")
        if not isinstance(found, int):
            raise self._damaged("job.json")
        self.output.clear()
        return found

    def _groups(self, sort: Sort) -> Iterator[pa.Table]:
        """The parts in order, joined to tables of about :data:`_GROUP` rows."""
        if sort == "none" or not self.total:
            yield from self._joined()
            return
        import pyarrow as pa

        order = "ascending" if sort == "worst" else "descending"
        yield pa.concat_tables(self._joined()).sort_by([("score", order)])

    def _all(self) -> Iterator[pa.Table]:
        for number in self._parts():
            part = self._read(number)
            if part is None:
                raise OutputError(f"parts of {self.output.target} are missing; run the same command again")
            yield part

    def _joined(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        waiting: list[pa.Table] = []
        for part in self._all():
            waiting.append(part)
            if sum(map(len, waiting)) >= _GROUP:
                yield pa.concat_tables(waiting)
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting)


def _part_schema(job: Job) -> pa.Schema:
    import pyarrow as pa

    kinds = (pa.binary(), pa.float64(), pa.float64(), pa.string())
    return pa.schema([*zip(COLUMNS[:-1], kinds, strict=True), *_more_fields(job)])


def _more_fields(job: Job) -> list[tuple[str, pa.DataType]]:
    import pyarrow as pa

    names = [*(ATTRIBUTES if job.attributes else ()), *([WARNING] if job.warns else ())]
    return [(n, pa.string() if n in _TEXTS else pa.float64()) for n in names]


def _more(score: Score, names: Sequence[str]) -> list[float | str | None]:
    values = {**score.attributes, "words": score.words or None, WARNING: score.warning or None}
    return [values.get(name) for name in names]


def _score(row: dict[str, Any], path: str, model: str) -> Score:
    """Of a row of a part."""
    found = Score(row["score"], row["std"], row["error"], path, model, warning=row.get(WARNING) or "")
    if row.get("words") is None:
        return found
    return replace(found, attributes={name: row[name] for name in SHOWN}, words=row["words"])


def readable(path: bytes) -> str:
    """A file name as text; bytes that are no UTF-8 are written as ``\\xNN``."""
    return path.decode("utf-8", "backslashreplace")


def json_row(score: Score, explain: bool = False) -> str:
    """A line of JSON of one score, whatever its name; numbers that are none are null."""
    numbers = [x if x is not None and math.isfinite(x) else None for x in (score.score, score.std)]
    values: tuple[object, ...] = (readable(os.fsencode(score.path)), *numbers, score.error, score.model)
    row = dict(zip(COLUMNS, values, strict=True))
    if score.attributes:
        row |= {**score.attributes, "words": score.words}
    if score.warning:
        row[WARNING] = score.warning
    if explain:
        row |= {"explanation": score.explanation, "text": score.text}
    return json.dumps(row, ensure_ascii=False)


_Writer = Callable[["pa.Table"], object]


@contextmanager
def _parquet(target: Path, job: Job, images: int) -> Iterator[_Writer]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (pa.string(), pa.float64(), pa.float64(), pa.string(), pa.string())
    state = json.dumps(asdict(job) | {"images": images})
    named = [*zip(COLUMNS, kinds, strict=True), *_more_fields(job)]
    schema = pa.schema(named, metadata={"rali_zoo": state})
    with pq.ParquetWriter(target, schema) as writer:

        def write(group: pa.Table) -> None:
            names = pa.array([readable(path) for path in group["path"].to_pylist()], pa.string())
            model = pa.array([job.model] * len(group), pa.string())
            columns = [names, group["score"], group["std"], group["error"], model]
            columns += [group[name] for name in schema.names[len(columns) :]]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))

        yield write


@contextmanager
def _csv(target: Path, job: Job, _: int) -> Iterator[_Writer]:
    with target.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        more = [name for name, _ in _more_fields(job)]
        writer.writerow([*COLUMNS, *more])

        def write(group: pa.Table) -> None:
            for row in group.to_pylist():
                numbers = ["" if row[k] is None else f"{row[k]:.6f}" for k in ("score", "std")]
                texts = [
                    csv_cell(os.fsdecode(row["path"])),
                    csv_cell(row["error"] or ""),
                    csv_cell(job.model),
                ]
                rest = ["" if row[k] is None else row[k] if k in _TEXTS else f"{row[k]:.6f}" for k in more]
                writer.writerow([texts[0], *numbers, *texts[1:], *rest])

        yield write


@contextmanager
def _jsonl(target: Path, job: Job, _: int) -> Iterator[_Writer]:
    with target.open("w", encoding="utf-8") as file:

        def write(group: pa.Table) -> None:
            for row in group.to_pylist():
                file.write(f"{json_row(_score(row, os.fsdecode(row['path']), job.model))}\n")

        yield write


_WRITERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
