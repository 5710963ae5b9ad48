"""The runner: a model is loaded once and meets the suite's data sets; every cell becomes a file.

Nothing that a user or an image does ends a run: a model that cannot be loaded, a metric that lacks what it
needs and an image that cannot be scored leave their reasons in the files. A cell that is there with the same
revision, rows, versions and seed is not made again; one that was interrupted goes on from the cached
predictions.
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
from typing import TYPE_CHECKING, Any

from rali_zoo.bench.results import (
    NO_REVISION,
    Json,
    cell_path,
    cost_path,
    find_cells,
    read_cell,
    read_json,
    write_json,
)
from rali_zoo.errors import RaliZooError, ScoreTableError

if TYPE_CHECKING:
    from rali_zoo.bench.cache import Outcome
    from rali_zoo.bench.cost import Image, Loading
    from rali_zoo.bench.rows import Rows
    from rali_zoo.bench.suite import Contender, Suite

#: Called with a line of progress.
Say = Callable[[str], None]
_SECONDS = 20.0  # between two lines on one cell
_POOL = 16  # images that cost is measured on


@dataclass(frozen=True)
class Job:
    """One model and the data sets it meets in one process.

    Attributes:
        contender: the model.
        rows: of the data sets.
        suite: tells seed, resamples and cost.
        results: folder of the results files.
        root: folder of the data sets.
        device: where to compute.
    """

    contender: Contender
    rows: tuple[Rows, ...]
    suite: Suite
    results: Path
    root: str
    device: str


@dataclass(frozen=True)
class Done:
    """What became of a cell.

    Attributes:
        path: of its file.
        cell: its content; ``cost`` included.
        fresh: whether it was made in this run.
        seconds: that it took.
    """

    path: Path
    cell: Json
    fresh: bool
    seconds: float


def run_job(job: Job, say: Say = lambda line: None) -> list[Done]:
    """Run one model on its data sets and write their files.

    Args:
        job: what to do.
        say: takes lines of progress.

    Returns:
        One entry a data set, in order.
    """
    from rali_zoo.bench import cost

    _import_library(job.contender.source)
    try:
        with cost.loading(job.device) as load:
            scorer = _load(job.contender.ref, job.device)
    except RaliZooError as error:
        return [_without(job, rows, "unavailable", str(error), say) for rows in job.rows]
    except Exception as error:  # whatever a library raises is a fact about its metric, not the end of a run
        return [_without(job, rows, "failed", f"{type(error).__name__}: {error}", say) for rows in job.rows]
    done = [_run_cell(job, scorer, rows, load, say) for rows in job.rows]
    del scorer
    gc.collect()
    return done


def _load(ref: str, device: str) -> Any:
    from rali_zoo.zoo import load_model

    return load_model(ref, device)


@lru_cache(maxsize=1)
def reference_scorer(ref: str, device: str) -> Any:
    """The scorer whose latency is measured in turn with every other one's."""
    return _load(ref, device)


def _import_library(source: str) -> None:
    """Import a metric's library before its loading is timed: it is imported once, for all of its metrics."""
    name = "rali_zoo.models" if source == "rali_zoo" else source
    if source != "csv" and importlib.util.find_spec(name) is not None:
        try:
            importlib.import_module(name)
        except Exception:  # loading the metric will say what is wrong with it
            return


# ---- a cell ----


def _run_cell(job: Job, scorer: Any, rows: Rows, load: Loading, say: Say) -> Done:
    from rali_zoo.bench.provenance import provenance

    start = time.monotonic()
    path = cell_path(job.results, job.contender.name, str(scorer.revision), rows.slug)
    origin = provenance(job.suite.seed, job.suite.resamples)
    if _finished(job, scorer, path, rows, origin) and (job.suite.cost is None or cost_path(path).is_file()):
        return _told(job, Done(path, read_cell(path), False, 0.0), rows, say)
    try:
        cell, outcomes = _measure(job, scorer, rows, origin, say)
        write_json(path, cell)
        _forget_unavailable(job, rows)
        if cell["status"] in ("ok", "undefined"):
            _write_cost(job, scorer, rows, outcomes, load, path)
    except RaliZooError as error:
        cell = _empty(job, scorer, rows, "unavailable", str(error), origin)
        write_json(path, cell)
    except Exception as error:
        cell = _empty(job, scorer, rows, "failed", f"{type(error).__name__}: {error}", origin)
        write_json(path, cell)
    return _told(job, Done(path, read_cell(path), True, time.monotonic() - start), rows, say)


