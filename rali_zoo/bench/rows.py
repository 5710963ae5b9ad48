"""The rows of a suite's data set: its test rows, or a drawn part of them, as results files have them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rali_zoo.bench.results import TARGETS, rows_sha256, six, slug
from rali_zoo.bench.suite import DatasetEntry, Suite
from rali_zoo.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from rali_zoo.data.card import DatasetCard


@dataclass(frozen=True, eq=False)
class Rows:
    """What a suite scores of one data set.

    Attributes:
        ref: of the data set.
        card: its facts.
        split: which rows.
        limit: how many were drawn; ``None`` when there are no more than that, or no limit.
        slug: file name of its results.
        frame: one row an image, columns as in :class:`rali_zoo.data.tables.DataTable`.
        publish: whether ids, MOS and scores may stand in files that others see.
    """

    ref: str
    card: DatasetCard
    split: str
    limit: int | None
    slug: str
    frame: pd.DataFrame
    publish: bool

    @cached_property
    def targets(self) -> dict[str, Any]:
        """Ids and labels, columns of equal length; numbers have the six digits that files hold."""
        frame = self.frame
        columns: dict[str, Any] = {
            "ids": frame["id"].astype(str).tolist(),
            "mos": [six(v) for v in frame["mos"]],
            "std": [six(v) for v in frame["std"]],
            "content": frame["content"].astype(str).tolist(),
            "distortion": frame["distortion"].astype(str).tolist(),
            "level": [int(v) for v in frame["level"]],
        }
        return {"ref": self.ref, "split": self.split, **columns, "rows_sha256": rows_sha256(columns)}

    @property
    def entry(self) -> dict[str, Any]:
        """What a cell says of the data set."""
        part = "" if self.limit is None else f" ({self.limit} rows)"
        facts = json.dumps(asdict(self.card), sort_keys=True, default=str)
        return {
            "ref": self.ref,
            "name": f"{self.card.name}{part}",
            "split": self.split,
            "card_hash": hashlib.sha256(facts.encode()).hexdigest()[:12],
            "synthetic": self.card.synthetic,
            "n": len(self.frame),
            "limit": self.limit,
            "rows_sha256": self.targets["rows_sha256"],
            "targets": f"{TARGETS}/{self.slug}.json" if self.publish else None,
        }

    def without_reference(self) -> str:
        """Why a full-reference metric has nothing to compare with; empty if some row has a reference."""
        if "reference" not in self.frame or (self.frame["reference"].fillna("") == "").all():
            return f"{self.ref} has no reference images, and this metric compares with one"
        return ""


def load_rows(entry: DatasetEntry, suite: Suite, root: str | Path) -> Rows:
    """Read a suite's data set.

    Args:
        entry: of the suite.
        suite: tells the split, the limit and the seed of its draw.
        root: folder that holds a folder of each data set's name.

    Raises:
        RaliZooError: as :func:`rali_zoo.data.tables.load_table`.
        ConfigError: no row of that split has a score.
    """
    from rali_zoo.data.tables import load_table

    table = load_table(entry.ref, root)
    frame = table.split(suite.split)
    frame = frame[frame["mos"].notna()].reset_index(drop=True)
    if frame.empty:
        raise ConfigError(f"{entry.ref!r} has no {suite.split} rows with a score; {table.describe()}")
    limit = suite.limit if suite.limit is not None and suite.limit < len(frame) else None
    name = slug(entry.ref) + ("" if suite.split == "test" else f"-{suite.split}")
    if limit is not None:
        frame = _draw(frame, limit, suite.seed)
        name += f"-{limit}rows" + (f"-seed{suite.seed}" if suite.seed else "")
    publish = table.card.synthetic if entry.publish is None else entry.publish
    return Rows(entry.ref, table.card, suite.split, limit, name, frame, publish)


def _draw(frame: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    """Rows drawn by their names, so that the draw does not depend on the order of the table."""
    order = [hashlib.sha256(f"{seed}|{name}".encode()).digest() for name in frame["id"].astype(str)]
    kept = sorted(sorted(range(len(frame)), key=order.__getitem__)[:limit])
    return frame.iloc[kept].reset_index(drop=True)
