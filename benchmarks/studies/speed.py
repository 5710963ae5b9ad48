"""How fast scoring is, as ratios measured side by side in one run.

    python benchmarks/studies/speed.py                     # everything; a quarter of an hour on two quiet cores
    python benchmarks/studies/speed.py --only preprocessing fast
    python benchmarks/studies/speed.py --quick             # small sizes, to see that it runs; three minutes

writes ``benchmarks/results/speed.json``, a section as soon as it is measured; ``tables.py`` makes the tables of
docs/speed.md and docs/scale_out.md of it. A run that was stopped goes on; ``--fresh`` measures everything again.
A section that fails is noted in the file, and the others go on. Weights are random where speed alone is
measured; the change in score is measured on the checkpoint that the package carries. Times of different runs
on a machine that others use too cannot be compared; those of alternate rounds can.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

# Before torch is imported: one thread is what can be compared on a machine that others use too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image
from tables import number

import rali_zoo
from rali_zoo.backbones import create_backbone
from rali_zoo.data.images import load_image
from rali_zoo.data.sources import Item
from rali_zoo.data.tables import load_table
from rali_zoo.models.files import save_scorer
from rali_zoo.models.regression import RegressionNetwork
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.paths import atomic_path
from rali_zoo.report import provenance
from rali_zoo.scoring.decode import decode_fast
from rali_zoo.scoring.pipeline import Slice, make_stages, run, slices
from rali_zoo.scoring.preprocess import FastView
from rali_zoo.scoring.runtime import available_cores
from rali_zoo.scoring.sink import Job, Sink
from rali_zoo.types import Preprocess, Score
from rali_zoo.views import View
from rali_zoo.zoo import load_ours

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "benchmarks" / "results" / "speed.json"
QUICK = ROOT / "runs" / "speed_quick.json"
ROUNDS = 7
CLIP = Preprocess((224, 224), resize="center_crop")
#: The released RALI's encoder; weights do not matter for speed.
LARGE = "timm:vit_large_patch14_clip_quickgelu_336?pretrained=false"


# ---- rows: two ways to do the same thing, timed in turn ----

Clock = Literal["wall", "cpu"]
_CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
#: Rounds below which nothing is said about the range.
LEAST_ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """One line of the results.

    Attributes:
        name: what was compared.
        ratio: median over the rounds; how many times faster the candidate is than the baseline, unless the
            name says that it is something else.
        low: smallest of a round.
        high: largest of a round.
        goal: ``">= 0.97"`` or ``"<= 3"``, for ``ratio``; empty where there is none.
        note: what else was measured, with units.
        limit: why the goal may be out of reach here, with the number that was measured to show it; said
            only where it is not met.
        values: numbers of the note that are computed with; seconds, bytes, or of the unit in their name.
    """

    name: str
    ratio: float
    low: float
    high: float
    goal: str = ""
    note: str = ""
    limit: str = ""
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; ``None`` without one."""
        if not self.goal:
            return None
        sign, value = self.goal.split()
        return self.ratio >= float(value) if sign == ">=" else self.ratio <= float(value)

    @property
    def reason(self) -> str:
        """Why the goal is not met; empty where it is, or where there is none."""
        if self.met is not False:
            return ""
        return self.limit or "no physical reason is known"


def ab(
    baseline: Callable[[], object],
    candidate: Callable[[], object],
    rounds: int = 7,
    repeat: int = 1,
    clock: Clock = "wall",
) -> tuple[list[float], float, float]:
    """Time two functions in turn, each first in every other round, after one call of each for warming up.

    Args:
        baseline: what the candidate is compared with.
        candidate: the other.
        rounds: at least :data:`LEAST_ROUNDS`.
        repeat: calls of each in a round.
        clock: ``cpu`` counts the time of all threads of this process, whatever else the machine does.

    Returns:
        Baseline's time over candidate's for each round, and the median time of a call of each in seconds.
    """
    if rounds < LEAST_ROUNDS:
        raise ValueError(f"fewer than {LEAST_ROUNDS} rounds say nothing about the range")
    baseline(), candidate()
    times: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(rounds):
        for which in ((0, 1), (1, 0))[turn % 2]:
            function = (baseline, candidate)[which]
            begun = _CLOCKS[clock]()
            for _ in range(repeat):
                function()
            times[which].append((_CLOCKS[clock]() - begun) / repeat)
    ratios = [a / b for a, b in zip(times[0], times[1], strict=True)]
    return ratios, statistics.median(times[0]), statistics.median(times[1])


