"""Exported scorers against torch on the same weights: a section of ``benchmarks/speed.py``.

    python benchmarks/speed_exports.py [--quick]

prints it alone. Weights are random where it says so, since speed does not depend on them; what int8 costs
in SRCC and PLCC is measured on a trained scorer, as ``rali-zoo export`` does.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch is imported: one thread is what can be compared on a machine that others use too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from speed_ab import Row, compare, from_values, seconds
from speed_device import operations

from rali_zoo.data.tables import load_table
from rali_zoo.export import onnx, openvino
from rali_zoo.export.graph import trace
from rali_zoo.export.int8 import Format, export_int8, quantise
from rali_zoo.export.runtime import ExportedNetwork
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.trainers import Regression
from rali_zoo.zoo import load_ours

FILES = {"onnx": onnx, "openvino": openvino}
NAMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
#: Goals of speed. In int8 that of the runtime which is recommended for the encoder; the other is shown.
GOALS = {("onnx", "fp32"): ">= 1.05", ("onnx", "int8"): ">= 1.5"}
#: What makes products of 8-bit numbers cheaper than those of floats.
_EIGHT_BITS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
NETWORKS = (
    ("ViT-B/32, random", "open_clip:ViT-B-32?pretrained=false"),
    ("ResNet-18, random", "timm:resnet18?pretrained=false"),
)
_BATCH = 2


def rows(quick: bool = False) -> Iterator[Row]:
    """float32 and int8 in each runtime against torch, one thread, processor time; parity of float32."""
    networks = NETWORKS[1:] if quick else NETWORKS
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for title, backbone in networks:
            torch.manual_seed(0)
            scorer = NetworkScorer(Regression(backbone, encoder_lr=0.0), title)
            yield from _compared(scorer, title, Path(folder), 5 if quick else 7)
        yield from _trained(Path(folder), 60 if quick else 500)


def _compared(scorer: NetworkScorer, title: str, folder: Path, rounds: int) -> Iterator[Row]:
    size = scorer.network.preprocess.size
    images = np.random.default_rng(0).random((4 * _BATCH, 3, *size), dtype=np.float32)
    proto = trace(scorer)
    for kind in ("onnx", "openvino"):
        for precision in ("fp32", "int8"):
            graph = proto if precision == "fp32" else quantise(proto, np.split(images, 4), kind)
            path = folder / f"{precision}{FILES[kind].SUFFIX}"
            FILES[kind].write(graph, path)
            module = FILES[kind].load_module(path, threads=1)
            name = f"{title}: {NAMES[kind]} {precision}"
            limit = _float_limit(scorer, size) if precision == "fp32" else _int8_limit
            goal = GOALS.get((kind, precision), "")
            row, apart = _row(scorer, module, f"{name}, torch / it", goal, images[:_BATCH], rounds, limit)
            yield row
            if precision == "fp32":
                yield from_values(f"{name}, difference of a score", [apart], "<= 1e-05", f"{_BATCH} images")


def _row(
    scorer: NetworkScorer,
    module: ExportedNetwork,
    name: str,
    goal: str,
    images: np.ndarray,
    rounds: int,
    limit: Callable[[float, float], str],
) -> tuple[Row, float]:
    """Torch's time over the runtime's, and the largest difference of a score."""
    image = torch.from_numpy(images)

    def by_torch() -> torch.Tensor:
        with torch.inference_mode():
            return scorer.network(image)

    apart = float((by_torch() - module(image)).abs().max())
    note = f"{len(images)} images, a score differs by {apart:.1g}"
    return compare(name, by_torch, lambda: module(image), goal, note, rounds, 1, "cpu", limit), apart


def _float_limit(scorer: NetworkScorer, size: tuple[int, int]) -> Callable[[float, float], str]:
    """How near torch is to what the chip's matrix products do, which no runtime can beat."""
    work = operations(scorer.network, torch.rand(_BATCH, 3, *size))

    def said(slow: float, fast: float) -> str:
        side = 1024
        one, two = torch.randn(side, side), torch.randn(side, side)
        peak = 2 * side**3 / seconds(lambda: one @ two)
        return (
            f"torch does {work / slow / 1e9:.0f} GFLOP/s and a bare matrix product {peak / 1e9:.0f}, so that "
            f"no runtime gets beyond {peak * slow / work:.2f} times"
        )

    return said


def _int8_limit(slow: float, fast: float) -> str:
    from rali_zoo.scoring.runtime import _cpu_flags

    if _cpu_flags() & _EIGHT_BITS:
        return ""
    return f"the chip has no instruction for sums of 8-bit products ({', '.join(sorted(_EIGHT_BITS))})"


def _trained(folder: Path, test_images: int) -> Iterator[Row]:
    """The scorer in the package, in int8, on the data set it was trained for."""
    scorer = load_ours("rali-tiny-synthetic")
    table = load_table("synthetic:lab")
    image = np.random.default_rng(0).random((8, 3, *scorer.network.preprocess.size), dtype=np.float32)
    kinds: tuple[Format, ...] = ("onnx", "openvino")
    for kind in kinds:
        whole = folder / f"whole{FILES[kind].SUFFIX}"
        FILES[kind].write(trace(scorer), whole)
        with torch.inference_mode():
            scores = scorer.network(torch.from_numpy(image))
        apart = float(
            (scores - FILES[kind].load_module(whole, threads=1)(torch.from_numpy(image))).abs().max()
        )
        said = f"{len(image)} images, scores from {float(scores.min()):.2f} to {float(scores.max()):.2f}"
        name = f"rali-tiny-synthetic: {NAMES[kind]} fp32, difference of a score"
        yield from_values(name, [apart], "<= 1e-05", said)
        path = folder / f"tiny{FILES[kind].SUFFIX}"
        change = export_int8(scorer, path, table, kind, max_loss=1.0, test_images=test_images)
        module = FILES[kind].load_module(path, threads=1)
        name = f"rali-tiny-synthetic: {NAMES[kind]} int8, torch / it"
        row, _ = _row(scorer, module, name, GOALS.get((kind, "int8"), ""), image, 7, _int8_limit)
        yield Row(**{**vars(row), "note": f"{row.note}; {change} of synthetic:lab (synthetic labels)"})
        yield from_values(
            f"rali-tiny-synthetic: {NAMES[kind]} int8, loss of SRCC or PLCC",
            [change.loss],
            "<= 0.01",
            str(change),
        )


if __name__ == "__main__":
    from dataclasses import asdict

    from speed_results import show

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no ViT")
    show([{**asdict(r), "met": r.met, "reason": r.reason} for r in rows(parser.parse_args().quick)])
