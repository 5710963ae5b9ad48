"""How fast scoring is, as ratios measured side by side in one run.

    python benchmarks/speed.py                     # everything; half an hour on two quiet cores
    python benchmarks/speed.py --quick --only preprocessing fast

writes ``benchmarks/results/speed.json``. The encoder's weights are random: speed does not depend on them. The
change in score is measured on the checkpoint that the package carries.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

# Before torch is imported: one thread is what can be compared on a machine that others use too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image
from speed_ab import Row, compare, from_values, show, write

import rali_zoo
from rali_zoo.backbones import create_backbone
from rali_zoo.cli.report import provenance
from rali_zoo.data.images import load_image
from rali_zoo.data.transforms import View
from rali_zoo.models import Regression
from rali_zoo.models.files import save_scorer
from rali_zoo.models.scorer import ModuleScorer
from rali_zoo.scoring.pipeline import make_stages, run, slices
from rali_zoo.scoring.preprocess import FastView
from rali_zoo.scoring.sources import Item
from rali_zoo.types import Preprocess

TARGET = Path(__file__).resolve().parent / "results" / "speed.json"
ROUNDS = 7
CLIP = Preprocess((224, 224), resize="center_crop")


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


# ---- rows -----------------------------------------------------------------------------------------


@torch.inference_mode()
def encoder(quick: bool) -> list[Row]:
    """Our encoder against transformers on the same weights and pixels."""
    from transformers import CLIPVisionModelWithProjection

    with tempfile.TemporaryDirectory() as folder:
        place = clip_folder(Path(folder), quick)
        theirs = CLIPVisionModelWithProjection.from_pretrained(place).eval()
        ours = create_backbone(f"hf:local-dir:{place}").eval()
    image = torch.rand(1 if quick else 4, 3, 224, 224)
    pixels = (image - ours.mean) / ours.std
    change = (theirs(pixel_values=pixels).image_embeds - ours(image).pooled).abs().max()
    return [
        compare(
            "encoder: transformers / ours",
            lambda: theirs(pixel_values=pixels).image_embeds,
            lambda: ours(image).pooled,
            ">= 0.97",
            f"largest difference of an embedding {change:.1e}",
            ROUNDS,
            2,
            "cpu",
        )
    ]


def straight(data: bytes) -> torch.Tensor:
    """The usual way: decode all, resize the short side, crop, convert."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = 224 / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    array = np.array(image.crop((left, top, left + 224, top + 224)))
    return torch.from_numpy(array).permute(2, 0, 1).float() / 255


def preprocessing(quick: bool) -> list[Row]:
    """Decoding and cutting a 1024x768 JPEG: Pillow's usual way against both modes, smooth and grainy."""
    fast, rows = FastView(View(), CLIP), []
    repeat = 3 if quick else 20
    for content, data in (
        ("smooth", photograph(1024, 768, seed=2, grain=0)),
        ("grainy", photograph(1024, 768)),
    ):
        for mode, prepare, goal in (
            ("exact", lambda d: View()(load_image(d), CLIP), ""),
            ("fast", fast.prepare, ">= 2.5"),
        ):
            change = (prepare(data) - straight(data)).abs().max() * 255
            note = f"{len(data) // 1000} KB; largest difference {change:.0f} of 255"
            usual, ours = partial(straight, data), partial(prepare, data)
            name = f"preprocessing 1024x768, {content}: Pillow / {mode}"
            rows.append(compare(name, usual, ours, goal, note, ROUNDS, repeat, "cpu"))
    return rows


def fast(quick: bool) -> list[Row]:
    """A 12 megapixel JPEG: the exact mode against the fast one, with the change in score."""
    size = (2000, 1500) if quick else (4000, 3000)
    pictures = [photograph(*size, seed=i) for i in range(3)]
    scorer = rali_zoo.load_model("rali-tiny-synthetic")
    module = scorer.module
    quick_view = FastView(module.view, module.preprocess)
    exact = [s.score for s in scorer.score(pictures)]
    found = scorer.score_prepared([quick_view.prepare(p) for p in pictures], ["", "", ""])
    change = max(abs(a - b.score) for a, b in zip(exact, found, strict=True))
    clip, at = FastView(View(), CLIP), f"{size[0]}x{size[1]}"
    return [
        compare(
            f"fast mode {at}: exact / fast",
            lambda: View()(load_image(pictures[0]), CLIP),
            lambda: clip.prepare(pictures[0]),
            ">= 4",
            f"largest change of 3 scores of rali-tiny-synthetic {change:.3f} on [1, 5], "
            f"whose view reads {'reduced pictures' if quick_view.least(*size) else 'native pixels'}",
            ROUNDS,
            1,
            "cpu",
        )
    ]


