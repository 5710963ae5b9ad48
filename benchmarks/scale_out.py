"""What a million, or five billion, images cost: GPUs, decoding cores, hours, storage, money.

    python benchmarks/scale_out.py --images 5.85e9 --rate 1100 --gpu-hour 3

Rates and prices are yours to set. What is not typed was measured by ``benchmarks/speed.py`` (decoding, bytes
of an image and of a row) or is cited below. ``benchmarks/tables.py`` shows the sums in docs/scale_out.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from speed_results import read, rows_of

#: Rows of the results file of ``benchmarks/speed.py`` that are computed with.
DECODE = "preprocessing 1024x768, grainy: Pillow / fast"
_MEMORY = "peak memory: "
#: LAION-5B, NeurIPS 2022: https://openreview.net/forum?id=M3Y74vmsMcY
LAION = 5.85e9
SIZES = (1e6, 1e8, LAION)


def vit_flops(image: int, patch: int, width: int, layers: int, out: int) -> float:
    """Floating-point operations of a vision transformer for one image.

    Args:
        image: side in pixels.
        patch: side in pixels.
        width: of a token.
        layers: with attention and a perceptron of four times the width.
        out: width of the embedding; 0 for no projection.
    """
    patches = (image // patch) ** 2
    tokens = patches + 1
    products = layers * (12 * tokens * width**2 + 2 * tokens**2 * width)
    return 2.0 * (products + patches * 3 * patch**2 * width + width * out)


@dataclass(frozen=True)
class Gpu:
    """A GPU and its price.

    Attributes:
        name: as in the table.
        rate: images a second with CLIP ViT-L/14 at 336 pixels.
        rate_from: where the rate is from, in Markdown.
        price: dollars an hour.
        price_from: likewise.
    """

    name: str
    rate: float
    rate_from: str
    price: float
    price_from: str


_TIMM = (
    "https://github.com/huggingface/pytorch-image-models/blob/main/results/"
    "benchmark-infer-amp-nchw-pt291-cu128-4090-dynamo.csv"
)
#: Dense bfloat16 operations a second of an H200.
H200 = 989e12
GPUS = (
    Gpu(
        "RTX 4090", 351.4, f"measured by [timm]({_TIMM}): `vit_large_patch14_clip_quickgelu_336`, by 1024",
        0.70, "[usagepricing.com](https://www.usagepricing.com/blueprint/vast-ai), June 2026: 0.68 to 0.88",
    ),
    Gpu(
        "H200, at most", H200 / vit_flops(336, 14, 1024, 24, 768),
        "arithmetic limit: 989 TFLOP/s ([dense figures](https://itkb.uw.cz/2026/06/"
        "nvidia-h200-vs-b300-precisions-cores.html)) over the operations of an image; no program reaches it",
        4.00, "[mercatus-ai.com](https://www.mercatus-ai.com/blog/cloud-gpu-pricing), May 2026: 2.50 to 7.00",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Prices:
    """Dollars; a core is two hardware threads."""

    core_hour: float = 0.085
    gigabyte_month: float = 0.021
    gigabyte_out: float = 0.05


PRICE_SOURCES = {
    "core_hour": "c5.2xlarge, 0.34 for four cores: [AWS](https://docs.amazonaws.cn/en_us/autoscaling/ec2/userguide/"
    "weights-spot-price-per-unit-hour-example.html)",
    "gigabyte_month": "S3: [0.021 to 0.026](https://laodongdongnai.vn/S3-Cost-Amazon-Cloud-Storage-Costs-Explained-"
    "1682335908)",
    "gigabyte_out": "AWS to the internet at high volume: [cloud-cost](https://cloud-cost-557.pages.dev/blog/"
    "estimate-aws-data-transfer-bill/), June 2026",
}


@dataclass(frozen=True)
class Images:
    """What has to be read and written.

    Attributes:
        count: images.
        decode_s: seconds that a core decodes and cuts one.
        size: bytes of one.
        row: bytes of its row in the table.
    """

    count: float
    decode_s: float
    size: float
    row: float


@dataclass(frozen=True)
class Plan:
    """The sums.

    Attributes:
        gpu_hours: images / rate / 3600.
        gpus: gpu_hours / deadline, rounded up.
        cores_a_gpu: rate * decode_s, rounded up: so many decode as fast as the GPU computes.
        core_hours: images * decode_s / 3600.
        read_mb_s: rate * size / 10^6, read by each GPU's machine in a second.
        stored_tb: images * size / 10^12.
        written_gb: images * row / 10^9.
        compute: gpu_hours * price + core_hours * price, in dollars.
        month: of keeping the images, in dollars.
        moved: of moving them out of where they are, in dollars.
    """

    gpu_hours: float
    gpus: int
    cores_a_gpu: int
    core_hours: float
    read_mb_s: float
    stored_tb: float
    written_gb: float
    compute: float
    month: float
    moved: float


def plan(images: Images, gpu: Gpu, prices: Prices, deadline_hours: float = 24.0) -> Plan:
    """How much of everything a set of images takes."""
    gpu_hours = images.count / gpu.rate / 3600
    core_hours = images.count * images.decode_s / 3600
    stored = images.count * images.size
    return Plan(
        gpu_hours,
        math.ceil(gpu_hours / deadline_hours),
        math.ceil(gpu.rate * images.decode_s),
        core_hours,
        gpu.rate * images.size / 1e6,
        stored / 1e12,
        images.count * images.row / 1e9,
        gpu_hours * gpu.price + core_hours * prices.core_hour,
        stored / 1e9 * prices.gigabyte_month,
        stored / 1e9 * prices.gigabyte_out,
    )


def measured(content: Mapping[str, Any] | None) -> Images | None:
    """What ``benchmarks/speed.py`` found of an image; ``None`` where those sections are not there."""
    rows = {} if content is None or content["quick"] else rows_of(content)
    decode = rows.get(DECODE)
    memory = next((row for name, row in rows.items() if name.startswith(_MEMORY)), None)
    if decode is None or memory is None:
        return None
    values = decode["values"]
    return Images(1.0, values["candidate_s"], values["bytes"], memory["values"]["bytes_a_row"])


def table(one: Images, prices: Prices, deadline_hours: float = 24.0) -> str:
    """Sizes by GPUs, in Markdown."""
    lines = [
        "| images | GPU | GPU hours | GPUs for a day | cores a GPU | read by each, MB/s | images, TB |"
        " table, GB | compute, $ | kept a month, $ | moved out once, $ |",
        "|---" * 11 + "|",
    ]
    for count in SIZES:
        for gpu in GPUS:
            p = plan(replace(one, count=count), gpu, prices, deadline_hours)
            cells = [
                f"{count:,.0f}", gpu.name, _shown(p.gpu_hours), f"{p.gpus:,}", str(p.cores_a_gpu),
                _shown(p.read_mb_s), _shown(p.stored_tb), _shown(p.written_gb),
                _shown(p.compute), _shown(p.month), _shown(p.moved),
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def block(content: Mapping[str, Any] | None) -> str:
    """The table of the page and where each constant is from."""
    one = measured(content)
    if content is None or one is None:
        return "Nothing has been measured yet: `python benchmarks/speed.py` writes this table."
    prices = Prices()
    lines = [table(one, prices), "", "| constant | value | from |", "|---|---|---|"]
    lines += [f"| {g.name}: images a second | {g.rate:,.0f} | {g.rate_from} |" for g in GPUS]
    lines += [f"| {g.name}: an hour | ${g.price:.2f} | {g.price_from} |" for g in GPUS]
    h = content["hardware"]
    here = f"measured: [speed](speed.md), {h['processor']}"
    lines += [
        f"| operations of an image | {vit_flops(336, 14, 1024, 24, 768) / 1e9:,.0f} GFLOP | "
        "formula in `benchmarks/scale_out.py`, CLIP ViT-L/14 at 336 pixels |",
        f"| a core decodes and cuts an image in | {one.decode_s * 1e3:.1f} ms | {here}, 1024x768, fast |",
        f"| an image | {one.size / 1e3:,.0f} KB | the same |",
        f"| a row of the table | {one.row:.0f} bytes | {here} |",
        f"| a core for an hour | ${prices.core_hour} | {PRICE_SOURCES['core_hour']} |",
        f"| a gigabyte kept for a month | ${prices.gigabyte_month} | {PRICE_SOURCES['gigabyte_month']} |",
        f"| a gigabyte moved out | ${prices.gigabyte_out} | {PRICE_SOURCES['gigabyte_out']} |",
        f"| {LAION:,.0f} images | – | [LAION-5B](https://openreview.net/forum?id=M3Y74vmsMcY) |",
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the sums for what is typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=float, default=LAION)
    parser.add_argument("--rate", type=float, default=GPUS[0].rate, help="images a second of one GPU")
    parser.add_argument("--gpu-hour", type=float, default=GPUS[0].price, help="dollars")
    parser.add_argument("--core-hour", type=float, default=Prices.core_hour, help="dollars")
    parser.add_argument("--gigabyte-month", type=float, default=Prices.gigabyte_month, help="dollars")
    parser.add_argument("--gigabyte-out", type=float, default=Prices.gigabyte_out, help="dollars")
    parser.add_argument("--deadline-hours", type=float, default=24.0)
    parser.add_argument("--decode-ms", type=float, help="of a core for an image; as measured by default")
    parser.add_argument("--kilobytes", type=float, help="of an image; as measured by default")
    o = parser.parse_args()
    one = measured(read()) or Images(1.0, 0.0, 0.0, 0.0)
    if (o.decode_ms is None and not one.decode_s) or (o.kilobytes is None and not one.size):
        parser.error(
            "nothing has been measured yet: run benchmarks/speed.py, or give --decode-ms and --kilobytes"
        )
    one = replace(
        one,
        count=o.images,
        decode_s=one.decode_s if o.decode_ms is None else o.decode_ms / 1e3,
        size=one.size if o.kilobytes is None else o.kilobytes * 1e3,
    )
    gpu = Gpu("yours", o.rate, "", o.gpu_hour, "")
    prices = Prices(o.core_hour, o.gigabyte_month, o.gigabyte_out)
    for name, value in vars(plan(one, gpu, prices, o.deadline_hours)).items():
        print(f"{name:12} {value:,.1f}")


if __name__ == "__main__":
    main()
