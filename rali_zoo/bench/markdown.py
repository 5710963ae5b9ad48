"""The board as Markdown to read and as CSV to compute with."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Any

from rali_zoo.bench.leaderboard import LABELS, Average, Board, Column, Labels, Row, all_kept
from rali_zoo.bench.numbers import cost_numbers, more_numbers
from rali_zoo.bench.reported import ReportedRow, ReportedTable
from rali_zoo.bench.response import FAMILIES
from rali_zoo.bench.response import numbers as response_numbers
from rali_zoo.bench.results import Cell
from rali_zoo.outputs import csv_cell
from rali_zoo.report import STATISTICS

#: Leakage flag to the mark that a cell carries, and what it means.
MARKS = {
    "same-dataset": ("†", "trained on other images of the same data set (in-domain)"),
    "test-rows": ("‡", "trained on these very test images: shown, not ranked, in no average"),
    "unknown": ("?", "it is not known what it was trained on"),
}
_HEAD = """\
# Leaderboard

Made from the files below `results/` by `rali-zoo leaderboard`; do not edit. `leaderboard.csv` has every
statistic; `page/index.html` is the same board to sort and filter, with plots.
"""
_READING = """\
Each cell: SRCC with its 95 % bootstrap interval, signed (a metric that runs backwards is negative), higher is
better. **Bold**: no model is significantly better, those aside that were trained on the same data set
(Meng–Rosenthal–Rubin and paired bootstrap, Holm-corrected over all pairs of the best 100, p < 0.05).
Images without a score are counted, not dropped: "2 failed → 0.612" is the SRCC with those two in the
worst place, and that number is what means and order use. A model that lacks a data set has no mean, since a
mean over other sets is another number, and stands below those that have them all.
"""


_PARTS = """\
Pairs of neighbouring levels in their order, of all distortions and of families (blur: Gaussian, lens, motion; noise:
white, white in colour, impulse, multiplicative); then the share of photographs and distortions where the untouched
photograph scores above levels 4 and 5 both. Best first; every distortion is in the results files.
"""
_RESPONSE = """\
*Degradation response*: photographs under KADID-10k's distortions, whose order is certain though nobody rated them.
The cell is the share of pairs of neighbouring levels (1-2, …, 4-5) that a model orders rightly; ties count half, so
a model that sees nothing has .5. Intervals draw whole photographs. It says nothing about how people rate
photographs, and is in no mean with columns that do.
"""


@all_kept()
def markdown(board: Board) -> str:
    """The board as one Markdown page: measured numbers, their cost, then what authors report."""
    parts = [_HEAD, "## Measured here\n", _synthetic_note(board), _READING]
    parts += [_RESPONSE] if "order" in board.labels else []
    parts += [
        _table(*_measured(board)),
        _marks(board),
        _not_compared(board),
        _responses(board),
        _without_number(board),
        "## What a score costs\n",
        _cost_note(),
        _table(*_cost(board)),
    ]
    if board.reported or board.reported_cells:
        parts.append(
            "## Reported by authors, not measured here\n\nOther test subsets, other protocols: these numbers "
            "cannot be set beside the ones above.\n"
        )
        parts += [_reported(table) for table in board.reported]
        if board.reported_cells:
            parts.append(
                "### From submitted results files\n\n" + _table(*_reported_cells(board.reported_cells))
            )
    return "\n".join(part for part in parts if part)


def number(value: float | None, digits: int = 3) -> str:
    """A value with a fixed number of decimals; a dash for ``None``; no negative zero."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _synthetic_note(board: Board) -> str:
    if "synthetic" not in board.labels:
        return ""
    return (
        "**Columns marked *synthetic* hold images with pseudo-MOS from a rule: no human looked at them. "
        "They show that things work, not how well a metric judges photographs.**\n"
    )


def _measured(board: Board) -> tuple[list[str], list[list[str]]]:
    head = ["#", "model", "kind", "source"]
    for kind in board.labels:
        head += [f"mean, {LABELS[kind]}", "weighted by n"] if _averaged(kind, board) else []
    head += [_heading(column) for column in board.columns]
    rows = []
    for place, row in enumerate(board.rows, 1):
        cells = [_cell(row.cells.get(c.key), c) for c in board.columns]
        kinds = [kind for kind in board.labels if _averaged(kind, board)]
        averages = [text for kind in kinds for text in _average(row.averages[kind])]
        rows.append([str(place), escape(row.label), row.model.kind, row.model.source, *averages, *cells])
    return head, rows


def _averaged(kind: Labels, board: Board) -> bool:
    """Whether a kind of columns has a mean: one degradation column is its own."""
    return kind != "order" or sum(column.labels == kind for column in board.columns) > 1


