"""The numbers of one data set, made of the scores of its images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rali_zoo.metrics.correlation import krcc, plcc, rmse, srcc
from rali_zoo.metrics.logistic import plcc_mapped

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("n", "failed", "srcc", "plcc", "plcc_mapped", "krcc", "rmse")


def evaluate(frame: pd.DataFrame) -> dict[str, float]:
    """The numbers of one data set.

    Args:
        frame: columns mos and score on [1, 5], and error; rows with an error have no score.

    Returns:
        ``n`` images scored, ``failed`` images without a score, then signed correlations and RMSE
        over the scored ones; NaN where a statistic is undefined.
    """
    scored = frame[frame["error"] == ""]
    known = scored[scored["mos"].notna() & scored["score"].notna()]
    pred, mos = known["score"].to_numpy(float), known["mos"].to_numpy(float)
    return {
        "n": float(len(known)),
        "failed": float(len(frame) - len(scored)),
        "srcc": srcc(pred, mos),
        "plcc": plcc(pred, mos),
        "plcc_mapped": plcc_mapped(pred, mos),
        "krcc": krcc(pred, mos),
        "rmse": rmse(pred, mos),
    }
