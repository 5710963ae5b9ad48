"""gMAD pairs of the best models, and the images of those that may be shown."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from rali_zoo.bench.leaderboard import Board, Column, numbers

MODELS = 4  # of a data set, the best; every two of them attack each other
LEVELS = 2  # of the defender: among its worse half of images, and among its better half
_SHARE = 0.05
_WINDOW = 4  # images at least, that the defender scores alike


@dataclass(frozen=True)
class GmadPair:
    """Two images that the defender scores alike and the attacker does not.

    Attributes:
        defender: key of a model.
        attacker: key of another.
        level: 0 = among the images that the defender finds bad, 1 = among those it finds good.
        better: id of the image that the attacker puts higher.
        worse: id of the other.
        mos: of both images, in this order.
    """

    defender: str
    attacker: str
    level: int
    better: str
    worse: str
    mos: tuple[float, float]


def gmad_pairs(column: Column, board: Board) -> list[GmadPair]:
    """Pairs of the best models of a data set whose scores are published; none for fewer than two."""
    from rali_zoo import metrics

    cells = [row.cells[column.key] for row in board.rows if column.key in row.cells]
    known = [c for c in cells if c.counts and c.scores is not None]
    best = sorted(known, key=lambda c: (-(c.ranking or 0.0), c.model.key))[:MODELS]
    if column.targets is None or column.labels == "order" or column.dataset.n < 2 * LEVELS * _WINDOW:
        return []
    share = max(_SHARE, _WINDOW / column.dataset.n)
    ids, mos = column.targets.ids, column.targets.mos
    pairs = []
    for defender, attacker in permutations(best, 2):
        try:
            found = metrics.gmad_pairs(numbers(attacker), numbers(defender), LEVELS, share)
        except ValueError:  # too few images that both scored
            continue
        for level, pair in enumerate(found):
            a, b = pair.better, pair.worse
            pairs.append(
                GmadPair(defender.model.key, attacker.model.key, level, ids[a], ids[b], (mos[a], mos[b]))
            )
    return pairs


def write_images(board: Board, folder: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Copy the images of gMAD pairs of synthetic data sets, which anyone may show.

    Returns:
        Key of the data set to image id to ``file`` (relative to the page) and ``credit``.
    """
    shown = {}
    for column in board.columns:
        wanted = {name for pair in gmad_pairs(column, board) for name in (pair.better, pair.worse)}
        if wanted and column.dataset.ref.startswith("synthetic:"):
            shown[column.key] = _copy(column, sorted(wanted), folder)
    return shown


def _copy(column: Column, wanted: Sequence[str], folder: Path) -> dict[str, dict[str, str]]:
    from rali_zoo.data.synthetic.sources import PHOTOGRAPHS
    from rali_zoo.data.tables import load_table

    credits = {p.name: f"{p.name}: {p.origin}, {p.licence}" for p in PHOTOGRAPHS}
    frame = load_table(column.dataset.ref).frame.set_index("id")
    (folder / column.key).mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, str]] = {}
    for name in wanted:
        if name not in frame.index:
            continue  # of another version of the data set
        row: Any = frame.loc[name]
        target = folder / column.key / Path(name).name
        shutil.copyfile(row["path"], target)
        credit = credits.get(row["content"], "made by rali_zoo")
        found[name] = {"file": target.relative_to(folder.parent).as_posix(), "credit": credit}
    return found
