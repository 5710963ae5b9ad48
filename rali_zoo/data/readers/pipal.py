"""PIPAL: 200 public references x 116 outputs of restoration algorithms and distortions, scored by Elo.

Files as distributed for the NTIRE challenges: ``Train_Label/A0001.txt`` with lines
``A0001_00_00.bmp,1520.0648``. The file name holds reference, group of distortion and number inside the
group. The authors' files do not name the groups, so ``distortion`` is the code (``pipal_00`` …) and the
number is the free column ``subtype``; it is no level. Elo has no nominal scale: the range is the published
extremes of the 23,200 scores.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import existing, finish, need, numbers, read_csv, some
from rali_zoo.errors import DatasetNotFoundError, ScoreTableError

if TYPE_CHECKING:
    import pandas as pd

_NAME = re.compile(r"^(A\d+)_(\d\d)_(\d\d)\.bmp$")

CARD = DatasetCard(
    name="pipal",
    title="PIPAL (public training part)",
    task="FR",
    domain="distorted",
    n_images=23200,
    mos_range=(916.7136, 1835.9856),
    higher_is_better=True,
    protocols=("deqa", "whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=True,
    licence="for research; see the authors' page",
    citation="Gu, Cai, Chen, Ye, Ren, Dong. PIPAL: a Large-Scale Image Quality Assessment Dataset "
    "for Perceptual Image Restoration. ECCV 2020",
    url="https://www.jasongt.com/projectpages/pipal.html",
    layout="""\
pipal/
  Train_Label/A0001.txt …
  Train_Dist/A0001_00_00.bmp …   (or Distortion_1/ … Distortion_4/)
  Train_Ref/A0001.bmp …
  metas/{train,test}_*.json      (only for ?protocol=deqa)""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; ``reference`` is the path of the reference image,
    ``""`` where it is not on disk.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    labels = sorted(need(CARD, root, "Train_Label").glob("*.txt"))
    if not labels:
        raise DatasetNotFoundError(CARD.name, root / "Train_Label" / "*.txt", CARD.layout, CARD.url)
    folders = [f for f in (root / "Train_Dist", *sorted(root.glob("Distortion_[1-4]"))) if f.is_dir()]
    if not folders:
        raise DatasetNotFoundError(CARD.name, root / "Train_Dist", CARD.layout, CARD.url)
    where = {name: folder for folder in folders for name in os.listdir(folder)}
    tables = []
    for label in labels:
        table = read_csv(label, header=False)
        if table.shape[1] != 2:
            raise ScoreTableError(f"{label}: expected lines such as A0001_00_00.bmp,1520.0648")
        tables.append(pd.DataFrame({"id": table[0], "mos": numbers(table, 1, label)}))
    frame = pd.concat(tables, ignore_index=True)
    parts = [_NAME.match(n) for n in frame["id"]]
    odd = [n for n, p in zip(frame["id"], parts, strict=True) if p is None]
    if odd:
        raise ScoreTableError(f"{root / 'Train_Label'}: names that are not like A0001_00_00.bmp: {some(odd)}")
    frame["path"] = [str(where.get(n, folders[0]) / n) for n in frame["id"]]
    frame["content"] = [p[1] for p in parts if p]
    frame["distortion"] = [f"pipal_{p[2]}" for p in parts if p]
    frame["subtype"] = [int(p[3]) for p in parts if p]
    frame["reference"] = existing([str(root / "Train_Ref" / f"{c}.bmp") for c in frame["content"]])
    return finish(CARD, frame, root / "Train_Label")
