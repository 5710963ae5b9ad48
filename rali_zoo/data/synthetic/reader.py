"""The scheme ``synthetic:lab|wild|phone?n=…&size=…&seed=…``: no download, plainly labelled synthetic."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rali_zoo.errors import ConfigError, UnknownNameError, near_miss
from rali_zoo.uri import Uri

if TYPE_CHECKING:
    import pandas as pd

    from rali_zoo.data.card import DatasetCard

#: Domain to (images by default, one line on it, native scale).
DOMAINS = {
    "lab": (4000, "KADID-like: one of 25 distortions in 5 levels", (1.0, 5.0)),
    "wild": (1200, "KonIQ-like: mild mixtures of up to 3 distortions", (1.0, 5.0)),
    "phone": (1200, "SPAQ-like: a phone's camera pipeline", (0.0, 100.0)),
}
SIZE = 160
OPTIONS = ("n", "size", "seed", "textures", "photos", "workers", "part")
PARTS = ("train", "val", "test")


def card(domain: str, n: int | None = None) -> DatasetCard:
    """The card of a domain; cheap, nothing is built.

    Args:
        domain: ``lab``, ``wild`` or ``phone``.
        n: images; the domain's default when absent.

    Raises:
        UnknownNameError: no such domain.
    """
    from rali_zoo.data.card import DatasetCard

    if domain not in DOMAINS:
        raise UnknownNameError("synthetic domain", domain, DOMAINS)
    count, line, mos_range = DOMAINS[domain]
    return DatasetCard(
        name=f"synthetic:{domain}",
        title=f"Synthetic {domain} ({line}; pseudo-MOS from a rule, no human scores)",
        task="NR",
        domain="synthetic",
        n_images=n or count,
        mos_range=mos_range,
        higher_is_better=True,
        protocols=("official", "kfold", "random", "whole"),
        default_protocol="official",
        content_disjoint=True,
        licence="images: free or CC BY 2.0, each in rali_zoo.data.synthetic.sources; scores: Apache-2.0",
        citation="distortion types after Lin, Hosu and Saupe, KADID-10k, QoMEX 2019",
        url="made on first use; nothing to download",
        layout="nothing to lay out: cached below $RALI_ZOO_CACHE, else ~/.cache/rali_zoo",
        synthetic=True,
    )


def list_cards() -> list[DatasetCard]:
    """The cards of all domains."""
    return [card(domain) for domain in DOMAINS]


def open(path: str, options: Mapping[str, str]) -> tuple[DatasetCard, pd.DataFrame]:  # noqa: A001
    """Build on first use, then read from the cache.

    Args:
        path: the domain.
        options: ``n`` (50 to 100,000), ``size`` in pixels (64 to 288), ``seed`` (from 0), ``textures`` (100
            to 10,000 of each kind) and ``photos`` (a folder), which add training contents; ``part`` (``train``,
            ``val`` or ``test``: no other images are made); ``workers`` (processes for the first build, which the
            images do not depend on; a core each by default).

    Returns:
        The card, and a frame with the columns of every reader plus ``levels`` (one a distortion, joined by
        ``;`` as ``distortion`` is; ``level`` is their maximum and 0 means pristine), ``distance``,
        ``mos_expected`` (the score before the raters' noise), ``rule``, and ``reference`` (the pristine
        image of a test row, "" for others).

    Raises:
        UnknownNameError: no such domain.
        UriError: an unknown option, or a value out of range.
        ConfigError: no such part, or no images in the folder.
    """
    from rali_zoo.data.readers.options import take_number
    from rali_zoo.data.synthetic.build import Spec, build, read
    from rali_zoo.data.synthetic.sources import MAX_SIZE, TEXTURES_PER_KIND, own_photographs

    if path not in DOMAINS:
        raise UnknownNameError("synthetic domain", path, DOMAINS)
    ref = f"synthetic:{path}"
    Uri("synthetic", path, dict(options)).take(OPTIONS)
    n = take_number(ref, options, "n", DOMAINS[path][0], 50, 100_000)
    size = take_number(ref, options, "size", SIZE, 64, MAX_SIZE)
    seed = take_number(ref, options, "seed", 0, 0, 2**31)
    workers = take_number(ref, options, "workers", min(os.cpu_count() or 1, 256), 1, 256)
    textures = take_number(ref, options, "textures", TEXTURES_PER_KIND, TEXTURES_PER_KIND, 10_000)
    photos = options.get("photos", "")
    if photos and not own_photographs(photos):
        raise ConfigError(
            f"synthetic option photos={photos!r}: no image (jpg, png, webp) lies in that folder"
        )
    part = options.get("part", "")
    if part not in ("", *PARTS):
        raise ConfigError(f"synthetic option part={part!r}. {near_miss(part, PARTS)}")
    spec = Spec(path, n, size, seed, textures, photos, part)  # type: ignore[arg-type]
    return card(path, n), read(build(spec, workers))
