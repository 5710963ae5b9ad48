"""Whether a results file can be trusted: its shape, its place, its rows, and its numbers computed again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from rali_zoo.bench.results import Cell, Targets, cell_path, find_cells, read_cell, read_targets
from rali_zoo.errors import ScoreTableError
from rali_zoo.paths import cache_dir
from rali_zoo.report import STATISTICS

#: Relative difference of a statistic that is computed again; libraries differ in the last digits.
TOLERANCE = 1e-4
_SHOWN = 20
_RULES = 1  # raised whenever a statistic is computed otherwise: what was checked before is then checked again


def check_file(path: Path) -> list[str]:
    """What is wrong with a cell's file, a line each; empty if nothing is.

    The targets are looked for where the file's place leads: ``<results>/<model>/<revision>/<data set>.json``.

    Args:
        path: of the cell.
    """
    try:
        return _wrong(read_cell(path), path)
    except ScoreTableError as error:
        return str(error).splitlines()


def read_cells(results: Path) -> list[Cell]:
    """Every cell below a results folder, checked as ``rali-zoo check-results`` does, in order of file names.

    Computing the numbers of a cell again takes up to a second, so a file whose numbers were right is remembered in
    the cache by its bytes; those name the rows of its targets by their hash, which :func:`read_targets` compares.

    Raises:
        ScoreTableError: files that are not right; the message names each of them and what is wrong.
    """
    memory = cache_dir("checked") / f"cells-{_RULES}.txt"
    known = set(memory.read_text().split()) if memory.is_file() else set()
    cells, wrong, new = [], [], []
    for path in find_cells(results):
        try:
            content = path.read_bytes()
            if (digest := hashlib.sha256(content).hexdigest()) in known:
                cell = read_cell(path, content)
                lines = list(_place(path, results, cell))
            else:
                cell = read_cell(path)
                lines = _wrong(cell, path)
        except (OSError, ScoreTableError) as error:
            lines = str(error).splitlines()
        if lines:
            wrong.append(f"{path}: " + "\n  ".join(lines))
            continue
        cells.append(cell)
        if digest not in known:
            new.append(f"{digest}\n")
    if new:
        with memory.open("a") as file:
            file.write("".join(new))
    if wrong:
        raise ScoreTableError(f"{len(wrong)} results files are not right:\n" + "\n".join(wrong))
    return cells


def _wrong(cell: Cell, path: Path) -> list[str]:
    results = path.resolve().parents[2]
    wrong = list(_place(path, results, cell))
    if cell.measured:
        targets = read_targets(results, [cell])
        if targets is not None and not wrong:
            wrong += _recomputed(cell, targets)
    return wrong


def _place(path: Path, results: Path, cell: Cell) -> Iterator[str]:
    if "/".join(path.parts[-3:]) != f"{cell.model.key}/{path.name}":
        expected = cell_path(results, cell.model.name, cell.model.revision, path.stem)
        if path.resolve() != expected:
            yield f"it stands in {path.parent}; by its model and revision it belongs into {expected.parent}"
    targets = cell.dataset.targets
    if targets is not None and targets.rpartition("/")[2] != path.name:
        yield f"dataset.targets is {targets!r}, but the file is called {path.name!r}"


def _recomputed(cell: Cell, targets: Targets) -> list[str]:
    from rali_zoo.bench.cell import measure
    from rali_zoo.bench.response import Response

    scores = cell.scores or []
    if len(targets.ids) != len(scores):
        return [f"scores has {len(scores)} numbers for {len(targets.ids)} ids of the targets"]
    missing = {name for name, s in zip(targets.ids, scores, strict=True) if s is None}
    unknown = [f.id for f in cell.failures if f.id not in missing]
    wrong = [f"failures names {name!r}, which is no row without a score" for name in unknown[:_SHOWN]]
    if cell.dataset.ordered is bool(targets.mos):
        return [*wrong, f"dataset.ordered is {str(cell.dataset.ordered).lower()}, unlike its targets"]
    try:
        again = measure(targets, scores, cell.model, cell.dataset, cell.provenance)
    except ValueError as error:  # targets without two levels of anything
        return [*wrong, f"it cannot be computed again: {error}"]
    if isinstance(again, Response):
        given = cell.response.model_dump() if cell.response else {}
        return wrong + list(_different(given, again.model_dump(), "response"))[:_SHOWN]
    if again.status != cell.status:
        wrong.append(f"status is {cell.status!r}; computed again: {again.status!r} {again.reason}")
    given = cell.statistics.model_dump() if cell.statistics else {}
    computed = again.model_dump()
    for name in STATISTICS:
        if given.get(name) is None:  # the file is older than the statistic: not computed, not wrong
            computed.pop(name)
            given.pop(name, None)
    different = list(_different(given, computed, "statistics"))
    if len(different) > _SHOWN:
        different = [*different[:_SHOWN], f"… and {len(different) - _SHOWN} more"]
    return wrong + different


def _different(given: object, again: object, where: str) -> Iterator[str]:
    """Where what a file holds differs from what comes out when it is computed again."""
    if isinstance(given, Mapping) and isinstance(again, Mapping):
        for key in dict.fromkeys([*given, *again]):
            yield from _different(given.get(key), again.get(key), f"{where}.{key}")
    elif isinstance(given, list) and isinstance(again, list) and len(given) == len(again):
        for i, (a, b) in enumerate(zip(given, again, strict=True)):
            yield from _different(a, b, f"{where}[{i}]")
    elif _number(given) and _number(again):
        if not math.isclose(given, again, rel_tol=TOLERANCE, abs_tol=TOLERANCE):  # type: ignore[arg-type]
            yield f"{where} is {given:g}; computed again from the scores it is {again:g}"
    elif given != again:
        yield f"{where} is {given!r:.60}; computed again from the scores it is {again!r:.60}"


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
