"""The descriptions table: the contract between who describes images and who learns from the texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.errors import ScoreTableError
from rali_zoo.paths import atomic_path
from rali_zoo.settings import read_frame

if TYPE_CHECKING:
    import pandas as pd

#: dataset: reference; image_id: the row's ``id``; score: the teacher's own, in [1, 5], NaN where none;
#: teacher: who wrote the text; revision: of the teacher; seed: of its sampling.
COLUMNS = ("dataset", "image_id", "text", "score", "teacher", "revision", "seed")
_KEY = ["dataset", "image_id", "teacher", "revision", "seed"]
_TEXT = ("dataset", "image_id", "text", "teacher", "revision")


def read_descriptions(path: str | Path) -> pd.DataFrame:
    """Read a ``.parquet`` or ``.jsonl`` table of descriptions.

    Returns:
        A frame with exactly :data:`COLUMNS`.

    Raises:
        ScoreTableError: no such file, another format, or rows that :func:`check_descriptions` refuses.
    """
    import pandas as pd

    path = Path(path)
    if path.suffix not in (".parquet", ".jsonl"):
        raise ScoreTableError(f"descriptions {path}: the file must end in .parquet or .jsonl")
    if not path.is_file():
        raise ScoreTableError(
            f"descriptions {path} do not exist; columns of such a table: {', '.join(COLUMNS)}"
        )
    try:
        if path.suffix == ".parquet":
            frame = read_frame(path)
        else:
            # not pandas.read_json, which makes a number of "007" and a date of a column's name
            lines = path.read_text(encoding="utf-8").splitlines()
            frame = pd.DataFrame([json.loads(line) for line in lines if line.strip()])
    except (ValueError, OSError, RecursionError) as error:
        if isinstance(error, ScoreTableError):
            raise
        raise ScoreTableError(f"descriptions {path} cannot be read: {error}") from error
    return check_descriptions(frame, str(path))


def check_descriptions(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """The frame with exactly :data:`COLUMNS`, typed.

    Args:
        frame: what was read or made.
        source: where it came from, for messages.

    Raises:
        ScoreTableError: a missing column, an empty text, a score outside [1, 5], a seed that is no whole
            number, or two rows of the same dataset, image, teacher, revision and seed.
    """
    import pandas as pd

    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ScoreTableError(
            f"descriptions {source}: no column {', '.join(missing)}; all of {', '.join(COLUMNS)}"
        )
    frame = frame[list(COLUMNS)].reset_index(drop=True)

    def refuse(bad: pd.Series, what: str) -> None:
        if bad.any():
            rows = frame.index[bad].tolist()
            raise ScoreTableError(
                f"descriptions {source}: {what} in {len(rows)} rows, first {rows[:5]} (from 0)"
            )

    for name in _TEXT:
        refuse(frame[name].isna() | (frame[name].astype(str).str.strip() == ""), f"empty {name}")
        frame[name] = frame[name].astype(str)
    score = pd.to_numeric(frame["score"], errors="coerce")
    refuse(score.isna() & frame["score"].notna(), "score is no number")
    refuse(score.notna() & ~score.between(1, 5), "score outside [1, 5]")
    seed = pd.to_numeric(frame["seed"], errors="coerce")
    refuse(seed.isna() | (seed % 1 != 0), "seed is no whole number")
    frame["score"], frame["seed"] = score.astype(float), seed.astype("int64")
    refuse(frame.duplicated(_KEY), f"the same {', '.join(_KEY)} as an earlier row")
    return frame


def write_descriptions(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a checked table as ``.parquet`` or ``.jsonl``: the whole file or none.

    Raises:
        ScoreTableError: another ending, or rows that :func:`check_descriptions` refuses.
    """
    path = Path(path)
    if path.suffix not in (".parquet", ".jsonl"):
        raise ScoreTableError(f"descriptions {path}: the file must end in .parquet or .jsonl")
    frame = check_descriptions(frame, str(path))
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            frame.to_parquet(temporary, index=False)
        else:
            frame.to_json(temporary, orient="records", lines=True, force_ascii=False)


def texts_by_image(frame: pd.DataFrame) -> dict[tuple[str, str], list[str]]:
    """Texts by (dataset, image id), in the order of the rows."""
    texts: dict[tuple[str, str], list[str]] = {}
    columns = (frame["dataset"].astype(str), frame["image_id"].astype(str), frame["text"])
    for dataset, image_id, text in zip(*columns, strict=True):
        texts.setdefault((dataset, image_id), []).append(text)
    return texts
