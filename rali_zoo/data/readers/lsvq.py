"""LSVQ: 38,811 videos from the web, rated by a crowd from 0 to 100.

Files as in the authors' release: ``LSVQ_whole_train.csv``, ``LSVQ_whole_test.csv`` and ``LSVQ_whole_test_1080p.csv``
(name, …, mos, …), the first two needed; names are paths below the folder without ``.mp4``. The third is a test part of
its own: its rows have ``subset`` 1080p and no split. Columns were checked against programs of others that read the
files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, named, need, read_csv

if TYPE_CHECKING:
    import pandas as pd

_TABLES = (
    ("LSVQ_whole_train.csv", "train", ""),
    ("LSVQ_whole_test.csv", "test", ""),
    ("LSVQ_whole_test_1080p.csv", "", "1080p"),
)
_FOLDERS = ("videos", "LSVQ")

CARD = DatasetCard(
    name="lsvq",
    title="LSVQ (videos)",
    task="NR",
    domain="authentic",
    n_images=38811,
    mos_range=(0.0, 100.0),
    higher_is_better=True,
    protocols=("official", "whole", "kfold", "random"),
    default_protocol="official",
    content_disjoint=False,
    raters=35,
    licence="for research; see the authors' page",
    citation="Ying, Mandal, Ghadiyaram, Bovik. Patch-VQ: Patching Up the Video Quality Problem. CVPR 2021",
    url="https://github.com/baidut/PatchVQ",
    layout="""\
lsvq/
  LSVQ_whole_train.csv, LSVQ_whole_test.csv
  LSVQ_whole_test_1080p.csv   (optional)
  videos/…/*.mp4              (or LSVQ/; needs the extra "video")""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; a row is a video.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    parts = []
    for name, part, subset in _TABLES:
        if subset and not (root / name).exists():
            continue
        source = need(CARD, root, name)
        table = read_csv(source)
        if "name" in table:
            table["name"] = [f"{n.removesuffix('.mp4')}.mp4" for n in table["name"]]
        folder = next((root / n for n in _FOLDERS if (root / n).is_dir()), root)
        parts.append(named(table, source, folder, "name", "mos").assign(split=part, subset=subset))
    return finish(CARD, pd.concat(parts, ignore_index=True), root)
