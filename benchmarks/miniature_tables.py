"""Tables of ``benchmarks/results/paper_in_miniature.json``, for ``benchmarks/tables.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blocks import provenance

RESULTS = Path(__file__).resolve().parent / "results" / "paper_in_miniature.json"
KINDS = {"in-domain": "in-domain", "left out": "domain left out", "biq2021": "`biq2021`, real, unseen"}


def _content() -> dict[str, Any]:
    return dict(json.loads(RESULTS.read_text()))


def ract_study() -> str:
    """SRCC of every way to train on domains that disagree, with intervals."""
    content = _content()
    lines = [f"| model | {' | '.join(KINDS.values())} | by seed, left out |", "|---|---|---|---|---|"]
    for name, row in content["measured"].items():
        cells = [f"{row[k]['srcc']:.3f} [{row[k]['low']:.3f}, {row[k]['high']:.3f}]" for k in KINDS]
        seeds = ", ".join(f"{v:.3f}" for v in row["left out"]["seeds"])
        lines.append(f"| {name} | {' | '.join(cells)} | {seeds} |")
    n = ", ".join(f"{name} {count}" for name, count in content["n"].items())
    unreadable = sum(content["unreadable_answers"].values())
    minutes = sum(content["minutes"].values())
    lines += [
        "",
        f"SRCC, mean over folds and {len(content['seeds'])} seeds, 95 % intervals over seeds and images; "
        f"test images: {n} (**synthetic labels** but for biq2021); {unreadable} unreadable answers, each "
        "counted as the mean of its run; "
        f"{minutes:.0f} minutes in all. {provenance(content)}.",
    ]
    return "\n".join(lines)


def ract_pairs() -> str:
    """Paired differences of the rows of :func:`ract_study`."""
    lines = [f"| difference of SRCC | {' | '.join(KINDS.values())} |", "|---|---|---|---|"]
    for name, row in _content()["paired"].items():
        cells = [
            f"{row[k]['srcc_difference']:+.3f} [{row[k]['low']:+.3f}, {row[k]['high']:+.3f}], "
            f"p = {row[k]['p']:.3f}"
            for k in KINDS
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ract_gaps() -> str:
    """Distances between the domains, space by space, before and after RACT; SRCC of all on one scale."""
    gaps = _content()["gaps"]
    lines = [
        "| space | covariance CKA | MMD² | classifier of two domains | of all three (chance) |",
        "|---|---|---|---|---|",
    ]
    for space, row in gaps["spaces"].items():
        lines.append(
            f"| {space} | {row['cka']:.3f} | {row['mmd2']:.4f} | {row['classifier']:.1%} "
            f"| {row['everyone']:.1%} ({row['chance']:.1%}) |"
        )
    lines += ["", "| method | mean of SRCC by set | SRCC of all sets pooled on one scale |", "|---|---|---|"]
    for method, row in gaps["pooled_srcc"].items():
        lines.append(f"| {method} | {row['mean']:.3f} | {row['pooled']:.3f} |")
    return "\n".join(lines)


def miniature_claims() -> str:
    """The paper's claims beside what was measured."""
    content = _content()
    lines = ["| claim | measured | value | 95 % interval | outcome |", "|---|---|---|---|---|"]
    for row in content["claims"]:
        lines.append(
            f"| {row['claim']} | {row['measured']} | {row['value']:.3f} "
            f"| {row['low']:.3f} to {row['high']:.3f} | **{row['verdict']}** |"
        )
    return "\n".join(lines)
