"""The runner: a model is loaded once and meets the suite's data sets; every cell becomes a file.

Nothing that a user or an image does ends a run: a model that cannot be loaded, a metric that lacks what it
needs and an image that cannot be scored leave their reasons in the files. A cell that is there and stands on
the same weights, settings, images, labels, versions and seed is not made again; one that was interrupted goes
on from the cached predictions. A cell that failed never replaces one that holds numbers.
"""

from __future__ import annotations

import gc
import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rali_zoo.bench.results import (
    NO_REVISION,
    Cell,
    CostFile,
    Leakage,
    Provenance,
    Status,
    cell_path,
    cost_path,
    find_cells,
    read_cell,
    write_cell,
)
from rali_zoo.errors import RaliZooError, ScoreTableError
from rali_zoo.report import hardware, versions, write_json

if TYPE_CHECKING:
    from rali_zoo.bench.cache import Outcome
    from rali_zoo.bench.cost import Image, Loading
    from rali_zoo.bench.rows import Rows
    from rali_zoo.bench.suite import Entry, Suite
    from rali_zoo.protocols import Scorer

#: Called with a line of progress.
Log = Callable[[str], None]
_SECONDS = 20.0  # between two lines on one cell
_POOL = 16  # images that cost is measured on


@dataclass(frozen=True)
class Job:
    """One model and the data sets it meets in one process.

    Attributes:
        entry: the model.
        rows: of the data sets.
        suite: its seed, resamples and cost.
        results: folder of the results files.
        root: folder of the data sets.
        device: where to compute.
    """

    entry: Entry
    rows: tuple[Rows, ...]
    suite: Suite
    results: Path
    root: str
    device: str

    @property
    def origin(self) -> Provenance:
        """What every cell of the job stands on besides model and data."""
        seed, resamples = self.suite.seed, self.suite.resamples
        return Provenance(versions=versions(), hardware=hardware(), seed=seed, resamples=resamples)


@dataclass(frozen=True)
class Done:
    """What became of a cell.

    Attributes:
        path: of its file.
        cell: what this run found; where it failed, the file may hold the numbers of an earlier run.
        fresh: whether it was made in this run.
        seconds: that it took.
    """

    path: Path
    cell: Cell
    fresh: bool
    seconds: float


def run_job(job: Job, log: Log = lambda line: None) -> list[Done]:
    """Run one model on its data sets and write their files.

    Args:
        job: what to do.
        log: takes lines of progress.

    Returns:
        One entry a data set, in order.
    """
    from rali_zoo.bench import cost

    _import_library(job.entry.source)
    try:
        with cost.loading(job.device) as load:
            scorer = _load(job.entry.ref, job.device)
    except RaliZooError as error:
        return [without(job, rows, "unavailable", str(error), log) for rows in job.rows]
    except Exception as error:  # whatever a library raises is a fact about its metric, not the end of a run
        return [without(job, rows, "failed", f"{type(error).__name__}: {error}", log) for rows in job.rows]
    done = [_run_cell(job, scorer, rows, load, log) for rows in job.rows]
    del scorer
    gc.collect()
    return done


def _load(ref: str, device: str) -> Scorer:
    from rali_zoo.zoo import load_model

    return cast("Scorer", load_model(ref, device))


@lru_cache(maxsize=1)
def reference_scorer(ref: str, device: str) -> Scorer:
    """The scorer whose latency is measured in turn with every other one's."""
    return _load(ref, device)


def _import_library(source: str) -> None:
    """Import a metric's library before its loading is timed: it is imported once, for all of its metrics."""
    name = "rali_zoo.models" if source in ("rali_zoo", "levels") else source
    if source != "csv" and importlib.util.find_spec(name) is not None:
        try:
            importlib.import_module(name)
        except Exception:  # loading the metric will say what is wrong with it
            return


# ---- a cell ----


def _run_cell(job: Job, scorer: Scorer, rows: Rows, load: Loading, log: Log) -> Done:
    start = time.monotonic()
    path = cell_path(job.results, job.entry.name or job.entry.ref, str(scorer.revision), rows.slug)
    earlier = _earlier(path)
    timed = job.suite.cost is None or cost_path(path).is_file()
    if earlier is not None and timed and _stands(job, scorer, earlier, rows):
        return _logged(job, Done(path, earlier, False, 0.0), rows, log)
    try:
        cell, outcomes = _measure(job, scorer, rows, log)
    except RaliZooError as error:
        cell, outcomes = _empty(job, scorer, rows, "unavailable", str(error)), []
    except OSError:  # of the cache: the machine's fault, which is no fact about the model
        raise
    except Exception as error:
        cell, outcomes = _empty(job, scorer, rows, "failed", f"{type(error).__name__}: {error}"), []
    if timed and cell.same(earlier):  # images that failed were tried again, in vain
        return _logged(job, Done(path, cell, False, time.monotonic() - start), rows, log)
    if cell.measured or earlier is None or not earlier.measured:
        write_cell(path, cell)
        cost_path(path).unlink(missing_ok=True)  # of the cell that was there before
        _forget_unavailable(job, rows)
        if cell.measured:
            _write_cost(job, scorer, rows, outcomes, load, path)
        cell = read_cell(path)
    else:
        log(f"{job.entry.name}: {path} keeps the numbers of an earlier run, since this one has none")
    return _logged(job, Done(path, cell, True, time.monotonic() - start), rows, log)


