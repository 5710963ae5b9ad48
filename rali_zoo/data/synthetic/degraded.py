"""The scheme ``degraded:FOLDER``: photographs under distortions in rising levels, whose *order* of quality is certain.

Nobody rated these images and no score is made up for them: their MOS is unknown (NaN). What is known is that a
photograph is better than its degraded copies, and a lower level better than a higher one. Models learn from it
(``data.ranks``) and are tested on it (the degradation response of a suite).
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from rali_zoo.data.readers.options import take_number
from rali_zoo.data.synthetic.distortions import DISTORTIONS, KADID_TYPES, LEVELS, Apply, Image3
from rali_zoo.data.tables import TABLES
from rali_zoo.errors import ConfigError, UnknownNameError, UriError, near_miss
from rali_zoo.uri import Uri

if TYPE_CHECKING:
    import pandas as pd

    from rali_zoo.data.card import DatasetCard

OPTIONS = ("types", "each", "contents", "least", "mos_range", "size", "seed", "workers")
#: In place of a folder: the colour photographs that scikit-image and scikit-learn carry.
LIBRARY = "library"
_LIBRARY_NAMES = ("astronaut", "coffee", "flower", "rocket", "chelsea", "china")
_VERSION = 1  # part of the cache key: raise it whenever an image comes out differently


def _bytes(image: Image3) -> Image.Image:
    return Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8))


def _upscale(image: Image3, level: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """Detail is lost on the way down and invented by interpolation on the way up."""
    factor = (1.5, 2.0, 3.0, 4.0, 6.0)[level - 1]
    height, width = image.shape[:2]
    filters = Image.Resampling
    down = (filters.BICUBIC, filters.BOX, filters.LANCZOS)[rng.integers(3)]
    up = (filters.BICUBIC, filters.BILINEAR, filters.LANCZOS)[rng.integers(3)]
    small = _bytes(image).resize((max(1, round(width / factor)), max(1, round(height / factor))), down)
    return np.asarray(small.resize((width, height), up), np.float32) / 255


def _upscale_sharpened(image: Image3, level: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """Enlarged and then sharpened, with the halos of early super-resolution."""
    large = _upscale(image, level, rng)
    sigma = 0.6 * (1.5, 2.0, 3.0, 4.0, 6.0)[level - 1]
    return large + 1.2 * (large - ndimage.gaussian_filter(large, (sigma, sigma, 0)))


def _warp(image: Image3, level: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """Shapes melt: a smooth random displacement."""
    amount, sigma = (1.5, 3.0, 5.5, 9.0, 14.0)[level - 1], rng.uniform(6, 14)
    shape = image.shape[:2]
    field = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), sigma) for _ in range(2)])
    where = np.indices(shape) + field * (amount / 1.5 / max(float(field.std()), 1e-12))
    moved = [ndimage.map_coordinates(image[..., c], where, order=1, mode="reflect") for c in range(3)]
    return np.stack(moved, axis=-1)


def _median(image: Image3, level: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """Textures go and edges stay, as in a painting or after too much denoising."""
    size = (3, 5, 7, 9, 13)[level - 1]
    return np.asarray(_bytes(image).filter(ImageFilter.MedianFilter(size)), np.float32) / 255


def _foreign_texture(image: Image3, level: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """Fine detail is replaced by detail from elsewhere of the same local strength: plausible, and wrong."""
    sigma = (1.0, 1.6, 2.6, 4.2, 6.5)[level - 1]
    coarse = ndimage.gaussian_filter(image, (sigma, sigma, 0))
    fine = image - coarse
    dy, dx = rng.integers(40, 200, 2)
    other = np.roll(fine, (dy, dx), (0, 1))
    own, foreign = (np.sqrt(ndimage.gaussian_filter((x**2).mean(-1), 6) + 1e-6) for x in (fine, other))
    return coarse + np.clip(own / foreign, 0, 4)[..., None] * other


#: What restoration and generation leave behind; beside the types of :mod:`~rali_zoo.data.synthetic.distortions`.
RESTORATION: dict[str, Apply] = {
    "upscale": _upscale,
    "upscale_sharpened": _upscale_sharpened,
    "warp": _warp,
    "median": _median,
    "foreign_texture": _foreign_texture,
}
TYPES: dict[str, Apply] = {**{name: d.apply for name, d in DISTORTIONS.items()}, **RESTORATION}


@dataclass(frozen=True)
class Spec:
    """What a data set of degraded photographs is made from.

    Attributes:
        contents: (path, or name of a photograph in a library) of each, in order.
        types: the distortions that are drawn from.
        each: how many of them a content gets.
        size: side in pixels of the square that each finished image is squashed to; 0 = left as it is.
        seed: of everything random.
    """

    contents: tuple[str, ...]
    types: tuple[str, ...]
    each: int
    size: int
    seed: int

    def folder(self) -> Path:
        """Where the finished data set is cached."""
        from rali_zoo.data.checks import file_key
        from rali_zoo.paths import cache_dir, text_sha256

        files = [file_key(c) if os.sep in c else c for c in self.contents]
        text = json.dumps([{**asdict(self), "contents": files}, _VERSION], sort_keys=True)
        return cache_dir("degraded") / text_sha256(text)[:16]


def degrade(image: Image3, name: str, level: int, seed: int = 0) -> Image3:
    """One of :data:`TYPES` in a level, with the same draws at every level of a seed.

    Args:
        image: (H, W, 3) in [0, 1], RGB.
        name: a key of :data:`TYPES`.
        level: 0 (untouched) or 1 (faint) to 5 (severe).
        seed: of direction, place and grain.

    Returns:
        (H, W, 3) in [0, 1].

    Raises:
        UnknownNameError: no such degradation.
        ConfigError: a level outside 0 to 5.
    """
    if name not in TYPES:
        raise UnknownNameError("degradation", name, TYPES)
    if level not in (0, *LEVELS):
        raise ConfigError(f"level {level!r} of {name!r}: 0 (untouched), or 1 (faint) to 5 (severe)")
    if level == 0:
        return image
    made = TYPES[name](image, level, np.random.default_rng(seed))
    return np.clip(made, 0, 1).astype(np.float32)


def _render(spec: Spec, index: int, folder: Path) -> list[dict[str, object]]:
    """The image files of one content below ``folder``, and their rows."""
    content = spec.contents[index]
    image = _load(content)
    name = f"{index:05d}"
    rows: list[dict[str, object]] = []
    for kind, level in _plan(spec, index):
        seed = zlib.crc32(f"{spec.seed}|{index}|{kind}".encode())
        made = _bytes(degrade(image, kind, level, seed) if level else image)
        if spec.size:
            made = made.resize((spec.size, spec.size), Image.Resampling.BICUBIC)
        file = f"images/{name}-{kind}-{level}.png"
        made.save(folder / file, compress_level=1)
        rows.append({"id": file[7:], "path": file, "split": "train", "content": name, "distortion": kind}
                    | {"level": level, "source": Path(content).name})  # fmt: skip
    return rows


def _plan(spec: Spec, index: int) -> Iterator[tuple[str, int]]:
    yield "pristine", 0
    rng = np.random.default_rng([spec.seed, 2, index])
    for kind in sorted(rng.permutation(len(spec.types))[: spec.each].tolist()):
        for level in LEVELS:
            yield spec.types[kind], level


def _load(content: str) -> Image3:
    from rali_zoo.data.images import load_image
    from rali_zoo.data.synthetic import sources

    image = load_image(content) if os.sep in content else sources.canvas(content)
    return np.asarray(image, np.float32) / 255


def build(spec: Spec, workers: int = 1) -> Path:
    """The folder of the finished data set, made first if it is not there.

    Args:
        spec: what to make.
        workers: processes; the result does not depend on it.
    """
    from rali_zoo.data.synthetic.build import TABLE, make_whole

    def write(folder: Path) -> None:
        import pandas as pd
        from joblib import Parallel, delayed
        from rich.progress import track

        (folder / "images").mkdir()
        jobs = (delayed(_render)(spec, i, folder) for i in range(len(spec.contents)))
        parts = Parallel(n_jobs=workers, return_as="generator")(jobs)
        shown = track(parts, "degrading photographs (once)", len(spec.contents), transient=True)
        pd.DataFrame([row for part in shown for row in part]).to_parquet(folder / TABLE, index=False)

    return make_whole(spec.folder(), write)


# ---- the reader --------------------------------------------------------------------------------------------


def card(path: str, n: int) -> DatasetCard:
    """The card of a data set of ``n`` images."""
    from rali_zoo.data.card import DatasetCard

    return DatasetCard(
        name=f"degraded:{path}",
        title="Degraded photographs (ordered by level; nobody rated them)",
        task="NR",
        domain="synthetic",
        n_images=n,
        mos_range=(1.0, 5.0),
        higher_is_better=True,
        protocols=("official", "whole", "random", "kfold"),
        default_protocol="official",
        content_disjoint=True,
        licence="that of the photographs",
        citation="distortion types after Lin, Hosu and Saupe, KADID-10k, QoMEX 2019",
        url="made on first use; nothing to download",
        layout="a folder of photographs, a table that csv: reads, or 'library'",
        synthetic=True,
    )


def open(path: str, options: Mapping[str, str]) -> tuple[DatasetCard, pd.DataFrame]:  # noqa: A001
    """Make the images on first use, then read them from the cache.

    Args:
        path: a folder of photographs; a table as ``csv:`` reads it, of whose training rows the photographs are
            taken; or ``library``, six colour photographs from the wheels of scikit-image and scikit-learn.
        options: ``types`` (``kadid`` = the 25 of KADID-10k, the default; ``all``; or names joined by commas),
            ``each`` (how many of them a photograph gets, drawn at random; all unless said), ``contents`` (use at
            most so many photographs, drawn at random), ``least`` (of a table: the lowest native MOS of a
            photograph that is taken, with ``mos_range``), ``size`` (squash each finished image to a square of so
            many pixels), ``seed``, ``workers``. Their splits are made of whole contents by the common options
            (``protocol=whole`` to test on all of them, ``val_fraction``).

    Returns:
        The card, and a frame with ``mos`` NaN; rows of one ``content`` and ``distortion`` are a chain, ordered by
        ``level``, and the row of level 0 (``pristine``) is the best of each chain of its content.

    Raises:
        UriError: an option that cannot be read or does not belong.
        ConfigError: no photographs, or an unknown distortion.
    """
    from rali_zoo.data.synthetic.build import read

    ref = f"degraded:{path}"
    Uri("degraded", path, dict(options)).take(OPTIONS)
    types = _types(ref, options.get("types", "kadid"))
    seed = take_number(ref, options, "seed", 0, 0, 2**31)
    contents = _contents(ref, path, options)
    most = take_number(ref, options, "contents", len(contents), 1, 1_000_000)
    if most < len(contents):
        chosen = np.sort(np.random.default_rng([seed, 0]).permutation(len(contents))[:most])
        contents = [contents[i] for i in chosen]
    spec = Spec(
        tuple(contents),
        types,
        take_number(ref, options, "each", len(types), 1, len(types)),
        take_number(ref, options, "size", 0, 0, 4096),
        seed,
    )
    workers = take_number(ref, options, "workers", os.cpu_count() or 1, 1, 256)
    frame = read(build(spec, workers))
    frame["mos"] = float("nan")
    frame["std"] = float("nan")
    return card(path, len(frame)), frame


def _types(ref: str, text: str) -> tuple[str, ...]:
    sets = {"kadid": KADID_TYPES, "all": tuple(TYPES)}
    if text in sets:
        return sets[text]
    names = tuple(text.split(","))
    for name in names:
        if name not in TYPES:
            raise ConfigError(f"{ref!r}: unknown distortion {name!r}. {near_miss(name, [*sets, *TYPES])}")
    return names


def _contents(ref: str, path: str, options: Mapping[str, str]) -> list[str]:
    """The photographs to degrade: absolute paths, or names in a library."""
    is_table = Path(path).suffix.lower() in TABLES
    if not is_table:
        for key in ("least", "mos_range"):
            if key in options:
                raise UriError(f"{ref!r}: {key}= belongs to a table, and {path!r} is none")
    if path == LIBRARY:
        return list(_LIBRARY_NAMES)
    if is_table:
        return _rated(path, options)
    from rali_zoo.data.formats import IMAGE_SUFFIXES

    if not Path(path).is_dir():
        raise ConfigError(f"{ref!r}: {path} is no folder of photographs, no table and not '{LIBRARY}'")
    found = sorted(p for p in Path(path).resolve().iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise ConfigError(f"{ref!r}: no image lies in {path}")
    return [str(p) for p in found]


def _rated(path: str, options: Mapping[str, str]) -> list[str]:
    from rali_zoo.data.readers import csv_table

    scale = {"mos_range": options["mos_range"]} if "mos_range" in options else {}
    _, frame = csv_table.open(path, scale)
    if "split" in frame and (frame["split"] == "train").any():
        frame = frame[frame["split"] == "train"]
    least = take_number(f"degraded:{path}", options, "least", -math.inf, -math.inf, math.inf, float)
    taken = frame[frame["mos"] >= least] if "least" in options else frame
    if taken.empty:
        raise ConfigError(f"degraded:{path}: no training photograph has a MOS of at least {least:g}")
    return sorted(str(Path(p).resolve()) for p in taken["path"])
