"""BID: 586 photographs with blur of many kinds, rated in a laboratory from 0 to 5.

File as in the authors' release: ``DatabaseGrades.xlsx`` (Image Number, Average Subjective Grade, std, …) beside
``DatabaseImage0001.JPG`` …
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, need, read_workbook
from rali_zoo.errors import ScoreTableError

if TYPE_CHECKING:
    import pandas as pd

CARD = DatasetCard(
    name="bid",
    title="BID (blurred photographs)",
    task="NR",
    domain="authentic",
    n_images=586,
    mos_range=(0.0, 5.0),
    higher_is_better=True,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=False,
    licence="for research; none stated",
    citation="Ciancio, Targino da Costa, da Silva, Said, Samadani, Obrador. No-Reference Blur Assessment of "
    "Digital Pictures Based on Multifeature Classifiers. IEEE TIP 20(1), 2011",
    url="https://github.com/zwx8981/UNIQUE#link-to-download-the-bid-dataset",
    layout="""\
bid/
  DatabaseGrades.xlsx
  DatabaseImage0001.JPG …   (or in ImageDatabase/)""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import numpy as np
    import pandas as pd

    source = need(CARD, root, "DatabaseGrades.xlsx")
    table = read_workbook(source).dropna(how="all")
    try:
        count = pd.to_numeric(table.iloc[:, 0]).astype(int)
        mos = pd.to_numeric(table.iloc[:, 1]).astype("float64")
        std = pd.to_numeric(table["std"]).astype("float64") if "std" in table else np.nan
    except (ValueError, IndexError, TypeError) as error:
        raise ScoreTableError(f"{source} holds no numbers and scores: {error}") from error
    folder = root / "ImageDatabase" if (root / "ImageDatabase").is_dir() else root
    names = [f"DatabaseImage{number:04d}.JPG" for number in count]
    frame = pd.DataFrame({"id": names, "path": [str(folder / n) for n in names], "mos": mos, "std": std})
    return finish(CARD, frame, source)
