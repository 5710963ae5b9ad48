"""KonIQ-10k: 10,073 photographs from the web, rated by a crowd on a five-point scale.

Files as on the authors' page and in their repository subpic/koniq:
``koniq10k_scores_and_distributions.csv`` (image_name, c1 … c5, c_total, MOS, SD, MOS_zscore) and, for the
official split, ``koniq10k_distributions_sets.csv`` (column ``set``). The ``MOS`` of the latter file is on
another scale and is not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, need, need_columns, numbers, read_csv, some, split_words
from rali_zoo.errors import ScoreTableError

if TYPE_CHECKING:
    import pandas as pd

SETS = "koniq10k_distributions_sets.csv"

CARD = DatasetCard(
    name="koniq10k",
    title="KonIQ-10k",
    task="NR",
    domain="authentic",
    n_images=10073,
    mos_range=(1.0, 5.0),
    higher_is_better=True,
    protocols=("official", "deqa", "whole", "kfold", "random"),
    default_protocol="official",
    content_disjoint=False,
    raters=120,  # 1.2 million ratings of 10,073 images (paper, abstract)
    licence="free for research; the images come from YFCC100M under their Creative Commons licences",
    citation="Hosu, Lin, Sziranyi, Saupe. KonIQ-10k: An Ecologically Valid Database for Deep "
    "Learning of Blind Image Quality Assessment. IEEE TIP 29, 2020",
    url="https://database.mmsp-kn.de/koniq-10k-database.html",
    layout="""\
koniq10k/
  koniq10k_scores_and_distributions.csv   (or in a folder of that name)
  koniq10k_distributions_sets.csv         (official split; github.com/subpic/koniq, metadata/)
  1024x768/*.jpg                          (or 512x384/*.jpg)
  metas/{train,test}_*.json               (only for ?protocol=deqa)""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; ``split`` is empty where the file with the sets is absent.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    name = "koniq10k_scores_and_distributions"
    source = need(CARD, root, f"{name}.csv", f"{name}/{name}.csv")
    folder = need(CARD, root, "1024x768", "512x384")
    table = read_csv(source)
    need_columns(table, ("image_name", "MOS", "SD"), source)
    frame = pd.DataFrame(
        {
            "id": table["image_name"],
            "path": [str(folder / n) for n in table["image_name"]],
            "mos": numbers(table, "MOS", source),
            "std": numbers(table, "SD", source),
        }
    )
    if (root / SETS).exists():
        frame["split"] = _sets(root / SETS, table["image_name"].tolist())
    return finish(CARD, frame, source)


def _sets(path: Path, names: list[str]) -> list[str]:
    table = read_csv(path)
    need_columns(table, ("image_name", "set"), path)
    known = dict(zip(table["image_name"], split_words(table["set"], path), strict=True))
    absent = [n for n in names if n not in known]
    if absent:
        raise ScoreTableError(f"{path} does not say the set of {some(absent)}")
    return [known[n] for n in names]
