"""How fast what a person waits for is, as ratios of two sides that take turns in one run.

    python benchmarks/studies/speed.py                     # everything; needs ../shared/data/biq2021 for some rows
    python benchmarks/studies/speed.py --only startup jpeg
    python benchmarks/studies/speed.py --quick             # small sizes, to see that it runs

writes ``benchmarks/results/speed.json``, a section as soon as it is measured; ``tables.py`` makes the tables of
docs/speed.md and docs/scale_out.md of it; ``speed_runtimes.py`` adds exports to the same file. A run
that was stopped goes on; ``--fresh`` measures everything again. A section that fails is noted in the file, and the
others go on. Weights are random where speed alone is measured. Times of different runs on a machine that others use
too cannot be compared; those of alternate rounds can.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest import mock

# Before torch is imported: one thread is what can be compared on a machine that others use too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image
from tables import number

from rali_zoo.data.images import load_image
from rali_zoo.data.sources import Item
from rali_zoo.models.files import save_scorer
from rali_zoo.models.regression import RegressionNetwork
from rali_zoo.paths import atomic_path
from rali_zoo.report import provenance, write_json
from rali_zoo.scoring.decode import decode_fast
from rali_zoo.scoring.pipeline import make_stages, run, slices
from rali_zoo.scoring.preprocess import FastView
from rali_zoo.scoring.sink import Job, Sink
from rali_zoo.types import Preprocess, Score
from rali_zoo.views import View, unit
from rali_zoo.zoo import load_model

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "benchmarks" / "results" / "speed.json"
QUICK = ROOT / "runs" / "speed_quick.json"
PHOTOS = ROOT.parent / "shared" / "data" / "biq2021" / "images"
ROUNDS = 5
CLIP = Preprocess((224, 224), resize="center_crop")

# ---- rows: two ways to do the same thing, timed in turn ----

Clock = Literal["wall", "cpu"]
_CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
#: Rounds below which nothing is said about the range.
LEAST_ROUNDS = 3
#: How a value is meant; more is better of speed and of SRCC, less of all others.
Unit = Literal["× the time", "× the speed", "× the memory", "s", "SRCC", "of 255", "of a score", ""]
_MORE = ("× the speed", "SRCC")


@dataclass(frozen=True)
class Row:
    """One line of the results.

    Attributes:
        name: what a person waits for.
        against: what it is compared with; empty for seconds.
        unit: of the value and the goal.
        value: median over the rounds.
        low: smallest of a round.
        high: largest of a round.
        goal: at most, or of a speed at least.
        note: what else was measured, with units.
        limit: why the goal may be out of reach here, with the number that was measured to show it; said
            only where it is not met.
        values: numbers of the note that are computed with; seconds, bytes, or of the unit in their name.
    """

    name: str
    against: str
    unit: Unit
    value: float
    low: float
    high: float
    goal: float | None = None
    note: str = ""
    limit: str = ""
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; ``None`` without one."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.unit in _MORE else self.value <= self.goal

    @property
    def reason(self) -> str:
        """Why the goal is not met; empty where it is, or where there is none."""
        return "" if self.met is not False else self.limit or "no physical reason is known"


def ab(
    theirs: Callable[[], object],
    ours: Callable[[], object],
    rounds: int = ROUNDS,
    repeat: int = 1,
    clock: Clock = "cpu",
) -> tuple[list[float], list[float]]:
    """Time two functions in turn, each first in every other round, after one call of each for warming up.

    Args:
        theirs: what is compared with.
        ours: the other.
        rounds: at least :data:`LEAST_ROUNDS`.
        repeat: calls of each in a round.
        clock: ``cpu`` counts the time of all threads of this process, whatever else the machine does.

    Returns:
        Seconds of a call of each in each round.
    """
    if rounds < LEAST_ROUNDS:
        raise ValueError(f"fewer than {LEAST_ROUNDS} rounds say nothing about the range")
    theirs(), ours()
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        for which in ((0, 1), (1, 0))[turn % 2]:
            begun = _CLOCKS[clock]()
            for _ in range(repeat):
                (theirs, ours)[which]()
            times[which].append((_CLOCKS[clock]() - begun) / repeat)
    return times


def compare(
    name: str,
    against: str,
    theirs: Sequence[float],
    ours: Sequence[float],
    unit: Unit,
    goal: float | None = None,
    note: str = "",
    clock: Clock = "cpu",
    limit: Callable[[float, float], str] | None = None,
    values: Mapping[str, float] | None = None,
) -> Row:
    """A row of the seconds that both sides took in each round, as :func:`ab` gives them."""
    slow, fast = statistics.median(theirs), statistics.median(ours)
    ratios = [a / b if unit in _MORE else b / a for a, b in zip(theirs, ours, strict=True)]
    measured = f"{fast * 1e3:,.1f} ms against {slow * 1e3:,.1f} ms of {clock} time, {len(ratios)} rounds"
    numbers = {**(values or {}), "baseline_s": slow, "candidate_s": fast}
    why = "" if limit is None else limit(slow, fast)
    note = f"{measured}; {note}" if note else measured
    return from_values(name, ratios, unit, goal, note, why, numbers, against)


def from_values(
    name: str,
    found: Sequence[float],
    unit: Unit,
    goal: float | None = None,
    note: str = "",
    limit: str = "",
    values: Mapping[str, float] | None = None,
    against: str = "",
) -> Row:
    """A row of one value a round."""
    ends = min(found), max(found)
    return Row(name, against, unit, statistics.median(found), *ends, goal, note, limit, values or {})


def seconds(function: Callable[[], object], rounds: int = ROUNDS, clock: Clock = "cpu") -> float:
    """Median time of a call, after one for warming up."""
    function()
    times = []
    for _ in range(rounds):
        begun = _CLOCKS[clock]()
        function()
        times.append(_CLOCKS[clock]() - begun)
    return statistics.median(times)


def _in_use() -> str:
    """That others use the machine, where more is running than it has cores."""
    load = os.getloadavg()[0]
    return (
        f"load of the machine {load:.0f}, which raises processor time too"
        if load > (os.cpu_count() or 1)
        else ""
    )


def process(words: Sequence[str], **environment: str) -> float:
    """Seconds of processor time of a command and all that it starts; raises what it wrote where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment}, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-500:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def photographs(count: int) -> list[str]:
    """Paths of photographs of BIQ2021, spread over the set."""
    found = sorted(str(p) for p in PHOTOS.glob("*.jpg"))
    if len(found) < count:
        raise RuntimeError(f"{PHOTOS} has {len(found)} photographs; {count} are needed")
    return found[:: len(found) // count][:count]


# ---- sections: starting, the quick start ----

CLI = [sys.executable, "-m", "rali_zoo"]
_PIQE = "import pyiqa, sys; print(float(pyiqa.create_metric('piqe')(sys.argv[1])))"


def startup(quick: bool) -> list[Row]:
    """The first score of a photograph, and help, from the start of Python."""
    with tempfile.TemporaryDirectory() as folder:
        image = str(Path(folder) / "one.jpg")
        Path(image).write_bytes(photograph(1024, 768))
        words = {
            "ours": [*CLI, "score", image],
            "torch": [sys.executable, "-c", "import torch"],
            "pyiqa": [sys.executable, "-c", _PIQE, image],
            "help": [*CLI, "--help"],
            "list": [*CLI, "list", "models"],
            "fit": [*CLI, "fit", "--help"],
        }
        times: dict[str, list[float]] = {name: [] for name in words}
        for turn in range(-1, 1 if quick else LEAST_ROUNDS):
            for name in list(words)[:: -1 if turn % 2 else 1]:
                took = process(words[name])
                times[name] += [took] * (turn >= 0)  # the first round only warms up
    score = "`rali-zoo score one.jpg`"
    return [
        compare(score, "`import torch`", times["torch"], times["ours"], "× the time", 1.6),
        compare(score, "pyiqa's first score by piqe", times["pyiqa"], times["ours"], "× the time", 1.0),
        from_values("`rali-zoo --help`", times["help"], "s", 0.5, "of processor time"),
        from_values("`rali-zoo list models`", times["list"], "s", 0.5, "of processor time"),
        from_values("`rali-zoo fit --help`", times["fit"], "s", 2.0, "of processor time"),
    ]


def quickstart(quick: bool) -> list[Row]:
    """README's command for a synthetic data set, from an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            *CLI,
            "fit",
            "--config",
            "configs/quickstart/synthetic.yaml",
            "--trainer.default_root_dir",
            folder,
        ]
        small = ["--data.limit=32", "--trainer.max_epochs=1"] if quick else []
        begun = time.perf_counter()
        work = process([*words, *small], RALI_ZOO_CACHE=f"{folder}/cache", OMP_NUM_THREADS="2")
        wall = time.perf_counter() - begun
        tests = json.loads((Path(folder) / "results.json").read_text())["datasets"]
    (name, found), *_ = tests.items()
    note = (
        f"from an empty cache, data included; {work:.0f} s of processor time; load {os.getloadavg()[0]:.1f}"
    )
    limit = f"{work:.0f} s of processor time are {work / 2:.0f} s of two cores that nobody else uses"
    command = "`rali-zoo fit --config configs/quickstart/synthetic.yaml`"
    return [
        from_values(command, [wall], "s", 100, note, limit, {"cpu_s": work}),
        from_values(
            f"its test on `{name}`", [found["srcc"]], "SRCC", 0.8, f"n = {found['n']}, synthetic labels"
        ),
    ]


# ---- sections: photographs ----


def photograph(width: int, height: int, seed: int = 0, grain: float = 5.0) -> bytes:
    """A JPEG with a photograph's structure and a sensor's grain (deviation in levels of 255).

    Without grain a photograph that was enlarged has fewer bytes than a camera's, and decodes faster.
    """
    import skimage.data

    base = [skimage.data.coffee, skimage.data.chelsea, skimage.data.astronaut][seed % 3]()
    image = Image.fromarray(base).resize((width, height), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(seed).normal(0, grain, (height, width, 1))
    buffer = io.BytesIO()
    noisy = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def tiny(width: int = 32, height: int = 32) -> bytes:
    """A PNG of noise."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def straight(data: bytes) -> torch.Tensor:
    """The usual way: decode all, resize the short side, crop, convert."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = 224 / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    array = np.array(image.crop((left, top, left + 224, top + 224)))
    return torch.from_numpy(array).permute(2, 0, 1).float() / 255


def jpeg(quick: bool) -> list[Row]:
    """Decoding and cutting a JPEG to 224 pixels: Pillow's usual way against both modes."""
    view, rows = FastView(View(), CLIP), []
    for width, height, repeat, goal in ((4000, 3000, 1, 4.0), (1024, 768, 3 if quick else 20, None)):
        data = photograph(width, height)
        alone = seconds(lambda d=data: decode_fast(d, view.least), 3)

        def why(slow: float, fast: float, alone: float = alone) -> str:
            return (
                f"decoding alone (libjpeg-turbo) takes {alone * 1e3:.1f} of the {fast * 1e3:.1f} ms, so that "
                f"without any resizing it were {slow / alone:.2f} times"
            )

        for mode, prepare, wanted in (
            ("exact", lambda d: View().cut(load_image(d), CLIP), goal and 1.0),
            ("fast", view.prepare, goal),
        ):
            apart = (unit(prepare(data)) - straight(data)).square().mean().sqrt() * 255
            note = f"{len(data) // 1000} KB; pixels differ by {apart:.2f} of 255 (root mean square)"
            rows.append(
                compare(
                    f"a JPEG of {width}x{height}, {mode}", "Pillow",
                    *ab(partial(straight, data), partial(prepare, data), repeat=repeat),
                    "× the speed", wanted, note, limit=why, values={"bytes": len(data)},
                )
            )  # fmt: skip
    return rows


def folder(quick: bool) -> list[Row]:
    """A folder of photographs: the scorer with ONNX Runtime against a loop with timm and Pillow, by 16."""
    import timm
    from timm.data import create_transform, resolve_model_data_config

    each = 16 if quick else 100
    files = photographs(each * ROUNDS)
    torch.manual_seed(0)
    network = RegressionNetwork("timm:mobilenetv2_100?pretrained=false").eval()
    scorer = load_model(network, runtime="auto")
    model = timm.create_model("mobilenetv2_100", num_classes=1).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)

    @torch.inference_mode()
    def loop(files: Sequence[str]) -> None:
        for start in range(0, len(files), 16):
            model(torch.stack([transform(Image.open(p).convert("RGB")) for p in files[start : start + 16]]))

    def ours(files: Sequence[str]) -> None:
        for _ in run(slices([(0, [Item(p) for p in files])], 16), make_stages(scorer), 2):
            pass

    turns: dict[Clock, tuple[list[float], list[float]]] = {"cpu": ([], []), "wall": ([], [])}
    for turn, start in enumerate(range(-each, len(files), each)):
        chosen = files[:16] if start < 0 else files[start : start + each]
        for which in ((0, 1), (1, 0))[turn % 2]:
            begun = {clock: read() for clock, read in _CLOCKS.items()}
            (loop, ours)[which](chosen)
            for clock, read in _CLOCKS.items():
                turns[clock][which].extend([read() - begun[clock]] * (start >= 0))
    wall = statistics.median(a / b for a, b in zip(*turns["wall"], strict=True))
    note = (
        f"MobileNetV2, {len(files)} photographs of BIQ2021; by the clock {wall:.2f} times on a machine in use"
    )
    name = f"`score` of {len(files)} photographs with `[onnx]`"
    return [compare(name, "timm and Pillow, by 16", *turns["cpu"], "× the speed", 1.5, note)]


