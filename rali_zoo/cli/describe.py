"""``rali-zoo describe``: a trained reasoner, or a captioner, writes the descriptions table.

The work is cut into parts of :data:`PART` texts. Each is written whole or not at all beside the output, so a
run that was killed goes on where it stopped, with no text lost or doubled.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rali_zoo.cli import run_function
from rali_zoo.errors import ConfigError
from rali_zoo.paths import atomic_path

if TYPE_CHECKING:
    import pandas as pd

    from rali_zoo.models.vlm import VLMNetwork
    from rali_zoo.vlm.prompts import Prompt

PART = 256
Split = Literal["train", "val", "test", "all"]


@dataclass(frozen=True)
class Job:
    """What makes two runs the same one.

    Attributes:
        model: reference of the reasoner.
        revision: hash of its weights.
        data: reference of the data set.
        prompt: the question.
        temperature: of the sampler.
        seeds: texts an image.
        images: hash of the images' names, in order.
    """

    model: str
    revision: str
    data: str
    prompt: str
    temperature: float
    seeds: int
    images: str


def describe_command(
    model: str,
    data: str,
    output: Path,
    split: Split = "train",
    seeds: int = 1,
    batch_size: int = 16,
    temperature: float = 1.0,
    prompt: str = "score",
    max_inconsistency: float | None = None,
    root: str = "data",
    device: str | None = None,
) -> None:
    """Let a model describe the images of a data set and write the descriptions table.

    Args:
        model: a trained reasoner (ckpt:PATH, local-dir:PATH, hf-hub:ORG/REPO), any vision-language model
            (hf:ORG/REPO, hf:local-dir:FOLDER), or a captioner (labels, attributes?mos_words=true).
        data: reference of the data set.
        output: the table, .parquet or .jsonl; what went wrong is written beside it as .errors.csv.
        split: rows to describe.
        seeds: texts an image.
        batch_size: images at a time.
        temperature: of the sampler; 0 takes the likeliest text, which only makes sense with one seed.
        prompt: the question to a model given as hf:; a trained reasoner brings its own.
        max_inconsistency: leave out texts from whose words alone another score is read, further away than
            this from the one that the model gave; in MOS units. All texts are kept by default.
        root: folder that holds the data sets' folders.
        device: where to compute, e.g. cuda; the CPU by default.
    """
    from rali_zoo.data.captioners import CAPTIONERS
    from rali_zoo.data.tables import load_table
    from rali_zoo.uri import split_options

    output = Path(output)
    _check(output, seeds, batch_size, temperature)
    table = load_table(data, root)
    rows = table.frame if split == "all" else table.split(split)
    if rows.empty:
        raise ConfigError(f"{data!r} has no {split} rows; {table.describe()}")
    if split_options(model)[0] in CAPTIONERS:
        texts = _by_captioner(model, rows, data, seeds)
    else:
        from rali_zoo.zoo import load_reasoner

        reasoner = load_reasoner(model, prompt, device, others=CAPTIONERS)
        asked = reasoner.asked
        images = hashlib.sha256("\n".join(rows["id"].astype(str)).encode()).hexdigest()[:16]
        job = Job(model, reasoner.revision, data, asked.text(), temperature, seeds, images)
        texts = _by_reasoner(reasoner, asked, job, rows, batch_size, _folder(output))
    if max_inconsistency is not None:
        texts = drop_inconsistent(texts, max_inconsistency)
    _finish(texts, data, output)


def _finish(texts: pd.DataFrame, data: str, output: Path) -> None:
    """Write the table and, beside it, what was left out; then the parts are not needed any more."""
    from rali_zoo.data.descriptions import COLUMNS, write_descriptions

    good, bad = texts[texts["error"] == ""], texts[texts["error"] != ""]
    if good.empty:
        raise ConfigError(f"no image of {data} could be described; the first reason: {bad['error'].iloc[0]}")
    if len(bad):
        with atomic_path(_errors(output)) as path:
            bad.to_csv(path, index=False)
    write_descriptions(good[list(COLUMNS)], output)
    shutil.rmtree(_folder(output), ignore_errors=True)
    unscored = int(good["score"].isna().sum())
    print(f"{len(good)} texts ({good['text'].nunique()} distinct, {unscored} without a score): {output}")
    if len(bad):
        print(f"{len(bad)} texts left out, {_errors(output)} says why", file=sys.stderr)


def _check(output: Path, seeds: int, batch_size: int, temperature: float) -> None:
    if output.suffix not in (".parquet", ".jsonl"):
        raise ConfigError(f"--output {output}: the file ends in .parquet or .jsonl")
    if output.exists():
        raise ConfigError(f"{output} is there already; remove it, or give another --output")
    if seeds < 1 or batch_size < 1 or temperature < 0:
        raise ConfigError("--seeds and --batch_size are at least 1, --temperature at least 0")
    if temperature == 0 and seeds > 1:
        raise ConfigError("--temperature 0 gives the same text each time; use --seeds 1, or sample")


def _folder(output: Path) -> Path:
    return output.with_name(f"{output.name}.parts")


def _errors(output: Path) -> Path:
    return output.with_suffix(".errors.csv")


def _by_captioner(model: str, rows: pd.DataFrame, data: str, seeds: int) -> pd.DataFrame:
    """Texts of a captioner, whose one option besides the seeds is ``mos_words``."""
    from rali_zoo.data.captioners import describe
    from rali_zoo.uri import Uri, split_options

    name, options = split_options(model)
    words = Uri("", name, options).take(("mos_words",)).get("mos_words", "false").lower()
    if words not in ("true", "false"):
        raise ConfigError(f"{model!r}: mos_words is true or false")
    return describe(name, rows, data, seeds, words == "true").assign(error="")


# ---- parts ----


def _by_reasoner(
    reasoner: VLMNetwork, asked: Prompt, job: Job, rows: pd.DataFrame, batch_size: int, folder: Path
) -> pd.DataFrame:
    """Write what parts are missing, then read all: one row a text, with the table's columns and ``error``."""
    import pandas as pd

    _same_job(job, folder)
    todo = [(row, seed) for seed in range(job.seeds) for row in range(len(rows))]
    parts = [todo[start : start + PART] for start in range(0, len(todo), PART)]
    files = [folder / f"{number:06d}.parquet" for number in range(len(parts))]
    done = sum(len(part) for part, file in zip(parts, files, strict=True) if file.exists())
    if done:
        print(f"{done} of {len(todo)} texts are there from an earlier run", file=sys.stderr)
    with _Progress(len(todo), done) as progress:
        for number, (part, file) in enumerate(zip(parts, files, strict=True)):
            if file.exists():
                continue
            seed = zlib.crc32(f"{job.data}|{number}".encode())
            texts: list[dict[str, Any]] = []
            for start in range(0, len(part), batch_size):
                wanted = part[start : start + batch_size]
                texts += _texts(reasoner, asked, job, rows, wanted, seed + start)
                progress.advance(len(wanted))
            with atomic_path(file) as path:
                pd.DataFrame(texts).to_parquet(path, index=False)
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def _same_job(job: Job, folder: Path) -> None:
    """Refuse to go on with another run's parts."""
    manifest = folder / "job.json"
    if manifest.exists():
        before = json.loads(manifest.read_text())
        now = job.__dict__
        changed = [
            f"{key}: {before.get(key)!r} before, {now[key]!r} now"
            for key in now
            if before.get(key) != now[key]
        ]
        if changed:
            raise ConfigError(
                f"{folder} holds parts of another run ({'; '.join(changed)}); remove the folder, or give "
                "another --output"
            )
        return
    with atomic_path(manifest) as path:
        path.write_text(json.dumps(job.__dict__))


