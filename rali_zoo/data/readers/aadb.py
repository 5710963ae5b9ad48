"""AADB: 9,958 photographs rated for how well they are liked, by five people each; scores from 0 to 1.

**Aesthetics, not quality**: the card says so, and it is not pooled with sets of quality. Files as in the authors'
release: ``imgListFiles_label/imgList{Train,Validation,TestNew}Regression_score.txt`` (a name and a score a line: 8,458,
500 and 1,000; the paper speaks of 10,000). Its eleven attributes are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, need, numbers, read_csv
from rali_zoo.errors import ScoreTableError

if TYPE_CHECKING:
    import pandas as pd

_LISTS = {"train": "imgListTrain", "val": "imgListValidation", "test": "imgListTestNew"}
_TEST = ("AADB_newtest_originalSize",)

CARD = DatasetCard(
    name="aadb",
    title="AADB (aesthetics)",
    task="NR",
    domain="authentic",
    n_images=9958,
    mos_range=(0.0, 1.0),
    higher_is_better=True,
    protocols=("official", "whole", "kfold", "random"),
    default_protocol="official",
    content_disjoint=False,
    raters=5,
    licence="for research; the images keep their owners' licences",
    citation="Kong, Shen, Lin, Mech, Fowlkes. Photo Aesthetics Ranking Network with Attributes and Content "
    "Adaptation. ECCV 2016",
    url="https://github.com/aimerykong/deepImageAestheticsAnalysis",
    question="aesthetics",
    layout="""\
aadb/
  imgListFiles_label/imgListTrainRegression_score.txt …
  datasetImages_originalSize/*.jpg
  AADB_newtest_originalSize/*.jpg   (the test part; or with the others)""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    parts = []
    for part, words in _LISTS.items():
        source = need(
            CARD, root, f"imgListFiles_label/{words}Regression_score.txt", f"{words}Regression_score.txt"
        )
        table = read_csv(source, separator="", header=False)
        if table.shape[1] != 2:
            raise ScoreTableError(f"{source}: expected lines of a name and a score")
        folder = need(CARD, root, *(_TEST if part == "test" else ()), "datasetImages_originalSize")
        rows = {"id": table[0], "path": [str(folder / n) for n in table[0]], "mos": numbers(table, 1, source)}
        parts.append(pd.DataFrame(rows).assign(split=part))
    return finish(CARD, pd.concat(parts, ignore_index=True), root)
