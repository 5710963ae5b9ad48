"""LSVQ: 38,811 videos from the web, rated by a crowd from 0 to 100.

Files as in the release v0.1 of the authors' repository: ``labels_train_test.csv`` (name, …, mos, …, is_test) and
``labels_test_1080p.csv``; names are paths below the folder without ``.mp4``. The second is a test part of its own and
may be absent: its rows have ``subset`` 1080p and no split.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, named, need, need_columns, read_csv

if TYPE_CHECKING:
    import pandas as pd

_TABLES = (("labels_train_test.csv", ""), ("labels_test_1080p.csv", "1080p"))
_PARTS = {"true": "test", "1": "test", "false": "train", "0": "train"}  # of the column is_test
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
  labels_train_test.csv
  labels_test_1080p.csv   (optional)
  videos/…/*.mp4          (or LSVQ/; needs the extra "video")""",
    note="No file of it was at hand: columns as the authors' configuration and others' programs read them.",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; a row is a video.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    parts = []
    for name, subset in _TABLES:
        if subset and not (root / name).exists():
            continue
        source = need(CARD, root, name)
        table = read_csv(source)
        need_columns(table, ("name", *(() if subset else ("is_test",))), source)
        table["name"] = [f"{n.removesuffix('.mp4')}.mp4" for n in table["name"]]
        folder = next((root / n for n in _FOLDERS if (root / n).is_dir()), root)
        frame = named(table, source, folder, "name", "mos").assign(subset=subset)
        if not subset:
            frame["split"] = [_PARTS.get(word.strip().lower(), word) for word in table["is_test"]]
        parts.append(frame)
    return finish(CARD, pd.concat(parts, ignore_index=True).fillna({"split": ""}), root)
