"""The numbers of a cell that tables and the page show beside the statistics."""

from __future__ import annotations

from rali_zoo.bench.results import Cell

#: Further statistics of a cell: name to its place in ``statistics``.
MORE = {
    "ksplit_median": ("ksplit", "median"),
    "d_test": ("tests", "d_test", "value"),
    "l_test": ("tests", "l_test", "value"),
    "p_test": ("tests", "p_test", "value"),
    "krasula_auc_different": ("tests", "krasula", "auc_different"),
    "krasula_auc_better": ("tests", "krasula", "auc_better"),
    "ties": ("ties",),
    "distinct": ("distinct",),
}


def more_numbers(cell: Cell | None) -> dict[str, float | None]:
    """The statistics of :data:`MORE`; ``None`` for what the data set or the scorer does not allow."""
    found: dict[str, float | None] = {}
    for name, (first, *rest) in MORE.items():
        value: object = getattr(cell.statistics, first) if cell and cell.statistics else None
        for key in rest:
            value = value.get(key) if isinstance(value, dict) else None
        found[name] = value if isinstance(value, int | float) else None
    return found


#: Numbers of a cell's cost, as tables call them.
COSTS = (
    "parameters",
    "flops",
    "peak_memory_mb",
    "load_seconds",
    "latency_p50_ms",
    "latency_p95_ms",
    "latency_ratio",
    "throughput_1",
    "throughput_16",
)


def cost_numbers(cell: Cell | None) -> dict[str, float | None]:
    """The numbers of a cell's cost under the names of the tables; ``None`` for what was not measured.

    ``latency_ratio`` is to the suite's reference model, whose latency was measured in turn with this one's.
    """
    cost = cell.cost if cell else None
    if cost is None:
        return dict.fromkeys(COSTS)
    total = cost.latency.total
    p50, p95 = (None, None) if total is None else (round(1000 * v, 4) for v in (total.p50, total.p95))
    ratio = cost.ratio.median if cost.ratio else None
    memory, load = cost.peak_memory_mb, cost.load_seconds
    one, sixteen = (cost.throughput.get(size) for size in ("1", "16"))
    found = (cost.parameters.used, cost.flops or None, memory, load, p50, p95, ratio, one, sixteen)
    return dict(zip(COSTS, found, strict=True))
