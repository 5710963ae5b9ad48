"""What a score costs: parameters that took part, FLOPs, memory, latency by stage, throughput, energy.

Latency is measured in turn with a named reference scorer's on the same images (A, B, A, B …), so that their
ratio holds on a machine with other work.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from rali_zoo.bench import energy
from rali_zoo.bench.predict import precision, score_files
from rali_zoo.bench.results import Cost
from rali_zoo.report import hardware, six

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from rali_zoo.bench.suite import CostPlan
    from rali_zoo.protocols import Scorer

STAGES = ("decode", "preprocess", "encode", "head", "total")
LEAST = 3  # images that are always timed
MOST = 64  # images of a throughput run

#: An image and, for full-reference scorers, what it is compared with.
Image = tuple[str, str]


@dataclass
class Loading:
    """What loading a scorer took; filled by :func:`loading`.

    Attributes:
        seconds: wall time.
        memory_before: resident memory of the process, or memory allocated on the device, in bytes.
    """

    seconds: float | None = None
    memory_before: int | None = None


@contextmanager
def loading(device: str) -> Iterator[Loading]:
    """Time what is loaded in the block, and start looking at the highest use of memory."""
    found = Loading()
    gc.collect()
    found.memory_before = _memory(device, "now")
    _forget_peak(device)
    start = time.perf_counter()
    yield found
    _synchronise(device)
    found.seconds = time.perf_counter() - start


# ---- parameters and FLOPs ----


class _Seen(TorchDispatchMode):
    """Notes every tensor that goes into an operation, whichever module it hangs on."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()
        self.parameters: list[nn.Parameter] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.detach.default:  # looking at a weight is not using it
            for leaf in tree_leaves((args, kwargs or {})):
                if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                    self.storages.add(leaf.untyped_storage().data_ptr())
                if isinstance(leaf, nn.Parameter):
                    self.parameters.append(leaf)
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Used:
    """What took part in one score.

    Attributes:
        parameters: elements of the distinct parameters that went into an operation; ``None`` where there
            is nothing to look at, as for scores from a file.
        loaded: elements of all parameters of the scorer's modules, unused towers included.
        flops: of convolutions, matrix products and attention of one image; ``None`` without any.
        problem: why something could not be counted; empty if it could.
    """

    parameters: int | None
    loaded: int | None
    flops: int | None
    problem: str = ""


def used(scorer: Scorer, image: Image) -> Used:
    """Count what one score uses, by watching it: a network that no attribute names is counted too.

    Args:
        scorer: any scorer.
        image: one that it can score.
    """
    if hasattr(scorer, "scores_for"):
        return Used(None, None, None)
    known = [p for m in scorer.modules() for p in m.parameters()]
    loaded = _elements(known)
    try:
        with _Seen() as seen, FlopCounterMode(display=False) as counter:
            wrong = _score(scorer, [image], 1)
    except Exception as error:  # compiled code may not let itself be watched
        wrong = f"{type(error).__name__}: {error}"
    if wrong:
        return Used(None, loaded, None, f"not counted: {wrong}")
    touched = [p for p in known if p.untyped_storage().data_ptr() in seen.storages]
    return Used(_elements([*touched, *seen.parameters]), loaded, counter.get_total_flops() or None)


def _elements(parameters: Sequence[nn.Parameter]) -> int:
    """Elements of distinct parameters; tied ones count once."""
    distinct = {
        (p.untyped_storage().data_ptr(), p.storage_offset(), p.numel()): p.numel() for p in parameters
    }
    return sum(distinct.values())


def _score(scorer: Scorer, images: Sequence[Image], batch_size: int) -> str:
    """Score images; the first error, or nothing."""
    references = [r for _, r in images] if scorer.needs_reference else None
    found = score_files(scorer, [p for p, _ in images], references, batch_size)
    return next((s.error for s in found if s.error is not None), "")


# ---- everything ----


@dataclass
class Measured:
    """Times in seconds of the images of a latency run."""

    stages: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in STAGES})
    against: list[float] = field(default_factory=list)


def measure(
    scorer: Scorer,
    images: Sequence[Image],
    plan: CostPlan,
    load: Loading,
    device: str = "cpu",
    against: Scorer | None = None,
) -> Cost | None:
    """The ``cost`` of a results file; times in seconds, energy in joules an image.

    Memory is what loading the scorer and scoring one image added to the process, or to the device, at its
    highest; in MB of 2**20 bytes.

    Args:
        scorer: any scorer.
        images: some that it can score, one at least.
        plan: how.
        load: of this scorer.
        device: where it computes.
        against: the scorer whose latency is measured in turn with this one's.

    Returns:
        ``None`` for scores from a file.
    """
    if hasattr(scorer, "scores_for"):
        return None
    _forget_peak(device)
    _score(scorer, images[:1], 1)
    peak, before = _memory(device, "peak"), load.memory_before
    count = used(scorer, images[0])
    times = _latency(scorer, images, plan, device, against)
    throughput, joules, notes = _throughput(scorer, images, plan, device, times)
    found = {
        "parameters": {"used": count.parameters, "loaded": count.loaded},
        "flops": count.flops,
        "peak_memory_mb": six((peak - before) / 2**20) if peak is not None and before is not None else None,
        "load_seconds": six(load.seconds),
        "latency": {stage: _range(seconds) for stage, seconds in times.stages.items()},
        "images": len(times.stages["total"]),
        "ratio": _ratio(times, against),
        "throughput": throughput,
        "energy_j": six(joules),
        "energy_source": energy.source(device),
        "threads": torch.get_num_threads(),
        "device": device,
        "precision": precision(scorer),
        "size": list(_load_image(images[0][0]).size),
        "hardware": hardware(),
        "notes": [n for n in [count.problem, *notes] if n],
    }
    return Cost.model_validate(found)


