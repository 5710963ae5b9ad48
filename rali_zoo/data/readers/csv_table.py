"""``csv:PATH?mos_range=0,100``: any table of images and scores (.csv, .tsv, .jsonl, .parquet).

Columns: ``image`` (path below ``root``) and ``mos``; optionally ``std``, ``split``, ``content``,
``distortion``, ``level`` and any others. A table without the column ``mos`` is a list of images to
predict.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard, Protocol
from rali_zoo.data.readers.frame import finish, need_columns, need_table, numbers, read_csv, split_words
from rali_zoo.data.readers.options import number_pair, truth
from rali_zoo.errors import ScoreTableError
from rali_zoo.types import MOS_RANGE

if TYPE_CHECKING:
    import pandas as pd

OPTIONS = ("mos_range", "higher_is_better", "root")

LAYOUT = """\
scores.csv (or .tsv, .jsonl, .parquet) with the columns
  image   path below the file's folder, or below ?root=FOLDER
  mos     on the scale that ?mos_range=LOW,HIGH says
  and optionally std, split, content, distortion, level"""


def open(path: str, options: dict[str, str]) -> tuple[DatasetCard, pd.DataFrame]:
    """Read a table.

    Args:
        path: of the table.
        options: ``mos_range`` (required with scores), ``higher_is_better`` (true unless said), ``root``
            (folder that the images' paths start from; the table's folder unless said).

    Raises:
        UriError: the scale is not told, or an option cannot be read.
        ScoreTableError: no such file, or rows that cannot be trusted.
    """
    import numpy as np

    ref, source = f"csv:{path}", Path(path)
    table = _load(source)
    need_columns(table, ("image",), source)
    scored = "mos" in table
    root = Path(options.get("root", source.parent))
    frame = table.drop(columns="image")
    frame["id"] = table["image"].astype(str)
    frame["path"] = [str(root / n) for n in frame["id"]]
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
    return DatasetCard(
        name=ref,
        title=Path(ref).name,
        task="NR",
        domain="authentic",
        n_images=max(len(frame), 1),
        mos_range=number_pair(ref, options, "mos_range") if scored else MOS_RANGE,
        higher_is_better=truth(ref, options, "higher_is_better", default=True),
        protocols=protocols,
        default_protocol=protocols[0],
        content_disjoint="content" in frame,
        licence="unknown",
        citation="",
        url="",
        layout=LAYOUT,
    )


def _load(path: Path) -> pd.DataFrame:
    import pandas as pd

    need_table(path, LAYOUT)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return read_csv(path, separator="\t" if suffix == ".tsv" else ",")
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path)
        if suffix == ".jsonl":
            return pd.read_json(path, lines=True, dtype={"image": str})
    except ValueError as error:  # pyarrow's and pandas' reading errors are ValueErrors
        raise ScoreTableError(f"{path} is no readable table: {error}") from error
    raise ScoreTableError(f"{path}: unknown kind of table {suffix!r}; write .csv, .tsv, .jsonl or .parquet")
