"""Tables of ``benchmarks/results/beyond.json``, for ``benchmarks/tables.py``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blocks import provenance, table

RESULTS = Path(__file__).resolve().parent / "results" / "beyond.json"
_ABSENT = "Not measured yet: `python benchmarks/beyond.py --parts {part}` does."


def _part(name: str) -> dict[str, Any] | None:
    content: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return content.get(name)


def _span(row: Mapping[str, Any], name: str, low: str, high: str, sign: str = "") -> str:
    return f"{row[name]:{sign}.3f} ({row[low]:{sign}.3f} to {row[high]:{sign}.3f})"


def uncertainty() -> str:
    """SRCC of distribution heads against a plain one, coverage and width of their intervals."""
    content = _part("distribution")
    if content is None:
        return _ABSENT.format(part="distribution")
    against, rows = content["compared with"], []
    for name, seeds in content["variants"].items():
        for seed, row in seeds.items():
            cells = [f"{name}, {seed}", _span(row, "srcc", "srcc_low", "srcc_high")]
            other = row.get(f"minus {against}")
            cells.append("" if other is None else _span(other, "difference", "low", "high", "+"))
            if "intervals" not in row:
                rows.append([*cells, "", "", "", ""])
                continue
            kinds = row["intervals"]["levels"]
            cells.append(
                " / ".join(f"{kinds[level]['conformal']['coverage']:.3f}" for level in ("0.5", "0.8", "0.95"))
            )
            cells.append(
                " / ".join(f"{kinds[level]['as_told']['coverage']:.3f}" for level in ("0.5", "0.8", "0.95"))
            )
            wide = kinds["0.95"]
            cells.append(f"{wide['conformal']['width']:.2f}; {wide['constant']['width']:.2f}")
            cells.append(_span(row["intervals"], "error_srcc", "error_srcc_low", "error_srcc_high"))
            rows.append(cells)
    heading = [
        "head", "SRCC (95 %)", f"minus {against}", "coverage at 50 / 80 / 95 %", "normal quantiles instead",
        "width at 95 %; one for all", "SRCC of spread and error",
    ]  # fmt: skip
    told = (
        f"{content['data']}, encoder {content['encoder']}, {content['epochs']} epochs; {provenance(content)}."
    )
    return "\n".join([*table(heading, rows), "", told])


def routing() -> str:
    """SRCC against the share of images that go to the reasoner, for each cheap scorer."""
    content = _part("routing")
    if content is None:
        return _ABSENT.format(part="routing")
    lines: list[str] = []
    for name, curve in content.items():
        if not isinstance(curve, dict) or "points" not in curve:
            continue
        rows = [
            [
                f"{p['share']:.0%}",
                _span(p, "srcc", "low", "high"),
                f"{p['random']:.3f}",
                _span(p, "gain", "gain_low", "gain_high", "+"),
                f"{p['oracle']:.3f}",
            ]
            for p in curve["points"]
        ]
        heading = ["routed", "SRCC (95 %)", "at random", "gain (95 %)", "knowing the MOS"]
        lines += [
            f"**{name}** (n = {curve['n']}; SRCC of uncertainty and error {curve['error_srcc']:.3f})",
            "",
        ]
        lines += [*table(heading, rows), ""]
    return "\n".join([*lines, f"{content['data']}; {provenance(content)}."])


def _ridges(part: str) -> str:
    content = _part(part)
    if content is None:
        return _ABSENT.format(part=part)
    rows = []
    for name, row in content["variants"].items():
        other = next((v for k, v in row.items() if k.startswith("minus ")), None)
        cells = [name, str(row["dimensions"]), _span(row, "srcc", "srcc_low", "srcc_high")]
        rows.append([*cells, "" if other is None else _span(other, "difference", "low", "high", "+")])
    test = next(iter(content["variants"].values()))["n"]
    told = f"{content['data']}; {content['head']} on {content['trained on']} images, {test} test images; "
    return "\n".join(
        [
            *table(["what the head sees", "numbers", "SRCC (95 %)", "minus the first"], rows),
            "",
            f"{told}{provenance(content)}.",
        ]
    )


def fusion() -> str:
    """Maps of every stage against the last."""
    return _ridges("fusion")


def crops() -> str:
    """Native crops against the whole image."""
    return _ridges("crops")


TABLES = {
    "beyond_uncertainty": uncertainty,
    "beyond_routing": routing,
    "beyond_fusion": fusion,
    "beyond_crops": crops,
}
