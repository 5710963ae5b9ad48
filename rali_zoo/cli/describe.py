"""``rali-zoo describe``: a reasoner, or a captioner, writes about photographs or the images of a data set.

A table is made in parts of about :data:`PART` texts in a folder beside it. Each part is whole or absent, so a run that
was killed goes on where it stopped, with no text lost or doubled.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rali_zoo.errors import ConfigError, ImageDecodeError, ScoreTableError
from rali_zoo.outputs import Output, OutputError, csv_cell, explained, printable, publish
from rali_zoo.paths import sha256, text_sha256
from rali_zoo.settings import read_frame

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from rali_zoo.data.sources import Item
    from rali_zoo.models.vlm import VLMNetwork
    from rali_zoo.vlm.parsing import Parsed
    from rali_zoo.vlm.prompts import Prompt

PART = 256
#: What the column ``dataset`` says of images that are of none.
OWN = "images"
Split = Literal["train", "val", "test", "all"]


@dataclass(frozen=True)
class DescribeJob:
    """What makes two runs the same one.

    Attributes:
        model: reference of the reasoner.
        revision: hash of its weights.
        data: reference of the data set.
        prompt: the question.
        temperature: of the sampler.
        seeds: texts an image.
        batch_size: images at a time; the random numbers of a text hang on its place in a batch.
        images: hash of the images' names, in order.
    """

    model: str
    revision: str
    data: str
    prompt: str
    temperature: float
    seeds: int
    batch_size: int
    images: str


@dataclass(frozen=True)
class Text:
    """What was written of one image: the description, the score in [1, 5] (or NaN), and what is wrong with it."""

    text: str
    score: float
    error: str = ""


def command(
    images: list[str] = [],  # noqa: B006 (read, never written)
    /,
    model: str = "reasoner-tiny-synthetic",
    data: str | None = None,
    output: Path | None = None,
    split: Split = "train",
    limit: int | None = None,
    draw: int = 0,
    seeds: int = 1,
    batch_size: int = 16,
    temperature: float | None = None,
    prompt: str = "score",
    max_inconsistency: float | None = None,
    root: str = "data",
    device: str | None = None,
) -> None:
    """Let a model describe photographs, or the images of a data set.

    Args:
        images: photographs, folders, globs, .txt files of paths, .tar shards; or give --data.
        model: a trained reasoner (ckpt:PATH, local-dir:PATH, hf-hub:ORG/REPO, or a name of 'rali-zoo list models';
            the one by default has seen synthetic images only), any vision-language model (hf:ORG/REPO,
            hf:local-dir:FOLDER), or a captioner (labels, attributes?mos_words=true).
        data: reference of a data set, in place of images; a column prompt goes to questions that say what an image was
            made from.
        output: the table, .parquet or .jsonl; what went wrong is written beside it as .errors.csv. Without it the texts
            are shown.
        split: rows of the data set to describe.
        limit: at most so many of them: those that data.limit of 'fit' takes.
        draw: seed with which they are drawn (data.seed of 'fit').
        seeds: texts an image.
        batch_size: images at a time.
        temperature: of the sampler; 0 takes the likeliest text, which only makes sense with one seed. 1 for a
            data set by default, 0 for images.
        prompt: the question to a model given as hf:; a trained reasoner brings its own.
        max_inconsistency: leave out texts from whose words alone another score is predicted, further away than
            this from the one that the model gave; in MOS units. All texts are kept by default.
        root: folder that holds the data sets' folders.
        device: where to compute, e.g. cuda; the CPU by default.
    """
    from rali_zoo.data.captioners import CAPTIONERS, REVISION
    from rali_zoo.uri import split_options

    sampled = (1.0 if data or seeds > 1 else 0.0) if temperature is None else temperature
    _check(seeds, batch_size, sampled, max_inconsistency)
    rows, items = _images(images, data, split, root, limit, draw)
    told = [*rows["id"], *(rows["prompt"] if rows["prompt"].any() else ())]
    names = text_sha256("\n".join(told))[:16]
    with _opened(output) as out:
        write: Callable[[], pd.DataFrame]
        if split_options(model)[0] in CAPTIONERS:
            job = DescribeJob(model, REVISION, data or OWN, "", 0.0, seeds, 0, names)
            write = partial(_by_captioner, model, rows, data or OWN, seeds)
        else:
            from rali_zoo.zoo import load_reasoner

            network = load_reasoner(model, prompt, device, others=CAPTIONERS)
            about = (network.revision, data or OWN, network.asked.text(), sampled, seeds, batch_size, names)
            job = DescribeJob(model, *about)
            write = partial(_by_reasoner, network, job, rows, items, out)
        if out is not None and _is_complete(out, job):
            print(f"{output} was complete already")
            return
        texts = write() if max_inconsistency is None else drop_inconsistent(write(), max_inconsistency)
        good = texts[texts["error"] == ""]
        if good.empty:
            raise ConfigError(f"nothing could be described; the first reason: {texts['error'].iloc[0]}")
        if out is None:
            _show(texts)
        else:
            _finish(out, texts)
            unscored, distinct = int(good["score"].isna().sum()), good["text"].nunique()
            print(f"{len(good)} texts ({distinct} distinct, {unscored} without a score): {output}")
    if len(good) < len(texts):
        where = "their error shows why" if output is None else f"{_errors(output)} holds why"
        print(f"{len(texts) - len(good)} texts left out; {where}", file=sys.stderr)


def _check(seeds: int, batch_size: int, temperature: float, max_inconsistency: float | None) -> None:
    if seeds < 1 or batch_size < 1 or not 0 <= temperature < math.inf:
        raise ConfigError("--seeds and --batch_size are at least 1, --temperature a number, at least 0")
    if temperature == 0 and seeds > 1:
        raise ConfigError("--temperature 0 gives the same text each time; use --seeds 1, or sample")
    if max_inconsistency is not None and not 0 <= max_inconsistency < math.inf:
        raise ConfigError(f"--max_inconsistency {max_inconsistency} is a number, at least 0")


def _images(
    paths: Sequence[str], data: str | None, split: Split, root: str, limit: int | None, draw: int
) -> tuple[pd.DataFrame, list[Item]]:
    """The rows to describe (columns of a data set's table; ``id``, ``path`` and no MOS for images), and their files."""
    import pandas as pd

    from rali_zoo.data.sources import Item, find_items

    if bool(paths) == (data is not None):
        raise ConfigError("give either images or --data: rali-zoo describe photo.jpg folder/")
    if data is None:
        items = list(find_items(paths))
        names = [item.path for item in items]
        return pd.DataFrame({"id": names, "path": names, "mos": math.nan, "split": "", "prompt": ""}), items
    from rali_zoo.data.tables import load_table

    table = load_table(data, root)
    rows = table.sample("predict" if split == "all" else split, limit, draw)
    prompts = rows["prompt"].fillna("").astype(str) if "prompt" in rows else ""
    rows = rows.assign(id=rows["id"].astype(str), prompt=prompts)
    return rows, [Item(str(path)) for path in rows["path"]]


def _show(texts: pd.DataFrame) -> None:
    for row in texts.itertuples():
        score = "no score" if math.isnan(row.score) else f"{row.score:.2f} of 5"
        print(f"{printable(row.image_id)}: {score}\n  {printable(row.text or row.error)}")


def _by_captioner(model: str, rows: pd.DataFrame, data: str, seeds: int) -> pd.DataFrame:
    """Texts of a captioner, whose one option besides the seeds is ``mos_words``."""
    from rali_zoo.data.captioners import describe
    from rali_zoo.uri import Uri, split_options

    name, options = split_options(model)
    words = Uri("", name, options).take(("mos_words",)).get("mos_words", "false").lower()
    if words not in ("true", "false"):
        raise ConfigError(f"{model!r}: mos_words is true or false")
    return describe(name, rows, data, seeds, words == "true").assign(error="")


# ---- the table ----


@contextmanager
def _opened(output: Path | None) -> Iterator[Output | None]:
    """What owns the table; ``None`` for texts that are only shown."""
    if output is None:
        yield None
        return
    if output.suffix not in (".parquet", ".jsonl"):
        raise ConfigError(f"--output {output}: the file ends in .parquet or .jsonl")
    with Output(output, r"\d{6}\.parquet|(table|errors)\.\w+") as out:
        if not out.started and _errors(output).exists():
            raise OutputError(f"{_errors(output)} is there already; remove it, or give another --output")
        yield out


def _is_complete(out: Output, job: DescribeJob) -> bool:
    """Begin, or take up an earlier run of the same job; whether all that it left to do was to remove its parts."""
    out.begin({**asdict(job), "part": PART})
    if out.complete:
        out.clear()
    else:
        out.save({})
    return out.complete


def _finish(out: Output, texts: pd.DataFrame) -> None:
    """Put the table, and beside it what was left out, in their places."""
    from rali_zoo.data.descriptions import COLUMNS, write_descriptions

    good, bad = texts[texts["error"] == ""], texts[texts["error"] != ""]
    if len(bad):
        made, target = out.folder / "errors.csv", _errors(out.target)
        with out.part(made.name) as path:
            bad.map(lambda value: csv_cell(value) if isinstance(value, str) else value).to_csv(
                path, index=False
            )
        # else a run that was killed right here has put it there
        if not target.is_file() or sha256(made) != sha256(target):
            publish(made, target)
    table = out.folder / f"table{out.target.suffix}"
    with explained(out.target):
        write_descriptions(good[list(COLUMNS)], table)
    out.publish(table)
    out.clear()


def _errors(output: Path) -> Path:
    return output.with_suffix(".errors.csv")


# ---- a reasoner's texts ----


def _by_reasoner(
    network: VLMNetwork, job: DescribeJob, rows: pd.DataFrame, items: Sequence[Item], out: Output | None
) -> pd.DataFrame:
    """Write what parts are missing, then join all: one row a text, with the table's columns and ``error``."""
    import pandas as pd

    from rali_zoo.scoring.progress import Progress

    ids, origins = rows["id"].tolist(), rows["prompt"].tolist()
    todo = [(row, seed) for seed in range(job.seeds) for row in range(len(items))]
    parts = [todo[start : start + PART] for start in range(0, len(todo), PART)]
    names = [f"{number:06d}.parquet" for number in range(len(parts))]
    tables = [_read_part(out, name, part, ids, job) for name, part in zip(names, parts, strict=True)]
    done = sum(len(table) for table in tables if table is not None)
    if done:
        print(f"{done} of {len(todo)} texts are there from an earlier run", file=sys.stderr)
    whole = done == len(todo) or job.data == OWN
    features = None if whole else network.cached_features(job.data, rows, job.batch_size)
    with Progress(len(todo), done, "describing") as progress:
        for number, part in enumerate(parts):
            if tables[number] is not None:
                continue
            seed = zlib.crc32(f"{job.data}|{number}".encode())
            texts: list[Text] = []
            for start in range(0, len(part), job.batch_size):
                wanted = [row for row, _ in part[start : start + job.batch_size]]
                asked = [network.asked.of(origins[row]) for row in wanted]
                if features is None:
                    texts += _write(
                        network, [items[row] for row in wanted], asked, job.temperature, seed + start
                    )
                else:
                    made = network.write((), asked, 1, job.temperature, seed + start, features[wanted])
                    texts += map(read, made.parsed, made.truncated)
                progress.advance(len(wanted))
            tables[number] = table = _rows(texts, part, ids, job)
            if out is not None:
                with out.part(names[number]) as path:
                    table.to_parquet(path, index=False, write_page_checksum=True)
    return pd.concat(tables, ignore_index=True)


def _rows(
    texts: Sequence[Text], part: Sequence[tuple[int, int]], ids: Sequence[str], job: DescribeJob
) -> pd.DataFrame:
    """A part of the table."""
    import pandas as pd

    table = pd.DataFrame(
        {
            "dataset": job.data,
            "image_id": [ids[row] for row, _ in part],
            **{name: [getattr(text, name) for text in texts] for name in ("text", "score")},
            "teacher": job.model,
            "revision": job.revision,
            "seed": [seed for _, seed in part],
            "error": [text.error for text in texts],
        }
    )
    return table


def _read_part(
    out: Output | None, name: str, part: Sequence[tuple[int, int]], ids: Sequence[str], job: DescribeJob
) -> pd.DataFrame | None:
    """A part that is there with all its texts; ``None`` for one that is absent or damaged: it is written again."""
    if out is None:
        return None
    try:
        table = read_frame(out.folder / name)
        texts = [Text(*row) for row in zip(table["text"], table["score"], table["error"], strict=True)]
    except (ScoreTableError, KeyError):
        return None
    return table if len(texts) == len(part) and table.equals(_rows(texts, part, ids, job)) else None


def _write(
    network: VLMNetwork, items: Sequence[Item], asked: Sequence[Prompt], temperature: float, seed: int
) -> Iterator[Text]:
    """A text an image, in order."""
    import torch

    from rali_zoo.models.scorer import NetworkScorer
    from rali_zoo.views import unit

    scorer, found = NetworkScorer(network, ""), {}
    images: dict[int, Tensor] = {}
    for place, item in enumerate(items):
        try:
            prepared = scorer.prepare(item.source())
        except ImageDecodeError as error:
            prepared = error
        if isinstance(prepared, ImageDecodeError):
            found[place] = Text("", math.nan, str(prepared))
        else:
            images[place] = unit(prepared)
    try:
        found |= _ask(network, images, asked, temperature, seed)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError):  # a processor that refuses one of them: which one?
        for place, image in images.items():
            try:
                found |= _ask(network, {place: image}, asked, temperature, seed + place)
            except (ValueError, RuntimeError) as error:
                height, width = image.shape[-2:]
                reason = str(error).strip().splitlines()[0]
                found[place] = Text("", math.nan, f"the model cannot take {width}x{height} pixels: {reason}")
    return (found[place] for place in range(len(items)))