def _texts(
    reasoner: VLMNetwork,
    asked: Prompt,
    job: Job,
    rows: pd.DataFrame,
    wanted: Sequence[tuple[int, int]],
    seed: int,
) -> Iterator[dict[str, Any]]:
    """One row a text, in the order wanted; images of equal size go through together."""
    import torch

    from rali_zoo.data.images import load_image
    from rali_zoo.errors import ImageDecodeError

    found: dict[int, tuple[str, float, str]] = {}
    by_shape: dict[tuple[int, ...], list[tuple[int, torch.Tensor]]] = {}
    for place, (row, _) in enumerate(wanted):
        try:
            image = reasoner.view(load_image(rows["path"].iloc[row]), reasoner.preprocess)
            by_shape.setdefault(tuple(image.shape), []).append((place, image))
        except ImageDecodeError as error:
            found[place] = ("", math.nan, str(error))
    for same in by_shape.values():
        places, images = zip(*same, strict=True)
        written = reasoner.write(torch.stack(images), asked, 1, job.temperature, seed)
        for place, parsed, cut in zip(places, written.parsed, written.truncated, strict=True):
            found[place] = _read(parsed, cut)
    for place, (row, number) in enumerate(wanted):
        text, score, wrong = found[place]
        yield {
            "dataset": job.data, "image_id": str(rows["id"].iloc[row]), "text": text, "score": score,
            "teacher": job.model, "revision": job.revision, "seed": number, "error": wrong,
        }  # fmt: skip


