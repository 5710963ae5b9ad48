"""Training sets too large for a folder: tar shards read in sequence, laid out as WebDataset lays them out.

A shard holds, for each image, ``KEY.jpg`` (or any other suffix that can be opened) and beside it ``KEY.json`` with
``mos`` on the scale that the reference declares, and optionally ``std``, ``text`` and ``dataset``. A key ends at
the last dot of a name. Members without their other half are left out, named and counted.
"""

from __future__ import annotations

import json
import logging
import math
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Literal, cast

import torch
from torch.utils.data import IterableDataset, get_worker_info

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.dataset import generator
from rali_zoo.data.formats import IMAGE_SUFFIXES
from rali_zoo.data.images import load_views
from rali_zoo.data.readers.options import number_pair, truth, unknown_card
from rali_zoo.data.samplers import place_of
from rali_zoo.errors import ImageDecodeError, MissingExtraError, ScoreTableError, UriError
from rali_zoo.types import Preprocess, Sample
from rali_zoo.uri import parse_uri
from rali_zoo.views import View

log = logging.getLogger(__name__)

_REMOTE = ("https", "http", "s3", "gs", "hf")
_LARGEST = 1 << 30  # bytes of a member


def is_stream(ref: str) -> bool:
    """Whether a reference names shards."""
    return ref.startswith("webdataset:")


@dataclass(frozen=True)
class Shards:
    """What a reference ``webdataset:PATTERN`` names, checked before anything is opened.

    Attributes:
        ref: the reference.
        card: scale of the scores.
        paths: of the shards; braces such as ``{000..009}`` are expanded.

    Raises:
        UriError: an option that cannot be read, a command, or an address without ``remote=true``.
        MissingExtraError: braceexpand is not installed.
    """

    ref: str
    card: DatasetCard = field(init=False)
    paths: list[str] = field(init=False)

    def __post_init__(self) -> None:
        uri = parse_uri(self.ref, ["webdataset"], "data set")
        options = {
            "mos_range": "1,5",
            **uri.take(["mos_range", "higher_is_better", "remote"]),
        }
        try:
            from braceexpand import braceexpand
        except ImportError:
            raise MissingExtraError("braceexpand", "stream") from None
        paths = list(braceexpand(uri.id))
        remote = truth(self.ref, options, "remote", default=False)
        for path in paths:
            scheme, address, _ = path.partition("://")
            if path.startswith("pipe:") or "::" in path or (address and scheme not in _REMOTE):
                raise UriError(
                    f"{self.ref!r}: shards are files or addresses ({', '.join(_REMOTE)}), no commands"
                )
            if address and not remote:
                raise UriError(f"{self.ref!r}: to fetch shards from a network, say so: add remote=true")
        object.__setattr__(self, "paths", paths)
        object.__setattr__(
            self,
            "card",
            unknown_card(
                self.ref,
                1,
                mos_range=number_pair(self.ref, options, "mos_range"),
                higher_is_better=truth(self.ref, options, "higher_is_better", default=True),
            ),
        )


@dataclass
class _Member:
    """The halves of one sample, as far as there."""

    shard: str
    key: str
    image: bytes = b""
    fields: bytes = b""

    def sample(self, shards: Shards) -> Sample:
        """All but the image; raises ``ValueError`` for fields that cannot be used."""
        if not self.image or not self.fields:
            raise ValueError(f"has no {'image' if self.fields else 'json'}")
        found = json.loads(self.fields)
        mos = float(found["mos"]) if isinstance(found, dict) and "mos" in found else math.nan
        if math.isnan(mos):
            raise ValueError("its json has no number mos")
        card, (low, high) = shards.card, shards.card.mos_range
        if not low <= mos <= high:
            raise ScoreTableError(
                f"{shards.ref}: {self.shard}: {self.key}.json has mos {mos}, expected a number in [{low}, {high}]"
            )
        sample = Sample(
            mos=torch.tensor(card.to_mos(mos)),
            std=torch.tensor(card.to_std(float(found.get("std", "nan")))),
            dataset=str(found.get("dataset", shards.ref)),
            id=self.key,
        )
        if "text" in found:
            sample["text"] = str(found["text"])
        return sample