def _heading(column: Column) -> str:
    name = f"{escape(column.dataset.ref)} {escape(column.dataset.split)}, n = {column.dataset.n}"
    if column.labels == "order":
        return f"{escape(column.dataset.ref)}, n = {column.dataset.n} (*degradation response*)"
    return f"{name} (*{column.labels}*)" if column.labels in {"synthetic", "aesthetics"} else name


def _average(average: Average) -> tuple[str, str]:
    if average.mean is None:
        return f"– ({average.sets} of {average.of} sets)", "–"
    return number(average.mean), number(average.weighted)


def _cell(cell: Cell | None, column: Column) -> str:
    if cell is None:
        return "not run"
    if cell.status != "ok":
        return cell.status
    mark = MARKS[cell.leakage.flag][0] if cell.leakage.flag in MARKS else ""
    srcc = cell.response.ordered if cell.response else cell.estimate("srcc")
    value = number(srcc.value)
    if cell.model.key in column.best:
        value = f"**{value}**"
    text = f"{value}{mark}"
    if srcc.low is not None:
        text += f" [{number(srcc.low)}, {number(srcc.high)}]"
    if cell.failed:
        text += f", {cell.failed} failed" + ("" if cell.response else f" → {number(cell.ranking)}")
    return text


def _marks(board: Board) -> str:
    used = {cell.leakage.flag for row in board.rows for cell in row.cells.values()}
    return "".join(f"{mark} {meaning}.  \n" for flag, (mark, meaning) in MARKS.items() if flag in used)


def _not_compared(board: Board) -> str:
    return "".join(f"{escape(c.dataset.ref)}: {escape(c.note)}.  \n" for c in board.columns if c.note)


def _responses(board: Board) -> str:
    """What a degradation column is made of, a table each."""
    parts = []
    for column in board.columns:
        cells = [(row.label, row.cells.get(column.key)) for row in board.rows]
        found = [(label, cell) for label, cell in cells if cell and cell.response and cell.status == "ok"]
        if column.labels == "order" and found:
            found.sort(key=lambda item: -(item[1].ranking or 0))
            head = ["model", "all pairs", *FAMILIES, "pristine above strong ones"]
            rows = [[escape(label), *_shares(cell)] for label, cell in found]
            parts.append(
                f"### Degradation response: {escape(column.dataset.ref)}\n\n{_PARTS}\n{_table(head, rows)}"
            )
    return "\n".join(parts)


def _shares(cell: Cell) -> list[str]:
    response = cell.response
    if response is None:
        return []
    shares = [response.ordered, *(response.by_family.get(name) for name in FAMILIES), response.pristine_first]
    return [
        "–"
        if share is None or share.value is None
        else f"{number(share.value)} [{number(share.low)}, {number(share.high)}], n = {share.n}"
        for share in shares
    ]


def _without_number(board: Board) -> str:
    """Why cells have no number, one row a model and reason."""
    why: dict[tuple[str, str, str], list[str]] = {}
    for row in board.rows:
        for column in board.columns:
            cell = row.cells.get(column.key)
            if cell is not None and cell.status != "ok":
                place = why.setdefault((row.label, cell.status, cell.reason), [])
                place.append(escape(column.dataset.ref))
    if not why:
        return ""
    rows = [[escape(who), ", ".join(on), what, escape(reason)] for (who, what, reason), on in why.items()]
    return "### Cells without a number\n\n" + _table(["model", "data sets", "status", "reason"], rows)


def _cost_note() -> str:
    return (
        "Parameters that take part in a score; median and 95th percentile of the time from file to score of "
        "one image, on the first data set that has it. Latencies compare only between rows of one machine; "
        "the ratio to a reference model was measured in turn with it, and so holds on a machine with other "
        "work too.\n"
    )


def _cost(board: Board) -> tuple[list[str], list[list[str]]]:
    head = [
        "model",
        "parameters",
        "latency p50 (ms)",
        "p95 (ms)",
        "times the reference",
        "GFLOPs",
        "peak memory (MB)",
        "measured on",
    ]
    rows = []
    for row in board.rows:
        cell = first_with_cost(row, board)
        cost = cost_numbers(cell)
        count = cost["parameters"] if cell else row.model.parameters.used
        rows.append(
            [
                escape(row.label),
                "–" if count is None else f"{int(count):,}",
                number(cost["latency_p50_ms"], 1),
                number(cost["latency_p95_ms"], 1),
                _ratio(cell),
                "–" if cost["flops"] is None else f"{cost['flops'] / 1e9:.3g}",
                number(cost["peak_memory_mb"], 0),
                escape(f"{cell.dataset.ref}; {machine(cell)}") if cell else "–",
            ]
        )
    return head, rows


def _ratio(cell: Cell | None) -> str:
    ratio = cell.cost.ratio if cell and cell.cost else None
    return f"{ratio.median:.3g} × {escape(ratio.to)}" if ratio else "–"