def _read(parsed: Any, truncated: bool) -> tuple[str, float, str]:
    """Text, score and error of a completion; a score that cannot be read does not spoil the text."""
    from rali_zoo.vlm.parsing import TAG

    wrong = [problem for problem in parsed.problems if problem.startswith("think")]
    if TAG.search(parsed.think):  # nobody could learn to write it between tags
        wrong.append("think-has-tags")
    error = ", ".join([*wrong, *(["cut at the limit of length"] if truncated and wrong else [])])
    return parsed.think, math.nan if parsed.score is None else parsed.score, error


class _Progress:
    """Progress and the time that is left, on stderr: a bar on a terminal, a line now and then elsewhere."""

    _SECONDS = 30.0

    def __init__(self, total: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.total, self.done, self.first = total, done, done
        self.started = self.said = time.monotonic()
        console = Console(stderr=True)
        columns = (TextColumn("describing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("describing", total=total, completed=done)

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def advance(self, texts: int) -> None:
        """Count texts that were written."""
        self.done += texts
        self.bar.update(self.task, completed=self.done)
        now = time.monotonic()
        if self.bar.disable and (now - self.said > self._SECONDS or self.done == self.total):
            self.said = now
            rate = (self.done - self.first) / max(now - self.started, 1e-9)
            left = (self.total - self.done) / rate
            print(f"{self.done}/{self.total} texts, {rate:.2f} a second, {left:.0f} s left", file=sys.stderr)


# ---- consistency ----


def drop_inconsistent(texts: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """Mark the texts whose words do not tell the score that stands behind them.

    Args:
        texts: columns dataset, image_id, text, score and error.
        tolerance: largest distance in MOS units between the score and the one that a regression on the words
            of other images' texts reads.

    Raises:
        ConfigError: a negative tolerance, or too few images to learn from.
    """
    from rali_zoo.rl.monitor import text_only_srcc

    if tolerance < 0:
        raise ConfigError(f"--max_inconsistency {tolerance} is at least 0")
    texts = texts.copy()
    texts.loc[(texts["error"] == "") & texts["score"].isna(), "error"] = "no score to compare the words with"
    good = texts[texts["error"] == ""]
    told = text_only_srcc(good["text"].tolist(), good["score"].tolist(), groups=good["image_id"].tolist())
    distance = abs(told.predictions + good["score"].mean() - good["score"])
    for row in good.index[distance > tolerance]:
        texts.loc[row, "error"] = f"the words alone tell a score {distance[row]:.2f} away"
    return texts


def main(words: Sequence[str]) -> None:
    """Run the command; ``words`` are its name and what follows it."""
    run_function(describe_command, words)
