"""A short table of the leaderboard for the README; ``benchmarks/tables.py`` calls it."""

from __future__ import annotations

import csv
from pathlib import Path

BOARD = Path(__file__).resolve().parent / "leaderboard.csv"
#: The models of the package, and the metrics that most papers compare with.
ROWS = (
    "reasoner-tiny-synthetic",
    "regression-tiny-synthetic",
    "rali-tiny-synthetic",
    "piq:haarpsi",
    "piq:vsi",
    "piq:fsim",
    "piq:gmsd",
    "piq:ssim",
    "piq:psnr",
    "pyiqa:piqe",
)


def comparison() -> str:
    """Our models and well-known metrics: SRCC with its interval, parameters, time."""
    with BOARD.open(newline="") as file:
        found = {row["model"]: row for row in csv.DictReader(file) if row["dataset"] == "synthetic:lab"}
    lines = [
        "| place | model | reference image | SRCC, `synthetic:lab` (**synthetic labels**) "
        "| parameters | time, in parts of RALI's |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(ROWS, key=lambda n: int(found[n]["place"])):
        row = found[name]
        needs = "needed" if row["kind"] == "FR" else "none"
        own = "†" if row["leakage"] == "same-dataset" else ""
        span = f"{float(row['srcc']):.3f}{own} [{float(row['srcc_low']):.3f}, {float(row['srcc_high']):.3f}]"
        ratio = f"{float(row['latency_ratio']):.2f}" if row["latency_ratio"] else "–"
        lines.append(
            f"| {row['place']} | {name} | {needs} | {span} | {int(row['parameters'] or 0):,} | {ratio} |"
        )
    return "\n".join(lines)
