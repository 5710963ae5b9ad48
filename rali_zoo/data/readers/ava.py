"""AVA: 255,530 photographs of a contest site with counts of votes from 1 to 10 for how well they are liked.

**Aesthetics, not quality**: the card says so, and it is not pooled with sets of quality. File as in the authors'
release: ``AVA.txt``, a line an image without a header (number, image, ten counts, two tags, challenge). ``mos`` is the
mean of the votes, ``std`` their standard deviation. The authors' lists of training and test images are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, need, numbers, read_csv
from rali_zoo.errors import ScoreTableError

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = 15  # number, image, ten counts, two tags, challenge

CARD = DatasetCard(
    name="ava",
    title="AVA (aesthetics)",
    task="NR",
    domain="authentic",
    n_images=255530,
    mos_range=(1.0, 10.0),
    higher_is_better=True,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=False,
    raters=210,
    licence="for research; the images keep their owners' licences",
    citation="Murray, Marchesotti, Perronnin. AVA: A Large-Scale Database for Aesthetic Visual Analysis. CVPR"
    " 2012",
    url="https://github.com/imfing/ava_downloader",
    question="aesthetics",
    layout="""\
ava/
  AVA.txt
  images/*.jpg""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import numpy as np
    import pandas as pd

    source, folder = need(CARD, root, "AVA.txt"), need(CARD, root, "images")
    table = read_csv(source, separator="", header=False)
    if table.shape[1] != _COLUMNS:
        raise ScoreTableError(f"{source}: expected lines of {_COLUMNS} numbers, found {table.shape[1]}")
    votes = np.stack([numbers(table, column, source) for column in range(2, 12)], axis=1)
    if (votes < 0).any() or (votes.sum(1) == 0).any():
        raise ScoreTableError(f"{source}: an image without votes, or with fewer than none")
    grades = np.arange(1, 11)
    mos = votes @ grades / votes.sum(1)
    variance = (votes * (grades - mos[:, None]) ** 2).sum(1) / votes.sum(1)
    names = [f"{name}.jpg" for name in table[1]]
    frame = pd.DataFrame(
        {"id": names, "path": [str(folder / n) for n in names], "mos": mos, "std": np.sqrt(variance)}
    )
    return finish(CARD, frame, source)
