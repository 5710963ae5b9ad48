"""Overlap, memory bounds, other people's scorers, and how a computation is set up."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import torch

import rali_zoo
from rali_zoo.data.images import load_image
from rali_zoo.data.sources import Item
from rali_zoo.errors import ConfigError
from rali_zoo.models.scorer import NetworkScorer, in_turn, overlapped
from rali_zoo.scoring import runtime
from rali_zoo.scoring.pipeline import make_stages, run, slices
from rali_zoo.types import Score


def test_slices_do_not_span_parts():
    parts = [(4, [Item(str(i)) for i in range(5)]), (7, [Item("x")])]
    assert [(s.part, s.start, len(s.items)) for s in slices(parts, 2)] == [
        (4, 0, 2),
        (4, 2, 2),
        (4, 4, 1),
        (7, 0, 1),
    ]


@pytest.mark.parametrize("workers,batch", [(1, 1), (2, 4), (5, 2), (3, 50)])
def test_order_is_kept_and_little_is_taken_ahead(workers, batch):
    taken, given = 0, 0

    def batches():
        nonlocal taken
        for start in range(0, 40, batch):
            taken = min(40, start + batch)
            yield list(range(start, taken))

    found = []
    for images, ready in overlapped(batches(), lambda x: -x, workers):
        assert ready == [-x for x in images]
        given += len(images)
        found += images
        assert taken - given <= max(2 * batch, workers + batch)
    assert found == list(range(40))


def test_the_next_batch_is_prepared_while_one_is_scored():
    """Whoever has a batch may wait for the next to be prepared: it does not wait for him."""
    prepared = {i: threading.Event() for i in range(10)}
    for (number,), _ in overlapped(([i] for i in prepared), lambda i: prepared[i].set(), 2):
        if number + 1 in prepared:
            assert prepared[number + 1].wait(60)


def test_a_failure_ends_the_run_and_the_threads():
    def prepare(x):
        if x == 3:
            raise RuntimeError("broken")
        return x

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="broken"):
        list(overlapped(([i] for i in range(10)), prepare, 2))
    assert threading.active_count() == before


def test_decoding_threads_leave_the_number_of_threads_alone():
    torch.set_num_threads(2)
    try:
        inside = set()
        for _ in overlapped([[1], [2]], lambda x: inside.add(torch.get_num_threads()), 2):
            assert torch.get_num_threads() == 2
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert inside == {1} and torch.get_num_threads() == 2 and later == [2]
    finally:
        torch.set_num_threads(1)


class Brightness:
    """Someone else's metric, which reads images for itself."""

    name, revision, training_sets = "brightness", "1", ()

    def score(self, images, batch_size=16, progress=None):
        values = [np.asarray(load_image(x)).mean() for x in images]
        return [Score(1 + 4 * float(v) / 255, path=f"[{i}]") for i, v in enumerate(values)]


def test_other_scorers_read_images_for_themselves(photo_folder):
    paths = photo_folder(3)
    items = [Item(str(paths[0])), Item("lost.jpg", error="lost"), Item(str(paths[1])), Item(str(paths[2]))]
    scores = [s for _, x in run(slices([(0, items)], 3), make_stages(Brightness()), 2) for s in x]
    assert [s.path for s in scores] == [i.path for i in items]
    assert scores[1].error == "lost" and all(1 < s.score < 5 for s in (scores[0], *scores[2:]))
    with pytest.raises(ConfigError, match="decodes images itself"):
        make_stages(Brightness(), "fast")


def test_fast_and_exact_scores_of_a_trained_model_agree(photo_folder):
    pytest.importorskip("simplejpeg", reason="the extra 'fast' is not installed")
    scorer = rali_zoo.load_model("rali-tiny-synthetic")
    items = [Item(str(p)) for p in photo_folder(6, height=300, width=400)]
    found = []
    for decode in ("exact", "fast"):
        found.append(
            [s.score for _, x in run(slices([(0, items)], 3), make_stages(scorer, decode), 2) for s in x]
        )
    assert found[0] == [s.score for s in scorer.score([i.path for i in items], batch_size=3)]
    assert np.abs(np.subtract(*found)).max() < 0.02


# ---- runtime --------------------------------------------------------------------------------------


def test_threads(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(runtime, "available_cores", lambda: 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.2, 0, 0))
    assert runtime.free_cores() == 8
    monkeypatch.setattr(os, "getloadavg", lambda: (5.1, 0, 0))
    assert runtime.free_cores() == 3
    monkeypatch.setattr(os, "getloadavg", lambda: (40.0, 0, 0))
    assert runtime.free_cores() == 1
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert runtime.set_threads(None, cpu) == before and runtime.set_threads(2, cpu) == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert runtime.set_threads(None, cpu) == 1 and runtime.set_threads(None, gpu) == 1
    finally:
        torch.set_num_threads(before)
    assert runtime.decode_workers(None, cpu) == 2 and runtime.decode_workers(None, gpu) == 8
    assert runtime.decode_workers(3, cpu) == 3


