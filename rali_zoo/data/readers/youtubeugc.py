"""YouTube-UGC: 1,380 clips of 20 s from YouTube, rated by a crowd on a five-point scale.

File as in the authors' bucket: ``original_videos_MOS_for_YouTube_UGC_dataset.xlsx``, sheet ``MOS`` (vid, MOS full, …),
with the clips of ``original_videos_h264`` (``VID_crf_10_ss_00_t_20.0.mp4``) or ``VID.mkv`` in ``videos/``. Clips that
were withdrawn since are rows without a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, named, need, need_columns, read_workbook, real_names

if TYPE_CHECKING:
    import pandas as pd

_NAME = "original_videos_MOS_for_YouTube_UGC_dataset"

CARD = DatasetCard(
    name="youtubeugc",
    title="YouTube-UGC (videos)",
    task="NR",
    domain="authentic",
    n_images=1380,
    mos_range=(1.0, 5.0),
    higher_is_better=True,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=False,
    licence="Creative Commons Attribution, as the videos",
    citation="Wang, Inguva, Adsumilli. YouTube UGC Dataset for Video Compression Research. MMSP 2019",
    url="https://media.withyoutube.com",
    layout="""\
youtubeugc/
  original_videos_MOS_for_YouTube_UGC_dataset.xlsx
  original_videos_h264/*.mp4   (or videos/; needs the extra "video")""",
    note="The workbook was not at hand: sheet and columns as others' programs read them (scores from 1.24 to 4.70).",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; a row is a video, called by its ``vid``.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    source, folder = need(CARD, root, f"{_NAME}.xlsx"), need(CARD, root, "original_videos_h264", "videos")
    table = read_workbook(source, "MOS")
    need_columns(table, ("vid", "MOS full"), source)
    table["vid"] = table["vid"].astype(str)
    frame = named(table, source, folder, "vid", "MOS full")
    there = real_names(folder)
    known = {vid: next((v for v in _spelt(vid) if v.lower() in there), f"{vid}.mp4") for vid in frame["id"]}
    frame["path"] = [str(folder / known[vid]) for vid in frame["id"]]
    return finish(CARD, frame, source)


def _spelt(vid: str) -> tuple[str, ...]:
    return (f"{vid}_crf_10_ss_00_t_20.0.mp4", f"{vid}.mp4", f"{vid}.mkv")
