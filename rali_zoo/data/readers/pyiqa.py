"""``pyiqa:PATH?root=IMAGES&mos_range=0,100``: a ``meta_info_*.csv`` as IQA-PyTorch (pyiqa) shares them.

Columns count by position: name, score, … for photographs; reference, distorted, score, … for images with
a reference (told apart by the second column being a number or not). A column whose name holds ``std`` is
the standard deviation; columns whose name holds ``split`` say splits, one of which ``split=COLUMN`` names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard, Protocol
from rali_zoo.data.readers.frame import finish, need_table, numbers, read_csv, split_words
from rali_zoo.data.readers.options import number_pair, truth, unknown_card
from rali_zoo.errors import ScoreTableError, UnknownNameError, UriError

if TYPE_CHECKING:
    import pandas as pd

OPTIONS = ("mos_range", "higher_is_better", "root", "split")

URL = "https://huggingface.co/datasets/chaofengc/IQA-PyTorch-Datasets-metainfo"

LAYOUT = """\
meta_info_SPAQDataset.csv   first columns name,score (NR) or reference,distorted,score (FR)
IMAGES/                     given as ?root=IMAGES; the names' folder"""


def open(path: str, options: dict[str, str]) -> tuple[DatasetCard, pd.DataFrame]:
    """Read a meta_info file; ``root`` and ``mos_range`` are required, ``split`` names a column.

    Raises:
        UriError: a required option is missing, or one cannot be read.
        ScoreTableError: no such file, or rows that cannot be trusted.
    """
    import pandas as pd

    ref, source = f"pyiqa:{path}", Path(path)
    need_table(source, f"{LAYOUT}\nGet it from {URL}")
    if "root" not in options:
        raise UriError(f"{ref!r}: a meta_info file does not say where the images are; add root=FOLDER")
    table, root = read_csv(source), Path(options["root"])
    if table.shape[1] < 2 or table.empty:
        raise ScoreTableError(f"{source}: expected the columns name,score or reference,distorted,score")
    paired = bool(pd.to_numeric(table.iloc[:, 1], errors="coerce").isna().all())
    if paired and table.shape[1] < 3:
        raise ScoreTableError(f"{source}: expected the columns reference,distorted,score")
    names, score = table.iloc[:, int(paired)], table.columns[1 + int(paired)]
    if "dmos" in score.lower() and "higher_is_better" not in options:
        raise UriError(
            f"{ref!r}: is a higher {score!r} better? Add higher_is_better=true (KADID-10k) or =false"
        )
    frame = pd.DataFrame(
        {"id": names, "path": [str(root / n) for n in names], "mos": numbers(table, score, source)}
    )
    if paired:
        frame["content"] = table.iloc[:, 0]
    deviations = [c for c in table.columns if "std" in c.lower()]
    if deviations:
        frame["std"] = numbers(table, deviations[0], source, empty_is_nan=True)
    if "split" in options:
        columns = [c for c in table.columns if "split" in c]
        if options["split"] not in columns:
            raise UnknownNameError(f"split column of {source}", options["split"], columns)
        frame["split"] = split_words(table[options["split"]], source)
    card = _card(ref, options, len(frame), paired)
    return card, finish(card, frame, source)


def _card(ref: str, options: dict[str, str], rows: int, paired: bool) -> DatasetCard:
    protocols: tuple[Protocol, ...] = ("whole", "kfold", "random")
    if "split" in options:
        protocols = ("official", *protocols)
    return unknown_card(
        ref,
        rows,
        mos_range=number_pair(ref, options, "mos_range"),
        higher_is_better=truth(ref, options, "higher_is_better", default=True),
        protocols=protocols,
        content_disjoint=paired,
        paired=paired,
        url=URL,
        layout=LAYOUT,
    )
