"""AGIQA-3K: 2,982 images by six text-to-image models, rated for quality and for alignment with the prompt.

File as in the authors' repository: ``data.csv`` (name, prompt, adj1, adj2, style, mos_quality, std_quality,
mos_align, std_align); both scores run from 0 to 5. ``mos`` is the quality; alignment is kept as free
columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, need, need_columns, numbers, read_csv

if TYPE_CHECKING:
    import pandas as pd

CARD = DatasetCard(
    name="agiqa3k",
    title="AGIQA-3K (perceptual quality)",
    task="NR",
    domain="generated",
    n_images=2982,
    mos_range=(0.0, 5.0),
    higher_is_better=True,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=True,
    raters=21,  # paper: 125,244 ratings by 21 subjects, two questions an image
    licence="MIT",
    citation="Li, Zhang, Wu, Sun, Min, Liu, Zhai, Lin. AGIQA-3K: An Open Database for AI-Generated"
    " Image Quality Assessment. IEEE TCSVT, 2023",
    url="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
    layout="""\
agiqa3k/
  data.csv
  images/*.jpg   (or AGIQA-3K/*.jpg)""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; images of one prompt share a ``content``.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    source, folder = need(CARD, root, "data.csv"), need(CARD, root, "images", "AGIQA-3K")
    table = read_csv(source)
    need_columns(table, ("name", "prompt", "mos_quality", "std_quality", "mos_align", "std_align"), source)
    frame = pd.DataFrame(
        {
            "id": table["name"],
            "path": [str(folder / n) for n in table["name"]],
            "mos": numbers(table, "mos_quality", source),
            "std": numbers(table, "std_quality", source),
            "content": table["prompt"],
            "prompt": table["prompt"],
            "mos_align": numbers(table, "mos_align", source),
            "std_align": numbers(table, "std_align", source),
        }
    )
    return finish(CARD, frame, source)
