"""``rali-zoo check-results``: whether results files, such as a submission, hold what they claim."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rali_zoo.errors import ConfigError, ScoreTableError


def command(files: list[str], /) -> None:
    """Check results files: schema, place, ids, and every statistic computed again from the scores.

    Args:
        files: cells (RESULTS/MODEL/REVISION/DATASET.json), or folders of all results, of one model or
            of one revision.
    """
    from rali_zoo.bench.check import check_file
    from rali_zoo.bench.results import read_cell

    cells = _cells(files)
    bad = 0
    for path in cells:
        wrong = check_file(path)
        bad += bool(wrong)
        for line in wrong:
            print(f"{path}: {line}", file=sys.stderr)
    if bad:
        raise ScoreTableError(f"{bad} of {len(cells)} results files are not right; the lines above say why")
    hidden = sum(c.scores is None and c.statistics is not None for c in map(read_cell, cells))
    note = f"; {hidden} of them hold no scores, so their statistics were not computed again" if hidden else ""
    print(f"{len(cells)} results files are right{note}")


def _cells(files: Sequence[str]) -> list[Path]:
    from rali_zoo.bench.results import find_cells

    found: list[Path] = []
    for text in files:
        path = Path(text)
        if path.is_dir():
            found += find_cells(path)
        elif path.is_file():
            found.append(path)
        else:
            raise ConfigError(f"{text} does not exist; give results files or the folder that holds them")
    if not found:
        raise ConfigError(f"no results file RESULTS/MODEL/REVISION/DATASET.json below {', '.join(files)}")
    return found
