"""What every reader does: find files, check numbers, and say which rows are wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.errors import DatasetNotFoundError, ScoreTableError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

COLUMNS = ("id", "path", "mos", "std", "split", "content", "distortion", "level")

#: Authors' words for the parts of a split.
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "": "",
}

_TOLERANCE = 1e-6  # of the range: scores are printed with six digits or more


def some(items: Iterable[object], limit: int = 5) -> str:
    """The first few items and how many there are."""
    rows = [str(i) for i in items]
    return ", ".join(rows[:limit]) + (f", … ({len(rows)} in all)" if len(rows) > limit else "")


def need(card: DatasetCard, root: Path, *choices: str) -> Path:
    """The first of ``choices`` below ``root`` that exists.

    Raises:
        DatasetNotFoundError: none does; the message holds the expected layout.
    """
    for choice in choices:
        if (root / choice).exists():
            return root / choice
    missing = root / choices[0] if root.is_dir() else root
    raise DatasetNotFoundError(card.name, missing, card.layout, card.url)


def need_table(path: Path, layout: str) -> None:
    """Raise :class:`ScoreTableError`, saying what is expected, unless a table of anyone's making is there."""
    if not path.exists():
        raise ScoreTableError(f"{path} does not exist (looked for from {Path.cwd()}). Expected:\n{layout}")


def read_csv(path: Path, separator: str = ",", header: bool = True) -> pd.DataFrame:
    """A text table with every cell as str, ``""`` where empty; raises :class:`ScoreTableError`."""
    import pandas as pd

    try:
        return pd.read_csv(
            path,
            sep=separator,
            header=0 if header else None,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            skipinitialspace=True,
        )
    except ValueError as error:  # pandas' parser errors and wrong encodings are ValueErrors
        raise ScoreTableError(f"{path} is no readable table: {error}") from error


def load_mat(path: Path, *names: str) -> list[np.ndarray]:
    """Variables of a MATLAB file, flattened; raises :class:`ScoreTableError` when one is not there."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(str(path))
    except (ValueError, OSError, NotImplementedError, MatReadError) as error:
        raise ScoreTableError(f"{path} is no readable MATLAB file: {error}") from error
    absent = [n for n in names if n not in content]
    if absent:
        known = some(sorted(k for k in content if not k.startswith("__")))
        raise ScoreTableError(f"{path} has no variable {some(absent)}; it has {known}")
    return [content[n].ravel() for n in names]


def cell_strings(cells: np.ndarray) -> list[str]:
    """Strings of a MATLAB cell array, as scipy hands it over: (N,) objects that hold one string each."""
    import numpy as np

    return [str(np.ravel(cell)[0]) for cell in cells]


def need_columns(frame: pd.DataFrame, names: Sequence[str], source: object) -> None:
    """Raise :class:`ScoreTableError` unless the table has all columns."""
    absent = [n for n in names if n not in frame.columns]
    if absent:
        raise ScoreTableError(f"{source} has no column {some(absent)}; it has {some(frame.columns, 12)}")


def numbers(frame: pd.DataFrame, column: str | int, source: object, empty_is_nan: bool = False) -> pd.Series:
    """A column as float64; raises :class:`ScoreTableError` naming the rows that hold no number.

    Args:
        frame: the table as read.
        column: its name, or its place where there is no header.
        source: what to call the table in messages.
        empty_is_nan: whether an empty cell is NaN instead of an error.
    """
    import pandas as pd

    text = frame[column]
    values = pd.to_numeric(text, errors="coerce").astype("float64")
    empty = text.isna() | (text.astype(str).str.strip() == "")
    bad = values.isna() & ~(empty if empty_is_nan else False)
    if bad.any():
        rows = [f"row {i} ({text.loc[i]!r})" for i in frame.index[bad]]
        raise ScoreTableError(f"{source}: {column!r} holds no number in {some(rows)}")
    return values


def split_words(words: Iterable[str], source: object) -> list[str]:
    """Authors' words (``training``, ``validation``, …) as ``train|val|test|""``."""
    words = [str(w).strip().lower() for w in words]
    unknown = sorted({w for w in words if w not in SPLIT_WORDS})
    if unknown:
        raise ScoreTableError(f"{source}: unknown split {some(unknown)}; known: train, val, test")
    return [SPLIT_WORDS[w] for w in words]


