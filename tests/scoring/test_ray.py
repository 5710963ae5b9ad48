"""The same table from Ray, also when workers are killed. Slow: starting Ray takes longer than scoring."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rali_zoo.cli.main import main
from rali_zoo.data.sources import Item
from rali_zoo.errors import ConfigError
from rali_zoo.scoring.pipeline import Slice
from rali_zoo.scoring.ray import WorkerModel, _Decoder, _fitting, _unpack, _Worker, run_ray


def test_images_survive_the_journey_exactly(model, photo_folder):
    """Packed and unpacked, rows are what the plain engine's threads hand to the model."""
    import json

    import torch

    import rali_zoo

    scorer = rali_zoo.load_model(model)
    paths = photo_folder(3)
    items = [Item(str(paths[0])), Item("gone.jpg"), Item(str(paths[1])), Item(paths[2].name)]
    row = {"part": 1, "start": 2, "items": json.dumps(items), "folder": str(paths[2].parent)}
    for decode in ("exact", "fast"):
        if decode == "fast":
            pytest.importorskip("simplejpeg")
        found = _unpack(_Decoder(scorer, decode)(row))
        assert "no such file" in str(found[1])
        for i, path in ((0, paths[0]), (2, paths[1]), (3, paths[2])):
            exact = scorer.prepare(path)
            assert found[i].dtype == torch.uint8 and found[i].shape == exact.shape
            assert torch.equal(found[i], exact) or decode == "fast"
    nothing = _unpack(_Decoder(scorer, "exact")({**row, "items": json.dumps([Item("gone.jpg")])}))
    assert len(nothing) == 1 and "no such file" in str(nothing[0])


def test_a_scorer_that_decodes_itself_is_refused():
    """Before anything of Ray is started."""

    class Foreign:
        name = "piq:brisque"

    with pytest.raises(ConfigError, match="piq:brisque decodes .* use --engine local, with --shard K/N"):
        run_ray([Slice(0, 0, [Item("a.jpg")])], Foreign(), WorkerModel("piq:brisque", "exact"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("actors", "on_gpu", "resources", "fits"),
    [
        (2, False, {"CPU": 3.0}, 2),
        (4, False, {"CPU": 3.0}, 2),  # the others follow as the cluster grows
        (4, True, {"CPU": 16.0, "GPU": 2.0}, 2),
        (4, True, {"CPU": 16.0}, 1),  # asked for, so that an autoscaler brings it
    ],
)
def test_actors_leave_a_cpu_to_decode(actors, on_gpu, resources, fits):
    assert _fitting(actors, on_gpu, resources) == fits


@pytest.mark.parametrize(("on_gpu", "resources"), [(False, {"CPU": 1.0}), (True, {"GPU": 8.0})])
def test_a_cluster_without_a_cpu_to_decode(on_gpu, resources):
    with pytest.raises(ConfigError, match="none to decode"):
        _fitting(1, on_gpu, resources)


def test_an_actor_finds_a_model_of_the_drivers_folder(model, tmp_path, monkeypatch):
    """Ray starts workers wherever it likes; what was typed is relative to where it was typed."""
    file = Path(model.removeprefix("local-dir:"))
    monkeypatch.chdir(tmp_path)
    worker = _Worker(WorkerModel(f"local-dir:{file.name}", "exact"), str(file.parent))
    assert Path.cwd() == tmp_path and worker.scorer.name == f"local-dir:{file.name}"


def run(folder, model, output, *more):
    words = ["score", str(folder), "--model", model, "--output", str(output), "--batch_size", "16", *more]
    assert main(words) == 0
    return pq.read_table(output)


def actors_at_work() -> list[int]:
    """Processes that hold a model, as Ray names them while they score."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            name = status.read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::") and b"_Worker" in name and b".submit" in name:
            found.append(int(status.parent.name))
    return found


def kill_one_actor(killed: list[int], stop: threading.Event) -> None:
    """Wait until two actors are at work, then kill one in the middle of it."""
    while not stop.wait(0.02):
        working = actors_at_work()
        if len(working) == 2:
            os.kill(working[0], signal.SIGKILL)
            killed.append(working[0])
            return


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found as Linux has them")
def test_two_actors_of_which_one_is_killed(tmp_path, many, model):
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    folder = many(tmp_path / "photos", 2000)
    plain = run(folder, model, tmp_path / "plain.parquet")
    killed: list[int] = []
    stop = threading.Event()
    thread = threading.Thread(target=kill_one_actor, args=(killed, stop))
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        thread.start()
        found = run(folder, model, tmp_path / "ray.parquet", "--engine", "ray", "--actors", "2")
    finally:
        stop.set()
        thread.join()
        ray.shutdown()
    assert killed
    assert found.equals(plain)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "plain.parquet", "ray.parquet"]
