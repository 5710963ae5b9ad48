"""Who runs the jobs of a suite: this process, one process a device, or Ray."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rali_zoo.bench.rows import Rows, load_rows
from rali_zoo.bench.run import Done, Job, Log, reference_scorer, run_job, without
from rali_zoo.bench.suite import LIBRARIES, Entry, Suite
from rali_zoo.data.card import one_question
from rali_zoo.errors import ConfigError, MissingExtraError
from rali_zoo.outputs import explained
from rali_zoo.report import write_json

Engine = Literal["local", "ray"]


def run_suite(
    suite: Suite,
    results: Path,
    root: str = "data",
    engine: Engine = "local",
    devices: Sequence[str] = ("cpu",),
    log: Log = lambda line: None,
) -> list[Done]:
    """Run a suite; files appear cell by cell.

    Args:
        suite: what to run.
        results: folder of the results files.
        root: folder that holds a folder of each data set's name.
        engine: ``local`` = here, or one process a device where several are given; ``ray`` = a task a cell.
        devices: such as ``cuda:0``; Ray assigns its own and only asks whether the first is ``cuda``.
        log: takes lines of progress.

    Returns:
        One entry a cell, in the order of the suite: models, and within them data sets.

    Raises:
        RaliZooError: a data set that cannot be read, or a model for latency ratios that cannot be loaded;
            nothing has run by then.
        MissingExtraError: Ray is not installed.
        OutputError: the results or the cache cannot be written; what was done is kept.
    """
    if suite.cost is not None and suite.cost.against:
        reference_scorer(suite.cost.against, devices[0])
    rows = tuple(load_rows(entry, suite, root) for entry in suite.entries)
    one_question([of_set.card for of_set in rows])
    with explained(results, "run the same command again, it goes on"):
        return _run_all(suite, rows, results, root, engine, devices, log)


def _run_all(
    suite: Suite,
    rows: tuple[Rows, ...],
    results: Path,
    root: str,
    engine: Engine,
    devices: Sequence[str],
    log: Log,
) -> list[Done]:
    for one in rows:
        if one.entry.targets:
            write_json(results / one.entry.targets, one.targets.model_dump())
    jobs = [Job(entry, rows, suite, results, root, devices[0]) for entry in suite.models]
    if engine == "ray":
        return _with_ray(jobs, rows, devices[0], log)
    if len(devices) > 1:
        return _with_processes(jobs, devices, log)
    return [done for job in jobs for done in (_alone(job, log) if patches(job.entry) else run_job(job, log))]


def patches(entry: Entry) -> bool:
    """Whether a metric runs in a process of its own: a library's network may replace parts of others.

    Importing pyiqa's qalign, for one, replaces the attention of every Llama of transformers in the process.
    """
    from rali_zoo.baselines import list_metrics

    name = entry.ref.partition(":")[2].partition("?")[0]
    return entry.source in LIBRARIES and name not in list_metrics(entry.source, offline=True)


def _alone(job: Job, log: Log) -> list[Done]:
    """A job in a new process; one that dies leaves a reason and not the end of the suite."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as worker:
        try:
            done = worker.submit(run_job, job).result()
        except BrokenProcessPool:
            reason = "its process died, perhaps for want of memory"
            return [without(job, rows, "failed", reason, log) for rows in job.rows]
    _log(done, log)
    return done


def _with_processes(jobs: Sequence[Job], devices: Sequence[str], log: Log) -> list[Done]:
    """One process a device; each takes the next model when it is done with one."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(jobs)):
        waiting.put(number)
    found: dict[int, list[Done]] = {}

    def drive(device: str) -> None:
        # Spawned, since a forked process cannot use CUDA.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as worker:
            while True:
                try:
                    number = waiting.get_nowait()
                except queue.Empty:
                    return
                job = replace(jobs[number], device=device)
                if patches(job.entry):
                    found[number] = _alone(job, log)
                else:
                    found[number] = worker.submit(run_job, job).result()
                    _log(found[number], log)

    with ThreadPoolExecutor(len(devices)) as drivers:
        driven = [drivers.submit(drive, device) for device in devices]
        for driver in driven:
            try:
                driver.result()
            except BrokenProcessPool:
                raise ConfigError(
                    "a worker died, perhaps for want of memory; run the same command again, it goes on"
                ) from None
    return [done for number in range(len(jobs)) for done in found[number]]


def _with_ray(jobs: Sequence[Job], rows: Sequence[Rows], device: str, log: Log) -> list[Done]:
    """Every cell is a task, which loads its model; the results folder is one that all nodes see."""
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray") from None
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False)
    cuda = device.startswith("cuda")
    cells = [replace(job, rows=(one,), device="cuda" if cuda else device) for job in jobs for one in rows]

    def start(cell: Job) -> object:
        alone = {"max_calls": 1} if patches(cell.entry) else {}  # its worker ends with it
        return ray.remote(num_cpus=1, num_gpus=1 if cuda else 0, **alone)(run_job).remote(cell)

    try:
        found: list[Done] = []
        for pending in [start(cell) for cell in cells]:
            done: list[Done] = ray.get(pending)
            _log(done, log)
            found += done
        return found
    finally:
        if started:
            ray.shutdown()


def _log(done: Sequence[Done], log: Log) -> None:
    for one in done:
        model, data = one.cell.model.name, one.cell.dataset.name
        log(f"{model} on {data}: {one.cell.status}, n {one.cell.n}, failed {one.cell.failed}")
