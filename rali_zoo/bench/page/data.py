"""What the page needs to know of a board, as plain JSON; numbers with the six digits that the files have."""

from __future__ import annotations

import math
from typing import Any

from rali_zoo.bench.leaderboard import ALPHA, COMPARED, LABELS, Board, Column, Row
from rali_zoo.bench.markdown import MARKS, machine
from rali_zoo.bench.numbers import cost_numbers, more_numbers
from rali_zoo.bench.page.gmad import gmad_pairs
from rali_zoo.bench.reported import ReportedTable
from rali_zoo.bench.response import Response
from rali_zoo.bench.results import Cell
from rali_zoo.report import STATISTICS

_DIGITS = 6


def page_data(board: Board) -> dict[str, object]:
    """The board for ``page.js``: rows and columns refer to each other by position."""
    index = {row.model.key: i for i, row in enumerate(board.rows)}
    return {
        "metrics": {s.name: s.label for s in STATISTICS.values()},
        "lower_is_better": [s.name for s in STATISTICS.values() if not s.higher_is_better],
        "labels": {kind: LABELS[kind] for kind in board.labels},
        "marks": {flag: {"mark": mark, "meaning": meaning} for flag, (mark, meaning) in MARKS.items()},
        "alpha": ALPHA,
        "compared": COMPARED,
        "columns": [_column(column, board, index) for column in board.columns],
        "rows": [_row(row, board) for row in board.rows],
        "reported": [_table(table) for table in board.reported],
        "reported_cells": [
            {"model": c.model.name, "ref": c.model.ref, "dataset": c.dataset.ref, "metrics": _metrics(c)}
            for c in board.reported_cells
        ],
    }


def _column(column: Column, board: Board, index: dict[str, int]) -> dict[str, Any]:
    dataset = column.dataset
    return {
        "key": dataset.key,
        "ref": dataset.ref,
        "split": dataset.split,
        "n": dataset.n,
        "limit": dataset.limit,
        "labels": column.labels,
        "note": column.note,
        "pairs": [
            [index[p.a], index[p.b], _short(p.difference), _short(p.low), _short(p.high), _p(p.p_holm)]
            for p in column.pairs
        ],
        "gmad": [
            {
                "defender": index[pair.defender],
                "attacker": index[pair.attacker],
                "level": pair.level,
                "better": pair.better,
                "worse": pair.worse,
                "mos": [_short(v) for v in pair.mos],
            }
            for pair in gmad_pairs(column, board)
        ],
    }


def _row(row: Row, board: Board) -> dict[str, Any]:
    model = row.model
    return {
        "key": model.key,
        "label": row.label,
        "ref": model.ref,
        "revision": model.revision,
        "kind": model.kind,
        "source": model.source,
        "licence": model.licence,
        "training_sets": model.training_sets,
        "native_scale": model.native_scale,
        "parameters": model.parameters.used,
        "averages": {
            kind: {
                "mean": _short(a.mean),
                "weighted": _short(a.weighted),
                "pooled": _short(a.pooled),
                "sets": a.sets,
                "of": a.of,
            }
            for kind, a in row.averages.items()
        },
        "cells": [_cell(row.cells.get(c.key), c) for c in board.columns],
    }


def _cell(cell: Cell | None, column: Column) -> dict[str, Any] | None:
    if cell is None:
        return None
    kinds: dict[str, list[float | None]] = {}
    if cell.statistics:
        kinds = {name: [g.n, _short(g.srcc)] for name, g in cell.statistics.by_distortion.items()}
    elif cell.response:
        kinds = {name: [p.n, _short(p.value)] for name, p in cell.response.by_distortion.items()}
    shown: dict[str, Any] = {
        "status": cell.status,
        "reason": cell.reason,
        "n": cell.n,
        "failed": cell.failed,
        "failures": [[f.id, f.error] for f in cell.failures],
        "leakage": cell.leakage.flag,
        "leakage_why": cell.leakage.why,
        "ranking": _short(cell.ranking),
        "best": cell.model.key in column.best,
        "counts": cell.counts,
        "metrics": _metrics(cell),
        "response": _response(cell.response),
        "more": {key: _short(value) for key, value in more_numbers(cell).items()},
        "by_distortion": kinds,
    }
    if cell.cost is not None:
        shown["cost"] = {key: _short(value) for key, value in cost_numbers(cell).items()}
        shown["machine"] = machine(cell)
    return shown


def _response(found: Response | None) -> dict[str, list[float | None]] | None:
    """Label to value, interval and n."""
    if found is None:
        return None
    parts = {"ordered": found.ordered, "pristine above strong ones": found.pristine_first}
    parts |= {f"ordered, {name}": part for name, part in found.by_family.items()}
    return {label: [_short(p.value), _short(p.low), _short(p.high), p.n] for label, p in parts.items()}


def _metrics(cell: Cell) -> dict[str, list[float | None]]:
    estimates = ((key, cell.estimate(key)) for key in STATISTICS)
    return {key: [_short(e.value), _short(e.low), _short(e.high)] for key, e in estimates}


def _table(table: ReportedTable) -> dict[str, Any]:
    return {
        "id": table.id,
        "title": table.title,
        "source": table.source,
        "url": table.url,
        "read_from": table.read_from,
        "protocol": table.protocol,
        "metrics": table.metrics,
        "datasets": table.datasets,
        "best": {d: table.best(d) for d in table.datasets},
        "rows": [
            {
                "model": row.model,
                "note": row.note,
                "values": row.values,
                "average": [_short(v) for v in table.average(row)],
            }
            for row in table.rows
        ],
    }


def _short(value: float | None) -> float | int | None:
    if not isinstance(value, float):
        return value
    return round(value, _DIGITS) if math.isfinite(value) else None


def _p(value: float) -> float | None:
    return float(f"{value:.2g}") if math.isfinite(value) else None
