"""UHD-IQA: 6,073 photographs of 3,840 pixels width, rated by ten experts; scores from 0 to 1.

Files as in the authors' ``UHD-IQA-database.zip``: ``uhd-iqa-metadata.csv`` (image_name, quality_mos, set, …; 4,269
training, 904 validation, 900 test) beside ``training/``, ``validation/`` and ``test/``. As others keep them, these
folders may stand in ``challenge/``, or all images in ``database/``; where only the training part is at hand, the table
is ``uhd-iqa-training-metadata.csv`` and may lack ``set``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, named, need, read_csv, split_words

if TYPE_CHECKING:
    import pandas as pd

CARD = DatasetCard(
    name="uhdiqa",
    title="UHD-IQA",
    task="NR",
    domain="authentic",
    n_images=6073,
    mos_range=(0.0, 1.0),
    higher_is_better=True,
    protocols=("official", "whole", "kfold", "random"),
    default_protocol="official",
    content_disjoint=False,
    raters=20,
    licence="free for research; the images are under the Pixabay licence",
    citation="Hosu, Agnolucci, Wiedemann, Iso, Saupe. UHD-IQA Benchmark Database: Pushing the Boundaries of "
    "Blind Photo Quality Assessment. ECCV Workshops 2024",
    url="https://database.mmsp-kn.de/uhd-iqa-benchmark-database.html",
    layout="""\
uhdiqa/
  uhd-iqa-metadata.csv                       (or uhd-iqa-training-metadata.csv)
  training/*.jpg, validation/*.jpg, test/*.jpg   (or challenge/training/ …, or database/*.jpg)""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    source = need(CARD, root, "uhd-iqa-metadata.csv", "uhd-iqa-training-metadata.csv")
    table = read_csv(source)
    frame = named(table, source, root / "database", "image_name", "quality_mos")
    if "set" in table:
        frame["split"] = split_words(table["set"], source)
    elif "training" in source.name:
        frame["split"] = "train"
    if not (root / "database").is_dir():
        folder = need(CARD, root, "training", "challenge/training").parent
        parts = table["set"] if "set" in table else ["training"] * len(table)
        frame["path"] = [str(folder / part / name) for part, name in zip(parts, frame["id"], strict=True)]
    return finish(CARD, frame, source)