# ---- sections: training on frozen features ----


def features(quick: bool) -> list[Row]:
    """The features of photographs at 384 pixels, for the cache, against the encoder alone on ready pixels."""
    import pandas as pd

    from rali_zoo.data.features import CPU_BATCH, cached_features
    from rali_zoo.data.images import load_views
    from rali_zoo.trainers.regression import Regression

    files = photographs(CPU_BATCH if quick else 4 * CPU_BATCH)
    trainer = Regression("rali:efficientnet-lite0?pretrained=false&size=384&resize=squash").eval()
    frame = pd.DataFrame({"id": files, "path": files, "mos": 3.0, "std": math.nan})
    ready = [load_views(path, View(), trainer.preprocess) for path in files]
    batches = [torch.stack(ready[k : k + CPU_BATCH]) for k in range(0, len(ready), CPU_BATCH)]

    def cached() -> torch.Tensor:
        return cached_features(
            "photographs", frame, trainer.encode_frozen, trainer.encoder_key, View(), trainer.preprocess, CPU_BATCH, 0
        )  # fmt: skip

    def afresh() -> None:
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, RALI_ZOO_CACHE=folder):
            cached()

    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, RALI_ZOO_CACHE=folder):
        apart = float((cached() - torch.cat([trainer.encode_frozen(b) for b in batches])).abs().max())
        again = seconds(cached, 3)
    note = f"EfficientNet-Lite0, {len(files)} photographs; equal to {apart:.0e}; another head: {again * 1e3:.0f} ms"
    alone = lambda: [trainer.encode_frozen(batch) for batch in batches]  # noqa: E731
    decode = seconds(lambda: [load_views(path, View(), trainer.preprocess) for path in files[:CPU_BATCH]], 3)

    def why(slow: float, fast: float) -> str:
        return (
            f"decoding and cutting take {decode / CPU_BATCH * len(files) / slow:.2f} of the encoder's time; with "
            "data.num_workers=1 another core does it"
        )

    name = "the feature cache of a frozen encoder, 384 pixels"
    return [compare(name, "the encoder alone", *ab(alone, afresh), "× the time", 1.1, note, limit=why)]


