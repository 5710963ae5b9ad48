"""Where numbers come from: versions and hardware. The same on two runs on one machine."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: Whose version can change a number.
PACKAGES = (
    "lightning",
    "numpy",
    "open_clip_torch",
    "pandas",
    "pillow",
    "piq",
    "pyiqa",
    "scikit-image",
    "scipy",
    "timm",
    "torchmetrics",
    "torchvision",
    "transformers",
)


def hardware() -> dict[str, Any]:
    """Processor, number of its cores, operating system, and graphics cards."""
    import torch

    return {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def provenance(seed: int, resamples: int) -> dict[str, Any]:
    """Versions, hardware and seed, as a cell holds them; the date goes beside the cell.

    Args:
        seed: of the suite.
        resamples: of the bootstrap.
    """
    found = {}
    for package in ("rali-zoo", "torch", *PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "rali_zoo": found.pop("rali-zoo", "not installed"),
        "python": platform.python_version(),
        "torch": found.pop("torch", "not installed"),
        "packages": found,
        "hardware": hardware(),
        "seed": seed,
        "resamples": resamples,
        "written": None,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor()