def compare(
    name: str,
    baseline: Callable[[], object],
    candidate: Callable[[], object],
    goal: str = "",
    note: str = "",
    rounds: int = 7,
    repeat: int = 1,
    clock: Clock = "wall",
    limit: Callable[[float, float], str] | None = None,
    values: Mapping[str, float] | None = None,
) -> Row:
    """:func:`ab` as a row, whose note also has both times."""
    ratios, slow, fast = ab(baseline, candidate, rounds, repeat, clock)
    measured = f"{slow * 1e3:.1f} ms against {fast * 1e3:.1f} ms of {clock} time, {rounds} rounds"
    numbers = {**(values or {}), "baseline_s": slow, "candidate_s": fast}
    why = "" if limit is None else limit(slow, fast)
    return from_values(name, ratios, goal, f"{measured}; {note}" if note else measured, why, numbers)


def from_values(
    name: str,
    found: Sequence[float],
    goal: str = "",
    note: str = "",
    limit: str = "",
    values: Mapping[str, float] | None = None,
) -> Row:
    """A row of one value a round."""
    return Row(name, statistics.median(found), min(found), max(found), goal, note, limit, values or {})


def seconds(function: Callable[[], object], rounds: int = 7, clock: Clock = "cpu") -> float:
    """Median time of a call, after one for warming up."""
    function()
    times = []
    for _ in range(rounds):
        begun = _CLOCKS[clock]()
        function()
        times.append(_CLOCKS[clock]() - begun)
    return statistics.median(times)


# ---- images and models ----


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


def clip_folder(folder: Path, quick: bool) -> Path:
    """A CLIP model with random weights as transformers saves it: ViT-B/32, or two of its layers."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    layers = 2 if quick else 12
    config = CLIPVisionConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=layers, num_attention_heads=12,
        image_size=224, patch_size=32, projection_dim=512,
    )  # fmt: skip
    torch.manual_seed(0)
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    return folder


def tiny(width: int = 32, height: int = 32, format: str = "PNG") -> bytes:
    """An image of noise."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format)
    return buffer.getvalue()


# ---- sections: encoder, decoding, folders, Ray ----


@torch.inference_mode()
def encoder(quick: bool) -> list[Row]:
    """Our encoder against transformers on the same weights and pixels."""
    from transformers import CLIPVisionModelWithProjection

    with tempfile.TemporaryDirectory() as folder:
        place = clip_folder(Path(folder), quick)
        theirs = CLIPVisionModelWithProjection.from_pretrained(place).eval()
        module = RegressionNetwork(f"hf:local-dir:{place}").eval()
    ours = module.backbone
    image = torch.rand(1 if quick else 4, 3, 224, 224)
    pixels = (image - ours.mean) / ours.std

    def plain() -> torch.Tensor:
        return theirs(pixel_values=pixels).image_embeds

    apart = float((plain() - ours(image).pooled).abs().max())
    scores = [module.predict_features(x).score for x in (plain(), ours(image).pooled)]
    same = (
        f"its values are up to {float(plain().abs().max()):.1f}; a score of a random head on it differs by "
        f"{float((scores[0] - scores[1]).abs().max()):.1g}"
    )
    name, note = "encoder: transformers / ours", f"ViT-B/32, {len(image)} images"
    return [
        compare(name, plain, lambda: ours(image).pooled, ">= 0.97", note, ROUNDS, 2, "cpu"),
        from_values("encoder: difference of a value of the embedding", [apart], "<= 1e-05", same),
    ]


