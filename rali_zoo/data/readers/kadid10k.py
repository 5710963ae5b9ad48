"""KADID-10k: 81 pristine photographs x 25 distortions x 5 levels, rated by a crowd.

File as distributed: ``dmos.csv``, later ``kadid10k.csv`` (dist_img, ref_img, dmos, var). Despite its name
``dmos`` runs from 1 to 5 and higher is better, and ``var`` is the standard deviation of the ratings: 4.57
with "var" .496 is the mean and deviation of 17 fives and 13 fours.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import existing, finish, need, need_columns, numbers, read_csv, some
from rali_zoo.errors import ScoreTableError

if TYPE_CHECKING:
    import pandas as pd

#: In the order of the two digits in a file's name (paper, table 2).
DISTORTIONS = (
    "gaussian_blur", "lens_blur", "motion_blur", "color_diffusion", "color_shift", "color_quantization",
    "color_saturation_1", "color_saturation_2", "jpeg2000", "jpeg", "white_noise", "white_noise_color",
    "impulse_noise", "multiplicative_noise", "denoise", "brighten", "darken", "mean_shift", "jitter",
    "non_eccentricity_patch", "pixelate", "quantization", "color_block", "high_sharpen", "contrast_change",
)  # fmt: skip

_NAME = re.compile(r"^(I\d+)_(\d\d)_(\d\d)\.png$")

CARD = DatasetCard(
    name="kadid10k",
    title="KADID-10k",
    task="FR",
    domain="distorted",
    n_images=10125,
    mos_range=(1.0, 5.0),
    higher_is_better=True,
    protocols=("deqa", "whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=True,
    raters=30,  # paper, abstract
    licence="free for research; the pristine images are under the Pixabay licence",
    citation="Lin, Hosu, Saupe. KADID-10k: A Large-scale Artificially Distorted IQA Database. QoMEX 2019",
    url="https://database.mmsp-kn.de/kadid-10k-database.html",
    layout="""\
kadid10k/
  dmos.csv                    (or kadid10k.csv)
  images/I01_01_01.png …      (and the references I01.png …)
  metas/{train,test}_*.json   (only for ?protocol=deqa)""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; ``reference`` is the path of the reference image,
    ``""`` where it is not on disk.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    source, folder = need(CARD, root, "dmos.csv", "kadid10k.csv"), need(CARD, root, "images")
    table = read_csv(source)
    need_columns(table, ("dist_img", "ref_img", "dmos", "var"), source)
    parts = [_NAME.match(n) for n in table["dist_img"]]
    odd = [n for n, p in zip(table["dist_img"], parts, strict=True) if p is None or not 1 <= int(p[2]) <= 25]
    if odd:
        raise ScoreTableError(f"{source}: names that are not like I01_01_01.png: {some(odd)}")
    frame = pd.DataFrame(
        {
            "id": table["dist_img"],
            "path": [str(folder / n) for n in table["dist_img"]],
            "mos": numbers(table, "dmos", source),
            "std": numbers(table, "var", source),
            "content": [Path(n).stem for n in table["ref_img"]],
            "distortion": [DISTORTIONS[int(p[2]) - 1] for p in parts if p],
            "level": [int(p[3]) for p in parts if p],
            "reference": existing([str(folder / n) for n in table["ref_img"]]),
        }
    )
    return finish(CARD, frame, source)
