"""A results folder with everything that a board must show: made by the real statistics and the real files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from rali_zoo.bench.results import cell_path, cost_path, rows_sha256
from rali_zoo.bench.statistics import cell_statistics
from rali_zoo.report import six, write_json

ROWS = {"synthetic-lab": 120, "koniq10k": 100, "livec": 60}
REFS = {"synthetic-lab": "synthetic:lab", "koniq10k": "koniq10k", "livec": "livec"}
ODD_NAME = "<img src=x onerror=alert(1)> | odd_*name*"
PROVENANCE = {
    "versions": {"rali-zoo": "0.1.0", "python": "3.11.7", "torch": "2.15.0"},
    "hardware": {
        "processor": "Test processor",
        "cpus": 2,
        "machine": "x86_64",
        "system": "Linux",
        "gpus": [],
    },
    "seed": 0,
    "resamples": 100,
}


def targets(name: str) -> dict[str, Any]:
    """Rows of a made-up data set; the synthetic one has distortions and repeated contents."""
    n, rng = ROWS[name], np.random.default_rng(len(name))
    distorted = name == "synthetic-lab"
    columns = {
        "ids": [f"{name}-{i:03d}.png" for i in range(n)],
        "mos": [six(v) for v in rng.uniform(1, 5, n)],
        "std": [0.5] * n,
        "content": [f"content-{i % 30}" if distorted else str(i) for i in range(n)],
        "distortion": [
            ("jpeg", "gaussian_blur", "white_noise")[i % 3] if distorted else "" for i in range(n)
        ],
        "level": [i % 5 + 1 if distorted else 0 for i in range(n)],
    }
    return {"ref": REFS[name], "split": "test", **columns, "rows_sha256": rows_sha256(columns)}


def scores_of(model: str, name: str, mos: np.ndarray) -> np.ndarray:
    """Scores of a made-up model; ``good`` and ``close`` differ by little, ``backwards`` runs backwards."""
    rng = np.random.default_rng([len(name), 7])
    shared, own = rng.normal(size=mos.size), np.random.default_rng([len(model), 3]).normal(size=mos.size)
    if model == "constant":
        return np.full(mos.size, 3.0)
    if model == "backwards":
        return -mos + 1.2 * own
    if model == "failing":  # answers nothing about bad images, and is near perfect on the others
        return np.where(mos < 1.5, math.nan, mos + 0.15 * own)
    noise = {"good": 0.5 * shared, ODD_NAME: 0.5 * shared + 0.08 * own, "leaked": 0.02 * own}
    return mos + noise[model]


def cell(model: dict[str, Any], name: str, rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A results file without numbers."""
    return {
        "schema": 2,
        "model": {
            "ref": f"ckpt:{model['name']}",
            "revision": "0123456789abcdef",
            "kind": "NR",
            "source": "rali_zoo",
            "training_sets": [],
            "native_scale": False,
            "licence": "Apache-2.0",
            "parameters": {"used": None},
            **model,
        },
        "dataset": {
            "ref": REFS[name],
            "name": REFS[name],
            "split": "test",
            "card_hash": "abc",
            "synthetic": name == "synthetic-lab",
            "n": ROWS[name],
            "limit": None,
            "rows_sha256": rows["rows_sha256"],
            "targets": None if name == "livec" else f"datasets/{name}.json",
        },
        "status": "unavailable",
        "reason": "its weights cannot be downloaded",
        "leakage": {"flag": "none", "why": "nothing was trained"},
        "n": 0,
        "failed": 0,
        "failures": [],
        "scores": None,
        "statistics": None,
        "provenance": PROVENANCE,
        **more,
    }


