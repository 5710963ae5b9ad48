"""Results are files: one JSON a model, revision and data set, as the models here state and check them.

``<results>/<model>/<revision>/<data set>.json`` is a :class:`Cell`. It holds nothing that differs between two
runs on one machine, so that a run that was stopped and resumed leaves the same bytes. What differs (times,
the date) stands beside it in ``<data set>.cost.json``. ``<results>/datasets/<data set>.json`` holds the
:class:`Targets` that the cells of a data set share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    PrivateAttr,
    ValidationError,
    create_model,
    model_validator,
)

from rali_zoo.bench.response import Response
from rali_zoo.bench.schema import Correlation, Count, Name, NotNegative, Part, checked, read_json
from rali_zoo.data.card import Question
from rali_zoo.errors import ScoreTableError
from rali_zoo.paths import text_sha256
from rali_zoo.report import STATISTICS, slug, write_json

SCHEMA: Final = 2
TARGETS = "datasets"
#: Folder in place of a revision for a model that could not be loaded.
NO_REVISION = "unavailable"
SHOWN_FAILURES = 20

Status = Literal["ok", "undefined", "unavailable", "failed"]
Flag = Literal["none", "same-dataset", "test-rows", "unknown"]
Source = Literal["rali_zoo", "pyiqa", "piq", "torchmetrics", "classic", "csv", "levels", "reported"]
Share = Annotated[float, Field(ge=0, le=1)]
#: Objects whose keys depend on what was possible; checked by computing them again.
Free = dict[str, JsonValue]


class Estimate(Part):
    """A statistic with its 95 % bootstrap interval; ``None`` where something is undefined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Group(Part):
    """SRCC of the images of one distortion or level."""

    n: Count
    failed: Count
    srcc: Correlation | None


def _estimate_field(low: float, high: float) -> Any:
    def inside(estimate: Estimate | None) -> Estimate | None:
        for end in ("value", "low", "high"):
            value = getattr(estimate, end, None)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{end} {value:g} cannot be: it lies in [{low:g}, {high:g}]")
        return estimate

    return (Annotated[Estimate | None, AfterValidator(inside)], None)


#: One field a row of the table of statistics; ``None`` = not computed: the file is older than the row.
_Estimates: Any = create_model(
    "_Estimates", __base__=Part, **{s.name: _estimate_field(s.low, s.high) for s in STATISTICS.values()}
)


class Statistics(_Estimates):  # type: ignore[misc]
    """Statistics of one scorer on one data set.

    Besides the fields below there is one :class:`Estimate` for every row of
    :data:`rali_zoo.report.STATISTICS`; ``None`` = not computed.

    Attributes:
        n: images of the cell.
        failed: those without a finite score.
        status: ``undefined`` if the scored images allow no correlation, with the reason.
        reason: empty for ``ok``.
        srcc_failures_worst: SRCC with every failed image ranked where it hurts most; rankings sort by it.
        ties: share of the scored images whose score another image has too.
        distinct: number of different scores.
        fit: of the logistic mapping: ``form``, ``parameters``, ``converged``, ``start``, ``starts``, and
            ``linear_cost_ratio`` = residual sum of squares over that of the best line; or ``reason``.
        interval: ``level``, ``unit`` (what was resampled: ``image`` or ``content``), ``units``,
            ``resamples``, and ``undefined`` = resamples without an SRCC; or the ``reason`` there is none.
        ksplit: SRCC over ten random parts with 20 % of the contents: ``median``, ``low``, ``high``, …
        by_distortion: class to its group; an image with several classes is in each.
        by_level: severity to its group; images of unknown level are in none.
        tests: ``d_test``, ``l_test``, ``p_test``, ``krasula``; each has ``reason`` where the data do not
            allow it.
    """

    n: Count
    failed: Count
    status: Literal["ok", "undefined"]
    reason: str
    srcc_failures_worst: Correlation | None = None
    ties: Share | None = None
    distinct: Count = 0
    fit: Free = {}
    interval: Free = {}
    ksplit: Free = {}
    by_distortion: dict[str, Group] = {}
    by_level: dict[str, Group] = {}
    tests: dict[str, Free] = {}

    def estimate(self, name: str) -> Estimate:
        """The statistic of a row of the table; empty where it was not computed."""
        found: Estimate | None = getattr(self, name)
        return found or Estimate()


class Used(Part):
    """Parameters that took part in a score; ``None`` = not counted."""

    used: Count | None


