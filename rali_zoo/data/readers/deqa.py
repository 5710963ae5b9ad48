"""``deqa:PATH``: the metas of Data-DeQA-Score (Hugging Face, zhiyuanyou/Data-DeQA-Score).

PATH is one JSON file or the folder ``metas``. A file is a list of {image, gt_score, gt_score_norm, std,
std_norm, id}, in training files also ``level_probs`` for excellent … bad. ``gt_score_norm`` is on [1, 5]
already, by the extremes of its data set; it is read as it stands. The files' names say the split:
``train_*.json``, ``test_*.json``.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard, Protocol
from rali_zoo.data.readers.frame import finish, need_columns, need_table, numbers
from rali_zoo.data.readers.options import unknown_card
from rali_zoo.errors import ScoreTableError

if TYPE_CHECKING:
    import pandas as pd

OPTIONS = ("root",)

URL = "https://huggingface.co/datasets/zhiyuanyou/Data-DeQA-Score"

LAYOUT = """\
Data-DeQA-Score/                (?root=FOLDER when it is elsewhere)
  KONIQ/metas/train_koniq_7k.json, test_koniq_2k.json
  KONIQ/images/*.jpg            (as the field image says)"""


def open(path: str, options: dict[str, str]) -> tuple[DatasetCard, pd.DataFrame]:
    """Read a file or a folder of metas; ``root`` is the folder that the images' paths start from.

    Raises:
        ScoreTableError: no such file or folder, or rows that cannot be trusted.
    """
    import pandas as pd

    source = Path(path)
    need_table(source, f"{LAYOUT}\nGet it from {URL}")
    files = meta_files(source) if source.is_dir() else {_part(source): source}
    folder = source if source.is_dir() else source.parent
    root = Path(options["root"]) if "root" in options else folder.resolve().parent.parent
    frame = pd.concat([_rows(file, part, root) for part, file in files.items()], ignore_index=True)
    split = (frame["split"] != "").all()
    protocols: tuple[Protocol, ...] = ("official", "whole") if split else ("whole",)
    citation = (
        "You, Cai, Gu, Xue, Dong. Teaching Large Language Models to Regress Accurate Image Quality Scores using "
        "Score Distribution. CVPR 2025"
    )
    card = unknown_card(
        f"deqa:{path}", len(frame), protocols=protocols, url=URL, layout=LAYOUT, citation=citation
    )
    return card, finish(card, frame, source)


def load_metas(path: Path) -> pd.DataFrame:
    """One JSON file as a table; raises :class:`ScoreTableError`."""
    import pandas as pd

    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ScoreTableError(f"{path} is no readable JSON: {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise ScoreTableError(f"{path}: expected a list of objects with image, gt_score_norm, …")
    return pd.DataFrame(rows)


def meta_files(folder: Path) -> dict[str, Path]:
    """The lists of a folder by part, as far as there; raises :class:`ScoreTableError` on none or a choice."""
    found: dict[str, Path] = {}
    for part in ("train", "test"):
        files = sorted(folder.glob(f"{part}_*.json"))
        if len(files) > 1:
            raise ScoreTableError(
                f"{folder} holds several {part} lists: {', '.join(f.name for f in files)}; keep one"
            )
        if files:
            found[part] = files[0]
    if not found:
        raise ScoreTableError(f"{folder} holds no train_*.json and no test_*.json")
    return found


def _part(file: Path) -> str:
    start = file.name.partition("_")[0]
    return start if start in ("train", "test") else ""


def _rows(file: Path, part: str, root: Path) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    table = load_metas(file)
    need_columns(table, ("image", "gt_score_norm"), file)
    images = table["image"].astype(str)
    frame = pd.DataFrame(
        {
            "id": [PurePosixPath(n).name for n in images],
            "path": [str(root / n) for n in images],
            "mos": numbers(table, "gt_score_norm", file),
            "std": numbers(table, "std_norm", file) if "std_norm" in table else np.nan,
            "split": part,
        }
    )
    if "gt_score" in table:
        frame["gt_score"] = numbers(table, "gt_score", file)
    if "level_probs" in table:
        frame["level_probs"] = table["level_probs"]
    return frame