def real_names(folder: Path) -> dict[str, str]:
    """Lower-case name to real name of what lies in a folder, for sets that differ from their lists."""
    return {entry.lower(): entry for entry in os.listdir(folder)} if folder.is_dir() else {}


def missing_files(paths: Sequence[str]) -> list[int]:
    """Positions of the paths that do not exist; a folder is listed once, as it may hold 10^5 files."""
    listing: dict[str, set[str]] = {}
    absent = []
    for position, path in enumerate(paths):
        folder, name = os.path.split(path)
        if folder not in listing:
            listing[folder] = set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
        if name not in listing[folder]:
            absent.append(position)
    return absent


def existing(paths: Sequence[str]) -> list[str]:
    """The paths, with ``""`` in place of those that do not exist."""
    absent = set(missing_files(paths))
    return ["" if position in absent else path for position, path in enumerate(paths)]


def complete(card: DatasetCard, frame: pd.DataFrame, source: object) -> pd.DataFrame:
    """Fill the optional columns and check every row against the card.

    Returns:
        A new table, columns in the order of ``COLUMNS``, then the free ones; index 0 … n-1.

    Raises:
        ScoreTableError: no rows, a name twice, a score that is no number or outside the card's range, …
    """
    import numpy as np

    need_columns(frame, ("id", "path", "mos"), source)
    if frame.empty:
        raise ScoreTableError(f"{source} has no rows")
    frame = frame.reset_index(drop=True)
    defaults: dict[str, object] = {"std": np.nan, "split": "", "distortion": "", "level": 0}
    for column, value in defaults.items():
        if column not in frame:
            frame[column] = value
    if "content" not in frame:
        frame["content"] = frame["id"]
    for column in ("id", "path", "split", "content", "distortion"):
        frame[column] = frame[column].astype(str)
    frame["mos"], frame["std"] = frame["mos"].astype("float64"), frame["std"].astype("float64")
    frame["level"] = frame["level"].astype("int64")
    _check(card, frame, source)
    return frame[[*COLUMNS, *(c for c in frame.columns if c not in COLUMNS)]]


def _check(card: DatasetCard, frame: pd.DataFrame, source: object) -> None:
    import numpy as np

    twice = frame.loc[frame["id"].duplicated(), "id"]
    if len(twice):
        raise ScoreTableError(f"{source} names an image twice: {some(twice)}")
    low, high = card.mos_range
    slack = _TOLERANCE * (high - low)
    # A table without any score is a list of images to predict; one with gaps is a mistake.
    if not frame["mos"].isna().all():
        inside = frame["mos"].between(low - slack, high + slack)
        if not inside.all():
            rows = [f"{r.id} ({r.mos:g})" for r in frame[~inside].itertuples()]
            raise ScoreTableError(
                f"{source}: scores outside the range [{low:g}, {high:g}] of {card.name}: {some(rows)}"
            )
    bad = (frame["std"] < 0) | np.isinf(frame["std"])
    if bad.any():
        raise ScoreTableError(f"{source}: impossible standard deviations: {some(frame.loc[bad, 'id'])}")
    unknown = ~frame["split"].isin(["", "train", "val", "test"])
    if unknown.any():
        raise ScoreTableError(
            f"{source}: unknown split in {some(frame.loc[unknown, 'id'])}; known: train, val, test"
        )


def finish(card: DatasetCard, frame: pd.DataFrame, source: object) -> pd.DataFrame:
    """:func:`complete`, and every row's image must be there.

    Raises:
        ScoreTableError: as :func:`complete`, or naming the rows without an image.
    """
    frame = complete(card, frame, source)
    absent = missing_files(frame["path"].tolist())
    if absent:
        rows = frame.iloc[absent]
        raise ScoreTableError(
            f"{source} scores {len(absent)} of {len(frame)} images that are not on disk: "
            f"{some(rows['id'])}; {rows['path'].iloc[0]} was looked for"
        )
    return frame
