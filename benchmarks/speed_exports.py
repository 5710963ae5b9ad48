"""Exported scorers against torch on the same weights: rows of ``benchmarks/speed.py``.

    python benchmarks/speed_exports.py [--quick]

prints them alone. Weights are random where it says so, since speed does not depend on them; what int8 costs
in SRCC and PLCC is measured on a trained scorer, as ``rali-zoo export`` does.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported: one thread is what can be compared on a machine that others use too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from speed_ab import Row, compare, show

from rali_zoo.data.tables import load_table
from rali_zoo.export import onnx, openvino
from rali_zoo.export.graph import load_ours, trace
from rali_zoo.export.int8 import Format, export_int8, quantise
from rali_zoo.export.runtime import ExportedModule
from rali_zoo.models import Regression
from rali_zoo.models.scorer import ModuleScorer

FILES = {"onnx": onnx, "openvino": openvino}
NAMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
#: title, backbone, goal in float32, goal in int8
NETWORKS = (
    ("ViT-B/32, random", "open_clip:ViT-B-32?pretrained=false", ">= 1.05", ">= 1.5"),
    ("ResNet-18, random", "timm:resnet18?pretrained=false", ">= 1.05", ">= 1.5"),
)
_BATCH = 2


def rows(quick: bool = False) -> Iterator[Row]:
    """float32 and int8 in each runtime against torch, one thread, processor time; parity in the note."""
    networks = NETWORKS[1:] if quick else NETWORKS
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for title, backbone, plain, small in networks:
            torch.manual_seed(0)
            scorer = ModuleScorer(Regression(backbone, encoder_lr=0.0), title)
            yield from _compared(scorer, title, Path(folder), plain, small, 5 if quick else 7)
        yield from _trained(Path(folder), 60 if quick else 500)


def _compared(
    scorer: ModuleScorer, title: str, folder: Path, plain: str, small: str, rounds: int
) -> Iterator[Row]:
    size = scorer.module.preprocess.size
    pictures = np.random.default_rng(0).random((4 * _BATCH, 3, *size), dtype=np.float32)
    proto = trace(scorer)
    for kind in ("onnx", "openvino"):
        for precision, goal in (("fp32", plain), ("int8", small)):
            graph = proto if precision == "fp32" else quantise(proto, np.split(pictures, 4), kind)
            path = folder / f"{precision}{FILES[kind].SUFFIX}"
            FILES[kind].write(graph, path)
            module = FILES[kind].load_module(path, threads=1)
            yield _row(scorer, module, f"{title}: {NAMES[kind]} {precision}", goal, pictures[:_BATCH], rounds)


def _row(
    scorer: ModuleScorer, module: ExportedModule, name: str, goal: str, pictures: np.ndarray, rounds: int
) -> Row:
    image = torch.from_numpy(pictures)

    def by_torch() -> torch.Tensor:
        with torch.inference_mode():
            return scorer.module(image)

    difference = float((by_torch() - module(image)).abs().max())
    note = f"{_BATCH} pictures, a score differs by {difference:.1g}"
    return compare(name, by_torch, lambda: module(image), goal, note, rounds, clock="cpu")


def _trained(folder: Path, test_pictures: int) -> Iterator[Row]:
    """The scorer in the package, in int8, on the data set it was trained for."""
    scorer = load_ours("rali-tiny-synthetic")
    table = load_table("synthetic:lab")
    image = np.random.default_rng(0).random((8, 3, *scorer.module.preprocess.size), dtype=np.float32)
    kinds: tuple[Format, ...] = ("onnx", "openvino")
    for kind in kinds:
        path = folder / f"tiny{FILES[kind].SUFFIX}"
        change = export_int8(scorer, path, table, kind, max_loss=1.0, test_pictures=test_pictures)
        module = FILES[kind].load_module(path, threads=1)
        name = f"rali-tiny-synthetic: {NAMES[kind]} int8"
        row = _row(scorer, module, name, ">= 1.5", image, 7)
        yield Row(**{**vars(row), "note": f"{row.note}; {change} of synthetic:lab (synthetic labels)"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no ViT")
    show(list(rows(parser.parse_args().quick)))
