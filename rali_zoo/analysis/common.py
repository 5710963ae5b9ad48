"""What the analyses share: which images, what the reasoner wrote of them, and results files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from rali_zoo.errors import ConfigError, ScoreTableError
from rali_zoo.paths import atomic_path, cache_dir, text_sha256
from rali_zoo.report import provenance, write_json
from rali_zoo.settings import read_frame
from rali_zoo.trust import names_outside

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from rali_zoo.models.base import IQANetwork
    from rali_zoo.models.vlm import VLMNetwork
    from rali_zoo.vlm.generation import Completions

Split = Literal["train", "val", "test", "all"]
ScoreKind = Literal["greedy", "expectation"]
Suffix = Literal["svg", "png"]


@dataclass(frozen=True)
class Settings:
    """How an analysis is made.

    Attributes:
        split: rows of a data set that are looked at.
        limit: images of a data set, drawn with the seed.
        batch_size: images a forward pass.
        scoring: of answers under intervention: greedy reads the likeliest one; expectation weighs its
            digits, which has fewer ties.
        resamples: of the bootstrap and of permutation tests.
        root: folder that holds the data sets' folders.
        seed: of the choice of images, folds, resamples and permutations.
    """

    split: Split = "test"
    limit: int = 200
    batch_size: int = 16
    scoring: ScoreKind = "greedy"
    resamples: int = 1000
    root: str = "data"
    seed: int = 0

    def listed(self) -> dict[str, object]:
        """All that can change a number, for a results file."""
        return {key: value for key, value in asdict(self).items() if key != "root"}

    def __post_init__(self) -> None:
        if self.limit < 10 or self.batch_size < 1 or self.resamples < 1:
            raise ConfigError(
                f"--limit {self.limit} is at least 10, --batch_size {self.batch_size} and --resamples "
                f"{self.resamples} at least 1"
            )


@dataclass(frozen=True)
class Place:
    """Where an analysis is computed, and where its files go.

    Attributes:
        output: folder for the results file (json).
        images: folder for the plot; that of the results by default.
        format: of the plot.
        prompt: the question to a model given as hf:; a trained reasoner brings its own.
        device: where to compute, e.g. cuda; the CPU by default.
    """

    output: Path
    images: Path | None = None
    format: Suffix = "svg"
    prompt: str = "score"
    device: str | None = None

    def plot(self, name: str) -> Path:
        """File of a plot."""
        return (self.images or self.output) / f"{name}.{self.format}"


def choose(refs: Sequence[str], settings: Settings) -> dict[str, pd.DataFrame]:
    """At most ``limit`` rows with a MOS of each data set, in the order of the table, drawn with the seed.

    Raises:
        ConfigError: no data set, one twice, or one without such rows.
    """
    from rali_zoo.data.tables import load_table

    if not refs or len(set(refs)) < len(refs):
        raise ConfigError(f"--data {list(refs)}: give one data set or more, each once")
    found = {}
    for ref in refs:
        table = load_table(ref, settings.root)
        every = len(table.sample(settings.split, None, rated=True))
        found[ref] = table.sample(settings.split, settings.limit, settings.seed, rated=True).copy()
        found[ref].attrs = {"of": every, "synthetic": table.card.synthetic}
    return found


def batches(
    module: IQANetwork, paths: Sequence[str], batch_size: int, bad: dict[int, str]
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Positions in ``paths`` with their images, those of equal size together.

    Args:
        module: whose view of images.
        paths: N files.
        batch_size: most images at a time.
        bad: gets position and reason of each image that cannot be decoded.

    Yields:
        Positions, and (B, 3, H, W) in [0, 1] on the module's device.
    """
    import torch

    from rali_zoo.data.images import load_views
    from rali_zoo.errors import ImageDecodeError

    for start in range(0, len(paths), batch_size):
        sized: dict[tuple[int, ...], list[tuple[int, torch.Tensor]]] = {}
        for place in range(start, min(start + batch_size, len(paths))):
            try:
                image = load_views(paths[place], module.view, module.preprocess)
            except ImageDecodeError as error:
                bad[place] = str(error)
                continue
            sized.setdefault(tuple(image.shape), []).append((place, image))
        for same in sized.values():
            yield [place for place, _ in same], torch.stack([x for _, x in same]).to(module.device)