class Model(Part):
    """Who was measured.

    Attributes:
        ref: what ``load_model`` takes.
        name: as it is shown.
        revision: of the weights or the library.
        settings: what a score depends on besides weights and image: preprocessing, precision, how an answer
            becomes a score; empty in files of schema 1.
        kind: ``NR`` without, ``FR`` with a reference image, ``reported`` = numbers of others.
        source: library the scores come from.
        training_sets: data sets it was trained on; ``None`` = not known.
        native_scale: its scores are not in MOS units.
        licence: of the model, as its authors state it.
        parameters: used for a score.
    """

    ref: Name
    name: Name
    revision: Name
    settings: str = ""
    kind: Literal["NR", "FR", "reported"]
    source: Source
    training_sets: list[str] | None
    native_scale: bool
    licence: str
    parameters: Used

    @cached_property
    def key(self) -> str:
        """``slug/revision``, the folders of its results."""
        return f"{slug(self.name)}/{_revision(self.revision)}"


class Dataset(Part):
    """What was measured on.

    Attributes:
        ref: of the data set.
        name: with the number of rows, if they were drawn.
        split: which rows.
        card_hash: of its facts.
        synthetic: whether its labels come from a rule.
        ordered: whether nobody and no rule scored its images, and what is known is their order: degradations of
            rising levels. Its cells have a ``response`` in place of ``statistics``.
        question: what its raters were asked; means are over data sets of one question.
        n: rows.
        limit: how many were drawn; ``None`` for all.
        raters: ratings behind each MOS, where that is published.
        rows_sha256: of ids and labels.
        images_sha256: of the bytes of all images and references; ``None`` in files of schema 1, and for
            scores from a file.
        targets: file of their MOS; ``None`` where they may not be published.
    """

    ref: Name
    name: Name
    split: Name
    card_hash: str
    synthetic: bool
    ordered: bool = False
    question: Question = "quality"
    n: Count
    limit: Count | None
    raters: Annotated[float, Field(ge=1)] | None = None
    rows_sha256: Name
    images_sha256: str | None = None
    targets: str | None
    _key: str = PrivateAttr("")

    @property
    def key(self) -> str:
        """Name of its files without suffix."""
        return self._key


class Leakage(Part):
    """Whether a model saw the test set, and why that is thought."""

    flag: Flag
    why: str


class Failure(Part):
    """An image without a score."""

    id: str
    error: Name


class Provenance(Part):
    """Versions, hardware and seed of a run; the same on two runs on one machine."""

    versions: dict[str, str]
    hardware: Free
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    resamples: Annotated[int, Field(ge=1, le=1_000_000)]


class Range(Part):
    """Seconds: median and 95th percentile."""

    p50: NotNegative
    p95: NotNegative


class Stages(Part):
    """Times of one image by stage; ``None`` where a scorer cannot be taken apart."""

    decode: Range | None
    preprocess: Range | None
    encode: Range | None
    head: Range | None
    total: Range | None


class Ratio(Part):
    """Latency in parts of a reference model's: median and quartiles."""

    to: str
    median: NotNegative
    low: NotNegative
    high: NotNegative


class Parameters(Part):
    """Parameters that took part in a score, and all that were loaded; ``None`` = not counted."""

    used: Count | None
    loaded: Count | None


class Cost(Part):
    """What a score costs; see :func:`rali_zoo.bench.cost.measure`."""

    parameters: Parameters
    flops: Count | None
    peak_memory_mb: float | None
    load_seconds: NotNegative | None
    latency: Stages
    images: Count
    ratio: Ratio | None
    throughput: dict[str, NotNegative]
    energy_j: NotNegative | None
    energy_source: str | None
    threads: Count
    device: str
    precision: str
    size: list[Count] | None
    hardware: Free
    notes: list[str]


class CostFile(Part):
    """The file beside a cell: what differs between two runs."""

    version: Literal[1] = Field(alias="schema")
    written: Name
    problem: str
    cost: Cost | None


class Targets(Part):
    """The rows that the cells of a data set share; columns of equal length.

    ``mos`` and ``std`` are empty where only the order of the images is known.
    """

    ref: Name
    split: Name
    ids: list[str]
    mos: list[Annotated[float, Field(ge=1, le=5)]]
    std: list[NotNegative | None]
    content: list[str]
    distortion: list[str]
    level: list[int]
    rows_sha256: str

    @model_validator(mode="after")
    def _columns(self) -> Self:
        unscored = ("mos", "std") if not self.mos and not self.std else ()
        sizes = {k: len(v) for k, v in self if isinstance(v, list) and k not in unscored}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"columns of different lengths: {sizes}")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("ids are not distinct")
        if rows_sha256(self.model_dump()) != self.rows_sha256:
            raise ValueError("rows_sha256 is not that of its rows")
        return self