def _earlier(path: Path) -> Cell | None:
    try:
        return read_cell(path)
    except ScoreTableError:
        return None


def _stands(job: Job, scorer: Scorer, cell: Cell, rows: Rows) -> bool:
    """Whether a cell would come out the same; failed images are always tried again."""
    from rali_zoo.bench.cell import model_entry

    model = model_entry(job.entry, scorer, cell.model.parameters.used)
    same = cell.model.same(model) and cell.dataset.same(rows.entry) and cell.provenance.same(job.origin)
    return same and cell.measured and not cell.failed


def _measure(job: Job, scorer: Scorer, rows: Rows, log: Log) -> tuple[Cell, list[Outcome]]:
    from rali_zoo.bench.cell import measured_cell
    from rali_zoo.bench.cost import used
    from rali_zoo.bench.predict import predict

    leak = _leakage(job, scorer, rows)
    if scorer.needs_reference and (reason := rows.without_reference()):
        return _empty(job, scorer, rows, "unavailable", reason), []
    said = time.monotonic()

    def advance(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > _SECONDS:
            said = time.monotonic()
            log(f"{job.entry.name} on {rows.ref}: {done}/{total} images")

    outcomes = predict(scorer, rows.frame, job.entry.source, job.entry.batch_size, advance)
    images = _images(scorer, rows, outcomes)
    count = used(scorer, images[0]).parameters if images else None
    return measured_cell(job.entry, scorer, rows, outcomes, count, leak, job.origin), outcomes


def _write_cost(
    job: Job, scorer: Scorer, rows: Rows, outcomes: list[Outcome], load: Loading, path: Path
) -> None:
    """What differs between two runs: the date, and what was timed if the suite asks for it."""
    from rali_zoo.bench.cell import tidy
    from rali_zoo.bench.cost import measure

    plan, found, problem = job.suite.cost, None, ""
    images = _images(scorer, rows, outcomes)
    if plan is not None and images:
        try:
            against = reference_scorer(plan.against, job.device) if plan.against else None
            found = measure(scorer, images, plan, load, job.device, against)
        except Exception as error:  # its scores are there and stay
            problem = f"cost could not be measured: {type(error).__name__}: {error}"
    written = datetime.now(UTC).isoformat(timespec="seconds")
    beside = CostFile(schema=1, written=written, cost=found, problem=tidy(problem))
    write_json(cost_path(path), beside.model_dump(mode="json", by_alias=True))


def _images(scorer: Scorer, rows: Rows, outcomes: Sequence[Outcome]) -> list[Image]:
    """Some that the scorer can score, with what they are compared with."""

    good = [i for i, o in enumerate(outcomes) if not o.error][:_POOL]
    frame = rows.frame.iloc[good]
    references = frame["reference"] if scorer.needs_reference else [""] * len(frame)
    return [(str(p), str(r)) for p, r in zip(frame["path"], references, strict=True)]


# ---- cells that cannot be ----


def _leakage(job: Job, scorer: Scorer, rows: Rows) -> Leakage:
    from rali_zoo.bench.leakage import leakage

    return leakage(scorer.training_sets, rows, job.root)


def _empty(job: Job, scorer: Scorer | None, rows: Rows, status: Status, reason: str) -> Cell:
    from rali_zoo.bench.cell import empty_cell

    leak = Leakage(flag="unknown", why="it could not be loaded")
    if scorer is not None:
        leak = _leakage(job, scorer, rows)
    return empty_cell(job.entry, scorer, rows, status, reason, leak, job.origin)


def without(job: Job, rows: Rows, status: Status, reason: str, log: Log) -> Done:
    """A model that cannot be loaded: its cell says so, unless an earlier run measured it.

    Args:
        job: of the model.
        rows: of the data set.
        status: ``unavailable`` or ``failed``.
        reason: in a sentence.
        log: takes a line on it.
    """
    path = cell_path(job.results, job.entry.name or job.entry.ref, NO_REVISION, rows.slug)
    cell = _empty(job, None, rows, status, reason)
    earlier = [p for p in find_cells(path.parents[1]) if p.name == path.name and p != path]
    if not earlier:
        write_cell(path, cell)
    return _logged(job, Done(path, cell, True, 0.0), rows, log)


def _forget_unavailable(job: Job, rows: Rows) -> None:
    """It can be loaded now, so what was said when it could not does not hold any more."""
    path = cell_path(job.results, job.entry.name or job.entry.ref, NO_REVISION, rows.slug)
    path.unlink(missing_ok=True)


def _logged(job: Job, done: Done, rows: Rows, log: Log) -> Done:
    cell = done.cell
    found = f"{cell.status}: {cell.reason}" if cell.reason else cell.status
    if cell.status == "ok" and cell.response:
        found = f"ordered {cell.ranking:.3f}"
    elif cell.status == "ok":
        found = f"SRCC {cell.estimate('srcc').value:.3f}"
    how = f"{done.seconds:.1f} s" if done.fresh else "there already"
    log(f"{job.entry.name} on {rows.ref}: {found}, n {cell.n}, failed {cell.failed} ({how})")
    return done