def _ask(
    network: VLMNetwork, images: dict[int, Tensor], asked: Sequence[Prompt], temperature: float, seed: int
) -> dict[int, Text]:
    if not images:
        return {}
    done = network.write(list(images.values()), [asked[place] for place in images], 1, temperature, seed)
    return {
        place: read(parsed, cut)
        for place, parsed, cut in zip(images, done.parsed, done.truncated, strict=True)
    }


def read(parsed: Parsed, truncated: bool) -> Text:
    """Description, score and error of a completion; a score that cannot be parsed does not spoil the text."""
    from rali_zoo.vlm.parsing import TAG

    wrong = [problem for problem in parsed.problems if problem.startswith("think")]
    if TAG.search(parsed.think):  # nobody could learn to write it between tags
        wrong.append("think-has-tags")
    error = ", ".join([*wrong, *(["cut at the limit of length"] if truncated and wrong else [])])
    return Text(parsed.think, math.nan if parsed.score is None else parsed.score, error)


# ---- consistency ----


def drop_inconsistent(texts: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """Mark the texts whose words do not predict the score that stands behind them.

    Args:
        texts: columns dataset, image_id, text, score and error.
        tolerance: largest distance in MOS units between the score and the one that a regression on the words
            of other images' texts predicts.

    Raises:
        ConfigError: too few images to learn from.
    """
    from rali_zoo.rl.monitor import text_only_srcc

    texts = texts.copy()
    texts.loc[(texts["error"] == "") & texts["score"].isna(), "error"] = "no score to compare the words with"
    good = texts[texts["error"] == ""]
    alone = text_only_srcc(good["text"].tolist(), good["score"].tolist(), groups=good["image_id"].tolist())
    distance = abs(alone.predictions + good["score"].mean() - good["score"])
    for row in good.index[distance > tolerance]:
        texts.loc[row, "error"] = f"the words alone predict a score {distance[row]:.2f} away"
    return texts
