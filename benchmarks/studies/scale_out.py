"""What a million, or five billion, images take: GPUs, decoding cores, hours, storage, and money at your prices.

    python benchmarks/studies/scale_out.py --images 5.85e9 --rate 1100 --gpu-hour 3

Rates and prices are yours to set; no price is assumed. What is not typed was measured by ``speed.py``
(decoding, bytes of an image and of a row) or is cited below. ``tables.py`` shows the sums in docs/scale_out.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SPEED = Path(__file__).resolve().parents[1] / "results" / "speed.json"
#: Rows of the results file of ``speed.py`` that are computed with.
DECODE = "a JPEG of 1024x768, fast"
_MEMORY = "memory of `score` on "
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
    """A GPU.

    Attributes:
        name: as in the table.
        rate: images a second with CLIP ViT-L/14 at 336 pixels.
        source: where the rate is from, in Markdown.
    """

    name: str
    rate: float
    source: str


_TIMM = (
    "https://github.com/huggingface/pytorch-image-models/blob/main/results/"
    "benchmark-infer-amp-nchw-pt291-cu128-4090-dynamo.csv"
)
#: Dense bfloat16 operations a second of an H200 SXM: half of the 1,979 TFLOP/s that NVIDIA states with sparsity.
H200 = 989e12
GPUS = (
    Gpu("RTX 4090", 351.4, f"measured by [timm]({_TIMM}): `vit_large_patch14_clip_quickgelu_336`, by 1024"),
    Gpu(
        "H200, at most", H200 / vit_flops(336, 14, 1024, 24, 768),
        "arithmetic limit: 989 TFLOP/s, half of what [NVIDIA](https://www.nvidia.com/en-us/data-center/h200/) "
        "states with sparsity, over the operations of an image; no program reaches it",
    ),
)  # fmt: skip


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
class Prices:
    """Dollars, of your contract; a core is two hardware threads."""

    gpu_hour: float
    core_hour: float
    gigabyte_month: float
    gigabyte_out: float


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
    """

    gpu_hours: float
    gpus: int
    cores_a_gpu: int
    core_hours: float
    read_mb_s: float
    stored_tb: float
    written_gb: float

    def dollars(self, prices: Prices) -> dict[str, float]:
        """Of computing, of keeping the images for a month, and of moving them out of where they are once."""
        return {
            "compute": self.gpu_hours * prices.gpu_hour + self.core_hours * prices.core_hour,
            "month": self.stored_tb * 1e3 * prices.gigabyte_month,
            "moved": self.stored_tb * 1e3 * prices.gigabyte_out,
        }


def plan(images: Images, rate: float, deadline_hours: float = 24.0) -> Plan:
    """How much of everything a set of images takes on GPUs that score ``rate`` images a second."""
    gpu_hours = images.count / rate / 3600
    return Plan(
        gpu_hours,
        math.ceil(gpu_hours / deadline_hours),
        math.ceil(rate * images.decode_s),
        images.count * images.decode_s / 3600,
        rate * images.size / 1e6,
        images.count * images.size / 1e12,
        images.count * images.row / 1e9,
    )


def measured(content: Mapping[str, Any]) -> Images | None:
    """What ``speed.py`` found of an image; ``None`` where those sections are not there."""
    rows = {row["name"]: row for part in content.get("sections", {}).values() for row in part["rows"]}
    decode = rows.get(DECODE)
    memory = next((row for name, row in rows.items() if name.startswith(_MEMORY)), None)
    if decode is None or memory is None or content["quick"]:
        return None
    values = decode["values"]
    return Images(1.0, values["candidate_s"], values["bytes"], memory["values"]["bytes_a_row"])


