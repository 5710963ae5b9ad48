"""KoNViD-1k: 1,200 videos of 8 s from the web, 960 x 540, rated by a crowd on a five-point scale.

Files as on the authors' page: the folder ``KoNViD_1k_videos`` and ``KoNViD_1k_attributes.csv`` (flickr_id,
file_name, MOS and features of the video; some releases add SD) or ``KoNViD_1k_mos.csv`` (flickr_id, mos).
Videos are called by their flickr_id, or by their file_name in an earlier release.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, need, need_columns, numbers, read_csv, real_names

if TYPE_CHECKING:
    import pandas as pd

CARD = DatasetCard(
    name="konvid1k",
    title="KoNViD-1k (videos)",
    task="NR",
    domain="authentic",
    n_images=1200,
    mos_range=(1.0, 5.0),
    higher_is_better=True,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=False,
    licence="free for research; the videos come from YFCC100M under their Creative Commons licences",
    citation="Hosu, Hahn, Jenadeleh, Lin, Men, Sziranyi, Li, Saupe. The Konstanz Natural Video Database "
    "(KoNViD-1k). QoMEX, 2017",
    url="https://database.mmsp-kn.de/konvid-1k-database.html",
    layout="""\
konvid1k/
  KoNViD_1k_attributes.csv    (or KoNViD_1k_mos.csv; also inside KoNViD_1k_metadata/)
  KoNViD_1k_videos/*.mp4      (needs the extra 'video')""",
)
_TABLES = ("KoNViD_1k_attributes.csv", "KoNViD_1k_mos.csv")
_FOLDERS = ("", "KoNViD_1k_metadata/", "KoNViD_1k_videos/")


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; a row is a video.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    source = need(CARD, root, *(folder + table for table in _TABLES for folder in _FOLDERS))
    videos = need(CARD, root, "KoNViD_1k_videos")
    table = read_csv(source)
    score = "MOS" if "MOS" in table else "mos"
    need_columns(table, ("flickr_id", score), source)
    ids = [f"{name.removesuffix('.0')}.mp4" for name in table["flickr_id"]]
    there = real_names(videos)
    long = table["file_name"].tolist() if "file_name" in table else ids
    names = [there.get(n.lower(), i) for i, n in zip(ids, long, strict=True)]
    frame = pd.DataFrame({"id": ids, "path": [str(videos / n) for n in names]})
    frame["mos"] = numbers(table, score, source)
    if "SD" in table:
        frame["std"] = numbers(table, "SD", source)
    return finish(CARD, frame, source)
