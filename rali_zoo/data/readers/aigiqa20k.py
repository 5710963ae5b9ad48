"""AIGIQA-20K: 20,000 images by 15 text-to-image models with the prompts of users; 21 ratings an image, from 0 to 5.

Files as for the NTIRE 2024 challenge: ``info_train.csv``, ``info_val.csv`` and ``info_test.csv`` (name, prompt, mos)
beside the folders ``train``, ``val`` and ``test``; parts that are not there are left out, but for the first. One score
for quality and alignment together.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, named, need, need_columns, read_csv

if TYPE_CHECKING:
    import pandas as pd

CARD = DatasetCard(
    name="aigiqa20k",
    title="AIGIQA-20K (quality and alignment)",
    task="NR",
    domain="generated",
    n_images=20000,
    mos_range=(0.0, 5.0),
    higher_is_better=True,
    protocols=("official", "whole", "kfold", "random"),
    default_protocol="official",
    content_disjoint=True,
    raters=21,
    licence="for research; none stated",
    citation="Li, Kou, Gao, Cao, Wen, Li, Wang, Liu, Lin, Min, Wu, Zhai. AIGIQA-20K: A Large Database for AI-"
    "Generated Image Quality Assessment. CVPR Workshops 2024",
    url="https://www.modelscope.cn/datasets/lcysyzxdxc/AIGCQA-30K-Image",
    layout="""\
aigiqa20k/
  info_train.csv, info_val.csv, info_test.csv
  train/*.png, val/*.png, test/*.png""",
    note="No file of it was at hand: layout and columns as programs of the challenge's participants read them.",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; images of one prompt share a ``content``.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    need(CARD, root, "info_train.csv")
    parts = []
    for part in ("train", "val", "test"):
        source = root / f"info_{part}.csv"
        if source.exists():
            table = read_csv(source)
            need_columns(table, ("prompt",), source)
            frame = named(table, source, need(CARD, root, part), "name", "mos")
            parts.append(frame.assign(split=part, content=table["prompt"], prompt=table["prompt"]))
    return finish(CARD, pd.concat(parts, ignore_index=True), root)
