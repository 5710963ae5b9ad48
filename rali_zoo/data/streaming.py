"""Training sets too large for a folder: tar shards read in sequence through webdataset.

A shard holds, for each image, ``KEY.jpg`` (or .png, .webp) and ``KEY.json`` with ``mos`` on the scale
that the reference declares, and optionally ``std``, ``text`` and ``dataset``.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import torch
from torch.utils.data import IterableDataset

from rali_zoo.data.images import load_image
from rali_zoo.errors import ConfigError, ImageDecodeError, MissingExtraError, ScoreTableError
from rali_zoo.types import MOS_RANGE, Preprocess, Sample
from rali_zoo.uri import parse_uri
from rali_zoo.views import View

log = logging.getLogger(__name__)

_IMAGES = "jpg;jpeg;png;webp"


def is_stream(ref: str) -> bool:
    """Whether a reference names shards."""
    return ref.startswith("webdataset:")


def _sample(row: tuple[bytes, bytes, str], ref: str, low: float, high: float) -> tuple[bytes, Sample]:
    image, text, key = row
    fields = json.loads(text)
    if "mos" not in fields or not low <= float(fields["mos"]) <= high:
        raise ScoreTableError(
            f"{ref}: {key}.json has mos {fields.get('mos')!r}, expected a number in [{low}, {high}]"
        )
    to_five = (MOS_RANGE[1] - MOS_RANGE[0]) / (high - low)
    sample = Sample(
        mos=torch.tensor(MOS_RANGE[0] + (float(fields["mos"]) - low) * to_five),
        std=torch.tensor(float(fields.get("std", "nan")) * to_five),
        dataset=str(fields.get("dataset", ref)),
        id=key,
    )
    if "text" in fields:
        sample["text"] = str(fields["text"])
    return image, sample


class ShardStream(IterableDataset[Sample]):
    """One pass of the samples of tar shards, split over ranks and workers.

    Args:
        refs: ``webdataset:PATTERN?mos_range=0,100`` references; ``{000..009}`` braces are expanded.
        view: how an image is cut.
        preprocess: what the backbone expects.
        seed: of the order of shards and of the shuffle buffer.
        buffer: samples held for shuffling.
    """

    def __init__(
        self, refs: list[str], view: View, preprocess: Preprocess, seed: int, buffer: int = 1000
    ) -> None:
        self.refs, self.view, self.preprocess, self.seed, self.buffer = refs, view, preprocess, seed, buffer
        self.skipped = 0

    def _rows(self, ref: str) -> Any:
        try:
            import webdataset
        except ImportError:
            raise MissingExtraError("webdataset", "stream") from None
        pattern = parse_uri(ref, ["webdataset"], "data set").id
        shards = webdataset.WebDataset(
            pattern,
            shardshuffle=100,
            seed=self.seed,
            nodesplitter=webdataset.split_by_node,
            workersplitter=webdataset.split_by_worker,
            empty_check=False,
        )
        return shards.shuffle(self.buffer, seed=self.seed).to_tuple(_IMAGES, "json", "__key__")

    def __iter__(self) -> Any:
        for ref in self.refs:
            options = parse_uri(ref, ["webdataset"], "data set").take(["mos_range"])
            try:
                low, high = (float(x) for x in options.get("mos_range", "1,5").split(","))
            except ValueError:
                raise ConfigError(f"{ref!r}: mos_range is LOW,HIGH, e.g. mos_range=0,100") from None
            for row in self._rows(ref):
                image, sample = _sample(row, ref, low, high)
                try:
                    sample["image"] = self.view(load_image(image), self.preprocess)
                except ImageDecodeError as error:
                    self.skipped += 1
                    log.warning("%s: %s left out (%s)", ref, sample["id"], error)
                    continue
                yield sample
