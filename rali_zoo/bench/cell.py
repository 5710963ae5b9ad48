"""One cell of the benchmark, a model on a data set, made of what was measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.bench.predict import settings
from rali_zoo.bench.response import Response, response
from rali_zoo.bench.results import (
    NO_REVISION,
    SCHEMA,
    SHOWN_FAILURES,
    Cell,
    Dataset,
    Failure,
    Leakage,
    Model,
    Provenance,
    Statistics,
    Status,
    Targets,
    Used,
)
from rali_zoo.bench.statistics import cell_statistics
from rali_zoo.report import six

if TYPE_CHECKING:
    from rali_zoo.bench.cache import Outcome
    from rali_zoo.bench.rows import Rows
    from rali_zoo.bench.suite import Entry
    from rali_zoo.protocols import Scorer


def measured_cell(
    entry: Entry,
    scorer: Scorer,
    rows: Rows,
    outcomes: Sequence[Outcome],
    parameters: int | None,
    leak: Leakage,
    origin: Provenance,
) -> Cell:
    """A cell of a model that was run.

    Args:
        entry: of the suite.
        scorer: what it loaded to.
        rows: what was scored.
        outcomes: one a row.
        parameters: that took part in a score; ``None`` where that is not known.
        leak: the leakage flag.
        origin: provenance, with the seed and the resamples.
    """
    scores = [six(o.score) for o in outcomes]
    model = model_entry(entry, scorer, parameters)
    numbers = measure(rows.targets, scores, model, rows.entry, origin)
    found, follows = (None, numbers) if isinstance(numbers, Response) else (numbers, None)
    status: Status = found.status if found else "ok"
    reason = found.reason if found else ""
    names = rows.targets.ids if rows.publish else [f"row {i}" for i in range(len(scores))]
    errors = [(name, o.error) for name, o in zip(names, outcomes, strict=True) if o.error]
    if len(errors) == len(scores):
        error, count = Counter(error for _, error in errors).most_common(1)[0]
        status, reason = "failed", f"no image has a score; {count} times: {error}"
    return Cell(
        schema=SCHEMA,
        model=model,
        dataset=rows.entry,
        status=status,
        reason=tidy(reason),
        leakage=leak,
        n=len(scores) - len(errors),
        failed=len(errors),
        failures=[Failure(id=name, error=tidy(e)) for name, e in errors[:SHOWN_FAILURES]],
        scores=scores if rows.publish else None,
        statistics=found,
        response=follows,
        provenance=origin,
    )


def empty_cell(
    entry: Entry,
    scorer: Scorer | None,
    rows: Rows,
    status: Status,
    reason: str,
    leak: Leakage,
    origin: Provenance,
) -> Cell:
    """A cell of a model that could not be run.

    Args:
        entry: the model, as the suite names it.
        scorer: the loaded model; ``None`` if it could not be loaded.
        rows: of the data set.
        status: what went wrong.
        reason: a sentence for it.
        leak: what the model was trained on, against these rows.
        origin: where the cell was made.
    """
    return Cell(
        schema=SCHEMA,
        model=model_entry(entry, scorer, None),
        dataset=rows.entry,
        status=status,
        reason=tidy(reason) or "no reason was given",
        leakage=leak,
        n=0,
        failed=0,
        failures=[],
        scores=None,
        statistics=None,
        provenance=origin,
    )


def measure(
    targets: Targets, scores: Sequence[float | None], model: Model, dataset: Dataset, origin: Provenance
) -> Statistics | Response:
    """Every number of a cell, from what its files hold and nothing else.

    Args:
        targets: the rows.
        scores: one a row, higher is better; ``None`` where there is none.
        model: whether the scores are MOS.
        dataset: how many raters there were.
        origin: seed and resamples.
    """
    if dataset.ordered:
        return response(targets, scores, origin)
    return cell_statistics(
        targets.mos,
        [math.nan if s is None else s for s in scores],
        std=[math.nan if s is None else s for s in targets.std],
        raters=dataset.raters,
        content=targets.content,
        distortion=targets.distortion,
        level=targets.level,
        on_mos_scale=not model.native_scale,
        seed=origin.seed,
        resamples=origin.resamples,
    )


def model_entry(entry: Entry, scorer: Scorer | None, parameters: int | None) -> Model:
    """What a cell states of the model; ``scorer`` is ``None`` if it could not be loaded."""
    sets = None if scorer is None else scorer.training_sets
    return Model(
        ref=entry.ref,
        name=entry.name or entry.ref,
        revision=NO_REVISION if scorer is None else str(scorer.revision),
        settings="" if scorer is None else settings(scorer),
        kind="FR" if scorer is not None and scorer.needs_reference else "NR",
        source=entry.source,
        training_sets=None if sets is None else list(sets),
        native_scale=scorer is not None and scorer.native_scale,
        licence=entry.licence or (scorer.licence if scorer else ""),
        parameters=Used(used=parameters),
    )


def tidy(text: str) -> str:
    """A message without the folders of this machine."""
    for folder, short in ((Path.cwd(), "."), (Path.home(), "~")):
        if str(folder) != folder.anchor:
            text = text.replace(str(folder), short)
    return text
