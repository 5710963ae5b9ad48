"""Where and how a scorer computes: device, threads, number type, compilation. No torch at import."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rali_zoo.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from rali_zoo.models.scorer import NetworkScorer

Decode = Literal["exact", "fast"]  #: see :mod:`rali_zoo.scoring.decode`
Precision = Literal["float32", "bfloat16", "auto"]
Sort = Literal["none", "worst", "best"]  #: which rows come first; those without a score are last
Compile = Literal["off", "default", "reduce-overhead", "max-autotune"]

#: Decoding threads beside a GPU; more of one process get in each other's way.
MOST_WORKERS = 16


def available_cores() -> int:
    """Physical cores that this process may use: its affinity, without hyperthreads, within its cgroup."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = set()
    for cpu in allowed:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            siblings.add(topology.read_text())
        except OSError:
            siblings.add(str(cpu))
    return max(1, min(len(siblings), _quota() or len(siblings)))


def _quota() -> int | None:
    """Whole CPUs that the control group grants, where it sets a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None


def free_cores() -> int:
    """Of :func:`available_cores` those that others have not kept busy over the last minute; at least 1.

    Threads of a team wait for each other: one that shares its core holds up all, and on a busy machine the
    default of a thread a core was measured to be several times slower than a single thread.
    """
    try:
        busy = os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows has no load average
        busy = 0.0
    cores = available_cores()
    # The machine's load counts against the whole machine, of which this process may have a part.
    others = busy * cores / (os.cpu_count() or cores)
    return max(1, round(cores - others))


def set_threads(threads: int | None, device: torch.device) -> int:
    """Set the number of threads a computation uses and return it.

    Args:
        threads: as asked for; ``None`` obeys ``OMP_NUM_THREADS`` where that is set, else takes
            :func:`free_cores` on the CPU, and 1 beside a GPU.
        device: where the model computes.

    Raises:
        ConfigError: fewer than one.
    """
    import torch

    if threads is not None and threads < 1:
        raise ConfigError(f"--threads {threads}: at least 1")
    if threads is None and "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    torch.set_num_threads(threads or (free_cores() if device.type == "cpu" else 1))
    return torch.get_num_threads()


def decode_workers(workers: int | None, device: torch.device) -> int:
    """Threads that decode: as asked for, else 2 beside a CPU's own work, or all cores beside a GPU."""
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: at least 1")
    return workers or (2 if device.type == "cpu" else min(MOST_WORKERS, max(2, available_cores())))


def check_device(device: str, model: str = "") -> str:
    """The device as given, or for ``auto`` a GPU where there is one and else the CPU.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        model: reference of what computes there; an exported one does so on the CPU.

    Raises:
        ConfigError: it is not here; the message says which are.
    """
    import torch

    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if device == "auto":
        return "cuda" if gpus and not model.startswith(("onnx:", "openvino:")) else "cpu"
    there = ["cpu", *(["cuda", *gpus] if gpus else [])]
    there += ["mps"] if torch.backends.mps.is_available() else []
    if device not in there:
        raise ConfigError(f"--device {device!r} is not here; this machine has {', '.join(there)}")
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the chip computes in bfloat16 itself; emulated, it is many times slower than float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(
            torch.backends.mkldnn.is_available() and _cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"}
        )
    return False


def _cpu_flags() -> set[str]:
    """What the processor can do, in Linux' words; empty on other systems but Apple's."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return set(next(x for x in lines if x.startswith(("flags", "Features"))).split())
    except (OSError, StopIteration):
        pass
    try:
        said = subprocess.run(["sysctl", "-n", "hw.optional.arm.FEAT_BF16"], capture_output=True, check=False)
        return {"bf16"} if said.stdout.strip() == b"1" else set()
    except OSError:
        return set()


def advice(scorer: NetworkScorer, precision: Precision) -> str:
    """What would be several times as fast on a GPU; empty where nothing is left on the table."""
    import torch

    from rali_zoo.models.base import BackboneNetwork

    device = torch.device(scorer.network.device)
    slow = precision == "float32" and device.type == "cuda" and isinstance(scorer.network, BackboneNetwork)
    if not slow or not has_bfloat16(device):
        return ""
    return "this GPU has bfloat16: --precision auto is several times as fast, and scores move a little"


def tune(scorer: NetworkScorer, precision: Precision = "float32", compile: Compile = "off") -> str:
    """Set a scorer's number type and compile its encoder.

    Args:
        scorer: changed in place.
        precision: ``float32`` gives the same scores everywhere; ``bfloat16`` computes the encoder in it
            and the head in float32; ``auto`` is bfloat16 where the chip has it.
        compile: mode of torch.compile for the encoder; the first batch of each shape takes a minute.

    Returns:
        The number type in use.

    Raises:
        ConfigError: bfloat16 on a chip without it, or a scorer without an encoder of its own.
    """
    import torch

    from rali_zoo.models.base import BackboneNetwork

    module = scorer.network
    device = torch.device(module.device)
    there = has_bfloat16(device)
    if precision == "bfloat16" and not there:
        raise ConfigError(
            f"--precision bfloat16: {device.type} here has no bfloat16 of its own; emulated, it is many "
            "times slower than float32; use --precision float32 (or auto)"
        )
    half = precision == "bfloat16" or (precision == "auto" and there)
    if not isinstance(module, BackboneNetwork):
        if precision == "bfloat16" or compile != "off":
            raise ConfigError(
                f"--precision and --compile are for image encoders; {scorer.name} is a "
                f"{type(module).__name__}: leave them out"
            )
        return "float32"
    scorer.autocast = torch.bfloat16 if half else None
    if compile != "off":
        # The last batch is smaller: without dynamic sizes it would be compiled anew.
        module.backbone.compile(mode=compile, dynamic=True)
    return "bfloat16" if half else "float32"
