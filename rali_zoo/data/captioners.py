"""Captioners: honest stand-ins for a reasoner, until one has written about the images.

None of them looks at the score of an image, but for ``mos_words``, which is for training rows only.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rali_zoo.data import phrases
from rali_zoo.errors import ConfigError, ScoreTableError
from rali_zoo.registry import Table
from rali_zoo.settings import read_frame

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

#: What one text is made of: what is seen, and a rating ("" where the captioner gives none).
Parts = tuple[str, str]
Captioner = Callable[["pd.DataFrame", str, int, int], list[Parts]]

#: name -> function (frame, dataset, seed, workers) -> one :data:`Parts` a row.
CAPTIONERS = Table(
    "captioner",
    "rali_zoo.captioners",
    {"labels": "rali_zoo.data.captioners:labels", "attributes": "rali_zoo.data.captioners:attributes"},
)
#: Raise it whenever a captioner writes another text for the same image.
REVISION = "1"
_MOST_REMARKS = 3


def describe(
    name: str, frame: pd.DataFrame, dataset: str, seeds: int = 1, mos_words: bool = False, workers: int = 1
) -> pd.DataFrame:
    """Texts for the rows of a table of images, as a descriptions table.

    Args:
        name: ``labels`` (from known distortions and levels) or ``attributes`` (measured on the pixels).
        frame: rows with ``id``, ``path`` and what the captioner needs (``labels``: ``distortion``, ``level``
            and, if present, ``levels``); for ``mos_words`` also ``split`` and ``mos`` in [1, 5].
        dataset: reference that the column ``dataset`` gets.
        seeds: differently worded texts an image.
        mos_words: end each text with a rating in 13 grades from the row's own MOS, as a teacher trained on
            these labels would; the columns ``score`` and ``teacher`` say so.
        workers: processes that measure images.

    Raises:
        UnknownNameError: no such captioner.
        ConfigError: ``mos_words`` with a row that is not of the training part or has no MOS; ``seeds`` below
            1; or rows without what the captioner needs.
        ImageDecodeError: an image that ``attributes`` cannot read.
    """
    import pandas as pd

    captioner: Captioner = CAPTIONERS[name]
    if seeds < 1:
        raise ConfigError(f"seeds={seeds}: an image needs at least 1 text")
    if mos_words:
        _refuse_unless_training(frame, dataset)
    ids = frame["id"].astype(str).tolist()
    scores = frame["mos"].astype(float).tolist() if mos_words else [math.nan] * len(ids)
    tables = []
    for seed in range(seeds):
        parts = captioner(frame, dataset, seed, workers)
        if mos_words:
            rngs = (_rng(dataset, image_id, seed, "mos") for image_id in ids)
            ratings = [_mos_rating(mos, rng) for mos, rng in zip(scores, rngs, strict=True)]
        else:
            ratings = [rating for _, rating in parts]
        texts = [f"{seen} {rating}".strip() for (seen, _), rating in zip(parts, ratings, strict=True)]
        tables.append(pd.DataFrame({"image_id": ids, "text": texts, "score": scores, "seed": seed}))
    table = pd.concat(tables, ignore_index=True)
    table["dataset"], table["revision"] = dataset, REVISION
    table["teacher"] = f"{name}+mos" if mos_words else name
    return table[["dataset", "image_id", "text", "score", "teacher", "revision", "seed"]]


def labels(frame: pd.DataFrame, dataset: str, seed: int, workers: int) -> list[Parts]:
    """From the distortion classes (joined by ``;``) and their levels, 1 to 5, that a table knows.

    The rating comes from the levels alone. Levels of 0 are unknown: then nothing is said of strength.

    Args:
        frame: columns ``id``, ``distortion``, and ``levels`` or ``level`` where known.
        dataset: reference of the data set; with the ids it decides the choice of words.
        seed: of that choice.
        workers: not used.

    Raises:
        ConfigError: an image whose distortion is not known.
    """
    if "distortion" not in frame or (frame["distortion"].fillna("").astype(str) == "").any():
        raise ConfigError(
            f"the captioner 'labels' needs the distortion of every image, and {dataset} does not tell it; "
            "use 'attributes', which measures the images"
        )
    names = frame["distortion"].astype(str).str.split(";").tolist()
    if "levels" in frame:
        levels = [[int(v) for v in str(text).split(";") if v] for text in frame["levels"]]
    else:
        largest = frame["level"].astype(int).tolist() if "level" in frame else [0] * len(frame)
        levels = [[level] * len(kinds) for level, kinds in zip(largest, names, strict=True)]
    return [
        _label_parts(kinds, strengths, _rng(dataset, str(image_id), seed, "labels"))
        for kinds, strengths, image_id in zip(names, levels, frame["id"], strict=True)
    ]


def attributes(frame: pd.DataFrame, dataset: str, seed: int, workers: int) -> list[Parts]:
    """From what :mod:`rali_zoo.data.attributes` measures, in words whose thresholds are constants.

    Args:
        frame: columns ``id`` and ``path``.
        dataset: reference of the data set; with the ids it decides the choice of words.
        seed: of that choice.
        workers: processes that measure.
    """
    measured = measurements(frame["path"].astype(str).tolist(), workers)
    return [
        (_attribute_text(values, _rng(dataset, str(image_id), seed, "attributes")), "")
        for values, image_id in zip(measured, frame["id"], strict=True)
    ]


def measurements(paths: Sequence[str], workers: int = 1) -> list[dict[str, float]]:
    """:func:`rali_zoo.data.attributes.measure` of each file, remembered by path, size and modification time.

    The memory is a file for each folder of images below the cache; of two processes that write it at
    once one's measurements are lost and made again when next asked for.
    """
    import pandas as pd
    from joblib import Parallel, delayed
    from rich.console import Console
    from rich.progress import track

    from rali_zoo.data.attributes import NAMES, VERSION
    from rali_zoo.data.checks import file_key
    from rali_zoo.paths import atomic_path, cache_dir

    if not paths:
        return []
    keys = [file_key(path) for path in paths]
    folder = f"{zlib.crc32(keys[0].rsplit('|', 2)[0].rpartition('/')[0].encode()):08x}"
    memory = cache_dir("attributes") / f"v{VERSION}-{folder}.parquet"
    known = _known(memory, NAMES)
    wanted = {key: path for key, path in zip(keys, paths, strict=True) if key not in set(known.index)}
    if wanted:
        made = Parallel(n_jobs=workers, return_as="generator")(delayed(_measure)(p) for p in wanted.values())
        console = Console(stderr=True)
        shown = track(
            made, "measuring images (once)", len(wanted), console=console, disable=not console.is_terminal
        )
        fresh = pd.DataFrame(list(shown), index=list(wanted), columns=list(NAMES))
        known = pd.concat([known, fresh]) if len(known) else fresh
        with atomic_path(memory) as temporary:
            known.to_parquet(temporary, write_page_checksum=True)
    return known.loc[keys].to_dict("records")


def _known(memory: Path, names: Sequence[str]) -> pd.DataFrame:
    """What was measured before; nothing where the file is absent or damaged."""
    import pandas as pd

    if memory.exists():
        try:
            found = read_frame(memory)
            if list(found.columns) == list(names):
                return found
        except ScoreTableError as error:
            log.warning("%s; the images are measured again", error)
    return pd.DataFrame(columns=list(names), dtype=float)


def _measure(path: str) -> dict[str, float]:
    from rali_zoo.data.attributes import measure
    from rali_zoo.data.images import load_image
    from rali_zoo.errors import ImageDecodeError

    try:
        return measure(load_image(path))
    except ImageDecodeError as error:
        raise ImageDecodeError(f"{path}: {error}") from error


def _refuse_unless_training(frame: pd.DataFrame, dataset: str) -> None:
    split = frame["split"].fillna("").astype(str) if "split" in frame else None
    if split is None or (split != "train").any():
        count = len(frame) if split is None else int((split != "train").sum())
        raise ConfigError(
            f"mos_words puts the scores of {dataset} into texts, and {count} of {len(frame)} rows are not "
            "of its training part; give only rows whose split is 'train', or leave mos_words off"
        )
    if "mos" not in frame or not frame["mos"].between(1, 5).all():
        raise ConfigError(
            f"mos_words needs a MOS in [1, 5] for every row of {dataset}; rows of load_table have it"
        )


def _rng(*parts: object) -> np.random.Generator:
    # one stream a text, so that a text does not depend on which other rows are asked for
    return np.random.default_rng(zlib.crc32("|".join(map(str, parts)).encode()))


def _pick(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _mos_rating(mos: float, rng: np.random.Generator) -> str:
    grade = phrases.mos_grade(mos)
    return _pick(
        (f"Overall quality: {grade}.", f"The picture is {grade} overall.", f"I rate it {grade}."), rng
    )


def _label_parts(kinds: list[str], levels: list[int], rng: np.random.Generator) -> Parts:
    if kinds == ["pristine"]:
        kinds, levels = [], []
        seen = _pick(("No distortion is visible, sharp and clean.", "Clean and undistorted picture."), rng)
    else:
        # the strongest first, as one would tell it
        ordered = sorted(zip(levels, kinds, strict=True), key=lambda pair: -pair[0])
        clauses = [_clause(kind, level, i == 0, rng) for i, (level, kind) in enumerate(ordered)]
        joined = _pick((", with ", "; also ", ", plus "), rng).join(clauses)
        seen = _sentence(joined)
    if kinds and not any(levels):
        return seen, ""
    total = math.sqrt(sum(level**2 for level in levels))
    rating = next(word for limit, word in phrases.RATINGS if total <= limit)
    return seen, _pick(
        (f"Overall quality is {rating}.", f"The result looks {rating}.", f"A {rating} image."), rng
    )


def _clause(kind: str, level: int, first: bool, rng: np.random.Generator) -> str:
    phrase = phrases.distortion_phrase(kind)
    adjectives, adverbs = phrases.SEVERITY.get(level, (("some",), ("",)))
    head = f"{_pick(adjectives, rng)} {_pick(phrase.nouns, rng)} {_pick(phrase.where, rng)}"
    return f"{head}, {_pick(adverbs, rng)} {_pick(phrase.effects, rng)}".replace("  ", " ") if first else head


def _attribute_text(values: dict[str, float], rng: np.random.Generator) -> str:
    words = {name: _pick(phrases.graded(name, values[name]), rng) for name in phrases.GRADES}
    sentences = [
        f"{words['best_acuity']}, {words['edge_strength']} edges, {words['detail']}",
        f"{words['noise']}, {words['blockiness']}",
        f"{words['contrast']} contrast, {words['colourfulness']} colours, {words['brightness']} exposure",
    ]
    if rng.random() < 0.5:
        sentences[1], sentences[2] = sentences[2], sentences[1]
    said = [_pick(options, rng) for options in phrases.remarks(values)[:_MOST_REMARKS]]
    if said:
        sentences.append(", ".join(said))
    return " ".join(_sentence(sentence) for sentence in sentences)