def _latency(
    scorer: Scorer, images: Sequence[Image], plan: CostPlan, device: str, against: Scorer | None
) -> Measured:
    start = time.perf_counter()
    for image in itertools.islice(itertools.cycle(images), plan.warmup):
        _together(scorer, against, image, device)
        if time.perf_counter() - start > plan.seconds:
            break
    times = Measured()
    start = time.perf_counter()
    for i, image in enumerate(itertools.islice(itertools.cycle(images), max(plan.images, LEAST))):
        # Whoever comes second finds caches warm, so they take turns.
        if against is not None and i % 2:
            other, own = _together(against, scorer, image, device)
        else:
            own, other = _together(scorer, against, image, device)
        times.stages["total"].append(own)
        times.against += [] if against is None else [other]
        if i + 1 >= LEAST and time.perf_counter() - start > plan.seconds:
            break
    _stages(scorer, images, len(times.stages["total"]), device, times)
    return times


def _together(first: Scorer | None, second: Scorer | None, image: Image, device: str) -> tuple[float, float]:
    """Seconds of both scorers on one image, right after each other; 0 for none."""
    _load_image(image[0])  # so that neither pays for fetching the file
    found = []
    for scorer in (first, second):
        found.append(0.0 if scorer is None else _timed(partial(_score, scorer, [image], 1), device)[0])
    return found[0], found[1]


def _stages(scorer: Scorer, images: Sequence[Image], count: int, device: str, times: Measured) -> None:
    steps = scorer.stages() if hasattr(scorer, "stages") else [("decode", _load_image)]
    for image in itertools.islice(itertools.cycle(images), count):
        value: Any = image[0]
        for name, step in steps:
            seconds, value = _timed(partial(step, value), device)
            times.stages[name].append(seconds)


def _throughput(
    scorer: Scorer, images: Sequence[Image], plan: CostPlan, device: str, times: Measured
) -> tuple[dict[str, float], float | None, list[str]]:
    """Images a second by batch size, joules an image at the last one, and what was left out."""
    one = float(np.median(times.stages["total"]))
    found: dict[str, float] = {}
    joules, notes = None, []
    for size in plan.batch_sizes:
        if size > 1 and size * one > 4 * plan.seconds:
            notes.append(f"throughput at {size}: not measured, a batch would take about {size * one:.0f} s")
            continue
        count = max(size, min(MOST, int(plan.seconds / max(one, 1e-6))) // size * size)
        many = [images[i % len(images)] for i in range(count)]
        before = energy.joules(device)
        seconds, _ = _timed(partial(_score, scorer, many, size), device)
        after = energy.joules(device)
        found[str(size)] = float(f"{count / seconds:.6g}")
        if before is not None and after is not None and after >= before:
            joules = (after - before) / count
    return found, joules, notes


def _timed(call: Callable[[], Any], device: str) -> tuple[float, Any]:
    _synchronise(device)
    start = time.perf_counter()
    value = call()
    _synchronise(device)
    return time.perf_counter() - start, value


def _range(seconds: Sequence[float]) -> dict[str, float | None] | None:
    if not seconds:
        return None
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"p50": six(p50), "p95": six(p95)}


def _ratio(times: Measured, against: Scorer | None) -> dict[str, Any] | None:
    """Of the latencies, pair by pair: the median and the quartiles."""
    if not times.against or against is None:
        return None
    ratios = np.array(times.stages["total"]) / np.array(times.against)
    low, median, high = np.percentile(ratios, [25, 50, 75])
    return {"to": against.name, "median": six(median), "low": six(low), "high": six(high)}


def _load_image(path: str) -> PILImage:
    from rali_zoo.data.images import load_image

    return load_image(path)


# ---- the machine ----


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _memory(device: str, what: str) -> int | None:
    """Bytes in use now, or at the highest since :func:`_forget_peak`; ``None`` where nothing counts it."""
    if device.startswith("cuda"):
        read = torch.cuda.max_memory_allocated if what == "peak" else torch.cuda.memory_allocated
        return int(read(device))
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    key = "VmHWM:" if what == "peak" else "VmRSS:"
    lines = [line for line in status.read_text().splitlines() if line.startswith(key)]
    return int(lines[0].split()[1]) * 1024 if lines else None


def _forget_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts anew
    except OSError:
        return
