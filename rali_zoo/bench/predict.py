"""A data set's rows through a scorer: from the cache where it has them, a reason where there is no score."""

from __future__ import annotations

import json
import math
import random
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from rali_zoo.bench.cache import Outcome, Predictions, content_digests
from rali_zoo.report import versions

if TYPE_CHECKING:
    import pandas as pd

    from rali_zoo.protocols import Scorer
    from rali_zoo.types import Score

MISSING = "no such file (or a link that leads nowhere)"
NO_REFERENCE = "no reference image to compare with"


def identity(scorer: Scorer, source: str) -> str:
    """Everything that a prediction depends on besides the image.

    Args:
        scorer: any scorer.
        source: who made it; our own are identified by their weights and settings, wherever they stand.
    """
    name = type(scorer).__name__ if source == "rali_zoo" else scorer.name
    return f"{source} | {name} | {scorer.revision} | {settings(scorer)} | {json.dumps(versions())}"


def settings(scorer: Scorer) -> str:
    """What a score depends on besides weights, image and versions.

    That is the preprocessing, the precision, and how a model that writes makes a score of an answer.
    """
    how = [getattr(module, "scoring", None) for module in scorer.modules()]
    parts = [scorer.preprocess_id, precision(scorer), *(str(h) for h in how if h is not None)]
    return " | ".join(part for part in parts if part)


def precision(scorer: Scorer) -> str:
    """Type that a scorer's network computes in, such as ``float32``."""
    return str(getattr(scorer, "autocast", None) or "float32").removeprefix("torch.")


def predict(
    scorer: Scorer,
    rows: pd.DataFrame,
    source: str,
    batch_size: int,
    advance: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Score every row of a data set.

    Images go through in fixed batches of distinct contents, and whatever a metric draws at random is drawn
    anew, by the batch: a run that was stopped and resumed gives what an undisturbed one would have given.

    Args:
        scorer: any scorer.
        rows: columns ``id``, ``path`` and, for a full-reference scorer, ``reference``.
        source: see :func:`identity`.
        batch_size: images a forward pass.
        advance: called with the number of rows that are done, and of all.

    Returns:
        One outcome a row, in order.
    """
    if hasattr(scorer, "scores_for"):  # scores from a file: there is nothing to compute
        return [_outcome(score) for score in scorer.scores_for(rows["id"].astype(str).tolist())]
    paths = rows["path"].astype(str).tolist()
    references = rows["reference"].fillna("").astype(str).tolist() if scorer.needs_reference else None
    keys = image_keys(paths, references)
    store = Predictions(identity(scorer, source))
    first = {key: row for row, (key, _) in reversed(list(enumerate(keys))) if key}
    distinct = sorted(first.values())
    try:
        for start in range(0, len(distinct), batch_size):
            batch = [i for i in distinct[start : start + batch_size] if keys[i][0] not in store.known]
            if batch:
                _seed(keys[batch[0]][0])
                refs = None if references is None else [references[i] for i in batch]
                for i, outcome in zip(batch, _scored(scorer, [paths[i] for i in batch], refs), strict=True):
                    store.add(keys[i][0], outcome)
                store.tick()
            if advance is not None:
                advance(min(start + batch_size, len(distinct)), len(distinct))
    finally:
        store.flush()
    return [store.known[key] if key else Outcome(None, wrong) for key, wrong in keys]


def score_files(
    scorer: Scorer, paths: list[str], references: list[str] | None, batch_size: int | None = None
) -> list[Score]:
    """Scores of files, in order.

    Args:
        scorer: any scorer.
        paths: of the images.
        references: what a full-reference scorer compares each with; ``None`` for any other.
        batch_size: images a forward pass; all of them by default.
    """
    size = batch_size or len(paths)
    if references is None:
        return scorer.score(paths, batch_size=size)
    return cast("_FullReference", scorer).score(paths, batch_size=size, references=references)


class _FullReference(Protocol):
    def score(self, images: list[str], batch_size: int, *, references: list[str]) -> list[Score]: ...


def image_keys(paths: Sequence[str], references: Sequence[str] | None) -> list[tuple[str, str]]:
    """For each row (what its prediction is kept by, ""), or ("", why it cannot be scored)."""
    digests = content_digests(paths)
    if references is None:
        return [(d, "") if d else ("", MISSING) for d in digests]
    others = content_digests(references)
    keys = []
    for digest, other, reference in zip(digests, others, references, strict=True):
        if digest and other:
            keys.append((f"{digest}:{other}", ""))
        elif not digest:
            keys.append(("", MISSING))
        else:
            keys.append(("", f"{NO_REFERENCE}: {MISSING}" if reference else NO_REFERENCE))
    return keys


def _scored(scorer: Scorer, paths: list[str], references: list[str] | None) -> list[Outcome]:
    """Outcomes of a batch; one that fails as a whole is scored image by image."""
    try:
        found = score_files(scorer, paths, references)
        if len(found) != len(paths):
            raise RuntimeError(f"{len(found)} scores for {len(paths)} images")
        return [_outcome(score) for score in found]
    except Exception as error:
        if len(paths) == 1:
            return [Outcome(None, _reason(error))]
    singles = []
    for i, path in enumerate(paths):
        singles += _scored(scorer, [path], None if references is None else [references[i]])
    return singles


def _outcome(score: Score) -> Outcome:
    if score.error is not None:
        return Outcome(None, score.error or "no reason given")
    if score.score is None or not math.isfinite(score.score):
        return Outcome(None, f"the scorer gave {score.score}, which is no score")
    return Outcome(float(score.score))


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _seed(key: str) -> None:
    import numpy as np
    import torch

    seed = zlib.crc32(key.encode())
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