class Cell(Part):
    """One model on one data set.

    Attributes:
        version: of the schema.
        model: who.
        dataset: on what.
        status: ``ok``, ``undefined`` (no correlation), ``unavailable`` (it could not be run) or ``failed``.
        reason: why it is not ``ok``.
        leakage: whether the model saw the test set.
        n: images with a score.
        failed: images without.
        failures: the first of them.
        scores: one a row of the targets, higher is better, ``None`` = failed; ``None`` where they may not be
            published.
        statistics: all numbers; ``None`` also for a data set of which the order is known and no scores.
        response: what takes their place there.
        provenance: versions, hardware and seed.
    """

    version: Literal[2] = Field(alias="schema")
    model: Model
    dataset: Dataset
    status: Status
    reason: str
    leakage: Leakage
    n: Count
    failed: Count
    failures: list[Failure]
    scores: list[float | None] | None
    statistics: Statistics | None
    response: Response | None = None
    provenance: Provenance
    _file: str = PrivateAttr("")
    _beside: CostFile | None = PrivateAttr(None)

    @property
    def file(self) -> str:
        """The results file, relative to the results folder."""
        return self._file

    @property
    def cost(self) -> Cost | None:
        """What a score costs, from the file beside; ``None`` where it was not measured."""
        return self._beside.cost if self._beside else None

    @property
    def written(self) -> str | None:
        """When it was measured."""
        return self._beside.written if self._beside else None

    @property
    def measured(self) -> bool:
        """Whether the model was run."""
        return self.status in ("ok", "undefined")

    @property
    def ranking(self) -> float | None:
        """What a board is sorted by: SRCC with every failed image in the worst place.

        Of a degradation column, the share of ordered pairs, where a failed image orders none.
        """
        if self.response:
            return self.response.ordered.value
        return self.statistics.srcc_failures_worst if self.statistics else None

    @property
    def counts(self) -> bool:
        """Whether the cell may be ranked: it is defined, and its test rows were not trained on."""
        return self.status == "ok" and self.ranking is not None and self.leakage.flag != "test-rows"

    def estimate(self, name: str) -> Estimate:
        """A statistic of the table, empty where it was not computed."""
        return self.statistics.estimate(name) if self.statistics else Estimate()

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        """Numbers of images, failures and scores agree with each other and with the status."""
        if wrong := list(_disagreements(self)):
            raise ValueError("\n  ".join(wrong))
        return self


def _disagreements(cell: Cell) -> Iterator[str]:
    rows, n, failed, scores = cell.dataset.n, cell.n, cell.failed, cell.scores
    if cell.measured and n + failed != rows:
        yield f"n {n} and failed {failed} do not make up the {rows} rows of the data set"
    yield from _kind(cell)
    if cell.status != "ok" and not cell.reason:
        yield f"status is {cell.status!r}, but reason is empty"
    if len(cell.failures) != min(failed, SHOWN_FAILURES):
        yield (
            f"failures lists {len(cell.failures)} images; of {failed} failed ones the first "
            f"{SHOWN_FAILURES} are expected"
        )
    if scores is None:
        if cell.measured and cell.dataset.targets is not None:
            yield "scores are missing; give one a row of the targets, null where there is none"
        return
    if cell.dataset.targets is None:
        yield "scores are given, but dataset.targets is null: nobody can tell which images they are of"
    if len(scores) != rows:
        yield f"scores has {len(scores)} numbers for {rows} rows"
    given = sum(s is not None for s in scores)
    if given != n:
        yield f"n is {n}, but scores has {given} numbers"


def _kind(cell: Cell) -> Iterator[str]:
    """A cell holds the numbers of its data set's kind and no others."""
    statistics, ordered = cell.statistics is not None, cell.dataset.ordered
    if cell.measured and not ordered and not statistics:
        yield f"status is {cell.status!r}, but there are no statistics"
    if cell.measured and ordered and cell.response is None:
        yield f"status is {cell.status!r}, but there is no response"
    if statistics and ordered or cell.response is not None and not ordered:
        kind = "statistics are" if statistics else "a response is"
        yield f"{kind} given, but dataset.ordered is {str(ordered).lower()}"


