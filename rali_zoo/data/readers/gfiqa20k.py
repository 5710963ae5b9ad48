"""GFIQA-20k: 19,988 faces of 512 x 512 pixels from photographs of the web, each of another person; scores from 0 to 1.

File as in the authors' release: ``mos_val_rating.csv`` (img_name, mos) beside ``image/``; its split is not
read. Faces are people: heed the licence.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, named, need, read_csv

if TYPE_CHECKING:
    import pandas as pd

CARD = DatasetCard(
    name="gfiqa20k",
    title="GFIQA-20k (faces)",
    task="NR",
    domain="authentic",
    n_images=19988,
    mos_range=(0.0, 1.0),
    higher_is_better=True,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=False,
    licence="for non-commercial research; the images come from YFCC100M under their Creative Commons "
    "licences",
    citation="Su, Lin, Hosu, Wiedemann, Sun, Zhu, Liu, Zhang, Saupe. Going the Extra Mile in Face Image "
    "Quality Assessment: A Novel Database and Model. IEEE TMM, 2023",
    url="https://database.mmsp-kn.de/gfiqa-20k-database.html",
    layout="""\
gfiqa20k/
  mos_val_rating.csv
  image/*.png""",
    note="The authors' table was not at hand: columns as others' programs read them; the paper speaks of 20,000 faces;"
    " the number here and the range are from later papers.",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    source = need(CARD, root, "mos_val_rating.csv", "mos_rating.csv")
    folder = need(CARD, root, "image")
    return finish(CARD, named(read_csv(source), source, folder, "img_name", "mos"), source)
