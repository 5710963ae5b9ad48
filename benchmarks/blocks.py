"""What the scripts that make tables share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a markdown table."""
    lines = [f"| {' | '.join(heading)} |", "|" + "---|" * len(heading)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def provenance(content: Mapping[str, Any]) -> str:
    """Machine, versions and day of a results file."""
    h, v = content["hardware"], content["versions"]
    machine = f"{h['processor']}, {h['cpus']} cores, {h['torch_threads']} torch threads"
    return f"{machine}; torch {v['torch']}, rali-zoo {v['rali-zoo']}; {content['written'][:10]}"