def measured(model: dict[str, Any], name: str, rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A results file with the statistics of made-up scores; those of ``livec`` are not published."""
    mos = np.array(rows["mos"])
    found = [six(float(v)) for v in scores_of(model["name"], name, mos)]
    filled = [math.nan if v is None else v for v in found]
    numbers = cell_statistics(
        mos,
        filled,
        std=rows["std"],
        content=rows["content"],
        distortion=rows["distortion"],
        level=rows["level"],
        on_mos_scale=not model.get("native_scale", False),
        resamples=100,
    )
    lost = [rows["ids"][i] for i, v in enumerate(found) if v is None]
    return cell(
        model,
        name,
        rows,
        status=numbers.status,
        reason=numbers.reason,
        n=len(found) - len(lost),
        failed=len(lost),
        failures=[{"id": i, "error": "the score is NaN"} for i in lost[:20]],
        scores=None if name == "livec" else found,
        statistics=numbers.model_dump(),
        **more,
    )


def cost(parameters: int, milliseconds: float) -> dict[str, Any]:
    """The file beside a cell."""
    span = {"p50": milliseconds / 1000, "p95": milliseconds / 800}
    stages = {stage: None for stage in ("decode", "preprocess", "encode", "head")}
    return {
        "schema": 1,
        "written": "2026-11-23T00:00:00+00:00",
        "problem": "",
        "cost": {
            "parameters": {"used": parameters, "loaded": parameters},
            "flops": parameters * 100,
            "peak_memory_mb": 120.5,
            "load_seconds": 0.5,
            "latency": {**stages, "total": span},
            "images": 12,
            "ratio": None,
            "throughput": {"1": 1000 / milliseconds, "16": 2000 / milliseconds},
            "energy_j": None,
            "energy_source": None,
            "threads": 1,
            "device": "cpu",
            "precision": "float32",
            "size": [160, 160],
            "hardware": PROVENANCE["hardware"],
            "notes": [],
        },
    }


def make_results(folder: Path) -> Path:
    """Six models and more on two data sets, two of them on a third, and one file that is reported."""
    tables = {name: targets(name) for name in ROWS}
    for name in ("synthetic-lab", "koniq10k"):
        write_json(folder / "datasets" / f"{name}.json", tables[name])
    models: dict[str, dict[str, Any]] = {
        "good": {"training_sets": ["synthetic:lab"]},
        ODD_NAME: {"training_sets": ["synthetic:lab"]},
        "backwards": {"source": "pyiqa", "native_scale": True},
        "constant": {"source": "pyiqa", "native_scale": True},
        "leaked": {"training_sets": ["koniq10k?protocol=whole"]},
        "failing": {"source": "piq", "kind": "FR", "training_sets": None, "native_scale": True},
        "gone": {"source": "pyiqa", "native_scale": True, "revision": "unavailable"},
    }
    costs = {"good": (350_000, 4.0), "backwards": (12_000_000, 40.0), "failing": (1_500, 9.0)}
    for key, facts in models.items():
        for name in ROWS:
            _write(folder, {"name": key, **facts}, name, tables[name], costs.get(key))
    paper = {"name": "From a paper", "kind": "reported", "source": "reported", "revision": "2025"}
    told = measured({"name": "good"}, "koniq10k", tables["koniq10k"])
    told["model"] |= {**paper, "ref": "doi:10.1000/paper"}
    write_json(cell_path(folder, paper["name"], paper["revision"], "koniq10k"), told)
    return folder


def _write(
    folder: Path, model: dict[str, Any], name: str, rows: dict[str, Any], costs: tuple[int, float] | None
) -> None:
    key = model["name"]
    if name == "livec" and key not in ("good", "backwards"):
        return
    flag, why = "none", "nothing was trained"
    if key in ("good", ODD_NAME) and name == "synthetic-lab":
        flag, why = "same-dataset", "trained on other rows of synthetic:lab"
    if key == "leaked" and name == "koniq10k":
        flag, why = "test-rows", "100 of the 100 images are training rows of koniq10k?protocol=whole"
    if key == "failing":
        flag, why = "unknown", "its training sets are not declared"
    more = {"leakage": {"flag": flag, "why": why}}
    if key == "gone":
        content = cell(model, name, rows, **more)
    elif key == "failing" and name == "koniq10k":
        content = cell(model, name, rows, reason="koniq10k has no reference images", **more)
    else:
        content = measured(model, name, rows, **more)
    path = cell_path(folder, key, content["model"]["revision"], name)
    write_json(path, content)
    if costs and content["status"] == "ok":
        write_json(cost_path(path), cost(*costs))
