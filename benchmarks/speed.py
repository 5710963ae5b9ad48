"""How fast scoring is, as ratios measured side by side in one run.

    python benchmarks/speed.py                     # everything; a quarter of an hour on two quiet cores
    python benchmarks/speed.py --only preprocessing fast
    python benchmarks/speed.py --quick             # small sizes, to see that it runs; three minutes

writes ``benchmarks/results/speed.json``, a section as soon as it is measured, and then the tables of
docs/speed.md and docs/scale_out.md. A run that was stopped goes on; ``--fresh`` measures everything again.
A section that fails is noted in the file, and the others go on. The encoder's weights are random: speed does
not depend on them. The change in score is measured on the checkpoint that the package carries.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

# Before torch is imported: one thread is what can be compared on a machine that others use too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image
from speed_ab import Row, compare, from_values, seconds
from speed_device import gpu
from speed_process import memory, startup, thin, threads
from speed_results import ROOT, TARGET, Results, show

import rali_zoo
from rali_zoo.cli.report import provenance
from rali_zoo.data.images import load_image
from rali_zoo.data.sources import Item
from rali_zoo.models.files import save_scorer
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.scoring.decode import decode_fast
from rali_zoo.scoring.pipeline import Slice, make_stages, run, slices
from rali_zoo.scoring.preprocess import FastView
from rali_zoo.scoring.runtime import available_cores
from rali_zoo.trainers import Regression
from rali_zoo.types import Preprocess, Score
from rali_zoo.views import View

QUICK = ROOT / "runs" / "speed_quick.json"
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


# ---- sections -------------------------------------------------------------------------------------


@torch.inference_mode()
def encoder(quick: bool) -> list[Row]:
    """Our encoder against transformers on the same weights and pixels."""
    from transformers import CLIPVisionModelWithProjection

    with tempfile.TemporaryDirectory() as folder:
        place = clip_folder(Path(folder), quick)
        theirs = CLIPVisionModelWithProjection.from_pretrained(place).eval()
        module = Regression(f"hf:local-dir:{place}").eval()
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

    def said(slow: float, fast: float) -> str:
        return (
            f"decoding alone (libjpeg-turbo) takes {alone * 1e3:.1f} of the {fast * 1e3:.1f} ms, so that "
            f"without any resizing it were {slow / alone:.2f} times"
        )

    return said


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
        scorer = NetworkScorer(Regression(f"hf:local-dir:{backbone}"), "speed")
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
        network = Regression("timm:mobilenetv3_small_100?pretrained=false")
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


def exports(quick: bool) -> list[Row]:
    """ONNX Runtime, OpenVINO and int8."""
    from speed_exports import rows

    return list(rows(quick))


SECTIONS = (encoder, preprocessing, fast, thin, folder, exports, threads, startup, memory, ray, gpu)
ALL = {f.__name__: f for f in SECTIONS}


def measure(names: Iterable[str], results: Results, quick: bool, again: bool) -> int:
    """Measure sections, each kept as soon as it is done; how many failed."""
    failed = 0
    for name in names:
        if results.done(name) and not again:
            print(f"# {name}: there from an earlier run", file=sys.stderr)
            continue
        print(f"# {name}", file=sys.stderr, flush=True)
        begun, rows, error = time.perf_counter(), list[Row](), ""
        try:
            rows = ALL[name](quick)
        except (
            Exception
        ) as problem:  # the other sections can still be measured; the file says what is missing
            traceback.print_exc()
            error, failed = f"{type(problem).__name__}: {problem}".splitlines()[0], failed + 1
        results.put(name, rows, time.perf_counter() - begun, error)
        show(results.content["sections"][name]["rows"])
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
    results = Results(output, provenance({"quick": options.quick}), options.quick)
    again = options.fresh or options.quick or options.only is not None
    failed = measure(options.only or ALL, results, options.quick, again)
    print(f"written to {output}; python benchmarks/tables.py shows it in the docs", file=sys.stderr)
    if failed:
        raise SystemExit(
            f"{failed} sections failed; the file says why, and the same command tries them again"
        )


if __name__ == "__main__":
    main()
