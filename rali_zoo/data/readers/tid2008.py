"""TID2008: 25 references x 17 distortions x 4 levels, MOS from 0 to 9.

Files as distributed: as those of TID2013 (:mod:`rali_zoo.data.readers.tid2013`), which has the same references, the
same 17 kinds first, and one level more. The two sets share most of their images: do not test on one what was trained
on the other.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.readers import tid2013

if TYPE_CHECKING:
    import pandas as pd

CARD = replace(
    tid2013.CARD,
    name="tid2008",
    title="TID2008",
    n_images=1700,
    citation="Ponomarenko, Lukin, Zelensky, Egiazarian, Carli, Battisti. TID2008: A Database for Evaluation of "
    "Full-Reference Visual Quality Assessment Metrics. Advances of Modern Radioelectronics 10, 2009",
    url="https://www.ponomarenko.info/tid2008.htm",
    layout=tid2013.CARD.layout.replace("tid2013/", "tid2008/"),
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; ``reference`` is as for TID2013.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    return tid2013.read_as(CARD, root, tid2013.DISTORTIONS[:17])