def first_with_cost(row: Row, board: Board) -> Cell | None:
    """The cell of the first column whose cost was measured."""
    cells = (row.cells.get(column.key) for column in board.columns)
    return next((cell for cell in cells if cell is not None and cell.cost is not None), None)


def machine(cell: Cell) -> str:
    """Device, its name and threads of a cell's cost, in words."""
    cost = cell.cost
    if cost is None:
        return ""
    gpus = cost.hardware.get("gpus")
    name = cost.hardware.get("processor")
    if isinstance(gpus, list) and gpus and cost.device != "cpu":
        name = gpus[0]
    return f"{cost.device}, {name}, threads: {cost.threads}"


def _reported(table: ReportedTable) -> str:
    source = f"[{escape(table.source)}]({table.url})" if table.url else escape(table.source)
    lines = [f"### {escape(table.title)}\n", f"Source: {source}."]
    if table.read_from:
        lines.append(f"Read from: {escape(table.read_from)}.")
    if table.protocol:
        lines.append(escape(table.protocol))
    shown = " / ".join(table.metrics)
    several = len(table.datasets) > 1
    mean = "; mean computed here from the cells" if several else ""
    lines.append(f"Each cell: {shown}; bold: highest of the column{mean}.\n")
    head = ["model", *table.datasets, *(["mean"] if several else []), "note"]
    rows = []
    for row in table.rows:
        cells = [_values(row, dataset, table) for dataset in table.datasets]
        means = [" / ".join(number(v) for v in table.average(row))] if several else []
        rows.append([escape(row.model), *cells, *means, escape(row.note)])
    return "\n".join(lines) + "\n" + _table(head, rows)


def _values(row: ReportedRow, dataset: str, table: ReportedTable) -> str:
    if dataset not in row.values:
        return "–"
    pairs = zip(row.values[dataset], table.best(dataset), strict=True)
    return " / ".join(f"**{number(v)}**" if v is not None and v == best else number(v) for v, best in pairs)


def _reported_cells(cells: Iterable[Cell]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for cell in cells:
        values = [number(cell.estimate(key).value) for key in STATISTICS]
        rows.append([escape(cell.model.name), escape(cell.dataset.ref), *values, escape(cell.model.ref)])
    return ["model", "data set", *(s.label for s in STATISTICS.values()), "source"], rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def escape(text: str) -> str:
    """Text that stays text in a Markdown table: one line, no markup of its own."""
    flat = " ".join(text.split())
    for sign, safe in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("|", "\\|"),
        ("*", "\\*"),
        ("_", "\\_"),
    ):
        flat = flat.replace(sign, safe)
    return flat.replace("`", "\\`").replace("[", "\\[").replace("]", "\\]")


@all_kept()
def table_csv(board: Board) -> str:
    """Every cell that was measured, one row each, all statistics in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    placed = enumerate(board.rows, 1)
    rows = [_record(place, row, column) for place, row in placed for column in board.columns]
    writer.writerow(rows[0].keys())
    plain = (float, NoneType)  # most of half a million cells: csv writes them as they are
    writer.writerows([v if type(v) in plain else _text(v) for v in row.values()] for row in rows)
    return out.getvalue()


def _record(place: int, row: Row, column: Column) -> dict[str, Any]:
    cell, model, dataset = row.cells.get(column.key), row.model, column.dataset
    sets = None if model.training_sets is None else ";".join(model.training_sets)
    record: dict[str, Any] = {
        "place": place,
        "model": model.name,
        "ref": model.ref,
        "revision": model.revision,
        "kind": model.kind,
        "source": model.source,
        "licence": model.licence,
        "training_sets": "unknown" if sets is None else sets,
        "dataset": dataset.ref,
        "split": dataset.split,
        "labels": column.labels,
        "n_dataset": dataset.n,
        "status": cell.status if cell else "not run",
        "reason": cell.reason if cell else "",
        "n": cell.n if cell else None,
        "failed": cell.failed if cell else None,
        "leakage": cell.leakage.flag if cell else "",
        "leakage_why": cell.leakage.why if cell else "",
        "srcc_failures_worst": cell.ranking if cell else None,
        "letters": "".join(column.letters.get(model.key, ())),
        "among_best": (model.key in column.best) if cell and cell.counts and not column.note else None,
    }
    for key in STATISTICS:
        estimate = cell.estimate(key) if cell else None
        for end in ("value", "low", "high"):
            name = key if end == "value" else f"{key}_{end}"
            record[name] = getattr(estimate, end) if estimate else None
    return (
        record | response_numbers(cell.response if cell else None) | more_numbers(cell) | cost_numbers(cell)
    )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return csv_cell(value) if isinstance(value, str) else repr(value)