def test_cores_are_counted_once_each():
    assert 1 <= runtime.available_cores() <= (os.cpu_count() or 1)


def test_bfloat16_where_the_chip_has_it(model, monkeypatch, photo_folder):
    scorer = rali_zoo.load_model(model)
    monkeypatch.setattr(runtime, "has_bfloat16", lambda device: False)
    assert runtime.tune(scorer, "auto") == "float32" and scorer.autocast is None
    with pytest.raises(ConfigError, match="no bfloat16 of its own"):
        runtime.tune(scorer, "bfloat16")
    paths = photo_folder(2)
    exact = scorer.score(paths)
    monkeypatch.setattr(runtime, "has_bfloat16", lambda device: True)
    assert runtime.tune(scorer, "auto") == "bfloat16" and scorer.autocast is torch.bfloat16
    half = scorer.score(paths)
    assert all(a.score != b.score and abs(a.score - b.score) < 0.1 for a, b in zip(exact, half, strict=True))
    with pytest.raises(ConfigError, match="this machine has cpu"):
        runtime.check_device("cuda:77")


def test_a_gpu_user_is_told_of_bfloat16(model, monkeypatch):
    scorer = rali_zoo.load_model(model)
    assert runtime.advice(scorer, "float32") == ""
    monkeypatch.setattr(type(scorer.network), "device", torch.device("cuda"))
    for there in (True, False):
        monkeypatch.setattr(runtime, "has_bfloat16", lambda device: there)  # noqa: B023
        assert ("--precision auto" in runtime.advice(scorer, "float32")) == there
        assert runtime.advice(scorer, "auto") == ""


@pytest.mark.parametrize(
    "flags,there", [("fpu avx2", False), ("fpu avx512_bf16", True), ("amx_bf16 x", True)]
)
def test_the_processor_is_asked(monkeypatch, flags, there):
    monkeypatch.setattr(runtime, "_cpu_flags", lambda: set(flags.split()))
    assert runtime.has_bfloat16(torch.device("cpu")) is (there and torch.backends.mkldnn.is_available())


@pytest.mark.slow
def test_a_compiled_encoder_scores_the_same(model, photo_folder):
    paths = photo_folder(5)
    scorer = rali_zoo.load_model(model)
    exact = [s.score for s in scorer.score(paths, batch_size=2)]
    runtime.tune(scorer, compile="default")
    compiled = [s.score for s in scorer.score(paths, batch_size=2)]
    assert np.abs(np.subtract(exact, compiled)).max() < 1e-4


@pytest.mark.parametrize("ahead", [False, True])
def test_a_batch_is_fetched_after_the_next_has_begun(ahead):
    """Or at once, where the device does not compute on its own."""
    events = []

    def started():
        for i in range(3):
            events.append(f"begin {i}")
            yield i, lambda i=i: events.append(f"fetch {i}") or [i]

    assert list(in_turn(started(), ahead)) == [(0, [0]), (1, [1]), (2, [2])]
    plain = ["begin 0", "fetch 0", "begin 1", "fetch 1", "begin 2", "fetch 2"]
    assert events == (["begin 0", "begin 1", "fetch 0", "begin 2", "fetch 1", "fetch 2"] if ahead else plain)
    assert list(in_turn(iter(()), ahead)) == []


def test_convolutions_on_a_gpu_keep_all_digits_and_settings_of_others_stay(model, photo_folder):
    """In either of torch's two ways to set it; mixed, the older one cannot even be read."""
    from rali_zoo.models.scorer import _all_digits

    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    try:
        for allowed in (True, False):
            cudnn.allow_tf32 = allowed
            with _all_digits(torch.device("cuda")):
                assert not hasattr(cudnn, "conv") or cudnn.conv.fp32_precision == "ieee"
            assert cudnn.allow_tf32 is allowed
        if hasattr(cudnn, "conv"):
            cudnn.conv.fp32_precision = "tf32"  # and of RNNs not
            with _all_digits(torch.device("cuda")):
                assert cudnn.conv.fp32_precision == "ieee"
            assert cudnn.conv.fp32_precision == "tf32"
            assert rali_zoo.load_model(model).score(photo_folder(1))[0].score is not None
    finally:
        cudnn.allow_tf32 = before


def test_a_scorer_ahead_gives_the_same_scores(photo_folder, monkeypatch):
    """Errors, warnings and their order too."""
    paths = [*map(str, photo_folder(7)), "nowhere.png"]
    scorer = rali_zoo.load_model("rali-tiny-synthetic")
    expected = scorer.score(paths, batch_size=3)
    monkeypatch.setattr(NetworkScorer, "is_asynchronous", True)
    assert scorer.score(paths, batch_size=3) == expected
    found = run(slices([(0, [Item(p) for p in paths])], 3), make_stages(scorer), 2)
    assert [s for _, part in found for s in part] == expected
