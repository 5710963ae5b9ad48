"""Results are files: one JSON a model, revision and data set; one schema; nothing else is read.

``<results>/<model>/<revision>/<data set>.json`` is the cell. It holds nothing that differs between two runs
on one machine, so that a run that was stopped and resumed leaves the same bytes. What differs (times, the
date) stands beside it in ``<data set>.cost.json``. ``<results>/datasets/<data set>.json`` holds what the
cells of a data set share: ids and MOS.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rali_zoo.errors import ScoreTableError, near_miss
from rali_zoo.paths import atomic_path

SCHEMA = 1
STATUSES = ("ok", "undefined", "unavailable", "failed")
FLAGS = ("none", "same-dataset", "test-rows", "unknown")
KINDS = ("NR", "FR", "reported")
SOURCES = ("rali_zoo", "pyiqa", "piq", "torchmetrics", "csv", "reported")
TARGETS = "datasets"
#: Folder in place of a revision for a model that could not be loaded.
NO_REVISION = "unavailable"
SHOWN_FAILURES = 20

Json = dict[str, Any]


class Shape:
    """What a value of a results file may be.

    Args:
        types: Python types; ``float`` takes whole numbers too.
        choices: the only values.
        items: shape of a list's items.
        keys: shapes of an object's keys, all of which must be there.
        values: shape of every value of an object with free keys.
        null: whether it may be null.
    """

    def __init__(
        self,
        *types: type,
        choices: Sequence[str] = (),
        items: Shape | None = None,
        keys: Mapping[str, Shape] | None = None,
        values: Shape | None = None,
        null: bool = False,
    ) -> None:
        self.types, self.choices, self.items = types, choices, items
        self.keys, self.values, self.null = keys, values, null

    def wrong(self, value: object, where: str = "") -> Iterator[str]:
        """What is wrong with a value, a line each, naming the place; nothing if it fits."""
        if value is None:
            if not self.null:
                yield f"{where or 'the file'} is null"
        elif self.choices:
            if value not in self.choices:
                yield f"{where}: {value!r} is not one of {', '.join(self.choices)}"
        elif self.items is not None:
            if not isinstance(value, list):
                yield f"{where} is no list"
                return
            for i, item in enumerate(value):
                yield from self.items.wrong(item, f"{where}[{i}]")
        elif self.keys is not None or self.values is not None:
            yield from self._object(value, where)
        elif not self._is(value):
            yield f"{where}: {value!r:.60} is no {' or '.join(t.__name__ for t in self.types)}"

    def _is(self, value: object) -> bool:
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return type(value) in self.types or (float in self.types and type(value) is int)

    def _object(self, value: object, where: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{where or 'the file'} is no object"
            return
        dot = f"{where}." if where else ""
        if self.values is not None:
            for key, item in value.items():
                yield from self.values.wrong(item, f"{dot}{key}")
            return
        keys = self.keys or {}
        for key, shape in keys.items():
            if key not in value:
                yield f"{dot}{key} is missing"
            else:
                yield from shape.wrong(value[key], f"{dot}{key}")
        for key in value:
            if key not in keys:
                yield f"{dot}{key} is no key of the schema. {near_miss(key, keys)}"


_STR, _INT, _FLOAT, _BOOL = Shape(str), Shape(int), Shape(float), Shape(bool)
_MAYBE_FLOAT, _MAYBE_INT = Shape(float, null=True), Shape(int, null=True)
_FREE = Shape(dict, null=True)
_HARDWARE = Shape(values=Shape(str, int, list, null=True))

CELL = Shape(
    keys={
        "schema": _INT,
        "model": Shape(
            keys={
                "ref": _STR,
                "name": _STR,
                "revision": _STR,
                "kind": Shape(choices=KINDS),
                "source": Shape(choices=SOURCES),
                "training_sets": Shape(items=_STR, null=True),
                "native_scale": _BOOL,
                "licence": _STR,
                "parameters": Shape(keys={"used": _MAYBE_INT}),
            }
        ),
        "dataset": Shape(
            keys={
                "ref": _STR,
                "name": _STR,
                "split": _STR,
                "card_hash": _STR,
                "synthetic": _BOOL,
                "n": _INT,
                "limit": _MAYBE_INT,
                "rows_sha256": _STR,
                "targets": Shape(str, null=True),
            }
        ),
        "status": Shape(choices=STATUSES),
        "reason": _STR,
        "leakage": Shape(keys={"flag": Shape(choices=FLAGS), "why": _STR}),
        "n": _INT,
        "failed": _INT,
        "failures": Shape(items=Shape(keys={"id": _STR, "error": _STR})),
        "scores": Shape(items=_MAYBE_FLOAT, null=True),
        "statistics": _FREE,
        "cost": Shape(dict, null=True),
        "provenance": Shape(
            keys={
                "rali_zoo": _STR,
                "python": _STR,
                "torch": _STR,
                "packages": Shape(values=_STR),
                "hardware": _HARDWARE,
                "seed": _INT,
                "resamples": _INT,
                "written": Shape(str, null=True),
            }
        ),
    }
)

_RANGE = Shape(keys={"p50": _FLOAT, "p95": _FLOAT}, null=True)
COST = Shape(
    keys={
        "schema": _INT,
        "written": _STR,
        "problem": _STR,
        "cost": Shape(
            null=True,
            keys={
                "parameters": Shape(keys={"used": _MAYBE_INT, "loaded": _MAYBE_INT}),
                "flops": _MAYBE_INT,
                "peak_memory_mb": _MAYBE_FLOAT,
                "load_seconds": _MAYBE_FLOAT,
                "latency": Shape(
                    keys={s: _RANGE for s in ("decode", "preprocess", "encode", "head", "total")}
                ),
                "images": _INT,
                "ratio": Shape(keys={"to": _STR, "median": _FLOAT, "low": _FLOAT, "high": _FLOAT}, null=True),
                "throughput": Shape(values=_FLOAT),
                "energy_j": _MAYBE_FLOAT,
                "energy_source": Shape(str, null=True),
                "threads": _INT,
                "device": _STR,
                "precision": _STR,
                "size": Shape(items=_INT, null=True),
                "hardware": _HARDWARE,
                "notes": Shape(items=_STR),
            },
        ),
    }
)
TARGETS_SHAPE = Shape(
    keys={
        "ref": _STR,
        "split": _STR,
        "ids": Shape(items=_STR),
        "mos": Shape(items=_FLOAT),
        "std": Shape(items=_MAYBE_FLOAT),
        "content": Shape(items=_STR),
        "distortion": Shape(items=_STR),
        "level": Shape(items=_INT),
        "rows_sha256": _STR,
    }
)


def slug(name: str) -> str:
    """A file name for a reference; different references get different ones."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def six(value: float | None) -> float | None:
    """Six significant digits, which is what files hold; ``None`` for what is no finite number."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def cell_path(results: Path, name: str, revision: str, dataset: str) -> Path:
    """Where a cell stands: by the model's name, its revision and the data set's slug.

    Args:
        results: folder of all results.
        name: of the model.
        revision: of its weights; twelve characters of it are used.
        dataset: slug of the data set.
    """
    folder = re.sub(r"[^A-Za-z0-9._-]+", "-", revision)[:12] or "none"
    return results / slug(name) / folder / f"{dataset}.json"


def cost_path(cell: Path) -> Path:
    """The file beside a cell that holds what differs between two runs."""
    return cell.with_name(f"{cell.stem}.cost.json")


def rows_sha256(targets: Mapping[str, Any]) -> str:
    """Identity of a data set's rows: of every column of its targets, in order."""
    columns = {k: targets[k] for k in ("ids", "mos", "std", "content", "distortion", "level")}
    return hashlib.sha256(json.dumps(columns, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a results file, whole or not at all: one line a key, so that a difference can be read."""
    lines = [f" {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in content.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a results file of any kind.

    Raises:
        ScoreTableError: it is missing, or no JSON as results files have it (NaN is none).
    """

    def refuse(word: str) -> float:
        raise ValueError(f"{word} is no number in JSON; write null")

    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except OSError as error:
        raise ScoreTableError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ScoreTableError(f"{path} is no results file: {error}") from None


def find_cells(results: Path) -> list[Path]:
    """Every cell below a folder, in the order of their paths; not costs, not targets."""
    found = results.glob("*/*/*.json")
    return sorted(p for p in found if not p.name.endswith(".cost.json") and p.parts[-3] != TARGETS)


def read_cell(path: Path) -> Json:
    """A cell, with the cost that stands beside it under ``cost`` and its date in ``provenance.written``.

    Raises:
        ScoreTableError: the file, or the one beside it, does not fit the schema; every fault is named.
    """
    content = read_json(path)
    wrong = list(CELL.wrong(content))
    if not wrong and content["schema"] != SCHEMA:
        wrong = [f"schema: {content['schema']}; this version reads {SCHEMA}"]
    beside = cost_path(path)
    if beside.is_file():
        measured = read_json(beside)
        wrong += [f"{beside.name}: {line}" for line in COST.wrong(measured)]
        if not wrong:
            content["cost"] = measured["cost"]
            content["provenance"]["written"] = measured["written"]
    if wrong:
        raise ScoreTableError(f"{path} does not fit the schema:\n  " + "\n  ".join(wrong[:20]))
    return dict(content)


def read_targets(results: Path, cell: Mapping[str, Any]) -> Json | None:
    """The targets that a cell's scores go with; ``None`` where the data set may not be published.

    Raises:
        ScoreTableError: they are missing, do not fit the schema, or are other rows than the cell's.
    """
    name = cell["dataset"]["targets"]
    if name is None:
        return None
    path = results / name
    if not path.resolve().is_relative_to(results.resolve()):
        raise ScoreTableError(f"dataset.targets: {name!r} points out of {results}")
    targets = read_json(path)
    wrong = list(TARGETS_SHAPE.wrong(targets))
    if not wrong:
        sizes = {k: len(v) for k, v in targets.items() if isinstance(v, list)}
        if len(set(sizes.values())) != 1:
            wrong.append(f"columns of different lengths: {sizes}")
        elif rows_sha256(targets) != targets["rows_sha256"]:
            wrong.append("rows_sha256 is not that of its rows")
        elif targets["rows_sha256"] != cell["dataset"]["rows_sha256"]:
            wrong.append("its rows are not those that the cell was measured on (rows_sha256 differ)")
    if wrong:
        raise ScoreTableError(f"{path}:\n  " + "\n  ".join(wrong[:20]))
    return dict(targets)
