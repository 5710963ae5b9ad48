"""SPAQ: 11,125 photographs by 66 smartphones, rated in a laboratory from 0 to 100.

File as in the authors' repository h4nwei/SPAQ: ``Annotations/MOS and Image attribute scores.xlsx`` (Image
name, MOS, Brightness, Colorfulness, Contrast, Noisiness, Sharpness). It has no standard deviations.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, image_names, need, need_columns, numbers, read_workbook

if TYPE_CHECKING:
    import pandas as pd

ATTRIBUTES = ("Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")

CARD = DatasetCard(
    name="spaq",
    title="SPAQ",
    task="NR",
    domain="authentic",
    n_images=11125,
    mos_range=(0.0, 100.0),
    higher_is_better=True,
    protocols=("deqa", "whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=False,
    licence="for research; see the authors' repository",
    citation="Fang, Zhu, Zeng, Ma, Wang. Perceptual Quality Assessment of Smartphone Photography. CVPR 2020",
    url="https://github.com/h4nwei/SPAQ",
    layout="""\
spaq/
  Annotations/MOS and Image attribute scores.xlsx   (or beside TestImage/)
  TestImage/*.jpg
  metas/{train,test}_*.json                         (only for ?protocol=deqa)""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; the five attributes in [0, 100] are free columns.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    name = "MOS and Image attribute scores.xlsx"
    source, folder = need(CARD, root, f"Annotations/{name}", name), need(CARD, root, "TestImage")
    table = read_workbook(source)
    need_columns(table, ("Image name", "MOS"), source)
    names = image_names(table, "Image name", source)
    frame = pd.DataFrame(
        {"id": names, "path": [str(folder / n) for n in names], "mos": numbers(table, "MOS", source)}
    )
    for attribute in ATTRIBUTES:
        if attribute in table:
            frame[attribute.lower()] = numbers(table, attribute, source)
    return finish(CARD, frame, source)
