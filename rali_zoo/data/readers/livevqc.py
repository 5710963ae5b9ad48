"""LIVE Video Quality Challenge (LIVE-VQC): 585 videos of about 10 s, filmed with phones, rated by a crowd.

Files as released: ``data.mat`` with the variables ``video_list`` (names) and ``mos`` (0 to 100) in one order,
and the folder ``Video``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import cell_strings, finish, load_mat, need
from rali_zoo.errors import ScoreTableError

if TYPE_CHECKING:
    import pandas as pd

_RELEASE = "LIVE Video Quality Challenge (VQC) Database"

CARD = DatasetCard(
    name="livevqc",
    title="LIVE Video Quality Challenge (videos)",
    task="NR",
    domain="authentic",
    n_images=585,
    mos_range=(0.0, 100.0),
    higher_is_better=True,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=False,
    licence="copyright The University of Texas at Austin; use permitted with acknowledgement",
    citation="Sinno, Bovik. Large-Scale Study of Perceptual Video Quality. IEEE TIP 28(2), 2019",
    url="https://live.ece.utexas.edu/research/LIVEVQC/index.html",
    layout=f"""\
livevqc/           (or livevqc/{_RELEASE}/)
  data.mat
  Video/*.mp4      (needs the extra 'video')""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; a row is a video.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    if (root / _RELEASE).is_dir():
        root = root / _RELEASE
    source, folder = need(CARD, root, "data.mat"), need(CARD, root, "Video")
    cells, mos = load_mat(source, "video_list", "mos")
    names = cell_strings(cells)
    if len(names) != len(mos):
        raise ScoreTableError(f"{source}: {len(names)} names, {len(mos)} MOS")
    frame = pd.DataFrame({"id": names, "path": [str(folder / n) for n in names], "mos": mos})
    return finish(CARD, frame, source)
