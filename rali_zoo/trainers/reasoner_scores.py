"""What the texts of a reasoner show in validation, beside the agreement of its scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rali_zoo.rl.monitor import text_only_srcc
from rali_zoo.trainers.evaluation import agreement

if TYPE_CHECKING:
    import pandas as pd

UNPARSEABLE = "no score can be parsed from the answer"
_TEXT_FOLDS = 5


def text_metrics(frame: pd.DataFrame) -> dict[str, float]:
    """What validation looks at.

    Args:
        frame: columns mos, score, error and text.

    Returns:
        ``srcc`` and ``plcc`` of the parseable answers, shares ``failed`` and ``distinct_texts`` in [0, 1],
        and ``text_only_srcc`` (see :func:`rali_zoo.rl.monitor.text_only_srcc`); NaN where not defined.
    """
    nan = float("nan")
    rated = frame[frame["mos"].notna()]
    alone = None
    if len(rated) >= _TEXT_FOLDS:
        alone = text_only_srcc(rated["text"].tolist(), rated["mos"].tolist(), folds=_TEXT_FOLDS)
    return {
        **agreement(frame),
        "failed": float((frame["error"] != "").sum()) / max(len(frame), 1),
        "distinct_texts": nan if alone is None else alone.distinct / alone.n,
        "text_only_srcc": nan if alone is None else alone.srcc,
    }