def _measure(job: Job, scorer: Any, rows: Rows, origin: Json, say: Say) -> tuple[Json, list[Outcome]]:
    from rali_zoo.bench.cell import measured_cell
    from rali_zoo.bench.cost import used
    from rali_zoo.bench.leakage import leakage
    from rali_zoo.bench.predict import needs_reference, predict

    leak = leakage(_training_sets(scorer), rows, job.root)
    if needs_reference(scorer) and (reason := rows.without_reference()):
        return _empty(job, scorer, rows, "unavailable", reason, origin), []
    said = time.monotonic()

    def advance(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > _SECONDS:
            said = time.monotonic()
            say(f"{job.contender.name} on {rows.ref}: {done}/{total} images")

    source, batch_size = job.contender.source, job.contender.batch_size
    outcomes = predict(scorer, rows.frame, source, batch_size, advance)
    images = _images(scorer, rows, outcomes)
    count = used(scorer, images[0]).parameters if images else None
    return measured_cell(job.contender, scorer, rows, outcomes, count, leak, origin), outcomes


def _write_cost(
    job: Job, scorer: Any, rows: Rows, outcomes: list[Outcome], load: Loading, path: Path
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
    write_json(cost_path(path), {"schema": 1, "written": written, "cost": found, "problem": tidy(problem)})


def _images(scorer: Any, rows: Rows, outcomes: Sequence[Outcome]) -> list[Image]:
    """Some that the scorer can score, with what they are compared with."""
    from rali_zoo.bench.predict import needs_reference

    good = [i for i, o in enumerate(outcomes) if not o.error][:_POOL]
    frame = rows.frame.iloc[good]
    references = frame["reference"] if needs_reference(scorer) else [""] * len(frame)
    return [(str(p), str(r)) for p, r in zip(frame["path"], references, strict=True)]


def _training_sets(scorer: Any) -> tuple[str, ...] | None:
    sets = getattr(scorer, "training_sets", None)
    return None if sets is None else tuple(sets)


# ---- cells that are there, and cells that cannot be ----


def _finished(job: Job, scorer: Any, path: Path, rows: Rows, origin: Json) -> bool:
    """Whether the cell is there and would come out the same: model, rows, versions, hardware, seed."""
    from rali_zoo.bench.cell import model_entry

    try:
        cell = read_json(path)
        model = model_entry(job.contender, scorer, cell["model"]["parameters"]["used"])
        same = (cell["model"], cell["dataset"], cell["provenance"]) == (model, rows.entry, origin)
        return same and cell["status"] in ("ok", "undefined")
    except (ScoreTableError, KeyError, TypeError):
        return False


def _empty(job: Job, scorer: Any, rows: Rows, status: str, reason: str, origin: Json) -> Json:
    from rali_zoo.bench.cell import empty_cell
    from rali_zoo.bench.leakage import Leakage, leakage

    leak = Leakage("unknown", "it could not be loaded")
    if scorer is not None:
        leak = leakage(_training_sets(scorer), rows, job.root)
    return empty_cell(job.contender, scorer, rows, status, reason, leak, origin)


def _without(job: Job, rows: Rows, status: str, reason: str, say: Say) -> Done:
    """A model that cannot be loaded: its cell says so, unless an earlier run measured it."""
    from rali_zoo.bench.provenance import provenance

    path = cell_path(job.results, job.contender.name, NO_REVISION, rows.slug)
    cell = _empty(job, None, rows, status, reason, provenance(job.suite.seed, job.suite.resamples))
    earlier = [p for p in find_cells(job.results) if p.parts[-3] == path.parts[-3] and p.name == path.name]
    if not [p for p in earlier if p != path]:
        write_json(path, cell)
    return _told(job, Done(path, cell, True, 0.0), rows, say)


def _forget_unavailable(job: Job, rows: Rows) -> None:
    """It can be loaded now, so what was said when it could not does not hold any more."""
    path = cell_path(job.results, job.contender.name, NO_REVISION, rows.slug)
    path.unlink(missing_ok=True)


def _told(job: Job, done: Done, rows: Rows, say: Say) -> Done:
    cell = done.cell
    found = cell["status"] if not cell["reason"] else f"{cell['status']}: {cell['reason']}"
    if cell["status"] == "ok":
        found = f"SRCC {cell['statistics']['srcc']['value']:.3f}"
    how = f"{done.seconds:.1f} s" if done.fresh else "there already"
    say(f"{job.contender.name} on {rows.ref}: {found}, n {cell['n']}, failed {cell['failed']} ({how})")
    return done