def straight(data: bytes) -> torch.Tensor:
    """The usual way: decode all, resize the short side, crop, convert."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = 224 / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    array = np.array(image.crop((left, top, left + 224, top + 224)))
    return torch.from_numpy(array).permute(2, 0, 1).float() / 255


def decoding_limit(data: bytes, least: Callable[[int, int], tuple[int, int] | None]) -> Callable[..., str]:
    """What decoding alone allows, however fast the rest were."""
    alone = seconds(lambda: decode_fast(data, least))

    def why(slow: float, fast: float) -> str:
        return (
            f"decoding alone (libjpeg-turbo) takes {alone * 1e3:.1f} of the {fast * 1e3:.1f} ms, so that "
            f"without any resizing it were {slow / alone:.2f} times"
        )

    return why


def preprocessing(quick: bool) -> list[Row]:
    """Decoding and cutting a 1024x768 JPEG: Pillow's usual way against both modes, smooth and grainy."""
    fast, rows = FastView(View(), CLIP), []
    repeat = 3 if quick else 20
    for content, data in (
        ("smooth", photograph(1024, 768, seed=2, grain=0)),
        ("grainy", photograph(1024, 768)),
    ):
        ways = (("exact", lambda d: View()(load_image(d), CLIP), ""), ("fast", fast.prepare, ">= 2.5"))
        for mode, prepare, goal in ways:
            apart = float((prepare(data) - straight(data)).abs().max() * 255)
            name = f"1024x768, {content}"
            rows.append(
                compare(
                    f"preprocessing {name}: Pillow / {mode}", partial(straight, data), partial(prepare, data),
                    goal, f"{len(data) // 1000} KB", ROUNDS, repeat, "cpu", decoding_limit(data, fast.least),
                    {"bytes": len(data)},
                )
            )  # fmt: skip
            rows.append(
                from_values(
                    f"preprocessing {name}: {mode}, difference of a pixel of 255", [apart], "<= 2", "largest"
                )
            )
    return rows


def fast(quick: bool) -> list[Row]:
    """A 12 megapixel JPEG: the exact mode against the fast one, with the change in score."""
    size = (2000, 1500) if quick else (4000, 3000)
    images = [photograph(*size, seed=i) for i in range(3)]
    scorer = rali_zoo.load_model("rali-tiny-synthetic")
    quick_view = FastView(scorer.network.view, scorer.network.preprocess)
    exact = [s.score for s in scorer.score(images)]
    found = scorer.score_prepared([quick_view.prepare(p) for p in images], ["", "", ""])
    change = max(abs(a - b.score) for a, b in zip(exact, found, strict=True))
    clip, data = FastView(View(), CLIP), images[0]
    apart = (clip.prepare(data) - View()(load_image(data), CLIP)).square().mean().sqrt() * 255
    note = (
        f"{len(data) // 1000} KB; pixels differ by {apart:.2f} of 255 (root mean square); largest change of "
        f"3 scores of rali-tiny-synthetic {change:.3f} on [1, 5], whose view reads "
        f"{'reduced images' if quick_view.least(*size) else 'native pixels'}"
    )
    return [
        compare(
            f"fast mode {size[0]}x{size[1]}: exact / fast", lambda: View()(load_image(data), CLIP),
            lambda: clip.prepare(data), ">= 4", note, ROUNDS, 1, "cpu", decoding_limit(data, clip.least),
            {"bytes": len(data)},
        )
    ]  # fmt: skip


def folder(quick: bool) -> list[Row]:
    """Scoring files against the bare model on tensors: what decoding costs when it overlaps."""
    count, batch = (8, 4) if quick else (32, 8)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        backbone = clip_folder(place / "clip", quick)
        scorer = NetworkScorer(RegressionNetwork(f"hf:local-dir:{backbone}"), "speed")
        items = [Item(str(place / f"{i}.jpg")) for i in range(count)]
        for i, item in enumerate(items):
            Path(item.path).write_bytes(photograph(1024, 768, i))
        ready = [[scorer.prepare(i.path) for i in items[k : k + batch]] for k in range(0, count, batch)]

        def bare() -> None:
            for prepared in ready:
                scorer.score_prepared(prepared, [""] * len(prepared))

        def files(decode: str) -> Callable[[], None]:
            stages = make_stages(scorer, decode)  # type: ignore[arg-type]
            return lambda: [None for _ in run(slices([(0, items)], batch), stages, 2)] and None

        used, cores = torch.get_num_threads(), available_cores()
        note = f"{count} JPEGs of 1024x768 by {batch}; 2 threads decode, {used} compute; {cores} cores"
        rows = []
        for decode in ("exact", "fast"):
            work = seconds(lambda d=decode: [make_stages(scorer, d).prepare(i) for i in items], 3)

            def limit(model: float, both: float, work: float = work) -> str:
                left = cores - used
                best = 1.0 if left > 0 and work / left <= model else model / (model + work)
                return (
                    f"decoding takes {work / model:.0%} of the model's time on one core, and {left} of "
                    f"{cores} cores are left beside the model, so {best:.2f} is the most that overlapping "
                    f"can give; load of the machine {os.getloadavg()[0]:.1f}"
                )

            rows.append(
                compare(
                    f"folder: bare model / {decode}", bare, files(decode), ">= 0.95", note, 5, limit=limit
                )
            )
        return rows