def folder(quick: bool) -> list[Row]:
    """Scoring files against the bare model on tensors: what decoding costs when it overlaps."""
    count, batch = (8, 4) if quick else (48, 8)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        backbone = clip_folder(place / "clip", quick)
        scorer = ModuleScorer(Regression(f"hf:local-dir:{backbone}"), "speed")
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

        threads = torch.get_num_threads()
        note = f"{count} JPEGs of 1024x768 by {batch}, 2 decoding threads beside {threads} of the model"
        rounds = 5 if quick else ROUNDS
        return [
            compare(f"folder: bare model / {d}", bare, files(d), ">= 0.95", note, rounds)
            for d in ("exact", "fast")
        ]


def _peak_of_run(count: int, model: str, place: Path) -> float:
    """Peak memory in MiB of scoring ``count`` names of one tiny picture each (links to one file)."""
    photos = place / str(count)
    photos.mkdir()
    (place / "one.png").write_bytes(_tiny())
    for i in range(count):
        os.link(place / "one.png", photos / f"{i:07d}.png")
    words = ["score", str(photos), "--model", model, "--output", str(place / f"{count}.parquet")]
    process = subprocess.Popen(
        [sys.executable, "-m", "rali_zoo", *words, "--batch_size", "64"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"scoring {count} pictures failed")
    return usage.ru_maxrss / 1024


def _tiny() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def memory(quick: bool) -> list[Row]:
    """Peak memory of the command on many pictures over that on few."""
    few, many = (100, 2000) if quick else (1000, 100_000)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = save_scorer(Regression("rali:tiny?size=32"), place / "model.safetensors")
        peaks = [_peak_of_run(count, f"local-dir:{model}", place) for count in (few, many)]
    ratio = peaks[1] / peaks[0]
    note = f"{peaks[0]:.0f} MiB and {peaks[1]:.0f} MiB, one run each"
    return [Row(f"peak memory: {many:,} pictures / {few:,}", ratio, ratio, ratio, "<= 1.05", note)]


def startup(quick: bool) -> list[Row]:
    """Seconds from the start of Python to the first score, less those of importing torch."""
    picture = Path(tempfile.mkdtemp()) / "one.png"
    picture.write_bytes(_tiny())
    first = f"import rali_zoo; rali_zoo.load_model('rali-tiny-synthetic').score({str(picture)!r})"
    seconds: dict[str, list[float]] = {"import torch": [], first: []}
    for _ in range(5):
        for code, times in seconds.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            wall = time.perf_counter() - begun
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            # On a busy machine the time on the processor is the better measure; the wall cannot be below it.
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            times.append(min(wall, cpu) if quick else wall)
    picture.unlink()
    picture.parent.rmdir()
    beyond = [b - a for a, b in zip(*seconds.values(), strict=True)]
    note = f"importing torch alone {statistics.median(seconds['import torch']):.1f} s"
    return [from_values("start-up to first score beyond torch, seconds", beyond, "<= 3", note)]


def ray(quick: bool) -> list[Row]:
    """Steady state of the Ray engine over the plain one: pictures a second between first and last batch."""
    if importlib.util.find_spec("ray") is None:
        print("ray is not installed: left out", file=sys.stderr)
        return []
    from rali_zoo.scoring.ray import Recipe, run_ray

    count, batch = (200, 10) if quick else (2000, 16)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for i in range(20):
            (place / f"{i}.jpg").write_bytes(photograph(512, 384, i))
        items = [Item(str(place / f"{i % 20}.jpg")) for i in range(count)]
        scorer = rali_zoo.load_model("rali-tiny-synthetic")
        stages, recipe = make_stages(scorer), Recipe("rali-tiny-synthetic", "exact")
        ratios = []
        for _ in range(2 if quick else 5):
            plain = _rate(run(slices([(0, items)], batch), stages, 1))
            ratios.append(_rate(run_ray(slices([(0, items)], batch), scorer, recipe)) / plain)
    return [from_values("ray / plain, pictures a second, steady state", ratios, ">= 0.9", "1 actor")]


def _rate(results: object) -> float:
    """Pictures a second after the first tenth, which has the start-up in it."""
    arrived: list[tuple[float, int]] = []
    for _, scores in results:  # type: ignore[attr-defined]
        arrived.append((time.perf_counter(), len(scores)))
    start = len(arrived) // 10
    return sum(n for _, n in arrived[start + 1 :]) / (arrived[-1][0] - arrived[start][0])


def exports(quick: bool) -> list[Row]:
    """ONNX Runtime, OpenVINO and int8, where they are installed."""
    if importlib.util.find_spec("speed_exports") is None:
        return []
    from speed_exports import rows

    return list(rows())


ALL = {f.__name__: f for f in (encoder, preprocessing, fast, folder, memory, startup, ray, exports)}


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to see that it runs; nothing is written"
    )
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rows: list[Row] = []
    for name in options.only:
        print(f"# {name}", file=sys.stderr)
        found = ALL[name](options.quick)
        show(found)
        rows += found
    if not options.quick:
        about = provenance({"rows": options.only, "load_average": os.getloadavg()[0]})
        write(rows, options.output, {**about, "load_average": os.getloadavg()})
        print(f"written to {options.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
