"""Sections of ``benchmarks/speed.py`` in processes of their own: memory, start-up, threads."""

from __future__ import annotations

import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from speed_ab import Row, from_values

from rali_zoo.data.sources import Item
from rali_zoo.models.files import save_scorer
from rali_zoo.scoring.pipeline import slices
from rali_zoo.scoring.runtime import available_cores
from rali_zoo.scoring.sink import Job, Sink
from rali_zoo.trainers import Regression
from rali_zoo.types import Score


def tiny(width: int = 32, height: int = 32, format: str = "PNG") -> bytes:
    """An image of noise."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format)
    return buffer.getvalue()


# ---- memory ---------------------------------------------------------------------------------------


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
    """Bytes a row of a table of ``count`` members of tar shards, whose scores and spreads all differ."""
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
        model = save_scorer(Regression("rali:tiny?size=32"), place / "model.safetensors")
        first, second = (_run_of(count, f"local-dir:{model}", place) for count in (few, many))
        size = bytes_a_row(many, place)
    ratio = second / first
    note = (
        f"{first:.0f} MiB and {second:.0f} MiB, one run each; a table of {many:,} different scores and "
        f"spreads has {size:.0f} bytes a row"
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


# ---- start-up -------------------------------------------------------------------------------------


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


# ---- threads --------------------------------------------------------------------------------------

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
