"""The results files as the leaderboard reads them: one cell a model and data set, cost beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rali_zoo.bench import results as files
from rali_zoo.errors import ScoreTableError

#: What a cell measures: key in ``statistics`` to the field's name.
METRICS = {
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "plcc_mapped": "PLCC, mapped",
    "rmse": "RMSE",
}


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval; ``None`` where it is not defined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Model:
    """Who was measured.

    Attributes:
        key: ``slug/revision``, the folders of its results.
        name: as it is shown.
        ref: what ``load_model`` takes.
        revision: of the weights or the library.
        kind: ``NR`` without, ``FR`` with a reference image, ``reported`` = numbers of others.
        source: library the scores come from.
        training_sets: data sets it was trained on; ``None`` = not known.
        native_scale: its scores are not in MOS units.
        licence: of the model, as its authors state it.
        parameters: used for a score; ``None`` = not counted.
    """

    key: str
    name: str
    ref: str
    revision: str
    kind: str
    source: str
    training_sets: tuple[str, ...] | None
    native_scale: bool
    licence: str
    parameters: int | None


@dataclass(frozen=True)
class Dataset:
    """What was measured on: ``n`` rows, at most ``limit``; ``targets`` is the file of their MOS, if any."""

    key: str
    ref: str
    name: str
    split: str
    synthetic: bool
    n: int
    limit: int | None
    rows_sha256: str
    targets: str | None


@dataclass(frozen=True)
class Cell:
    """One model on one data set.

    Attributes:
        file: the results file, relative to the results folder.
        status: ``ok``, ``undefined``, ``unavailable`` or ``failed``; ``reason`` says why it is not ``ok``.
        n: images with a score and a MOS.
        failed: images without a score.
        failures: (image, reason) of the first of them.
        leakage: ``none``, ``same-dataset``, ``test-rows`` or ``unknown``; ``leakage_why`` says why.
        ranking: SRCC in [-1, 1] with every failed image in the worst place; what a board is sorted by.
        metrics: by the keys of :data:`METRICS`.
        by_distortion: class to (images, SRCC or ``None``).
        scores: one a row of the targets file, higher = better, ``None`` = failed; ``None`` where the scores
            may not be published.
        statistics: all of them, as the file has them.
        cost: as the file has it, or ``None``.
        provenance: versions, hardware and seed of the run.
    """

    file: str
    model: Model
    dataset: Dataset
    status: str
    reason: str
    n: int
    failed: int
    leakage: str
    leakage_why: str
    failures: tuple[tuple[str, str], ...] = ()
    ranking: float | None = None
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    by_distortion: Mapping[str, tuple[int, float | None]] = field(default_factory=dict)
    scores: tuple[float | None, ...] | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether the cell may be ranked: it is defined, and its test rows were not trained on."""
        return self.status == "ok" and self.ranking is not None and self.leakage != "test-rows"


def read_cells(results: Path) -> list[Cell]:
    """Every cell below a results folder, in the order of the file names.

    Raises:
        ScoreTableError: files that do not fit the schema; the message names each of them and what is wrong.
    """
    cells, wrong = [], []
    for path in files.find_cells(results):
        try:
            cells.append(_cell(files.read_cell(path), path.relative_to(results)))
        except ScoreTableError as error:
            wrong.append(str(error))
        except (AttributeError, KeyError, TypeError) as error:  # statistics have no schema of their own
            wrong.append(f"{path}: its statistics cannot be read: {error!r}")
    if wrong:
        raise ScoreTableError(f"{len(wrong)} results files cannot be read:\n" + "\n".join(wrong))
    return cells


def read_targets(results: Path, cells: Sequence[Cell]) -> Mapping[str, Any] | None:
    """The rows that the cells of one data set share; ``None`` where they may not be published.

    Raises:
        ScoreTableError: cells that were measured on different rows, or targets that do not fit them.
    """
    first = cells[0]
    for other in cells[1:]:
        for what in ("ref", "split", "n", "rows_sha256", "targets"):
            a, b = getattr(first.dataset, what), getattr(other.dataset, what)
            if a != b:
                raise ScoreTableError(
                    f"{first.file} has {what} {a!r} and {other.file} has {b!r}: they are not measured on the "
                    "same rows; run rali-zoo benchmark again for the older one"
                )
    own = {"targets": first.dataset.targets, "rows_sha256": first.dataset.rows_sha256}
    targets = files.read_targets(results, {"dataset": own})
    if targets is not None:
        odd = [c.file for c in cells if c.scores is not None and len(c.scores) != len(targets["ids"])]
        if odd:
            count = len(targets["ids"])
            raise ScoreTableError(
                f"{own['targets']} has {count} ids, and another number of scores has {odd[0]}"
            )
    return targets


