"""What ``fit`` and ``test`` leave behind: a table on the screen, ``results.json``, predictions."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.paths import atomic_path, sha256
from rali_zoo.report import COUNTS, STATISTICS, provenance, slug, write_json

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from rali_zoo.types import Predicted

_RESAMPLES = 1000
Results = dict[str, dict[str, float]]


def read_metrics(logged: Mapping[str, Tensor]) -> Results:
    """Group what the module logged as ``test/<data set>/<metric>`` by data set; other keys are left out."""
    results: Results = {}
    for key, value in logged.items():
        prefix, _, rest = key.partition("/")
        dataset, _, metric = rest.rpartition("/")
        if prefix == "test" and dataset and metric in (*COUNTS, *STATISTICS):
            results.setdefault(dataset, {})[metric] = float(value)
    return results


def add_intervals(
    results: Results, tables: Mapping[str, pd.DataFrame], frames: Mapping[str, pd.DataFrame]
) -> None:
    """Put the 95 % bootstrap interval of SRCC into the results, as ``srcc_low`` and ``srcc_high``.

    Args:
        results: changed in place.
        tables: predictions by data set; columns id, mos, score, error.
        frames: rows of each data set; columns id and content, since images of one content are not independent.
    """
    from rali_zoo.metrics.bootstrap import Resamples, percentile_interval

    for dataset, row in results.items():
        table = tables[dataset]
        known = table[(table["error"] == "") & table["mos"].notna() & table["score"].notna()]
        content = frames[dataset].drop_duplicates("id").set_index("id")["content"].reindex(known["id"])
        content = content.fillna(content.index.to_series()).astype(str)
        low = high = math.nan
        if content.nunique() > 1:
            drawn = Resamples(len(known), _RESAMPLES, 0, content.tolist())
            values = drawn.srcc([known["score"].to_numpy(float)], known["mos"].to_numpy(float))[0]
            low, high = percentile_interval(values, units=drawn.units)
        row |= {"srcc_low": low, "srcc_high": high}


def show(results: Results, synthetic: Collection[str] = ()) -> None:
    """Print one row a test set; those in ``synthetic`` are labelled so."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Test results")
    table.add_column("data set", no_wrap=True)
    shown = {name: name for name in COUNTS} | {s.name: s.label for s in STATISTICS.values() if s.brief}
    for heading in shown.values():
        table.add_column(heading, justify="right")
    table.add_column("95 % of SRCC", justify="right", no_wrap=True)
    for dataset, row in results.items():
        ends = [_cell(name, row.get(name)) for name in ("srcc_low", "srcc_high")]
        label = escape(dataset) + (" [yellow](synthetic)[/yellow]" if dataset in synthetic else "")
        span = "-" if {"-", "undefined"} & set(ends) else " to ".join(ends)
        table.add_row(label, *(_cell(metric, row.get(metric)) for metric in shown), span)
    console = Console()
    # names are to be copied: a narrow terminal, or a pipe, which is taken for one of 80 columns, folds none
    needed = console.measure(table, options=console.options.update(width=1000)).maximum
    Console(width=max(console.width, needed)).print(table)


def _cell(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    if metric in COUNTS:
        return f"{value:.0f}"
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def write(
    folder: Path,
    results: Results,
    tables: Mapping[str, pd.DataFrame],
    checkpoint: str,
    config: Mapping[str, object],
    synthetic: Collection[str] = (),
    extra: Mapping[str, float] | None = None,
) -> Path:
    """Write ``results.json`` and ``predictions/*.parquet``, each whole or not at all.

    Args:
        folder: where they go.
        results: metrics by data set.
        tables: predictions by data set; columns id, mos and score (both on [1, 5]), and more.
        checkpoint: the file that was tested; empty for the weights in memory.
        config: the resolved configuration.
        synthetic: the data sets whose labels come from a rule; the file says so.
        extra: further numbers to keep, such as times in seconds.

    Returns:
        Path of ``results.json``.
    """
    files = write_tables(folder, "predictions", tables)
    content = {
        "datasets": {
            dataset: {
                "synthetic": dataset in synthetic,
                **{metric: int(value) if metric in COUNTS else value for metric, value in row.items()},
                **({"predictions": files[dataset]} if dataset in files else {}),
            }
            for dataset, row in results.items()
        },
        "checkpoint": checkpoint or None,
        "checkpoint_sha256": sha256(checkpoint) if checkpoint and Path(checkpoint).is_file() else None,
        **(extra or {}),
        **provenance(config),
    }
    target = folder / "results.json"
    write_json(target, content)
    return target


def write_tables(folder: Path, name: str, tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Write one parquet a data set into ``folder/name``; their paths relative to ``folder``, by data set."""
    files = {}
    for dataset, frame in tables.items():
        files[dataset] = f"{name}/{slug(dataset)}.parquet"
        with atomic_path(folder / files[dataset]) as path:
            frame.to_parquet(path, index=False)
    return files


def predictions(
    batches: Sequence[Predicted], left_out: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """What ``predict_step`` returned as one table a data set.

    Args:
        batches: of the images of all data sets.
        left_out: by data set, images without a score; columns id and reason.

    Returns:
        Columns id, score and std on [1, 5], and error (empty where there is a score).
    """
    import pandas as pd

    columns = ["dataset", "id", "score", "std"]
    rows = [
        row
        for b in batches
        for row in zip(
            b["dataset"], b["id"], b["score"].tolist(), _numbers(b["std"], len(b["id"])), strict=True
        )
    ]
    frame = pd.DataFrame(rows, columns=columns).assign(error="")
    tables = {str(k): t.drop(columns="dataset") for k, t in frame.groupby("dataset", sort=False)}
    for dataset, bad in left_out.items():
        if len(bad):
            errors = pd.DataFrame({"id": bad["id"], "error": bad["reason"]})
            tables[dataset] = pd.concat([tables.get(dataset), errors], ignore_index=True)
    # A distributed sampler repeats images to even out the processes.
    return {k: t.drop_duplicates("id", ignore_index=True) for k, t in tables.items()}


def _numbers(values: Tensor | None, n: int) -> list[float]:
    return [math.nan] * n if values is None else values.tolist()
