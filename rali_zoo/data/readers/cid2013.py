"""CID2013: 474 photographs of eight scenes by 79 cameras, in six image sets; scores from 0 to 100.

File as in the authors' release: ``CID2013 data - version 12112014.xlsx``, sheet ``CID2013 MOS`` (Source_ID,
Realigned MOS, …), with images called by their Source_ID below ``IS1`` to ``IS6``. The realigned scores of a later study
put the six sets on one scale. Images that share set and scene (``IS_I_C01``) share a ``content``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, named, need, need_columns, read_workbook

if TYPE_CHECKING:
    import pandas as pd

CARD = DatasetCard(
    name="cid2013",
    title="CID2013",
    task="NR",
    domain="authentic",
    n_images=474,
    mos_range=(0.0, 100.0),
    higher_is_better=True,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=True,
    licence="for research; see the authors' page",
    citation="Virtanen, Nuutinen, Vaahteranoksa, Oittinen, Häkkinen. CID2013: A Database for Evaluating No-"
    "Reference Image Quality Assessment Algorithms. IEEE TIP 24(1), 2015",
    url="https://zenodo.org/records/2647033",
    layout="""\
cid2013/
  CID2013 data - version 12112014.xlsx
  IS1/… IS6/…   (IS_I_C01_D01.jpg …)""",
    note="The workbook was not at hand: sheet and columns as others' programs read them; the paper counts 480 images, "
    "the release scores 474.",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    found = sorted(root.glob("CID2013 data*.xlsx"))
    source = found[-1] if found else need(CARD, root, "CID2013 data - version 12112014.xlsx")
    need(CARD, root, "IS1")
    table = read_workbook(source, "CID2013 MOS")
    need_columns(table, ("Source_ID", "Realigned MOS"), source)
    table["name"] = [f"{name}.jpg" for name in table["Source_ID"]]
    there = {path.name: str(path) for path in root.glob("IS*/**/*.jpg")}
    frame = named(table, source, root / "IS1", "name", "Realigned MOS")
    frame["path"] = [there.get(name, path) for name, path in zip(frame["id"], frame["path"], strict=True)]
    frame["content"] = ["_".join(name.split("_")[:3]) for name in frame["id"]]
    return finish(CARD, frame, source)
