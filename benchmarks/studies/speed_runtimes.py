"""Exports against torch, as ratios of two sides that take turns in one run.

    python benchmarks/studies/speed_runtimes.py [--only exports] [--quick]

writes its sections into ``benchmarks/results/speed.json``, as ``speed.py`` does.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import speed
import torch
from speed import Row, ab, compare, from_values

from rali_zoo.data.tables import load_table
from rali_zoo.models.regression import RegressionNetwork
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.zoo import load_ours

# ---- section: exports ----

NAMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
#: Goals of speed. In int8 that of the runtime which is recommended for the encoder; the other is shown.
GOALS = {("onnx", "fp32"): 1.05, ("onnx", "int8"): 1.5}
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
    rng, rounds = np.random.default_rng(0), speed.ROUNDS
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
                yield from _exported(*ours, images[:2], GOALS.get((kind, precision)), rounds)
        scorer, table = load_ours("rali-tiny-synthetic"), load_table("synthetic:lab")
        images = rng.random((8, 3, *scorer.network.preprocess.size), dtype=np.float32)
        for kind, maker in files.items():
            whole, path = folder / f"whole{maker.SUFFIX}", folder / f"tiny{maker.SUFFIX}"
            maker.write(trace(scorer), whole)
            title = f"rali-tiny-synthetic: {NAMES[kind]}"
            yield _exported(
                scorer, maker.load_module(whole, threads=1), f"{title} fp32", images, None, rounds
            )[1]
            tests = 60 if quick else 500
            change = export_int8(scorer, path, table, kind, max_loss=1.0, test_images=tests)
            ours = (scorer, maker.load_module(path, threads=1), f"{title} int8")
            row = _exported(*ours, images, GOALS.get((kind, "int8")), rounds)[0]
            yield replace(row, note=f"{row.note}; {change} of synthetic:lab (synthetic labels)")
            yield from_values(f"{title} int8, loss of SRCC or PLCC", [change.loss], "", 0.01, str(change))


def _exported(
    scorer: NetworkScorer,
    module: Callable[[torch.Tensor], torch.Tensor],
    name: str,
    images: np.ndarray,
    goal: float | None,
    rounds: int,
) -> list[Row]:
    """Torch's time over the runtime's; of float32 also the largest difference of a score."""
    image = torch.from_numpy(images)

    def by_torch() -> torch.Tensor:
        with torch.inference_mode():
            return scorer.network(image)

    scores = by_torch()
    apart = float((scores - module(image)).abs().max())
    note = f"{len(images)} images, a score differs by {apart:.1g}"
    times = ab(by_torch, lambda: module(image), rounds)
    row = compare(name, "torch", *times, "× the speed", goal, note)
    if not name.endswith("fp32"):
        return [row]
    note = f"{len(images)} images, scores from {float(scores.min()):.2f} to {float(scores.max()):.2f}"
    return [row, from_values(f"{name}, difference", [apart], "of a score", 1e-5, note, against="torch")]


if __name__ == "__main__":
    speed.main({"exports": exports})