def written(module: VLMNetwork, ref: str, frame: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """What a reasoner writes of images, greedily; kept in the cache by weights, question and images.

    Args:
        module: the reasoner.
        ref: of the data set.
        frame: columns id, path, mos and content.
        settings: of which the batch size counts.

    Returns:
        Columns id, path, mos, content, ``text`` (with its tags), ``ids`` (tokens of the completion up to its
        end), ``score`` in [1, 5] (NaN for an unparseable answer) and ``error`` (of an undecodable image;
        its text is empty).
    """
    import pandas as pd

    names = "\n".join(frame["id"].astype(str) + "\t" + frame["path"].astype(str))
    question, limit = module.asked, module.limit
    key = "|".join((module.revision, module.vlm.fingerprint, str(question), str(limit), ref, names))
    path = cache_dir("analysis") / f"texts-{text_sha256(key)[:24]}.parquet"
    answers = None
    if path.is_file():
        with suppress(ScoreTableError):  # one that is damaged is made again
            answers = read_frame(path)
    if answers is None:
        answers = _write(module, ref, frame, settings.batch_size)
        with atomic_path(path) as temporary:
            answers.to_parquet(temporary, index=False, write_page_checksum=True)
    kept = frame[["id", "path", "mos", "content"]].reset_index(drop=True)
    return pd.concat([kept, answers], axis=1)


def _write(module: VLMNetwork, ref: str, frame: pd.DataFrame, batch_size: int) -> pd.DataFrame:
    import pandas as pd

    paths, bad = frame["path"].tolist(), dict[int, str]()
    rows: dict[int, tuple[str, list[int], float, str]] = {}
    features = module.cached_features(ref, frame, batch_size)
    made: Iterator[tuple[Sequence[int], Completions]]
    if features is None:
        made = ((where, module.write(images)) for where, images in batches(module, paths, batch_size, bad))
    else:
        starts = range(0, len(paths), batch_size)
        parts = zip(starts, features.split(batch_size), strict=True)
        made = ((range(at, at + len(part)), module.write((), features=part)) for at, part in parts)
    for places, done in made:
        for place, text, parsed, ids, mask in zip(
            places, done.texts, done.parsed, done.ids, done.mask.bool(), strict=True
        ):
            score = math.nan if parsed.score is None else parsed.score
            rows[place] = (text, ids[mask].tolist(), score, "")
    rows |= {place: ("", [], math.nan, reason) for place, reason in bad.items()}
    return pd.DataFrame(
        [rows[place] for place in range(len(paths))], columns=["text", "ids", "score", "error"]
    )


def decodable(answers: pd.DataFrame, ref: str) -> pd.DataFrame:
    """The rows whose image could be read; raises :class:`ConfigError` where fewer than 10 are left."""
    good = answers[answers["error"] == ""].reset_index(drop=True)
    if len(good) < 10:
        reason = answers.loc[answers["error"] != "", "error"]
        raise ConfigError(
            f"{ref}: {len(good)} images are too few to say anything; give 10 or more"
            + (f". The first that cannot be read: {reason.iloc[0]}" if len(reason) else "")
        )
    return good


# ---- results files ----


def about(frames: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    """How many images of each data set were chosen, and whether their labels come from a rule."""
    return {ref: {"chosen": len(frame), **frame.attrs} for ref, frame in frames.items()}


def write_result(
    folder: Path,
    name: str,
    settings: Mapping[str, object],
    frames: Mapping[str, pd.DataFrame],
    models: Mapping[str, str],
    results: Mapping[str, object],
    took: Mapping[str, float],
) -> Path:
    """Write ``folder/NAME.json``, the whole file or none.

    Args:
        folder: where to.
        name: of the analysis.
        settings: how it was made; ``seed`` and ``resamples`` among them.
        frames: the images by data set.
        models: reference of each model to the hash of its weights.
        results: the numbers; what is not defined becomes null.
        took: seconds by clock.
    """

    content = {
        "analysis": name,
        "models": dict(models),
        "settings": dict(settings),
        "data": about(frames),
        "results": results,
        **took,
        **provenance(seed=cast(int, settings["seed"])),
        "resamples": settings["resamples"],
    }
    target = Path(folder) / f"{name}.json"
    write_json(target, content, digits=6)
    return target


def predictions_of(results: Path) -> dict[str, Path]:
    """Files of predictions by data set, as a ``results.json`` of ``fit`` or ``test`` lists them.

    Raises:
        ConfigError: no such file, or one that names files outside of its folder.
    """
    try:
        listed = json.loads(results.read_bytes())["datasets"]
        files = {ref: facts["predictions"] for ref, facts in listed.items() if "predictions" in facts}
        outside = [file for file in files.values() if names_outside(file)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{results} is no results.json of fit or test ({type(error).__name__}: {error})"
        ) from None
    if outside:
        raise ConfigError(f"{results} names {outside[0]!r}, which does not lie below its folder")
    return {ref: results.parent / file for ref, file in files.items()}
