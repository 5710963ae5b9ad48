"""Joules, where the hardware counts them: a graphics card by NVML, processors by RAPL; else nothing."""

from __future__ import annotations

import re
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


def source(device: str) -> str | None:
    """Who counts, and what; ``None`` where nobody does."""
    if joules(device) is None:
        return None
    return "NVML, whole card" if device.startswith("cuda") else "RAPL, whole packages"


def joules(device: str) -> float | None:
    """A counter that only grows (but for its wrap); ``None`` where there is none that may be read."""
    return _nvml(device) if device.startswith("cuda") else _rapl()


def _rapl() -> float | None:
    """Of all packages; the zones inside a package are part of it. Usually only root may read this."""
    total, found = 0.0, False
    try:
        for zone in sorted(POWERCAP.iterdir()):
            if re.fullmatch(r"(intel|amd)-rapl:\d+", zone.name):
                total += int((zone / "energy_uj").read_text()) / 1e6
                found = True
    except (OSError, ValueError):
        return None
    return total if found else None


def _nvml(device: str) -> float | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(device.partition(":")[2] or 0))
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except (pynvml.NVMLError, ValueError):
        return None