class ShardStream(IterableDataset[Sample]):
    """One pass of the samples of tar shards, split over ranks and workers; its order depends on seed and epoch.

    Args:
        refs: ``webdataset:PATTERN?mos_range=0,100`` references, with ``higher_is_better=false`` for DMOS and
            ``remote=true`` for addresses.
        view: how an image is cut.
        preprocess: what the backbone expects.
        seed: of the order of shards, of the shuffle buffer and of what is random in the view.
        buffer: samples held for shuffling.

    Raises:
        UriError: as :class:`Shards`.
    """

    def __init__(
        self, refs: list[str], view: View, preprocess: Preprocess, seed: int, buffer: int = 1000
    ) -> None:
        self.sets = [Shards(ref) for ref in refs]
        self.view, self.preprocess, self.seed, self.buffer = view, preprocess, seed, buffer
        self.epoch = 0
        self.skipped = 0

    def __iter__(self) -> Iterator[Sample]:
        world, rank = place_of()
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker is not None else (1, 0)
        rng = random.Random(f"{self.seed}|{self.epoch}")
        given = 0
        for shards in self.sets:
            paths = rng.sample(shards.paths, len(shards.paths))[rank * workers + number :: world * workers]
            for member in _shuffled(_members(paths), self.buffer, rng):
                try:
                    sample = member.sample(shards)
                    draw = generator(self.seed, self.epoch, sample["id"])
                    sample["image"] = load_views(member.image, self.view, self.preprocess, draw=draw)
                except ScoreTableError:
                    raise
                except (ImageDecodeError, ValueError) as error:
                    self.skipped += 1
                    log.warning("%s: %s: %s left out (%s)", shards.ref, member.shard, member.key, error)
                    continue
                given += 1
                yield sample
        if self.skipped and not given:
            raise ScoreTableError(f"{[s.ref for s in self.sets]}: none of {self.skipped} samples can be used")


def _shuffled(members: Iterator[_Member], buffer: int, rng: random.Random) -> Iterator[_Member]:
    held: list[_Member] = []
    for member in members:
        if len(held) < buffer:
            held.append(member)
            continue
        place = rng.randrange(buffer)
        yield held[place]
        held[place] = member
    rng.shuffle(held)
    yield from held


def _members(paths: list[str]) -> Iterator[_Member]:
    """Samples in the order of the shards; the halves of one lie beside each other."""
    for path in paths:
        with _opened(path) as file:
            try:
                yield from _of_one(path, file)
            except (tarfile.TarError, OSError, EOFError, OverflowError) as error:
                raise ScoreTableError(f"{path} is a shard that cannot be read to its end: {error}") from error


def _opened(path: str) -> IO[bytes]:
    import fsspec

    try:
        return cast("IO[bytes]", fsspec.open(path, "rb").open() if "://" in path else open(path, "rb"))
    except OSError as error:
        raise ScoreTableError(f"{path} is a shard that cannot be opened: {error}") from error


def _of_one(path: str, file: IO[bytes]) -> Iterator[_Member]:
    now = _Member(path, "")
    with tarfile.open(fileobj=file, mode="r|") as tar:
        for info in tar:
            name = PurePosixPath(info.name)
            kind = _half(name.suffix.lower())
            if not info.isreg() or name.name.startswith(".") or kind is None or info.size > _LARGEST:
                continue
            key = str(name.with_suffix(""))
            if key != now.key or getattr(now, kind):
                if now.key:
                    yield now
                now = _Member(path, key)
            content = tar.extractfile(info)
            setattr(now, kind, content.read() if content is not None else b"")
    if now.key:
        yield now


def _half(suffix: str) -> Literal["image", "fields"] | None:
    return "fields" if suffix == ".json" else "image" if suffix in IMAGE_SUFFIXES else None