def ray(quick: bool) -> list[Row]:
    """Steady state of the Ray engine over the plain one, each with a core to decode and one for the model."""
    if importlib.util.find_spec("ray") is None:
        raise RuntimeError("ray is not installed: pip install 'rali-zoo[ray]'")
    import ray as library

    from rali_zoo.scoring.ray import Recipe, run_ray

    count, batch = (400, 8) if quick else (2048, 32)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for i in range(20):
            (place / f"{i}.jpg").write_bytes(photograph(512, 384, i))
        items = [Item(str(place / f"{i % 20}.jpg")) for i in range(count)]
        # Heavy enough for the engine not to be all that is measured, and light enough to wait for.
        torch.manual_seed(0)
        network = RegressionNetwork("timm:mobilenetv3_small_100?pretrained=false")
        ref = f"local-dir:{save_scorer(network, place / 'model.safetensors')}"
        scorer = rali_zoo.load_model(ref)
        library.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        try:
            ratios = []
            for _ in range(2 if quick else 5):
                plain = rate(run(slices([(0, items)], batch), make_stages(scorer), 1))
                ratios.append(
                    rate(run_ray(slices([(0, items)], batch), scorer, Recipe(ref, "exact"))) / plain
                )
        finally:
            library.shutdown()
    note = (
        f"MobileNetV3-small, {count} JPEGs of 512x384 by {batch}, 1 actor, 1 CPU decodes; "
        f"plain: {plain:.0f} a second"
    )
    return [from_values("ray / plain, images a second, steady state", ratios, ">= 0.9", note)]


def rate(results: Iterable[tuple[Slice, list[Score]]]) -> float:
    """Images a second between the first and last quarter, where nothing starts or ends.

    The slope of a line through the arrivals: Ray hands over several batches at once, and the difference of
    two of them would depend on which.
    """
    arrived = [(time.perf_counter(), len(scores)) for _, scores in results]
    quarter = len(arrived) // 4
    when = np.array([t for t, _ in arrived])[quarter : len(arrived) - quarter]
    done = np.cumsum([n for _, n in arrived])[quarter : len(arrived) - quarter]
    return float(np.polyfit(when - when[0], done, 1)[0])


# ---- sections in processes of their own: memory, start-up, threads ----

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
    name = f"peak memory: {many:,} images / {few:,}"
    return [Row(name, ratio, ratio, ratio, "<= 1.05", note, "", {"bytes_a_row": size})]


_THIN = """
import sys
from PIL import Image
from rali_zoo.data.images import load_image
from rali_zoo.views import View
from rali_zoo.types import Preprocess

how, usual, thin = sys.argv[1:]
seen = Preprocess((336, 336), resize="center_crop")


def resize_then_crop(path):
    image = Image.open(path).convert("RGB")
    scale = 336 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 336) // 2, (image.height - 336) // 2
    return image.crop((left, top, left + 336, top + 336)).load()


def exact(path):
    return View()(load_image(path), seen)


def fast(path):
    from rali_zoo.scoring.preprocess import FastView

    return FastView(View(), seen).prepare(path)


prepare = {"usual": resize_then_crop, "exact": exact, "fast": fast}[how]


def kib(what):
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith(what)))


prepare(usual)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak is counted from here
before = kib("VmRSS")
prepare(thin)
print((kib("VmHWM") - before) / 1024)
"""


