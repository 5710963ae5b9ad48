"""BIQ2021: 12,000 photographs in three subsets (galleries, deliberate faults, web), MOS from 0 to 1.

Files as in the authors' repository: ``Train (Images and MOS).csv`` and ``Test (Images and MOS).csv`` (Image
Name, MOS and two empty columns) beside ``Images/``; their ``Train.csv`` and ``Test.csv`` hold scores on
another scale and are not read. Or, for a part of the set, one table ``scores.csv`` (image, mos, split[,
subset]) with paths below the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, need, need_columns, numbers, part_of_set, read_csv

if TYPE_CHECKING:
    import pandas as pd

CARD = DatasetCard(
    name="biq2021",
    title="BIQ2021",
    task="NR",
    domain="authentic",
    n_images=12000,
    mos_range=(0.0, 1.0),
    higher_is_better=True,
    protocols=("official", "whole", "kfold", "random"),
    default_protocol="official",
    content_disjoint=False,
    licence="none stated by the authors",
    citation="Ahmed, Asif. BIQ2021: a large-scale blind image quality assessment database. Journal"
    " of Electronic Imaging 31(5), 2022",
    url="https://github.com/nisarahmedrana/BIQ2021",
    layout="""\
biq2021/
  Train (Images and MOS).csv
  Test (Images and MOS).csv
  Images/ss01 (10).jpg …
or, for a part of it:
biq2021/
  scores.csv   (image, mos, split)
  images/…     (as the column image says)""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``, from ``scores.csv`` where there is one; ``subset`` is ss01, ss02 or ss03.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    if (root / "scores.csv").exists():
        source = root / "scores.csv"
        frame = part_of_set(source)
    else:
        parts = []
        for part in ("train", "test"):
            source = need(CARD, root, f"{part.title()} (Images and MOS).csv")
            rows = read_csv(source)
            need_columns(rows, ("Image Name", "MOS"), source)
            parts.append(
                pd.DataFrame({"name": rows["Image Name"], "mos": numbers(rows, "MOS", source), "split": part})
            )
        table = pd.concat(parts, ignore_index=True)
        source, folder = root, need(CARD, root, "Images")
        frame = table.rename(columns={"name": "id"}).assign(path=[str(folder / n) for n in table["name"]])
    frame["subset"] = frame["id"].str[:4]
    return finish(CARD, frame, source)
