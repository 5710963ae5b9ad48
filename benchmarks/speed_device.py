"""Encoder throughput on an accelerator, against what its matrix units do alone: a section of ``speed.py``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from speed_ab import Row, from_values
from torch import Tensor

from rali_zoo.backbones import create_backbone

#: The released RALI's encoder; weights do not matter for speed.
LARGE = "timm:vit_large_patch14_clip_quickgelu_336?pretrained=false"


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
    for number in range(-2, rounds):
        took, bare = _timed(encode, device), _timed(lambda: one @ two, device)
        if number >= 0:
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


def operations(module: torch.nn.Module, image: Tensor) -> int:
    """Floating-point operations of a pass, a multiplication and an addition counting two."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(image)
    return counter.get_total_flops()
