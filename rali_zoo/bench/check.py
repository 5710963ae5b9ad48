"""Whether a results file can be trusted: its shape, its place, its rows, and its numbers computed again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rali_zoo.bench.cell import statistics
from rali_zoo.bench.results import SHOWN_FAILURES, Json, cell_path, read_cell, read_targets
from rali_zoo.errors import ScoreTableError

#: Relative difference of a statistic that is computed again; libraries differ in the last digits.
TOLERANCE = 1e-4
_SHOWN = 20


def check_file(path: Path) -> list[str]:
    """What is wrong with a cell's file, a line each; empty if nothing is.

    The targets are looked for where the file's place says: ``<results>/<model>/<revision>/<data set>.json``.

    Args:
        path: of the cell.
    """
    try:
        cell = read_cell(path)
    except ScoreTableError as error:
        return str(error).splitlines()
    results = path.resolve().parents[2]
    wrong = list(_place(path, results, cell)) + list(_counts(cell))
    if cell["status"] in ("ok", "undefined"):
        try:
            targets = read_targets(results, cell)
        except ScoreTableError as error:
            return wrong + str(error).splitlines()
        if targets is not None and not wrong:
            wrong += _recomputed(cell, targets)
    return wrong


def _place(path: Path, results: Path, cell: Json) -> Iterator[str]:
    model = cell["model"]
    expected = cell_path(results, model["name"], model["revision"], path.stem)
    if path.resolve() != expected:
        yield f"it stands in {path.parent}; by its model and revision it belongs into {expected.parent}"
    targets = cell["dataset"]["targets"]
    if targets is not None and Path(targets).name != path.name:
        yield f"dataset.targets is {targets!r}, but the file is called {path.name!r}"


def _counts(cell: Json) -> Iterator[str]:
    """Numbers of images, failures and scores must agree with each other and with the status."""
    rows, n, failed, scores = cell["dataset"]["n"], cell["n"], cell["failed"], cell["scores"]
    run = cell["status"] in ("ok", "undefined")
    if run and n + failed != rows:
        yield f"n {n} and failed {failed} do not make up the {rows} rows of the data set"
    if run and cell["statistics"] is None:
        yield f"status is {cell['status']!r}, but there are no statistics"
    if cell["status"] != "ok" and not cell["reason"]:
        yield f"status is {cell['status']!r}, but reason is empty"
    if len(cell["failures"]) != min(failed, SHOWN_FAILURES):
        yield (
            f"failures lists {len(cell['failures'])} images; of {failed} failed ones the first "
            f"{SHOWN_FAILURES} are expected"
        )
    if scores is None:
        if run and cell["dataset"]["targets"] is not None:
            yield "scores are missing; give one a row of the targets, null where there is none"
        return
    if cell["dataset"]["targets"] is None:
        yield "scores are given, but dataset.targets is null: nobody can tell which images they are of"
    if len(scores) != rows:
        yield f"scores has {len(scores)} numbers for {rows} rows"
    given = sum(s is not None for s in scores)
    if given != n:
        yield f"n is {n}, but scores has {given} numbers"


def _recomputed(cell: Json, targets: Json) -> list[str]:
    if len(targets["ids"]) != len(cell["scores"]):
        return [f"scores has {len(cell['scores'])} numbers for {len(targets['ids'])} ids of the targets"]
    missing = {name for name, s in zip(targets["ids"], cell["scores"], strict=True) if s is None}
    strangers = [f["id"] for f in cell["failures"] if f["id"] not in missing]
    wrong = [f"failures names {name!r}, which is no row without a score" for name in strangers[:_SHOWN]]
    again = statistics(targets, cell["scores"], cell["model"]["native_scale"], cell["provenance"])
    if again["status"] != cell["status"]:
        wrong.append(f"status is {cell['status']!r}; computed again: {again['status']!r} {again['reason']}")
    different = list(_different(cell["statistics"], again, "statistics"))
    if len(different) > _SHOWN:
        different = [*different[:_SHOWN], f"… and {len(different) - _SHOWN} more"]
    return wrong + different


def _different(told: Any, again: Any, where: str) -> Iterator[str]:
    """Where what a file tells differs from what comes out when it is computed again."""
    if isinstance(told, Mapping) and isinstance(again, Mapping):
        for key in dict.fromkeys([*told, *again]):
            yield from _different(told.get(key), again.get(key), f"{where}.{key}")
    elif isinstance(told, list) and isinstance(again, list) and len(told) == len(again):
        for i, (a, b) in enumerate(zip(told, again, strict=True)):
            yield from _different(a, b, f"{where}[{i}]")
    elif _number(told) and _number(again):
        if not math.isclose(told, again, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            yield f"{where} is {told:g}; computed again from the scores it is {again:g}"
    elif told != again:
        yield f"{where} is {told!r:.60}; computed again from the scores it is {again!r:.60}"


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