def _cell(content: Mapping[str, Any], path: Path) -> Cell:
    statistics = content["statistics"] or {}
    scores = content["scores"]
    return Cell(
        file=path.as_posix(),
        model=_model(content["model"], path.parent.as_posix()),
        dataset=_dataset(content["dataset"], path.stem),
        status=content["status"],
        reason=content["reason"],
        n=content["n"],
        failed=content["failed"],
        leakage=content["leakage"]["flag"],
        leakage_why=content["leakage"]["why"],
        failures=tuple((f["id"], f["error"]) for f in content["failures"]),
        ranking=_ranking(statistics),
        metrics={key: _estimate(statistics.get(key)) for key in METRICS},
        by_distortion={
            name: (row["n"], row["srcc"]) for name, row in (statistics.get("by_distortion") or {}).items()
        },
        scores=None if scores is None else tuple(scores),
        statistics=statistics,
        cost=content["cost"],
        provenance=content["provenance"],
    )


def _model(raw: Mapping[str, Any], key: str) -> Model:
    sets = raw["training_sets"]
    return Model(
        key=key,
        name=raw["name"],
        ref=raw["ref"],
        revision=raw["revision"],
        kind=raw["kind"],
        source=raw["source"],
        training_sets=None if sets is None else tuple(sets),
        native_scale=raw["native_scale"],
        licence=raw["licence"],
        parameters=raw["parameters"]["used"],
    )


def _dataset(raw: Mapping[str, Any], key: str) -> Dataset:
    names = ("ref", "name", "split", "synthetic", "n", "limit", "rows_sha256", "targets")
    return Dataset(key=key, **{name: raw[name] for name in names})


def _estimate(raw: Mapping[str, Any] | None) -> Estimate:
    return Estimate(raw["value"], raw["low"], raw["high"]) if raw else Estimate()


def _ranking(statistics: Mapping[str, Any]) -> float | None:
    raw = statistics.get("srcc_failures_worst")
    return raw["value"] if isinstance(raw, Mapping) else raw


#: Further statistics of a cell: name to its place in ``statistics``.
MORE = {
    "ksplit_median": ("ksplit", "median"),
    "d_test": ("tests", "d_test", "value"),
    "l_test": ("tests", "l_test", "value"),
    "p_test": ("tests", "p_test", "value"),
    "krasula_auc_different": ("tests", "krasula", "auc_different"),
    "krasula_auc_better": ("tests", "krasula", "auc_better"),
    "rmse_raw": ("rmse_raw", "value"),
    "ties": ("ties",),
    "distinct": ("distinct",),
}


def more_numbers(cell: Cell | None) -> dict[str, float | None]:
    """The statistics of :data:`MORE`; ``None`` for what the data set or the scorer does not allow."""
    found: dict[str, float | None] = {}
    for name, place in MORE.items():
        value: Any = cell.statistics if cell else None
        for key in place:
            value = value.get(key) if isinstance(value, Mapping) else None
        found[name] = value
    return found


def cost_numbers(cell: Cell | None) -> dict[str, float | None]:
    """The numbers of a cell's cost under the names of the tables; ``None`` for what was not measured.

    ``latency_ratio`` is to the suite's reference model, whose latency was measured in turn with this one's.
    """
    cost = (cell.cost if cell else None) or {}
    total = (cost.get("latency") or {}).get("total") or {}
    seconds = {end: total.get(end) for end in ("p50", "p95")}
    return {
        "parameters": (cost.get("parameters") or {}).get("used"),
        "flops": cost.get("flops"),
        "peak_memory_mb": cost.get("peak_memory_mb"),
        "load_seconds": cost.get("load_seconds"),
        **{f"latency_{end}_ms": None if v is None else round(v * 1000, 4) for end, v in seconds.items()},
        "latency_ratio": (cost.get("ratio") or {}).get("median"),
        "throughput_1": (cost.get("throughput") or {}).get("1"),
        "throughput_16": (cost.get("throughput") or {}).get("16"),
    }
