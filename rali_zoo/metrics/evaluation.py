"""The numbers of one data set, made of the scores of its images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rali_zoo.report import STATISTICS

if TYPE_CHECKING:
    import pandas as pd


def evaluate(frame: pd.DataFrame) -> dict[str, float]:
    """The numbers of one data set.

    Args:
        frame: columns mos and score on [1, 5], and error; rows with an error have no score.

    Returns:
        ``n`` images scored, ``failed`` images without a score, then every statistic of
        :data:`rali_zoo.report.STATISTICS` over the scored ones; NaN where one is undefined.
    """
    scored = frame[frame["error"] == ""]
    known = scored[scored["mos"].notna() & scored["score"].notna()]
    pred, mos = known["score"].to_numpy(float), known["mos"].to_numpy(float)
    return {
        "n": float(len(known)),
        "failed": float(len(frame) - len(scored)),
        **{name: statistic(pred, mos) for name, statistic in STATISTICS.items()},
    }
