"""One cell of the benchmark, a model on a data set, as its results file holds it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rali_zoo.bench.leakage import Leakage
from rali_zoo.bench.predict import needs_reference
from rali_zoo.bench.results import NO_REVISION, SCHEMA, SHOWN_FAILURES, Json, six

if TYPE_CHECKING:
    from rali_zoo.bench.cache import Outcome
    from rali_zoo.bench.rows import Rows
    from rali_zoo.bench.suite import Contender


def measured_cell(
    contender: Contender,
    scorer: Any,
    rows: Rows,
    outcomes: Sequence[Outcome],
    parameters: int | None,
    leak: Leakage,
    origin: Json,
) -> Json:
    """A cell of a model that was run.

    Args:
        contender: of the suite.
        scorer: what it loaded to.
        rows: what was scored.
        outcomes: one a row.
        parameters: that took part in a score; ``None`` where that is not known.
        leak: the leakage flag.
        origin: provenance, which tells the seed and the resamples.
    """
    scores = [six(o.score) for o in outcomes]
    native = bool(getattr(scorer, "native_scale", False))
    numbers = statistics(rows.targets, scores, native, origin)
    status, reason = numbers["status"], numbers["reason"] or ""
    names = rows.targets["ids"] if rows.publish else [f"row {i}" for i in range(len(scores))]
    errors = [(name, o.error) for name, o in zip(names, outcomes, strict=True) if o.error]
    if len(errors) == len(scores):
        error, count = Counter(error for _, error in errors).most_common(1)[0]
        status, reason = "failed", f"no image has a score; {count} times: {error}"
    return {
        "schema": SCHEMA,
        "model": model_entry(contender, scorer, parameters),
        "dataset": rows.entry,
        "status": status,
        "reason": tidy(reason),
        "leakage": leak._asdict(),
        "n": len(scores) - len(errors),
        "failed": len(errors),
        "failures": [{"id": name, "error": tidy(e)} for name, e in errors[:SHOWN_FAILURES]],
        "scores": scores if rows.publish else None,
        "statistics": numbers,
        "cost": None,
        "provenance": origin,
    }


def empty_cell(
    contender: Contender, scorer: Any, rows: Rows, status: str, reason: str, leak: Leakage, origin: Json
) -> Json:
    """A cell of a model that could not be run; ``scorer`` is ``None`` if it could not even be loaded.

    Args:
        contender: the model, as the suite names it.
        scorer: the loaded model, if it could be.
        rows: of the data set.
        status: one word for what went wrong.
        reason: a sentence for it.
        leak: what the model was trained on, against these rows.
        origin: where the cell was made.
    """
    return {
        "schema": SCHEMA,
        "model": model_entry(contender, scorer, None),
        "dataset": rows.entry,
        "status": status,
        "reason": tidy(reason),
        "leakage": leak._asdict(),
        "n": 0,
        "failed": 0,
        "failures": [],
        "scores": None,
        "statistics": None,
        "cost": None,
        "provenance": origin,
    }


def statistics(targets: Json, scores: Sequence[float | None], native: bool, origin: Json) -> Json:
    """Every statistic of a cell, from what its files hold and nothing else.

    Args:
        targets: as the targets file has them.
        scores: one a row, higher is better; ``None`` where there is none.
        native: the scores are not in MOS units.
        origin: provenance: its ``seed`` and ``resamples``.
    """
    from rali_zoo.bench.statistics import cell_statistics

    found = cell_statistics(
        targets["mos"],
        [math.nan if s is None else s for s in scores],
        std=[math.nan if s is None else s for s in targets["std"]],
        content=targets["content"],
        distortion=targets["distortion"],
        level=targets["level"],
        on_mos_scale=not native,
        seed=origin["seed"],
        resamples=origin["resamples"],
    )
    return dict(found.as_dict())


def model_entry(contender: Contender, scorer: Any, parameters: int | None) -> Json:
    """What a cell says of the model; ``scorer`` is ``None`` if it could not be loaded."""
    sets = getattr(scorer, "training_sets", None)
    return {
        "ref": contender.ref,
        "name": contender.name or contender.ref,
        "revision": NO_REVISION if scorer is None else str(scorer.revision),
        "kind": "FR" if needs_reference(scorer) else "NR",
        "source": contender.source,
        "training_sets": None if sets is None else list(sets),
        "native_scale": bool(getattr(scorer, "native_scale", False)),
        "licence": contender.licence or str(getattr(scorer, "licence", "") or ""),
        "parameters": {"used": parameters},
    }


def tidy(text: str) -> str:
    """A message without the folders of this machine."""
    for folder, short in ((Path.cwd(), "."), (Path.home(), "~")):
        if str(folder) != folder.anchor:
            text = text.replace(str(folder), short)
    return text
