"""AIGCIQA2023: 2,400 images by six text-to-image models for 100 prompts, rated for quality, authenticity and
correspondence with the prompt; scores from 0 to 100.

Files as in the authors' release: ``DATA/MOS/mosz1.mat`` (quality, variable MOSz), ``mosz3.mat`` (correspondence, kept
as ``mos_align``) and ``Image/allimg/0.png`` … ``2399.png``: 400 images a model, four in a row for a prompt, as in
the authors' ``transer.py``. ``AIGCIQA2023_Prompts.xlsx`` holds the prompts in its third column, without a row of names.
``DATA/STD/SD1.mat`` is not read: its deviations are those of the raw ratings (0.6 to 1.5 on their five points), the
scores are of standardised ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import finish, load_mat, need, read_workbook
from rali_zoo.errors import ScoreTableError

if TYPE_CHECKING:
    import pandas as pd

_MODELS, _EACH = 6, 4  # models, and images of each for a prompt

CARD = DatasetCard(
    name="aigciqa2023",
    title="AIGCIQA2023 (perceptual quality)",
    task="NR",
    domain="generated",
    n_images=2400,
    mos_range=(0.0, 100.0),
    higher_is_better=True,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=True,
    raters=28,
    licence="for research; none stated",
    citation="Wang, Duan, Liu, Chen, Min, Zhai. AIGCIQA2023: A Large-scale Image Quality Assessment Database "
    "for AI Generated Images. CICAI 2023",
    url="https://github.com/wangjiarui153/AIGCIQA2023",
    layout="""\
aigciqa2023/
  DATA/MOS/mosz1.mat, mosz3.mat
  AIGCIQA2023_Prompts.xlsx
  Image/allimg/0.png … 2399.png""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; images of one prompt share a ``content``.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    source, folder = need(CARD, root, "DATA/MOS/mosz1.mat"), need(CARD, root, "Image/allimg")
    (mos,) = load_mat(source, "MOSz")
    (align,) = load_mat(need(CARD, root, "DATA/MOS/mosz3.mat"), "MOSz")
    if len(mos) != len(align) or len(mos) % (_MODELS * _EACH):
        raise ScoreTableError(
            f"{source}: {len(mos)} scores are not {_EACH} for each prompt and each of {_MODELS} models"
        )
    count = len(mos) // (_MODELS * _EACH)
    prompts = _prompts(need(CARD, root, "AIGCIQA2023_Prompts.xlsx", "prompts.xlsx", "prompt.xlsx"))
    if len(prompts) < count:
        raise ScoreTableError(f"{root}: {len(prompts)} prompts for {count}")
    names = [f"{i}.png" for i in range(len(mos))]
    of_each = [prompts[i // _EACH % count] for i in range(len(mos))]
    frame = pd.DataFrame({"id": names, "path": [str(folder / n) for n in names], "mos": mos})
    frame["content"] = frame["prompt"] = of_each
    frame["mos_align"] = align
    return finish(CARD, frame, source)


def _prompts(path: Path) -> list[str]:
    table = read_workbook(path, header=None)
    if table.shape[1] < 3:
        raise ScoreTableError(
            f"{path}: the prompts are expected in its third column, and it has {table.shape[1]}"
        )
    prompts = table.iloc[:, 2].astype(str).tolist()
    return prompts[1:] if prompts[0].lower() in {"prompt", "prompts"} else prompts