# ---- places ----


def _revision(revision: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", revision)[:12].strip(".") or "none"


def cell_path(results: Path, name: str, revision: str, dataset: str) -> Path:
    """Where a cell stands: by the model's name, its revision and the data set's slug.

    Args:
        results: folder of all results.
        name: of the model.
        revision: of its weights; twelve characters of it are used.
        dataset: slug of the data set.
    """
    return results / slug(name) / _revision(revision) / f"{dataset}.json"


def cost_path(cell: Path) -> Path:
    """The file beside a cell that holds what differs between two runs."""
    return cell.with_name(f"{cell.stem}.cost.json")


def rows_sha256(targets: Mapping[str, object]) -> str:
    """Identity of a data set's rows: of every column of its targets, in order."""
    columns = {k: targets[k] for k in ("ids", "mos", "std", "content", "distortion", "level")}
    return text_sha256(json.dumps(columns, sort_keys=True))


def find_cells(folder: Path) -> list[Path]:
    """Every cell of a results folder, or of the folder of one model or revision in it; in order of paths."""
    for pattern in ("*/*/*.json", "*/*.json", "*.json"):
        found = [p for p in folder.glob(pattern) if not p.name.endswith(".cost.json")]
        if cells := [p for p in found if TARGETS not in p.parts[-3:-1]]:
            return sorted(cells, key=lambda p: p.parts)
    return []


# ---- reading and writing ----


def write_cell(path: Path, cell: Cell) -> None:
    """Write a cell, whole or not at all."""
    write_json(path, cell.model_dump(mode="json", by_alias=True))


def read_cell(path: Path, before: bytes | None = None) -> Cell:
    """A cell, with what stands beside it.

    Args:
        path: of the cell.
        before: its bytes, if they fitted the schema before: keys that stand twice are not looked for again.

    Raises:
        ScoreTableError: the file, or the one beside it, does not fit the schema; every fault is named.
    """
    cell = None
    if before is not None:
        with suppress(ValidationError):  # what is of an older schema
            cell = Cell.model_validate_json(before)
    if cell is None:
        cell = checked(Cell, _upgraded(read_json(path)), f"{path} does not fit the schema", ScoreTableError)
    beside = cost_path(path)
    if beside.is_file():
        cell._beside = checked(CostFile, read_json(beside), str(beside), ScoreTableError)
    cell._file = "/".join(path.parts[-3:])
    cell.dataset._key = path.stem
    return cell


def _upgraded(content: object) -> object:
    """A cell of schema 1 as one of schema 2: errors by their present names, versions in one place."""
    if not isinstance(content, dict) or content.get("schema") != 1:
        return content
    new = {**content, "schema": SCHEMA}
    if new.get("cost") is None:
        new.pop("cost", None)
    statistics, origin = new.get("statistics"), new.get("provenance")
    if isinstance(statistics, dict):
        names = {"rmse": "rmse_mapped", "rmse_raw": "rmse"}
        new["statistics"] = {names.get(key, key): value for key, value in statistics.items()}
    if isinstance(origin, dict) and isinstance(origin.get("packages"), dict):
        origin = dict(origin)
        if origin.get("written") is None:
            origin.pop("written", None)
        own = {"rali-zoo": origin.pop("rali_zoo", None)}
        own |= {name: origin.pop(name, None) for name in ("python", "torch")}
        new["provenance"] = {**origin, "versions": {**own, **origin.pop("packages")}}
        new["provenance"].pop("packages", None)
    return new


def read_targets(results: Path, cells: Sequence[Cell]) -> Targets | None:
    """The rows that the cells of one data set share; ``None`` where they may not be published.

    Raises:
        ScoreTableError: cells that were measured on different rows, or targets that are missing, do not fit
            the schema, or are other rows than the cells'.
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
    name = first.dataset.targets
    if name is None:
        return None
    path = results / name
    if not path.resolve().is_relative_to(results.resolve()):
        raise ScoreTableError(f"{first.file}: dataset.targets: {name!r} points out of {results}")
    targets = checked(Targets, read_json(path), str(path), ScoreTableError)
    if targets.rows_sha256 != first.dataset.rows_sha256:
        raise ScoreTableError(
            f"{path}: its rows are not those that {first.file} was measured on (rows_sha256 differ)"
        )
    return targets