def thin(quick: bool) -> list[Row]:
    """What a 5000x2 image costs in memory, seen at 336 pixels: a process each, after a usual image."""
    rounds = 1 if quick else 3
    with tempfile.TemporaryDirectory() as folder:
        usual, narrow = Path(folder) / "usual.jpg", Path(folder) / "thin.jpg"
        usual.write_bytes(tiny(1024, 768, "JPEG"))
        narrow.write_bytes(tiny(5000, 2, "JPEG"))
        grown: dict[str, list[float]] = {"exact": [], "fast": [], "usual": []}
        for _ in range(rounds):
            for how, found in grown.items():
                words = [sys.executable, "-c", _THIN, how, str(usual), str(narrow)]
                found.append(float(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    note = f"resizing all of it before cutting, with Pillow: {statistics.median(grown['usual']):.0f} MiB"
    return [
        from_values(f"memory of a 5000x2 image, {how}, MiB", grown[how], "<= 50", note)
        for how in ("exact", "fast")
    ]


def startup(quick: bool) -> list[Row]:
    """Seconds from the start of Python to the first score, less those of importing torch."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "one.png"
        image.write_bytes(tiny())
        first = f"import rali_zoo; rali_zoo.load_model('rali-tiny-synthetic').score({str(image)!r})"
        codes = ("import torch", "import torch, lightning", first)
        times: dict[str, list[float]] = {code: [] for code in codes}
        for _ in range(2 if quick else 5):
            for code, found in times.items():
                found.append(_time_of(code, cpu=quick))
    beyond = [b - a for a, b in zip(times[codes[0]], times[first], strict=True)]
    library = statistics.median(b - a for a, b in zip(times[codes[0]], times[codes[1]], strict=True))
    rest = statistics.median(beyond) - library
    note = (
        f"importing torch alone {statistics.median(times[codes[0]]):.1f} s; of what is beyond it, importing "
        f"lightning takes {library:.1f} s and all else {rest:.1f} s"
    )
    limit = (
        f"`import lightning`, with torchmetrics, torchvision and SciPy, takes {library:.1f} s beyond torch"
    )
    numbers = {"lightning_s": library, "rest_s": rest}
    return [
        from_values("start-up to first score beyond torch, seconds", beyond, "<= 3", note, limit, numbers)
    ]


def _time_of(code: str, cpu: bool) -> float:
    """Seconds of a Python process: on the clock, or on the processor, which a busy machine changes less."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime if cpu else wall


_THREADS = """
import json, sys, time
import torch
from rali_zoo.backbones import create_backbone
from rali_zoo.scoring.runtime import free_cores

default, chosen, rounds = torch.get_num_threads(), free_cores(), int(sys.argv[2])
encoder = create_backbone(sys.argv[1]).eval()
image = torch.rand(4, 3, *encoder.preprocess.size)
times = {default: [], chosen: []}
with torch.inference_mode():
    for number in range(-1, rounds):
        for threads in (default, chosen) if number % 2 else (chosen, default):
            torch.set_num_threads(threads)
            begun = time.perf_counter()
            encoder(image)
            if number >= 0:
                times[threads].append(time.perf_counter() - begun)
print(json.dumps({"default": default, "chosen": chosen, "times": [times[default], times[chosen]]}))
"""


def threads(quick: bool) -> list[Row]:
    """An encoder beside a busy process a core: torch's own number of threads against the one we choose."""
    encoder = "rali:tiny" if quick else "open_clip:ViT-B-32?pretrained=false"
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(available_cores())]
    plain = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    try:
        time.sleep(3 if quick else 75)  # the load average is that of a minute
        words = [sys.executable, "-c", _THREADS, encoder, "5" if quick else "15"]
        done = subprocess.run(words, check=True, capture_output=True, text=True, env=plain)
    finally:
        for other in others:
            other.kill()
            other.wait()
    found = json.loads(done.stdout.strip().splitlines()[-1])
    note = f"{found['default']} threads by default, {found['chosen']} chosen, {len(others)} others busy"
    if found["default"] == found["chosen"]:
        return [
            Row(
                "threads on a busy machine: torch's default / chosen",
                1.0,
                1.0,
                1.0,
                ">= 1",
                f"{note}: the same",
            )
        ]
    ratios = [a / b for a, b in zip(*found["times"], strict=True)]
    return [from_values("threads on a busy machine: torch's default / chosen", ratios, ">= 1", note)]


# ---- section: an accelerator ----


def gpu(quick: bool) -> list[Row]:
    """ViT-L/14-336 in bfloat16, compiled, where there is a GPU; nothing elsewhere."""
    if not torch.cuda.is_available():
        return []
    return [throughput(LARGE, "cuda", torch.bfloat16, batch=32 if quick else 256, compiled=not quick)]


@torch.no_grad()
def throughput(uri: str, device: str, dtype: torch.dtype, batch: int, compiled: bool, rounds: int = 7) -> Row:
    """Images a second of an encoder, as a share of those that its matrix products alone would allow.

    Args:
        uri: of the backbone.
        device: where to compute.
        dtype: that autocast computes in.
        batch: images a pass.
        compiled: whether torch.compile is used.
        rounds: passes that are timed; the matrix product is timed in turn with them.
    """
    backbone = create_backbone(uri).eval().to(device)
    image = torch.rand(batch, 3, *backbone.preprocess.size, device=device)
    work = operations(backbone, image[:1])
    run = torch.compile(backbone) if compiled else backbone
    side = 8192 if device == "cuda" else 512
    one, two = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def encode() -> None:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            run(image)

    rates, peaks = [], []
    for turn in range(-2, rounds):
        took, bare = _timed(encode, device), _timed(lambda: one @ two, device)
        if turn >= 0:
            rates.append(batch / took)
            peaks.append(2 * side**3 / bare)
    rate, peak = statistics.median(rates), statistics.median(peaks)
    shares = [r * work / p for r, p in zip(rates, peaks, strict=True)]
    note = (
        f"{rate:.0f} images a second by {batch}, {work / 1e9:.1f} GFLOP each; a matrix product of {side} "
        f"does {peak / 1e12:.1f} TFLOP/s, enough for {peak / work:.0f} a second"
    )
    name = f"{uri} on {device}, {str(dtype).removeprefix('torch.')}: share of a bare matrix product's rate"
    return from_values(name, shares, note=note, values={"images_a_second": rate, "peak_flops": peak})


def _timed(function: Callable[[], object], device: str) -> float:
    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    wait()
    begun = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - begun


def operations(module: torch.nn.Module, image: torch.Tensor) -> int:
    """Floating-point operations of a pass, a multiplication and an addition counting two."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(image)
    return counter.get_total_flops()


# ---- section: exports ----

NAMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
#: Goals of speed. In int8 that of the runtime which is recommended for the encoder; the other is shown.
GOALS = {("onnx", "fp32"): ">= 1.05", ("onnx", "int8"): ">= 1.5"}
#: What makes products of 8-bit numbers cheaper than those of floats.
EIGHT_BITS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
NETWORKS = (
    ("ViT-B/32, random", "open_clip:ViT-B-32?pretrained=false"),
    ("ResNet-18, random", "timm:resnet18?pretrained=false"),
)
_BATCH = 2


def exports(quick: bool) -> Iterator[Row]:
    """float32 and int8 in each runtime against torch, one thread, processor time; parity of float32."""
    from rali_zoo.export import onnx, openvino
    from rali_zoo.export.graph import trace
    from rali_zoo.export.int8 import export_int8, quantise

    files = {"onnx": onnx, "openvino": openvino}
    rng, rounds = np.random.default_rng(0), 5 if quick else ROUNDS
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, backbone in NETWORKS[1:] if quick else NETWORKS:
            torch.manual_seed(0)
            scorer = NetworkScorer(RegressionNetwork(backbone), title)
            size = scorer.network.preprocess.size
            images, proto = rng.random((8, 3, *size), dtype=np.float32), trace(scorer)
            for (kind, maker), precision in itertools.product(files.items(), ("fp32", "int8")):
                graph = proto if precision == "fp32" else quantise(proto, np.split(images, 4), kind)
                path = folder / f"{precision}{maker.SUFFIX}"
                maker.write(graph, path)
                ours = (scorer, maker.load_module(path, threads=1), f"{title}: {NAMES[kind]} {precision}")
                limit = _float_limit(scorer, size) if precision == "fp32" else _int8_limit
                yield from _exported(*ours, images[:2], GOALS.get((kind, precision), ""), rounds, limit)
        scorer, table = load_ours("rali-tiny-synthetic"), load_table("synthetic:lab")
        images = rng.random((8, 3, *scorer.network.preprocess.size), dtype=np.float32)
        for kind, maker in files.items():
            whole, path = folder / f"whole{maker.SUFFIX}", folder / f"tiny{maker.SUFFIX}"
            maker.write(trace(scorer), whole)
            title = f"rali-tiny-synthetic: {NAMES[kind]}"
            yield _exported(scorer, maker.load_module(whole, threads=1), f"{title} fp32", images, "", rounds)[
                1
            ]
            tests = 60 if quick else 500
            change = export_int8(scorer, path, table, kind, max_loss=1.0, test_images=tests)
            ours = (scorer, maker.load_module(path, threads=1), f"{title} int8")
            row = _exported(*ours, images, GOALS.get((kind, "int8"), ""), rounds, _int8_limit)[0]
            yield replace(row, note=f"{row.note}; {change} of synthetic:lab (synthetic labels)")
            yield from_values(f"{title} int8, loss of SRCC or PLCC", [change.loss], "<= 0.01", str(change))


def _exported(
    scorer: NetworkScorer,
    module: Callable[[torch.Tensor], torch.Tensor],
    name: str,
    images: np.ndarray,
    goal: str,
    rounds: int,
    limit: Callable[[float, float], str] | None = None,
) -> list[Row]:
    """Torch's time over the runtime's; of float32 also the largest difference of a score."""
    image = torch.from_numpy(images)

    def by_torch() -> torch.Tensor:
        with torch.inference_mode():
            return scorer.network(image)

    scores = by_torch()
    apart = float((scores - module(image)).abs().max())
    note = f"{len(images)} images, a score differs by {apart:.1g}"
    title = f"{name}, torch / it"
    row = compare(title, by_torch, lambda: module(image), goal, note, rounds, 1, "cpu", limit)
    if not name.endswith("fp32"):
        return [row]
    note = f"{len(images)} images, scores from {float(scores.min()):.2f} to {float(scores.max()):.2f}"
    return [row, from_values(f"{name}, difference of a score", [apart], "<= 1e-05", note)]


def _float_limit(scorer: NetworkScorer, size: tuple[int, int]) -> Callable[[float, float], str]:
    """How near torch is to what the chip's matrix products do, which no runtime can beat."""
    work = operations(scorer.network, torch.rand(2, 3, *size))

    def why(slow: float, fast: float) -> str:
        one, two = torch.randn(1024, 1024), torch.randn(1024, 1024)
        peak = 2 * 1024**3 / seconds(lambda: one @ two)
        return (
            f"torch does {work / slow / 1e9:.0f} GFLOP/s and a bare matrix product {peak / 1e9:.0f}, so that "
            f"no runtime gets beyond {peak * slow / work:.2f} times"
        )

    return why


def _int8_limit(slow: float, fast: float) -> str:
    flags = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").is_file() else set[str]()
    if flags & EIGHT_BITS:
        return ""
    return f"the chip has no instruction for sums of 8-bit products ({', '.join(sorted(EIGHT_BITS))})"


# ---- the file, section by section ----

SECTIONS = (encoder, preprocessing, fast, thin, folder, exports, threads, startup, memory, ray, gpu)
ALL: dict[str, Callable[[bool], Iterable[Row]]] = {f.__name__: f for f in SECTIONS}


def measure(names: Iterable[str], path: Path, about: Mapping[str, Any], quick: bool, again: bool) -> int:
    """Measure sections, each written as soon as it is done; how many failed.

    Args:
        names: of :data:`ALL`.
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
            rows = list(ALL[name](quick))
        except (
            Exception
        ) as problem:  # the other sections can still be measured; the file says what is missing
            traceback.print_exc()
            error, failed = f"{type(problem).__name__}: {problem}".splitlines()[0], failed + 1
        content["sections"][name] = {
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - begun, 1),
            "load_average": [round(x, 2) for x in os.getloadavg()],
            "error": error,
            "rows": [{**asdict(row), "met": row.met, "reason": row.reason} for row in rows],
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        for row in rows:
            ends = f"[{number(row.low)}, {number(row.high)}]"
            met = {True: "met", False: "not met", None: ""}[row.met]
            print(f"{row.name:58} {number(row.ratio):>8} {ends:18} {row.goal:9} {met:8}\n    {row.note}")
            print(f"    reason: {row.reason}\n" * bool(row.reason), end="")
    return failed


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ALL, help="these sections, measured again")
    parser.add_argument("--fresh", action="store_true", help="measure again what is in the file")
    parser.add_argument("--quick", action="store_true", help=f"small sizes; writes {QUICK.relative_to(ROOT)}")
    parser.add_argument("--output", type=Path, help="results file")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    output = options.output or (QUICK if options.quick else TARGET)
    again = options.fresh or options.quick or options.only is not None
    about = provenance({"quick": options.quick})
    failed = measure(options.only or ALL, output, about, options.quick, again)
    print(f"written to {output}; python benchmarks/studies/tables.py shows it in the docs", file=sys.stderr)
    if failed:
        raise SystemExit(
            f"{failed} sections failed; the file says why, and the same command tries them again"
        )


if __name__ == "__main__":
    main()
