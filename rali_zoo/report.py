"""What is reported, and how: the table of statistics, where numbers come from, names of files, JSON.

Every place that computes, shows or reads a statistic (evaluation, ``results.json``, benchmark, leaderboard,
model cards, README) goes through :data:`STATISTICS`, so that a name means one number everywhere. Nothing
heavy is imported here: formulas are looked up when they are called.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.paths import atomic_path, text_sha256

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
JsonDict = dict[str, Json]


@dataclass(frozen=True)
class Statistic:
    """One number that says how well scores agree with MOS.

    Attributes:
        name: key in logs, files and tables.
        label: heading of a column.
        formula: ``module:function`` of (n,) scores and (n,) MOS, finite; NaN where undefined.
        higher_is_better: its direction.
        low: smallest possible value.
        high: largest possible value.
        of_mapped: the same as ``formula``, of scores that the logistic has mapped already: intervals resample
            it, so that the mapping is fitted once; empty for a statistic without mapping.
        on_mos_scale: defined only for scores that are MOS, since it compares their values.
        brief: whether tables with little room show it.
    """

    name: str
    label: str
    formula: str
    higher_is_better: bool = True
    low: float = -1.0
    high: float = 1.0
    of_mapped: str = ""
    on_mos_scale: bool = False
    brief: bool = True

    def __call__(self, pred: ArrayLike, mos: ArrayLike) -> float:
        """The value for (n,) scores and (n,) MOS; NaN where undefined."""
        module, _, name = self.formula.partition(":")
        return float(getattr(import_module(module), name)(pred, mos))


_PLAIN, _MAPPED = "rali_zoo.metrics.correlation", "rali_zoo.metrics.logistic"
#: Every statistic, in the order of columns; docs/add_a_metric.md shows how to add one.
STATISTICS: dict[str, Statistic] = {
    row.name: row
    for row in (
        Statistic("srcc", "SRCC", f"{_PLAIN}:srcc"),
        Statistic("krcc", "KRCC", f"{_PLAIN}:krcc"),
        Statistic("plcc", "PLCC", f"{_PLAIN}:plcc"),
        # Of the data it is at least 0; of resamples, where the mapping stays, it may run backwards.
        Statistic("plcc_mapped", "PLCC, mapped", f"{_MAPPED}:plcc_mapped", of_mapped=f"{_PLAIN}:plcc"),
        Statistic("rmse", "RMSE", f"{_PLAIN}:rmse", False, 0, math.inf, on_mos_scale=True),
        Statistic(
            "rmse_mapped", "RMSE, mapped", f"{_MAPPED}:rmse_mapped", False, 0, math.inf, f"{_PLAIN}:rmse",
            brief=False,
        ),
        Statistic("mae", "MAE", f"{_PLAIN}:mae", False, 0, math.inf, on_mos_scale=True, brief=False),
    )
}  # fmt: skip
#: What stands before the statistics: images with a score, and images without one.
COUNTS = ("n", "failed")

#: Whose version can change a number: they decode, resize, encode or compute.
PACKAGES = (
    "rali-zoo",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "timm",
    "open_clip_torch",
    "transformers",
    "sentence-transformers",
    "pyiqa",
    "piq",
    "onnxruntime",
    "openvino",
    "scikit-learn",
    "scikit-image",
    "scipy",
    "numpy",
    "pandas",
    "pillow",
    "pillow-heif",
    "simplejpeg",
    "av",
)


def versions() -> dict[str, str]:
    """Versions of Python and of those of :data:`PACKAGES` that are installed."""
    return dict(_versions())


@cache  # looking them up takes as long as decoding some images
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> JsonDict:
    """Processor, number of its cores, operating system, and graphics cards."""
    import torch

    return {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor()


def provenance(config: Mapping[str, object] | None = None, seed: int | None = None) -> JsonDict:
    """Where numbers come from: time, seed, hash of the configuration, versions, hardware.

    Args:
        config: the resolved configuration, if there is one.
        seed: of the run; ``seed_everything`` of the configuration by default.
    """
    import torch

    found: JsonDict = {"written": datetime.now(UTC).isoformat(timespec="seconds")}
    if config is not None:
        default = config.get("seed_everything")
        seed = default if seed is None and isinstance(default, int) else seed
        found["config_sha256"] = text_sha256(json.dumps(config, sort_keys=True, default=str))
    return {
        **found,
        "seed": seed,
        "versions": dict(versions()),
        "hardware": {**hardware(), "torch_threads": torch.get_num_threads()},
    }


@lru_cache(maxsize=65536)  # a board asks for those of its models for each cell
def slug(name: str) -> str:
    """A file name for a reference; different references get different ones."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80]
    return plain if plain == name else f"{plain}-{text_sha256(name)[:6]}"


def six(value: float | None) -> float | None:
    """Six significant digits, which is what files hold; ``None`` for what is no finite number."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def to_json(value: object, digits: int | None = None) -> Json:
    """A nested result as JSON can hold it; what is no finite number is ``None``.

    Args:
        value: numbers (also NumPy's), texts, paths, mappings, sequences, arrays, dataclasses.
        digits: significant ones of every float; all of them by default.

    Raises:
        TypeError: something that JSON has no word for.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return (value if digits is None else float(f"{value:.{digits}g}")) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_json(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item, digits) for item in value]
    if isinstance(value, Path):
        return str(value)
    return to_json(_plainer(value), digits)


def _plainer(value: object) -> object:
    """What a dataclass, or a number, array or column of NumPy and pandas, holds."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no value of a JSON file")


def write_json(path: str | Path, content: object, digits: int | None = None) -> None:
    """Write a JSON file whole or not at all: a key a line, lists of plain values on one line.

    A file that holds the same bytes already is left alone.

    Args:
        path: of the file; its folder is made.
        content: as :func:`to_json` takes it.
        digits: as there.
    """
    text = _lines(to_json(content, digits), "") + "\n"
    path = Path(path)
    if path.is_file() and path.read_bytes() == text.encode():
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _lines(value: Json, indent: str) -> str:
    inner = indent + " "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(key)}: {_lines(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) and item for item in value):
        return "[\n" + ",\n".join(inner + _lines(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)
