"""The results file of ``benchmarks/speed.py``: written section by section, and as a table for the docs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from speed_ab import Row

from rali_zoo.paths import atomic_path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "benchmarks" / "results" / "speed.json"
_EMPTY = "Nothing has been measured yet: run `python benchmarks/speed.py`."


class Results:
    """Sections that were measured, each kept as soon as it is done.

    Args:
        path: the file; what a run that was stopped has left in it is kept.
        about: where the numbers come from: versions, hardware.
        quick: whether sizes are small; a file of the other kind is begun anew.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], quick: bool) -> None:
        self.path = path
        self.content: dict[str, Any] = {**about, "quick": quick, "sections": {}}
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            if before.get("quick") == quick and "sections" in before:
                self.content["sections"] = before["sections"]

    def done(self, name: str) -> bool:
        """Whether a section was measured to its end."""
        return self.content["sections"].get(name, {}).get("error", "never run") == ""

    def put(self, name: str, rows: Sequence[Row], took: float, error: str = "") -> None:
        """Keep a section and write the file, whole or not at all.

        Args:
            name: of the section.
            rows: what was measured.
            took: seconds.
            error: why it stopped; empty where it did not.
        """
        self.content["sections"][name] = {
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(took, 1),
            "load_average": [round(x, 2) for x in os.getloadavg()],
            "error": error,
            "rows": [{**asdict(row), "met": row.met, "reason": row.reason} for row in rows],
        }
        with atomic_path(self.path) as temporary:
            text = json.dumps(self.content, indent=1, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")


def rows_of(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every row of a results file by its name."""
    return {row["name"]: row for section in content["sections"].values() for row in section["rows"]}


def verdict(row: Mapping[str, Any]) -> str:
    """``met``, ``not met``, or nothing for a row without a goal."""
    return {True: "met", False: "not met", None: ""}[row["met"]]


def number(value: float) -> str:
    """Three digits that count."""
    return (
        f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    )


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table."""
    for row in rows:
        spread = f"[{number(row['low'])}, {number(row['high'])}]"
        print(f"{row['name']:58} {number(row['ratio']):>8} {spread:18} {row['goal']:9} {verdict(row):8}")
        print(f"    {row['note']}" + (f"\n    reason: {row['reason']}" if row["reason"] else ""))


def markdown(content: Mapping[str, Any] | None) -> str:
    """Goals, measured values with their spread, and verdicts, as a table; safe for no results.

    Args:
        content: of a results file; ``None`` where there is none.
    """
    if content is None or not any(s["rows"] or s["error"] for s in content["sections"].values()):
        return _EMPTY
    lines = ["| what | goal | measured | smallest and largest round | verdict |", "|---|---|---|---|---|"]
    notes = []
    for name, section in content["sections"].items():
        if section["error"]:
            notes.append(f"- {name}: not measured: {section['error']}")
        for row in section["rows"]:
            spread = f"{number(row['low'])} – {number(row['high'])}"
            cells = [row["name"], row["goal"] or "–", number(row["ratio"]), spread, verdict(row) or "–"]
            lines.append("| " + " | ".join(cells) + " |")
            why = f" **Not met:** {row['reason']}." if row["reason"] else ""
            notes.append(f"- {row['name']}: {row['note']}.{why}")
    small = "Small sizes (`--quick`): no result, only a sign that it runs. " if content["quick"] else ""
    h, v = content["hardware"], content["versions"]
    loads = [section["load_average"][0] for section in content["sections"].values()]
    where = (
        f"{small}{h['processor']}, {h['cpus']} cores, {h['torch_threads']} torch threads; "
        f"torch {v['torch']}, rali-zoo {v['rali-zoo']}; load of the machine {min(loads):.1f} to "
        f"{max(loads):.1f}; {content['written'][:10]}."
    )
    return "\n".join([*lines, "", *notes, "", where])


def read(path: Path = TARGET) -> dict[str, Any] | None:
    """The content of a results file; ``None`` where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
