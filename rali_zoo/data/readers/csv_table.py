"""``csv:PATH?mos_range=0,100``: any table of images and scores (.csv, .tsv, .jsonl, .parquet).

Columns: ``image`` (path below ``root``) and ``mos``; optionally ``std``, ``split``, ``content``,
``distortion``, ``level`` and any others. A table without the column ``mos`` is a list of images to
predict. Others' tables are read as they are: ``csv:own.csv?sep=;&image=filename&mos=score&mos_range=0,100``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard, Protocol
from rali_zoo.data.readers.frame import (
    decode_text,
    finish,
    need_table,
    numbers,
    read_csv,
    some,
    split_words,
)
from rali_zoo.data.readers.options import number_pair, truth, unknown_card
from rali_zoo.errors import ScoreTableError, UriError
from rali_zoo.settings import read_frame
from rali_zoo.types import MOS_RANGE

if TYPE_CHECKING:
    import pandas as pd

OPTIONS = ("mos_range", "higher_is_better", "root", "sep", "image", "mos")

LAYOUT = """\
scores.csv (or .tsv, .jsonl, .parquet) with the columns
  image   path below the file's folder, or below ?root=FOLDER
  mos     on the scale that ?mos_range=LOW,HIGH says
  and optionally std, split, content, distortion, level
Columns of other names: ?image=NAME&mos=NAME; values not parted by commas: ?sep=; or ?sep=tab"""


def open(path: str, options: dict[str, str]) -> tuple[DatasetCard, pd.DataFrame]:
    """Read a table.

    Args:
        path: of the table.
        options: ``mos_range`` (required with scores), ``higher_is_better`` (true unless said), ``root``
            (folder that the images' paths start from; the table's folder unless said), ``image`` and ``mos``
            (names of the columns), ``sep`` (one character, or ``tab``).

    Raises:
        UriError: the scale is not stated, or an option cannot be read.
        ScoreTableError: no such file, or rows that cannot be trusted.
    """
    import numpy as np

    ref, source = f"csv:{path}", Path(path)
    table = _named(_load(ref, source, options), options, source)
    scored = "mos" in table
    root = Path(options.get("root", source.parent))
    frame = table.drop(columns="image")
    frame["id"] = table["image"].astype(str)
    frame["path"] = [str(_place(root, n)) for n in frame["id"]]
    frame["mos"] = numbers(table, "mos", source) if scored else np.nan
    if "std" in table:
        frame["std"] = numbers(table, "std", source, empty_is_nan=True)
    if "level" in table:
        frame["level"] = numbers(table, "level", source).astype(int)
    if "split" in table:
        frame["split"] = split_words(table["split"].fillna(""), source)
    card = _card(ref, options, frame, scored)
    return card, finish(card, frame, source)


def _card(ref: str, options: dict[str, str], frame: pd.DataFrame, scored: bool) -> DatasetCard:
    protocols: tuple[Protocol, ...] = ("whole",)
    if scored:
        protocols = ("whole", "kfold", "random")
        if "split" in frame and (frame["split"] != "").any():
            protocols = ("official", *protocols)
    return unknown_card(
        ref,
        len(frame),
        mos_range=number_pair(ref, options, "mos_range") if scored else MOS_RANGE,
        higher_is_better=truth(ref, options, "higher_is_better", default=True),
        protocols=protocols,
        content_disjoint="content" in frame,
        layout=LAYOUT,
    )


def _named(table: pd.DataFrame, options: dict[str, str], source: Path) -> pd.DataFrame:
    """The table with the columns that the options name called ``image`` and ``mos``."""
    for wanted in ("image", "mos"):
        name = options.get(wanted, wanted)
        if name not in table and (wanted == "image" or wanted in options):
            raise ScoreTableError(
                f"{source} has no column {name}; it has {some(table.columns, 12)}; say which one it is, e.g. "
                f"?{wanted}={table.columns[0]}"
            )
        if name != wanted:
            table = table.drop(columns=wanted, errors="ignore").rename(columns={name: wanted})
    return table


def _place(root: Path, name: str) -> Path:
    """Where an image lies; a list written on Windows parts folders by backslashes."""
    place = root / name
    return root / name.replace("\\", "/") if "\\" in name and not place.exists() else place


def _load(ref: str, path: Path, options: dict[str, str]) -> pd.DataFrame:
    import pandas as pd

    need_table(path, LAYOUT)
    suffix = path.suffix.lower()
    separator = options.get("sep", "tab" if suffix == ".tsv" else ",").replace("tab", "\t")
    if len(separator) != 1 or (separator in '"\r\n'):
        raise UriError(f"{ref!r}: sep={options['sep']!r} is one character such as sep=; (or sep=tab)")
    if suffix in (".csv", ".tsv", ".txt"):
        return read_csv(path, separator)
    if "sep" in options:
        raise UriError(f"{ref!r}: 'sep' means nothing to a {suffix} table")
    try:
        if suffix == ".parquet":
            table = read_frame(path)
            return table.reset_index() if table.index.name else table
        if suffix == ".jsonl":
            rows = [json.loads(line) for line in decode_text(path).splitlines() if line.strip()]
            return pd.DataFrame(rows)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ScoreTableError):
            raise
        raise ScoreTableError(f"{path} is no readable table: {error}") from error
    raise ScoreTableError(f"{path}: unknown kind of table {suffix!r}; write .csv, .tsv, .jsonl or .parquet")
