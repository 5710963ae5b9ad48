"""PCUID: about 300 underwater photographs with scores from 0 to 100, made of comparisons in pairs.

The authors' repository JOU-UIP/PCUID has the images in ``300-1`` to ``300-3`` and the scores in a workbook without
names of columns that are documented; it is read as one table ``scores.csv`` (image, mos[, split]) with paths below the
folder, as for a part of BIQ2021.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, need, part_of_set

if TYPE_CHECKING:
    import pandas as pd

CARD = DatasetCard(
    name="pcuid",
    title="PCUID (underwater photographs)",
    task="NR",
    domain="authentic",
    n_images=300,
    mos_range=(0.0, 100.0),
    higher_is_better=True,
    protocols=("official", "whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=False,
    licence="none stated by the authors",
    citation="PCUID, github.com/JOU-UIP/PCUID",
    url="https://github.com/JOU-UIP/PCUID",
    layout="""\
pcuid/
  scores.csv   (image, mos, split)
  images/…     (as the column image says)""",
    note="The authors give a workbook without names of columns; this table has to be made from it.",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; ids are the names of files.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    source = need(CARD, root, "scores.csv")
    return finish(CARD, part_of_set(source), source)