def fit(quick: bool) -> list[Row]:
    """A fit of a head on cached features, by Lightning, against a loop over the same batches."""
    import lightning
    import pandas as pd

    from rali_zoo.data.datamodule import IQADataModule
    from rali_zoo.data.dataset import ImageDataset
    from rali_zoo.trainers.regression import Regression

    rows, epochs, width = (512, 2, 100) if quick else (4096, 8, 1000)
    made, mos = torch.randn(rows, width), np.random.default_rng(0).uniform(1, 5, rows)

    class Features(IQADataModule):
        def _images(self, ref: str, frame: pd.DataFrame, view: View, texts: object) -> ImageDataset:
            table = pd.DataFrame({"id": [str(i) for i in range(rows)], "path": "", "mos": mos, "std": 0.5})
            return ImageDataset(ref, table, view, self.module.preprocess, None, made, self.seed)

    def head() -> Regression:
        torch.manual_seed(0)
        module = Regression("rali:tiny?size=64", encoder_lr=0.0)
        module.network.head = type(module.network.head)("mlp", width, 1, 256, 0.1)
        return module

    def by_lightning() -> None:
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(head(), datamodule=Features("synthetic:lab?n=60&size=64", batch_size=64))

    def by_hand() -> None:
        module, labels = head().train(), torch.from_numpy(mos).float()
        optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        for _ in range(epochs):
            for chosen in torch.randperm(rows).split(64):
                batch: Any = {
                    "features": made[chosen], "mos": labels[chosen], "std": torch.full((len(chosen),), 0.5),
                    "dataset": ["x"] * len(chosen), "id": [str(i) for i in chosen.tolist()],
                }  # fmt: skip
                optimizer.zero_grad()
                module.score_loss(module.predict_batch(batch).score, batch).backward()
                optimizer.step()
                schedule.step()

    note = f"{epochs} epochs of {rows} rows of {width} features by 64"

    def why(slow: float, fast: float) -> str:
        own, head = (1e3 * took / (epochs * rows // 64) for took in (fast - slow, slow))
        return f"Lightning's loop takes {own:.1f} ms a step of its own, beside {head:.1f} ms of a head this small"

    times = ab(by_hand, by_lightning, 3)
    return [compare("`fit` on cached features", "a plain loop", *times, "× the time", 1.3, note, limit=why)]


def grpo(quick: bool) -> list[Row]:
    """Steps of GRPO with an untrained tiny reasoner, eight answers of at most 64 tokens each: ours and TRL's.

    The second row is of one whose vision encoder is pretrained and stays: its tokens are cached here.
    """
    few, many = (1, 2) if quick else (2, 22)  # the difference is without the start
    note = f"{many - few} steps; both write to the end or to the limit, from the same distribution"
    rows = []
    for vlm, name, goal in (
        ("rali:vlm-tiny", "a GRPO step", 0.9),
        ("rali:vlm-tiny?vision=efficientnet-lite0", "a GRPO step with cached visual tokens", 2.0),
    ):
        with tempfile.TemporaryDirectory() as folder:
            ours = [
                *CLI, "fit", "--config=configs/reasoner/grpo_tiny.yaml", f"--model.init_args.vlm={vlm}",
                "--model.init_args.init_from=null", "--model.init_args.sampling.rollouts=4", "--data.batch_size=2",
                "--model.init_args.grpo.max_completion_length=64", "--data.train=synthetic:lab?n=200",
                "--test_after_fit=false", "--trainer.limit_val_batches=0", "--trainer.logger=false",
                f"--trainer.default_root_dir={folder}/ours", "--trainer.limit_train_batches",
            ]  # fmt: skip
            theirs = [
                *CLI, "trl", "--config=configs/reasoner/trl_grpo_tiny.yaml", f"--vlm={vlm}",
                f"--output={folder}/theirs", "--grpo.max_steps",
            ]  # fmt: skip
            took = [
                [process([*words, str(many)]) - process([*words, str(few)]) for words in (theirs, ours)]
                for _ in range(1 if quick else ROUNDS)
            ]
        rows.append(compare(name, "TRL's trainer", *zip(*took, strict=True), "× the speed", goal, note))
    return rows


# ---- sections: benchmark and leaderboard ----


def benchmark(quick: bool) -> list[Row]:
    """A metric of pyiqa in a benchmark, predictions cached and all, against calling it on the same files."""
    import pandas as pd
    import pyiqa

    from rali_zoo.bench.predict import predict

    files, metric = photographs(8 if quick else 100), pyiqa.create_metric("piqe")
    scorer = load_model("pyiqa:piqe")
    frame = pd.DataFrame({"id": files, "path": files, "mos": 3.0, "std": math.nan})

    def afresh() -> list[float | None]:
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, RALI_ZOO_CACHE=folder):
            return [outcome.score for outcome in predict(scorer, frame, "pyiqa", 8)]

    direct = lambda: [float(metric(path)) for path in files]  # noqa: E731
    apart = max(
        abs(a + b) for a, b in zip(direct(), afresh(), strict=True)
    )  # lower is better: its sign is turned
    note = (
        f"piqe, {len(files)} photographs of BIQ2021, scores differ by {apart:.1g}: EXIF turns an image here"
    )

    def why(slow: float, fast: float) -> str:
        own = (fast - slow) / len(files) * 1e3
        return f"{own:.1f} ms an image: its digest, colour profile and EXIF, and the file of the cache"

    times = ab(direct, afresh, 7)
    return [compare("`benchmark` of a pyiqa metric", "pyiqa", *times, "× the time", 1.1, note, limit=why)]


def statistics_of_entries(quick: bool) -> list[Row]:
    """Every statistic and interval of 40 entries on 5,000 images, and their comparison in pairs."""
    from rali_zoo.bench.comparison import compare as in_pairs
    from rali_zoo.bench.statistics import cell_statistics

    entries, n = (4, 500) if quick else (40, 5000)
    rng = np.random.default_rng(0)
    mos = np.clip(3 + rng.normal(size=n), 1, 5)
    std, content = rng.uniform(0.3, 0.9, n), [f"c{i}" for i in range(n)]
    scores = {f"m{k}": mos + rng.normal(size=n) * (0.3 + 0.02 * k) for k in range(entries)}
    begun = time.process_time()
    for given in scores.values():
        cell_statistics(mos, given, std=std, content=content, on_mos_scale=True)
    cells = time.process_time() - begun
    in_pairs(mos, scores, content, failures="worst")
    whole = time.process_time() - begun
    note = f"one run of processor time; {cells:.1f} s for the entries, {whole - cells:.1f} s for their pairs"
    return [
        from_values(f"statistics of {entries} entries on {n:,} images", [whole], "s", 20, note, _in_use())
    ]


def board(quick: bool) -> list[Row]:
    """Tables and page of a board, from results files that were checked before."""
    sys.path.insert(0, str(ROOT / "tests" / "bench"))
    import board_fixtures as made

    from rali_zoo.bench import check
    from rali_zoo.bench.leaderboard import leaderboard
    from rali_zoo.bench.page import page_files
    from rali_zoo.bench.results import cell_path
    from rali_zoo.cli.leaderboard import tables

    models, sets = (10, 4) if quick else (2000, 5)
    known: dict[tuple[str, str], list[str]] = {}
    real = check._recomputed

    def once(cell: Any, targets: Any) -> list[str]:  # copies of a cell are as right as the cell
        key = (cell.dataset.ref, cell.model.name[0])
        return known.setdefault(key, real(cell, targets) if key not in known else [])

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, RALI_ZOO_CACHE=f"{folder}/cache"),
    ):
        results = Path(folder) / "results"
        for name in (f"set{i:03d}" for i in range(sets)):
            made.ROWS[name], made.REFS[name] = 60, f"csv:{name}.csv"
            rows = made.targets(name)
            (results / "datasets").mkdir(parents=True, exist_ok=True)
            write_json(results / "datasets" / f"{name}.json", rows)
            for kind in ("good", made.ODD_NAME):
                cell = made.measured({"name": kind}, name, rows)
                for k in range(models // 2):
                    model = {**cell["model"], "name": f"{kind[:1].strip('<') or 'b'}{k:04d}"}
                    path = cell_path(results, model["name"], model["revision"], name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps({**cell, "model": {**model, "ref": f"ckpt:{model['name']}"}}))
        with mock.patch.object(check, "_recomputed", once):
            check.read_cells(results)
        times = []
        for _ in range(LEAST_ROUNDS):
            begun = time.process_time()
            found = leaderboard(results)
            read = time.process_time() - begun
            size = len(page_files(found)["data.js"]) + sum(map(len, tables(found).values()))
            times.append(time.process_time() - begun)
    note = (
        f"of processor time; {models:,} models on {sets} data sets of 60 images, {read:.1f} s of it to read; the first "
        f"time, when pairs are compared, {times[0]:.1f} s; {size / 1e6:.0f} MB of tables and page"
    )
    limit = (
        f"reading and validating takes {read / (models * sets) * 1e3:.1f} ms a file, tables and page nearly as much"
        f"{'; ' * bool(_in_use())}{_in_use()}"
    )
    return [
        from_values(f"`leaderboard` from {models * sets:,} results files", times[1:], "s", 5, note, limit)
    ]


# ---- section: memory ----

#: The command, then its own peak memory in KiB; what wait() reports would not be below its parent's.
_SCORE = """
import sys
from rali_zoo.cli.main import main

code = main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""


_LINKS = 10_000  # file systems allow so many and more names of one file


def _run_of(count: int, model: str, place: Path) -> float:
    """Peak memory in MiB of scoring ``count`` names of one tiny image each (links to few files)."""
    photos, table = place / str(count), place / f"{count}.parquet"
    photos.mkdir()
    for i in range(count):
        photo = photos / f"{i:07d}.png"
        if i % _LINKS == 0:
            photo.write_bytes(tiny())
        else:
            os.link(photos / f"{i // _LINKS * _LINKS:07d}.png", photo)
    words = ["score", str(photos), "--model", model, "--output", str(table), "--batch_size", "64"]
    done = subprocess.run([sys.executable, "-c", _SCORE, *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"scoring {count} images failed: {done.stderr[-500:]}")
    return float(done.stdout.split()[-1]) / 1024


def bytes_a_row(count: int, place: Path) -> float:
    """Bytes a row of a table of ``count`` members of tar shards, whose scores and stds all differ."""
    rng, output = np.random.default_rng(0), place / "rows.parquet"
    items = [Item(f"shards/{i // 10_000:06d}.tar/{i:09d}.jpg") for i in range(count)]
    with Sink(output) as sink:
        sink.start(Job(["shards"], "/", "1/1", "model", "revision", "exact", "float32"), items, 64)
        for batch in slices(sink.missing(), 64):
            numbers = rng.uniform(1, 5, (len(batch.items), 2)).tolist()
            found = [Score(a, b, path=i.path) for i, (a, b) in zip(batch.items, numbers, strict=True)]
            sink.add(batch.part, batch.start, found)
        sink.finish()
    return output.stat().st_size / count


def memory(quick: bool) -> list[Row]:
    """Peak memory of the command on many images over that on few."""
    few, many = (100, 2000) if quick else (1000, 100_000)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = save_scorer(RegressionNetwork("rali:tiny?size=32"), place / "model.safetensors")
        first, second = (_run_of(count, f"local-dir:{model}", place) for count in (few, many))
        size = bytes_a_row(many, place)
    ratio = second / first
    note = (
        f"{first:.0f} MiB and {second:.0f} MiB, one run each; a table of {many:,} different scores and "
        f"stds has {size:.0f} bytes a row"
    )
    name, against = f"memory of `score` on {many:,} images", f"on {few:,}"
    return [from_values(name, [ratio], "× the memory", 1.05, note, "", {"bytes_a_row": size}, against)]


# ---- the file, section by section ----

Section = Callable[[bool], Iterable[Row]]
ALL: dict[str, Section] = {
    "startup": startup, "quickstart": quickstart, "folder": folder, "jpeg": jpeg, "features": features, "fit": fit,
    "benchmark": benchmark, "statistics": statistics_of_entries, "board": board, "grpo": grpo, "memory": memory,
}  # fmt: skip


def measure(
    sections: Mapping[str, Section],
    names: Iterable[str],
    path: Path,
    about: Mapping[str, Any],
    quick: bool,
    again: bool,
) -> int:
    """Measure sections, each written as soon as it is done; how many failed.

    Args:
        sections: by name.
        names: of those to measure.
        path: results file; what a run that was stopped has left in it is kept.
        about: where the numbers come from: versions, hardware.
        quick: whether sizes are small; a file of the other kind is begun anew.
        again: measure what the file has already.
    """
    content: dict[str, Any] = {**about, "quick": quick, "sections": {}}
    if path.is_file() and (before := json.loads(path.read_text(encoding="utf-8"))).get("quick") == quick:
        content["sections"] = before["sections"]
    failed = 0
    for name in names:
        if content["sections"].get(name, {}).get("error", "never run") == "" and not again:
            print(f"# {name}: there from an earlier run", file=sys.stderr)
            continue
        print(f"# {name}", file=sys.stderr, flush=True)
        begun, rows, error = time.perf_counter(), list[Row](), ""
        try:
            rows = list(sections[name](quick))
        except (
            Exception
        ) as problem:  # the other sections can still be measured; the file says what is missing
            traceback.print_exc()
            error, failed = f"{type(problem).__name__}: {problem}".splitlines()[0], failed + 1
        content["sections"][name] = {
            "script": Path(sys.argv[0]).name,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - begun, 1),
            "load_average": [round(x, 2) for x in os.getloadavg()],
            "error": error,
            "rows": [{**asdict(row), "met": row.met, "reason": row.reason} for row in rows],
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        for row in rows:
            met = {True: "met", False: "not met", None: ""}[row.met]
            print(f"{row.name}: {number(row.value)} {row.unit} {row.against}, goal {row.goal}: {met}")
            print(f"    {row.note}\n" + f"    reason: {row.reason}\n" * bool(row.reason), end="")
    return failed


def main(sections: Mapping[str, Section] = ALL, target: Path = TARGET) -> None:
    """Measure, print, and write what was asked for, by default to ``target``."""
    parser = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=sections, help="these sections, measured again")
    parser.add_argument("--fresh", action="store_true", help="measure again what is in the file")
    parser.add_argument("--quick", action="store_true", help=f"small sizes; writes {QUICK.relative_to(ROOT)}")
    parser.add_argument("--output", type=Path, help="results file")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    output = options.output or (QUICK if options.quick else target)
    again = options.fresh or options.quick or options.only is not None
    about = provenance({"quick": options.quick})
    failed = measure(sections, options.only or sections, output, about, options.quick, again)
    print(f"written to {output}; python benchmarks/studies/tables.py shows it in the docs", file=sys.stderr)
    if failed:
        raise SystemExit(
            f"{failed} sections failed; the file says why, and the same command tries them again"
        )


if __name__ == "__main__":
    main()
