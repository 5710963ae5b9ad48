"""Cost: what is counted is what took part, and times are those of known sleeps."""

from __future__ import annotations

import mmap
import time

import pytest
import torch
from bench_fakes import Constant, Sharpness
from torch import nn

from rali_zoo.bench import energy
from rali_zoo.bench.cost import STAGES, loading, measure, used
from rali_zoo.bench.results import Cost
from rali_zoo.bench.suite import CostPlan
from rali_zoo.types import Score
from rali_zoo.zoo import load_model


class Clip(nn.Module):
    """Two towers, one of which a score needs; attention reads its weights without calling its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4, bias=False)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.text = nn.Linear(1000, 100)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.conv(image).flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1)


class Hiding(Sharpness):
    """Keeps its CLIP in a list, as a metric does that does not want it in its checkpoint."""

    name = "fake:hiding"

    def __init__(self) -> None:
        super().__init__()
        self.towers = [Clip().eval()]
        self.head = nn.Linear(8, 1)

    def modules(self) -> list[nn.Module]:
        return [self.head]

    @torch.no_grad()
    def score(self, images, batch_size=16, progress=None):
        return [Score(float(self.head(self.towers[0](torch.ones(1, 3, 16, 16))))) for _ in images]


class Sleeper(Constant):
    def __init__(self, seconds: float, name: str) -> None:
        super().__init__()
        self.seconds, self.name = seconds, name

    def value(self, path: str) -> float:
        time.sleep(self.seconds)
        return 3.0


class Failing(Constant):
    def score(self, images, batch_size=16, progress=None):
        return [Score(None, error="too small") for _ in images]


@pytest.fixture
def images(photo_folder) -> list[tuple[str, str]]:
    return [(str(p), "") for p in photo_folder(3)]


def test_parameters_that_took_part_are_counted_wherever_they_hide(images):
    count = used(Hiding(), images[0])
    conv, attention, head = 8 * 3 * 16, 3 * 8 * 8 + 3 * 8 + 8 * 8 + 8, 8 + 1
    assert count.parameters == conv + attention + head  # not the 100,100 of the text tower
    assert count.loaded == head and not count.problem


def test_flops_of_a_known_network(images):
    class One(Hiding):
        @torch.no_grad()
        def score(self, images, batch_size=16, progress=None):
            return [Score(float(self.towers[0].conv(torch.ones(1, 3, 16, 16)).mean())) for _ in images]

    assert used(One(), images[0]).flops == 2 * (3 * 4 * 4) * 8 * (4 * 4)


def test_nothing_to_count_is_not_zero_flops(images):
    count = used(Sharpness(), images[0])
    assert (count.parameters, count.flops) == (0, None)
    failed = used(Failing(), images[0])
    assert failed.parameters is None and "too small" in failed.problem


def test_latency_ratio_and_throughput_of_known_sleeps(images):
    plan = CostPlan(against="x", images=6, warmup=1, batch_sizes=[1, 4], seconds=3)
    with loading("cpu") as load:
        slow = Sleeper(0.12, "slow")
    cost = measure(slow, images, plan, load, against=Sleeper(0.04, "fast"))
    assert Cost.model_validate(cost.model_dump()) == cost
    assert cost.latency.total.p50 >= 0.12 and cost.images >= 3
    assert cost.latency.decode and cost.latency.encode is None
    assert cost.ratio.to == "fast" and 1.5 < cost.ratio.median < 4
    assert set(cost.throughput) == {"1", "4"} and all(0 < v <= 1 / 0.12 for v in cost.throughput.values())
    assert cost.size == [64, 48] and cost.device == "cpu" and cost.threads >= 1
    assert cost.load_seconds >= 0 and (cost.peak_memory_mb is None or cost.peak_memory_mb >= 0)


def test_a_slow_scorer_does_not_take_the_whole_day(images):
    plan = CostPlan(against="", images=50, warmup=5, batch_sizes=[1, 16], seconds=0.05)
    with loading("cpu") as load:
        slow = Sleeper(0.05, "slow")
    cost = measure(slow, images, plan, load)
    assert cost.images == 3 and cost.ratio is None
    assert "16" not in cost.throughput and "throughput at 16: not measured" in cost.notes[0]


def test_stages_of_our_own_model(images):
    scorer = load_model("rali-tiny-synthetic")
    plan = CostPlan(against="x", images=3, warmup=1, batch_sizes=[2], seconds=3)
    with loading("cpu") as load:
        pass
    cost = measure(scorer, images, plan, load, against=scorer)
    assert all(getattr(cost.latency, stage).p50 > 0 for stage in STAGES)
    assert 0 < cost.parameters.used <= cost.parameters.loaded and cost.flops > 1e6
    # the stages are what score() does
    value = images[0][0]
    for _, step in scorer.stages():
        value = step(value)
    assert float(value.score.mean()) == pytest.approx(scorer.score([images[0][0]])[0].score, abs=1e-5)


def test_memory_of_what_is_loaded_is_seen():
    from rali_zoo.bench.cost import _memory

    if _memory("cpu", "peak") is None:
        pytest.skip("this system does not tell how much memory a process uses")
    with loading("cpu") as load:
        # fresh pages from the system: an allocator may hand out memory that the process had all the while
        block = mmap.mmap(-1, 256 * 2**20)
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
    seen = _memory("cpu", "peak") - load.memory_before
    block.close()
    assert 200 * 2**20 < seen < 400 * 2**20


def test_energy_counters(tmp_path, monkeypatch):
    for zone, value in (
        ("intel-rapl:0", 5_000_000),
        ("intel-rapl:1", 2_500_000),
        ("intel-rapl:0:0", 9_000_000),
    ):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(f"{value}\n")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert energy.joules("cpu") == pytest.approx(7.5)  # the zone inside a package is part of it
    assert energy.source("cpu") == "RAPL, whole packages"
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "none")
    assert energy.joules("cpu") is None and energy.source("cpu") is None