def gpus(content: Mapping[str, Any]) -> tuple[Gpu, ...]:
    """:data:`GPUS` with what ``speed_gpu.py`` found of one: the network alone, and from the disk to scores."""
    rows = [row for part in content.get("sections", {}).values() for row in part["rows"]]
    if not rows or content["quick"] or not content["hardware"]["gpus"]:
        return GPUS
    name = content["hardware"]["gpus"][0].removeprefix("NVIDIA ")
    ends = {": bfloat16, compiled": "network alone", "336, fast": "`score --decode fast`"}
    found = {
        part: row["values"]["images_a_second"]
        for end, part in ends.items()
        for row in rows
        if row["name"].endswith(end) and "images_a_second" in row["values"]
    }
    cores = content["hardware"]["cpus"]
    here = f"measured: [speed](speed.md#on-a-gpu), with {cores} cores"
    return (*GPUS, *(Gpu(f"{name}, {part}", rate, here) for part, rate in found.items()))


def block(content: Mapping[str, Any], gpu: Mapping[str, Any] | None = None) -> str:
    """The table of the page, and where each constant is from.

    Args:
        content: results of ``speed.py``.
        gpu: results of ``speed_gpu.py``.
    """
    cards = gpus(gpu or {})
    one = measured(content)
    if one is None:
        return "Nothing has been measured yet: `python benchmarks/studies/speed.py` writes this table."
    lines = [
        "| images | GPU | GPU hours | GPUs for a day | cores a GPU | core hours | read by each, MB/s | "
        "images, TB | table, GB |",
        "|---" * 9 + "|",
    ]
    for count, card in itertools.product(SIZES, cards):
        p = plan(replace(one, count=count), card.rate)
        cells = [
            f"{count:,.0f}", card.name, _shown(p.gpu_hours), f"{p.gpus:,}", str(p.cores_a_gpu),
            _shown(p.core_hours), _shown(p.read_mb_s), _shown(p.stored_tb), _shown(p.written_gb),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    here = f"measured: [speed](speed.md), {content['hardware']['processor']}"
    return "\n".join([
        *lines, "", "| constant | value | from |", "|---|---|---|",
        *(f"| {g.name}: images a second | {g.rate:,.0f} | {g.source} |" for g in cards),
        f"| operations of an image | {vit_flops(336, 14, 1024, 24, 768) / 1e9:,.0f} GFLOP | "
        "formula in `benchmarks/studies/scale_out.py`, CLIP ViT-L/14 at 336 pixels |",
        f"| a core decodes and cuts an image in | {one.decode_s * 1e3:.1f} ms | {here}, 1024x768, fast |",
        f"| an image | {one.size / 1e3:,.0f} KB | the same |",
        f"| a row of the table | {one.row:.0f} bytes | {here} |",
        f"| {LAION:,.0f} images | – | [LAION-5B](https://openreview.net/forum?id=M3Y74vmsMcY) |",
    ])  # fmt: skip


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Print the sums for what is typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=float, default=LAION)
    parser.add_argument("--rate", type=float, default=GPUS[0].rate, help="images a second of one GPU")
    for name in ("gpu-hour", "core-hour", "gigabyte-month", "gigabyte-out"):
        parser.add_argument(f"--{name}", type=float, default=0.0, help="your price in dollars")
    parser.add_argument("--deadline-hours", type=float, default=24.0)
    parser.add_argument("--decode-ms", type=float, help="of a core for an image; as measured by default")
    parser.add_argument("--kilobytes", type=float, help="of an image; as measured by default")
    o = parser.parse_args()
    content = json.loads(SPEED.read_text(encoding="utf-8")) if SPEED.is_file() else {}
    one = measured(content) or Images(1.0, 0.0, 0.0, 0.0)
    decode_s = one.decode_s if o.decode_ms is None else o.decode_ms / 1e3
    size = one.size if o.kilobytes is None else o.kilobytes * 1e3
    if not decode_s or not size:
        parser.error("nothing has been measured yet: run speed.py, or give --decode-ms and --kilobytes")
    p = plan(Images(o.images, decode_s, size, one.row), o.rate, o.deadline_hours)
    prices = Prices(o.gpu_hour, o.core_hour, o.gigabyte_month, o.gigabyte_out)
    for name, value in (vars(p) | p.dollars(prices)).items():
        print(f"{name:12} {value:,.1f}")


if __name__ == "__main__":
    main()
