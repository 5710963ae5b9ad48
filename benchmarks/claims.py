"""The paper's claims beside what the miniature measured; ``benchmarks/paper_in_miniature.py`` calls this.

A claim *holds* where the whole 95 % interval lies on its side of the threshold, *does not hold* where the
whole interval lies on the other side, and is *open* where the threshold is inside.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

#: Names in the suite of the recipe.
TEACHER, STUDENT = "RACT", "RALI from RACT"


def verdict(low: float, high: float, threshold: float, more: bool = True) -> str:
    """What an interval says of a claim that something is above (or below) a threshold."""
    if not more:
        low, high, threshold = -high, -low, -threshold
    if low > threshold:
        return "holds"
    return "does not hold" if high <= threshold else "open"


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t interval of one value a seed; with one seed the interval is the whole line."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("-inf"), float("inf")
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def _row(
    claim: str, measured: str, value: tuple[float, float, float], threshold: float, more: bool = True
) -> dict[str, Any]:
    mean, low, high = value
    return {
        "claim": claim,
        "measured": measured,
        "value": mean,
        "low": low,
        "high": high,
        "threshold": threshold,
        "verdict": verdict(low, high, threshold, more),
    }


def _difference(content: dict[str, Any], pair: str, kind: str) -> tuple[float, float, float]:
    row = content["paired"][pair][kind]
    return row["srcc_difference"], row["low"], row["high"]


def costs(folder: Path) -> dict[str, Any]:
    """Parameters that took part, and seconds an image, of teacher and student, by the leaderboard's cells.

    Raises:
        FileNotFoundError: the recipe's last stages were not run.
    """
    found: dict[str, Any] = {}
    for path in sorted((folder / "leaderboard" / "results").rglob("*.cost.json")):
        cell = json.loads(path.with_name(path.name.removesuffix(".cost.json") + ".json").read_text())
        name = cell["model"]["name"]
        if name in (TEACHER, STUDENT) and name not in found:
            cost = json.loads(path.read_text())["cost"]
            found[name] = {k: cost[k] for k in ("parameters", "flops", "latency", "ratio", "throughput")}
    if set(found) != {TEACHER, STUDENT}:
        raise FileNotFoundError(
            f"no costs of {TEACHER} and {STUDENT} below {folder}/leaderboard/results; "
            "run the recipe's last stages"
        )
    return found


def claims(content: dict[str, Any], cost: dict[str, Any]) -> list[dict[str, Any]]:
    """Every claim with what was measured, its interval and the verdict.

    Args:
        content: of the results file, with ``paired``, ``kept`` and ``gaps``.
        cost: of :func:`costs`.
    """
    spaces = content["gaps"]["spaces"]

    def apart(first: str, second: str) -> tuple[float, float, float]:
        gaps = np.array(spaces[first]["by_seed"]) - np.array(spaces[second]["by_seed"])
        return mean_interval(list(gaps))

    rows = []
    for kind, where in (("in-domain", "in-domain"), ("left out", "on other domains")):
        text = f"SRCC after GRPO minus before, {where}"
        rows.append(_row("RL improves", text, _difference(content, "single - cold start", kind), 0))
    claim = "text aligns domains"
    telling = "accuracy of telling the domain, {}"
    text = telling.format("texts minus images' features, reasoners of their own")
    rows.append(_row(claim, text, apart("text, before", "vision, before"), 0, more=False))
    text = telling.format("images' features after RACT minus before")
    rows.append(_row(claim, text, apart("vision, after", "vision, before"), 0, more=False))
    text = telling.format("texts after RACT minus before")
    rows.append(_row(claim, text, apart("text, after", "text, before"), 0, more=False))
    pairs = [("RACT", rival) for rival in ("single", "naive mix", "ranking mix")]
    strong = "RACT, whole model"
    pairs += [(strong, rival) for rival in ("naive mix", "ranking mix", "scores alone, whole model")]
    for first, second in pairs:
        text = f"SRCC of {first} minus {second}, domain left out"
        value = _difference(content, f"{first} - {second}", "left out")
        rows.append(_row("RACT gains out of domain", text, value, 0))
    for teacher, kind in itertools.product(("RACT", strong), ("in-domain", "left out")):
        row = content["kept"][f"RALI from RACT / {teacher}"][kind]
        text = f"SRCC of RALI in parts of that of {teacher}, {kind}"
        value = (row["ratio"], row["low"], row["high"])
        rows.append(_row("RALI keeps at least 95 % of SRCC", text, value, 0.95))
    used = [cost[name]["parameters"]["used"] for name in (STUDENT, TEACHER)]
    share = used[0] / used[1]
    text = f"parameters that take part, {used[0]:,} of {used[1]:,} (exact)"
    rows.append(_row("RALI needs under 5 %", text, (share, share, share), 0.05, more=False))
    ratio = cost[STUDENT]["ratio"]
    text = "seconds an image in parts of the teacher's (median and quartiles of pairs)"
    value = (ratio["median"], ratio["low"], ratio["high"])
    rows.append(_row("RALI needs under 5 %", text, value, 0.05, more=False))
    return rows
