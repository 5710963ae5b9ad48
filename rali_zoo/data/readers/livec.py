"""LIVE In the Wild Image Quality Challenge: 1,162 mobile photographs, rated by a crowd from 0 to 100.

Files as in ``ChallengeDB_release``: three MATLAB files in ``Data/`` in one order. Its readme counts 1,169
images, of which 7 (t1.bmp … t7.bmp) trained the raters; these are left out, as everybody does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import cell_strings, finish, load_mat, need
from rali_zoo.errors import ScoreTableError

if TYPE_CHECKING:
    import pandas as pd

CARD = DatasetCard(
    name="livec",
    title="LIVE In the Wild Image Quality Challenge",
    task="NR",
    domain="authentic",
    n_images=1162,
    mos_range=(0.0, 100.0),
    higher_is_better=True,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=False,
    raters=175,  # the authors' page
    licence="copyright The University of Texas at Austin; use permitted with acknowledgement",
    citation="Ghadiyaram, Bovik. Massive Online Crowdsourced Study of Subjective and Objective "
    "Picture Quality. IEEE TIP 25(1), 2016",
    url="https://live.ece.utexas.edu/research/ChallengeDB/index.html",
    layout="""\
livec/                  (or livec/ChallengeDB_release/)
  Data/AllImages_release.mat
  Data/AllMOS_release.mat
  Data/AllStdDev_release.mat
  Images/*.bmp, *.JPG""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    if (root / "ChallengeDB_release").is_dir():
        root = root / "ChallengeDB_release"
    source, folder = need(CARD, root, "Data/AllMOS_release.mat"), need(CARD, root, "Images")
    (cells,) = load_mat(need(CARD, root, "Data/AllImages_release.mat"), "AllImages_release")
    (mos,) = load_mat(source, "AllMOS_release")
    (std,) = load_mat(need(CARD, root, "Data/AllStdDev_release.mat"), "AllStdDev_release")
    names = cell_strings(cells)
    if not len(names) == len(mos) == len(std):
        raise ScoreTableError(f"{source.parent}: {len(names)} names, {len(mos)} MOS, {len(std)} deviations")
    frame = pd.DataFrame({"id": names, "path": [str(folder / n) for n in names], "mos": mos, "std": std})
    return finish(CARD, frame[~frame["id"].str.match(r"t\d+\.")], source)
