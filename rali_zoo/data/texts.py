"""The texts of training images, gathered from captioners and description tables."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rali_zoo.data.captioners import CAPTIONERS, describe
from rali_zoo.data.descriptions import read_descriptions, texts_by_image
from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.uri import Uri, split_options

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

_FILES = (".parquet", ".jsonl")
_OPTIONS = ("seeds", "mos_words")


def _from_captioner(source: str, frames: dict[str, pd.DataFrame]) -> list[pd.DataFrame]:
    name, options = split_options(source)
    if name not in CAPTIONERS:
        raise UnknownNameError("captioner (or a .parquet or .jsonl table)", name, CAPTIONERS)
    Uri("", name, options).take(_OPTIONS)
    words = options.get("mos_words", "false").lower()
    if words not in ("true", "false"):
        raise ConfigError(f"{source!r}: mos_words is true or false")
    try:
        seeds = int(options.get("seeds", "1"))
    except ValueError:
        raise ConfigError(f"{source!r}: seeds is a whole number") from None
    return [
        describe(name, frame, ref, seeds=seeds, mos_words=words == "true") for ref, frame in frames.items()
    ]


def gather_texts(
    sources: list[str], frames: dict[str, pd.DataFrame], max_undescribed: float = 0.0
) -> dict[tuple[str, str], list[str]]:
    """All texts of the training images.

    Args:
        sources: captioners with options (``labels?seeds=2``) and paths of description tables.
        frames: training rows by reference; only these are described.
        max_undescribed: share in [0, 1] of a data set's rows that may lack a text; how many is said.

    Returns:
        Texts by (reference, id); at least one for every row that has any.

    Raises:
        ConfigError: more images that no source describes.
        UnknownNameError: neither a captioner nor a table.
    """
    import pandas as pd

    tables: list[pd.DataFrame] = []
    for source in sources:
        if source.endswith(_FILES):
            tables.append(read_descriptions(source))
        else:
            tables += _from_captioner(source, frames)
    texts = texts_by_image(pd.concat(tables, ignore_index=True))
    found: dict[tuple[str, str], list[str]] = {}
    for ref, frame in frames.items():
        wanted = [(ref, str(i)) for i in frame["id"]]
        silent = [key for key in wanted if not texts.get(key)]
        if silent:
            message = (
                f"{ref}: {len(silent)} of {len(wanted)} training images have no description in "
                f"{sources}, e.g. {[name for _, name in silent[:3]]}"
            )
            if len(silent) > max_undescribed * len(wanted):
                raise ConfigError(
                    f"{message}; data.max_undescribed = {max_undescribed:.1%} may be left out. The columns "
                    "dataset and image_id of a table must be the reference and the id of data.train"
                )
            log.warning("%s: left out", message)
        found |= {key: texts[key] for key in wanted if texts.get(key)}
    return found
