"""PIQ23: 5,116 portraits of 50 scenes by about 100 phones and cameras, compared in pairs by experts within each scene.

Files as in the authors' repository DXOMARK-Research/PIQ2023: ``Scores/Scores_Overall.csv`` (IMAGE PATH, JOD, JOD STD,
IMAGE, SCENE, …). ``mos`` is the JOD (just objectionable differences) of overall quality. **It compares images of one
scene only**: ``content`` is the scene, and a correlation over scenes says little. The test part is the authors' split
by device where its list is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, named, need, need_columns, read_csv

if TYPE_CHECKING:
    import pandas as pd

_TEST = "Test split/Device Split/DeviceSplit_Test_Scores_Overall.csv"

CARD = DatasetCard(
    name="piq23",
    title="PIQ23 (portraits, overall quality)",
    task="NR",
    domain="authentic",
    n_images=5116,
    mos_range=(-8.0, 8.0),
    higher_is_better=True,
    protocols=("official", "whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=True,
    licence="on request; see the authors' page",
    citation="Chahine, Calarasanu, Garcia-Civiero, Cayla, Ferradans, Ponce. An Image Quality Assessment "
    "Dataset for Portraits. CVPR 2023",
    url="https://github.com/DXOMARK-Research/PIQ2023",
    layout="""\
piq23/
  Scores/Scores_Overall.csv
  Overall/*.jpg …
  Test split/Device Split/DeviceSplit_Test_Scores_Overall.csv   (only for ?protocol=official)""",
    note="No range is published: the one here holds the scores that were seen (-5.1 to 3.7).",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    source = need(CARD, root, "Scores/Scores_Overall.csv", "Scores_Overall.csv")
    need(CARD, root, "Overall")
    table = read_csv(source)
    need_columns(table, ("IMAGE PATH", "IMAGE", "SCENE"), source)
    frame = named(table, source, root, "IMAGE", "JOD", "JOD STD")
    frame["path"] = [str(root / name.replace("\\", "/")) for name in table["IMAGE PATH"]]
    frame["content"] = table["SCENE"]
    if (root / _TEST).exists():
        listed = read_csv(root / _TEST)
        need_columns(listed, ("IMAGE",), root / _TEST)
        frame["split"] = ["test" if test else "train" for test in frame["id"].isin(listed["IMAGE"])]
    return finish(CARD, frame, source)
