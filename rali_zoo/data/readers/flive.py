"""FLIVE (the images of PaQ-2-PiQ): 39,810 photographs from the web, rated by a crowd from 0 to 100.

File as in the repository niu-haoran/FLIVE_Database: ``labels_image.csv`` (name, mos, …); names are paths below the
folder of images (the authors' notebook ``database_prep.ipynb`` puts them there). The scores of its patches, and its own
split, are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, named, need, read_csv

if TYPE_CHECKING:
    import pandas as pd

CARD = DatasetCard(
    name="flive",
    title="FLIVE (PaQ-2-PiQ)",
    task="NR",
    domain="authentic",
    n_images=39810,
    mos_range=(0.0, 100.0),
    higher_is_better=True,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=False,
    licence="for research; the images keep their owners' licences",
    citation="Ying, Niu, Gupta, Mahajan, Ghadiyaram, Bovik. From Patches to Pictures (PaQ-2-PiQ): Mapping the"
    " Perceptual Space of Picture Quality. CVPR 2020",
    url="https://github.com/niu-haoran/FLIVE_Database",
    layout="""\
flive/
  labels_image.csv
  database/…   (or FLIVE/; as the column name says)""",
    note="The authors' table was not at hand: its columns are those that their notebook and others' programs read.",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; ids are paths below the folder of images.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    source, folder = need(CARD, root, "labels_image.csv"), need(CARD, root, "database", "FLIVE")
    table = read_csv(source)
    return finish(CARD, named(table, source, folder, "name", "mos"), source)
