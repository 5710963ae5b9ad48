"""Plan, render and cache a synthetic data set: deterministic for a seed, whole on disk or absent."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from rali_zoo.data.synthetic import rater, sources
from rali_zoo.data.synthetic.distortions import KADID_TYPES, LEVELS, distort
from rali_zoo.paths import cache_dir, text_sha256

if TYPE_CHECKING:
    import pandas as pd

DomainName = Literal["lab", "wild", "phone"]
#: Part of the cache key: raise it whenever an image or a score comes out differently.
VERSION = 3
TABLE = "rows.parquet"
#: Folder of the pristine images; only the test part has them, for full-reference metrics.
REFERENCES = "references"

_SPLIT_CYCLE: tuple[sources.Split, ...] = ("train",) * 4 + ("test",) + ("train",) * 3 + ("val", "test")
_PHOTO_SHARE = 0.4  #: of the windows; the others are textures
#: What happens to an image of the mixed domains, in order: (probability, one of these types).
_STAGES: dict[str, tuple[tuple[float, tuple[str, ...]], ...]] = {
    "wild": (
        (0.35, ("lens_blur", "motion_blur", "gaussian_blur")),
        (0.35, ("darken", "brighten", "overexposure", "contrast_change")),
        (0.25, ("white_balance", "color_saturation_1", "color_saturation_2")),
        (0.30, ("sensor_noise", "white_noise", "multiplicative_noise")),
        (0.15, ("high_sharpen",)),
        (0.40, ("jpeg", "jpeg", "jpeg2000")),
    ),
    "phone": (
        (0.45, ("darken", "darken", "overexposure")),
        (0.25, ("motion_blur", "lens_blur")),
        (0.45, ("sensor_noise",)),
        (0.25, ("denoise",)),
        (0.20, ("white_balance",)),
        (0.30, ("high_sharpen",)),
        (0.35, ("jpeg",)),
    ),
}
_LEVEL_ODDS = {"wild": (0.38, 0.32, 0.17, 0.09, 0.04), "phone": (0.32, 0.28, 0.20, 0.13, 0.07)}
_MOST_STEPS = 3


@dataclass(frozen=True)
class Spec:
    """What a synthetic data set is made from.

    Attributes:
        domain: ``lab`` (one of KADID-10k's distortions in five levels), ``wild`` (mild mixtures) or
            ``phone`` (a camera pipeline, scores in [0, 100]).
        n: images.
        size: side of an image in pixels.
        seed: of everything random.
        textures: procedural contents of each kind; those beyond the default are training contents.
        photos: folder of pristine photographs that are training contents too; "" for none.
        part: only the images of this split, which are the same as in the whole; "" for all.
    """

    domain: DomainName
    n: int
    size: int
    seed: int
    textures: int = sources.TEXTURES_PER_KIND
    photos: str = ""
    part: sources.Split | Literal[""] = ""

    def folder(self) -> Path:
        """Where the finished data set is cached."""
        photos = [(p.name, p.stat().st_size) for p in sources.own_photographs(self.photos)]
        facts = {**asdict(self), "photos": photos}
        part = f"-{self.part}" if self.part else facts.pop("part")
        parts = [facts, VERSION]
        key = text_sha256(json.dumps(parts, sort_keys=True))[:12]
        return cache_dir("synthetic") / f"{self.domain}-n{self.n}-s{self.size}-seed{self.seed}{part}-{key}"


@dataclass(frozen=True)
class PlannedImage:
    """One image, before any pixel is made.

    Attributes:
        index: position in the data set; with the seed it decides everything random about the image.
        content: what its pristine window is cut from.
        split: the split of that content.
        recipe: (distortion, level) in the order of application; empty for a pristine image.
    """

    index: int
    content: str
    split: sources.Split
    recipe: tuple[tuple[str, int], ...]


def plan(spec: Spec) -> list[PlannedImage]:
    """Every image of the data set; ``lab`` has every type and level equally often in every split."""
    planned, made = [], dict.fromkeys(_SPLIT_CYCLE, 0)
    pools = {
        split: [np.array(ids) for ids in sources.contents(split, spec.textures, spec.photos)]
        for split in made
    }
    for index in range(spec.n):
        rng = _rng(spec, index, 0)
        split = _SPLIT_CYCLE[index % len(_SPLIT_CYCLE)]
        photographs, textures = pools[split]
        content = str(rng.choice(photographs if rng.random() < _PHOTO_SHARE else textures))
        if spec.domain == "lab":
            turn, kind = divmod(made[split], len(KADID_TYPES))
            recipe: tuple[tuple[str, int], ...] = ((KADID_TYPES[kind], LEVELS[turn % len(LEVELS)]),)
        else:
            recipe = _mixture(spec.domain, rng)
        made[split] += 1
        if spec.part in ("", split):
            planned.append(PlannedImage(index, content, split, recipe))
    return planned


def build(spec: Spec, workers: int = 1) -> Path:
    """The folder of a finished data set, made first if it is not there.

    It is made under another name and renamed when it is whole: an interrupted build leaves nothing that looks
    finished, and of several builders at once each makes the same bytes and the first one's stay.

    Args:
        spec: what to make.
        workers: processes; the result does not depend on it.
    """

    def write(temporary: Path) -> None:
        (temporary / "images").mkdir()
        (temporary / REFERENCES).mkdir()
        _write(spec, temporary, workers)

    return make_whole(spec.folder(), write)


def make_whole(folder: Path, write: Callable[[Path], None]) -> Path:
    """``folder``, written first if it is not there; whole or absent, whoever else makes it at the same time.

    Args:
        folder: where the finished data set lies, with its :data:`TABLE`.
        write: fills an empty folder.
    """
    if (folder / TABLE).exists():
        return folder
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        write(temporary)
        temporary.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        try:
            os.rename(temporary, folder)
        except OSError:
            if not (folder / TABLE).exists():  # anything but "another builder was faster"
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def render(spec: Spec, planned: PlannedImage, folder: Path) -> dict[str, object]:
    """Make one image as a PNG file below ``folder`` and return its row."""
    domain = rater.DOMAINS[spec.domain]
    pristine = sources.window(planned.content, spec.size, _rng(spec, planned.index, 1), spec.photos)
    image, steps, rng = pristine, [], _rng(spec, planned.index, 2)
    for name, level in planned.recipe:
        before, image = image, distort(image, name, level, rng)
        steps.append((name, rater.distance(before, image)))
    pixels = np.round(image * 255).astype(np.uint8)
    total = rater.distance(pristine, pixels.astype(np.float32) / 255) if planned.recipe else 0.0
    expected = rater.score(total, steps, domain)
    mos, std = rater.vote(expected, domain, _rng(spec, planned.index, 3))
    file = f"{spec.domain}-{planned.index:06d}.png"
    Image.fromarray(pixels).save(folder / "images" / file, compress_level=4)
    reference = ""
    if planned.split == "test":
        reference = f"{REFERENCES}/{file}"
        Image.fromarray(np.round(pristine * 255).astype(np.uint8)).save(folder / reference, compress_level=4)
    return {
        "id": file,
        "path": f"images/{file}",
        "mos": mos,
        "std": std,
        "split": planned.split,
        "content": planned.content,
        "distortion": ";".join(name for name, _ in planned.recipe) or "pristine",
        "level": max((level for _, level in planned.recipe), default=0),
        "levels": ";".join(str(level) for _, level in planned.recipe),
        "reference": reference,
        "distance": total,
        "mos_expected": expected,
        "rule": f"synthetic pseudo-MOS v{VERSION}: {spec.domain} raters on measured distance "
        "(rali_zoo.data.synthetic.rater); no human looked",
    }


def _rng(spec: Spec, index: int, use: int) -> np.random.Generator:
    return np.random.default_rng([spec.seed, list(rater.DOMAINS).index(spec.domain), index, use])


def _mixture(domain: str, rng: np.random.Generator) -> tuple[tuple[str, int], ...]:
    steps = [
        (str(rng.choice(types)), int(rng.choice(LEVELS, p=_LEVEL_ODDS[domain])))
        for probability, types in _STAGES[domain]
        if rng.random() < probability
    ]
    while len(steps) > _MOST_STEPS:
        del steps[int(rng.integers(len(steps)))]
    return tuple(steps)


def _write(spec: Spec, folder: Path, workers: int) -> None:
    import pandas as pd
    from joblib import Parallel, delayed
    from rich.console import Console
    from rich.progress import track

    planned = plan(spec)
    rows = Parallel(n_jobs=workers, return_as="generator")(delayed(render)(spec, p, folder) for p in planned)
    console = Console(stderr=True)
    title = f"making synthetic:{spec.domain} (once)"
    shown = track(rows, title, len(planned), console=console, disable=not console.is_terminal, transient=True)
    pd.DataFrame(list(shown)).to_parquet(folder / TABLE, index=False, write_page_checksum=True)


def read(folder: Path) -> pd.DataFrame:
    """The rows of a finished data set, ``path`` made absolute.

    Raises:
        ScoreTableError: images have been taken out of the cache since, or its table is damaged.
    """
    from rali_zoo.errors import ScoreTableError
    from rali_zoo.settings import read_frame

    try:
        frame = read_frame(folder / TABLE)
    except ScoreTableError as error:
        raise ScoreTableError(f"{error}; delete {folder} and it is made again") from None
    present = {entry.name for entry in os.scandir(folder / "images")}
    missing = [name for name in frame["id"] if name not in present]
    if missing:
        raise ScoreTableError(
            f"{len(missing)} images (first: {missing[0]}) are gone from the cached synthetic data set; "
            f"delete {folder} and it is made again"
        )
    for column in frame.columns.intersection(["path", "reference"]):
        frame[column] = [str(folder / path) if path else "" for path in frame[column]]
    return frame
