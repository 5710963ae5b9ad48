"""What every reader does: find files, check numbers, and say which rows are wrong."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.errors import DatasetNotFoundError, ScoreTableError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

log = logging.getLogger(__name__)

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
#: Share of a table's images that may be missing on disk: more of them is a wrong folder.
MAX_MISSING = 0.1

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

_ENOUGH, _NARROW = 10, 0.05  # so many scores in so small a share of their scale are worth a word
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


def decode_text(path: Path) -> str:
    """A text file by its byte-order mark, as UTF-8 without one; raises :class:`ScoreTableError` for neither."""
    data = path.read_bytes()
    # The longest mark first: UTF-32's begins as UTF-16's does.
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ScoreTableError(
            f"{path} is no readable table: not {encoding} at byte {error.start}; save it as UTF-8"
        ) from None


def read_csv(path: Path, separator: str = ",", header: bool = True) -> pd.DataFrame:
    """A text table with every cell as str, ``""`` where empty; raises :class:`ScoreTableError`.

    Args:
        path: of the table, in any encoding that :func:`decode_text` knows.
        separator: between values; ``""`` for any blanks.
        header: whether the first line holds the names; columns are called by their place otherwise.
    """
    import pandas as pd

    text = decode_text(path)
    if excel := re.match(r"sep=(.)\r?\n", text):  # a line that only Excel takes for a setting
        separator, text = excel[1], text[excel.end() :]
    lines = io.StringIO(text, newline="")
    try:
        rows = (
            [line.split() for line in lines]
            if not separator
            else list(csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True))
        )
    except csv.Error as error:
        raise ScoreTableError(f"{path} is no readable table: {error}") from error
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        raise ScoreTableError(f"{path} is no readable table: it is empty")
    names = [name.strip() for name in rows.pop(0)] if header else list(map(str, range(len(rows[0]))))
    while names and not names[-1]:  # a comma at the end of each line is not one more column
        names.pop()
    width = len(names)
    other = next((c for c in ";\t|" if header and width == 1 and c in names[0]), "")
    if other:
        raise ScoreTableError(
            f"{path}: its values are parted by {other!r}: add ?sep={'tab' if other == chr(9) else other}"
        )
    for number, row in enumerate(rows):
        if any(cell.strip() for cell in row[width:]):
            raise ScoreTableError(
                f"{path}: row {number} has {len(row)} values for {width} columns ({some(names)}): "
                f"{row[width]!r} has no name"
            )
    cells = [row[:width] + [""] * (width - len(row)) for row in rows]
    return pd.DataFrame(cells, columns=names if header else list(range(width)), dtype=str)


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


def named(
    table: pd.DataFrame, source: object, folder: Path, image: str, mos: str, std: str = ""
) -> pd.DataFrame:
    """``id``, ``path``, ``mos`` and perhaps ``std`` of a table with a name and a score a row.

    Args:
        table: as read.
        source: what to call the table in messages.
        folder: that names begin at.
        image: column of the names.
        mos: column of the scores.
        std: column of their standard deviations; ``""`` for none.

    Raises:
        ScoreTableError: a column is missing, or holds no number.
    """
    import pandas as pd

    need_columns(table, [image, mos, *([std] if std else [])], source)
    names = table[image].astype(str)
    frame = pd.DataFrame(
        {"id": names, "path": [str(folder / n) for n in names], "mos": numbers(table, mos, source)}
    )
    if std:
        frame["std"] = numbers(table, std, source)
    return frame


def part_of_set(source: Path) -> pd.DataFrame:
    """A part of a set as one table of our making: image (a path below its folder), mos, and perhaps split.

    Ids are the names of the files.

    Raises:
        ScoreTableError: a column is missing, a score is no number, or a split is unknown.
    """
    table = read_csv(source)
    frame = named(table, source, source.parent, "image", "mos")
    frame["id"] = [Path(name).name for name in frame["id"]]
    if "split" in table:
        frame["split"] = split_words(table["split"], source)
    return frame


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
    spelled = frame["path"].map(os.path.normpath)
    twice = frame.loc[spelled.duplicated(keep=False), "id"]
    if len(twice):
        raise ScoreTableError(f"{source} names an image twice, in two spellings of its path: {some(twice)}")
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
    """:func:`complete`, and the rows' images must be there.

    A few that are not, up to :data:`MAX_MISSING`, keep their rows, which fail one by one where they are used.

    Raises:
        ScoreTableError: as :func:`complete`, or too many rows without an image.
    """
    frame = complete(card, frame, source)
    absent = missing_files(frame["path"].tolist())
    if absent:
        rows = frame.iloc[absent]
        message = (
            f"{source} scores {len(absent)} of {len(frame)} images that are not on disk: "
            f"{some(rows['id'])}; {rows['path'].iloc[0]} was looked for"
        )
        if len(absent) > MAX_MISSING * len(frame):
            raise ScoreTableError(message)
        log.warning(message)
    (low, high), lowest, highest = card.mos_range, frame["mos"].min(), frame["mos"].max()
    if len(frame) >= _ENOUGH and highest - lowest < _NARROW * (high - low):
        log.warning(
            "%s: all scores lie between %g and %g, a small part of the scale [%g, %g]; is mos_range right?",
            source, lowest, highest, low, high,
        )  # fmt: skip
    return frame
