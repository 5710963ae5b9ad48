"""What ``fit`` and ``test`` leave behind: a table on the screen, ``results.json``, predictions."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rali_zoo.paths import atomic_path

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

#: Metric name in logs and files to its heading on the screen.
METRICS = {
    "n": "n",
    "failed": "failed",
    "srcc": "SRCC",
    "plcc": "PLCC",
    "plcc_mapped": "PLCC mapped",
    "krcc": "KRCC",
    "rmse": "RMSE",
}
_COUNTS = ("n", "failed")
_PACKAGES = [
    "rali-zoo",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "timm",
    "open_clip_torch",
    "transformers",
    "scikit-learn",
    "scikit-image",
    "scipy",
    "numpy",
    "pandas",
    "pillow",
]

Results = dict[str, dict[str, float]]


def read_metrics(logged: Mapping[str, Tensor]) -> Results:
    """Group what the module logged as ``test/<data set>/<metric>`` by data set; other keys are left out."""
    results: Results = {}
    for key, value in logged.items():
        prefix, _, rest = key.partition("/")
        dataset, _, metric = rest.rpartition("/")
        if prefix == "test" and dataset and metric in METRICS:
            results.setdefault(dataset, {})[metric] = float(value)
    return results


def show(results: Results, synthetic: Collection[str] = ()) -> None:
    """Print one row a test set; those in ``synthetic`` are labelled so."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Test results")
    table.add_column("data set", overflow="fold")
    for heading in METRICS.values():
        table.add_column(heading, justify="right")
    for dataset, row in results.items():
        label = escape(dataset) + (" [yellow](synthetic)[/yellow]" if dataset in synthetic else "")
        table.add_row(label, *(_cell(metric, row.get(metric)) for metric in METRICS))
    Console().print(table)


def _cell(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    if metric in _COUNTS:
        return f"{value:.0f}"
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def write(
    folder: Path,
    results: Results,
    tables: Mapping[str, pd.DataFrame],
    checkpoint: str,
    config: Mapping[str, Any],
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
                **{metric: _plain(metric, value) for metric, value in row.items()},
                **({"predictions": files[dataset]} if dataset in files else {}),
            }
            for dataset, row in results.items()
        },
        "checkpoint": checkpoint or None,
        "checkpoint_sha256": _sha256(Path(checkpoint)) if checkpoint and Path(checkpoint).is_file() else None,
        **(extra or {}),
        **provenance(config),
    }
    target = folder / "results.json"
    with atomic_path(target) as path:
        path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
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
    batches: Sequence[Mapping[str, Any]], left_out: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """What ``predict_step`` returned as one table a data set.

    Args:
        batches: keys dataset and id (lists), score and std ((B,) tensors; std may be ``None``).
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


def provenance(config: Mapping[str, Any]) -> dict[str, Any]:
    """Where numbers come from: time, seed, configuration hash, package versions and hardware."""
    import torch

    canonical = json.dumps(config, sort_keys=True, default=str)
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.get("seed_everything"),
        "config_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
        "versions": {"python": platform.python_version(), **_versions()},
        "hardware": {
            "machine": platform.machine(),
            "system": platform.system(),
            "processor": _processor(),
            "cpus": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "gpus": gpus,
        },
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if sys.platform == "linux" and info.is_file():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor()


def _plain(metric: str, value: float) -> float | int | None:
    """A number as JSON can hold it: counts whole, an undefined correlation null."""
    if math.isnan(value) or math.isinf(value):
        return None
    return int(value) if metric in _COUNTS else value


def slug(dataset: str) -> str:
    """A file name for a reference: ``csv:scores.csv`` and ``csv/scores.csv`` get different ones."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset).strip("-.")[:80]
    return plain if plain == dataset else f"{plain}-{hashlib.sha256(dataset.encode()).hexdigest()[:6]}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
