"""What runs on a GPU: every config, every command with a device, the scores of the CPU. Skipped without one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from test_configs import CONFIGS, NAMES, TRL, command, trl_command
from vlm_families import build

import rali_zoo
from rali_zoo.cli.main import main

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
SETS = "synthetic:lab?n=60,synthetic:phone?n=60"
#: Shipped scorers that need no package of weights.
SHIPPED = ["rali-tiny-synthetic", "regression-tiny-synthetic", "reasoner-tiny-synthetic"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_config_runs(path, precision, tmp_path, photo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["--trainer.fast_dev_run=2", f"--trainer.precision={precision}"]
    words = command(path, tmp_path, photo, "--trainer.accelerator=gpu", "--trainer.devices=1", *short)
    assert main(words) == 0


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_config_runs_through_its_stages(path, tmp_path, photo, monkeypatch, capfd):
    """In its own precision; what it leaves is scored on the CPU and on the GPU."""
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(path.read_text())
    aligns = config["model"]["init_args"].get("align_epochs", 0)
    epochs = ["--trainer.max_epochs=3", "--trainer.limit_train_batches=3", "--trainer.max_steps=-1"]
    stages = ["--model.init_args.align_epochs=1"] if aligns else []
    words = ["--trainer.accelerator=gpu", "--trainer.devices=1", *epochs, *stages]
    code = main(command(path, tmp_path, photo, *words))
    if config["model"]["class_path"] in ("Reasoner", "RACT"):  # answers of random weights cannot be parsed
        assert code == 0 or "nothing was measured" in capfd.readouterr().err
    else:
        assert code == 0
    (last,) = tmp_path.glob("runs/*/checkpoints/last.ckpt")
    images = [photo(64, 64, seed=i) for i in range(3)]
    scores = [
        [one.score for one in rali_zoo.load_model(f"ckpt:{last}", device).score(images)]
        for device in ("cpu", "cuda")
    ]
    if config["model"]["class_path"] not in ("Reasoner", "RACT"):
        assert np.allclose(*scores, rtol=0, atol=2e-3)


@pytest.mark.parametrize("path", TRL, ids=[p.name for p in TRL])
def test_trl_config_runs(path, tmp_path, photo, monkeypatch):
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    given = {"grpo.use_cpu": "false", "grpo.max_steps": 2}
    assert main(trl_command(path, tmp_path, photo, **given)) == 0


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl", "llava"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_families_learn_and_score(kind, method, tmp_path, photo, monkeypatch, capfd):
    """As configs/reasoner/qinsight_qwen2_5_vl_7b.yaml says for one GPU."""
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    vlm = build(kind, tmp_path / kind)
    path = next(p for p in CONFIGS if p.name == "qinsight_qwen2_5_vl_7b.yaml")
    half = {"lora": ("bf16-true", "bfloat16"), "full": ("bf16-mixed", "float32")}[method]
    words = [
        "--trainer.accelerator=gpu", "--trainer.devices=1", "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=2", f"--trainer.precision={half[0]}",
        f"--model.init_args.tuning.method={method}", f"--model.init_args.tuning.precision={half[1]}",
        "--model.init_args.tuning.gradient_checkpointing=true", "--model.init_args.tuning.rank=2",
    ]  # fmt: skip
    made = [w for w in command(path, tmp_path, photo, *words) if not w.startswith("--model.init_args.vlm=")]
    code = main([*made, f"--model.init_args.vlm={vlm}"])
    assert code == 0 or "nothing was measured" in capfd.readouterr().err
    (last,) = tmp_path.glob("runs/*/checkpoints/last.ckpt")
    assert len(rali_zoo.load_model(f"ckpt:{last}", "cuda").score([photo(64, 64)])) == 1


@pytest.mark.parametrize("name", SHIPPED)
def test_scores_are_those_of_the_cpu(name, photo):
    images = [photo(128, 160, seed=i) for i in range(20)]
    here, there = (
        rali_zoo.load_model(name, device).score(images, batch_size=8) for device in ("cpu", "cuda")
    )
    pairs = [(a, b) for a, b in zip(here, there, strict=True) if a.text == b.text]
    assert len(pairs) >= 18  # of a text, one word can hang on the last digit
    assert np.allclose(*([x.score for x in side] for side in zip(*pairs, strict=True)), rtol=0, atol=2e-3)
    for a, b in pairs:
        assert len(a.explanation) == len(b.explanation)
        assert np.allclose([x[:2] for x in a.explanation], [x[:2] for x in b.explanation], atol=2e-3)


@pytest.mark.parametrize("decode", ["exact", "fast"])
@pytest.mark.parametrize("how", [(), ("--precision=auto",), ("--precision=auto", "--compile=default")])
def test_score_command(how, decode, tmp_path, photo_folder, photo):
    if decode == "fast":
        pytest.importorskip("simplejpeg")
    photo_folder(300)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no image")
    tables = []
    for device, words in (("cpu", ()), ("cuda", how)):
        table = tmp_path / f"{device}.parquet"
        given = [f"--output={table}", f"--device={device}", f"--decode={decode}", "--batch_size=32"]
        assert main(["score", str(tmp_path / "photos"), "--model=rali-tiny-synthetic", *given, *words]) == 0
        tables.append(pd.read_parquet(table))
    assert tables[0]["path"].equals(tables[1]["path"]) and tables[0]["error"].equals(tables[1]["error"])
    apart = (tables[0]["score"] - tables[1]["score"]).abs()
    assert apart.max() < (0.1 if how else 2e-3) and apart.notna().sum() == 300


def test_maps_attributes_and_videos(tmp_path, photo_folder, photo):
    paths = photo_folder(3, height=96, width=128)
    scorer = rali_zoo.load_model("rali-tiny-synthetic", "cuda")
    (mapped, *_) = scorer.score(str(paths[0]), maps=True)
    assert mapped.map is not None and np.isfinite(mapped.map).all()
    out = tmp_path / "a.csv"
    words = [f"--output={out}", "--device=cuda", "--attributes"]
    assert main(["score", *map(str, paths), "--model=rali-tiny-synthetic", *words]) == 0
    assert pd.read_csv(out)["sharpness"].notna().all()


def test_analyses(tmp_path):
    common = [f"--data=[{SETS}]", "--split=all", "--limit=12", "--resamples=20", "--batch_size=12"]
    words = ["--text_encoder=rali:hash", "--students=[rali-tiny-synthetic]", "--device=cuda"]
    assert main(["analyze", "all", *common, *words, f"--output={tmp_path}"]) == 0


def test_commands_with_a_device(tmp_path):
    data, device = "synthetic:lab?n=200", "--device=cuda"
    small, table = "--limit=20", tmp_path / "t.parquet"
    reasoner = "--model=reasoner-tiny-synthetic"
    assert (
        main(["describe", reasoner, f"--data={data}", small, device, f"--output={table}", "--seeds=2"]) == 0
    )
    assert len(pd.read_parquet(table)) == 40
    rali, regression = "rali-tiny-synthetic", "regression-tiny-synthetic"
    assert main(["uncertainty", f"--model={rali}", f"--data={data}", small, device]) == 0
    route = [f"--cheap={rali}", f"--expensive={regression}", f"--data={data}", small, device]
    assert main(["route", *route]) == 0
    scale = [f"--model={regression}", f"--output={tmp_path / 'c.json'}", device, "--least_plcc=0.01"]
    assert main(["calibrate", "synthetic:phone?n=100", *scale]) == 0


def test_benchmark_measures_cost(tmp_path):
    suite = tmp_path / "suite.yaml"
    models = "".join(f"  - {{ref: '{name}'}}\n" for name in SHIPPED[:2])
    suite.write_text(f"models:\n{models}datasets:\n  - {{ref: 'synthetic:lab?n=60'}}\nresamples: 20\n")
    output = tmp_path / "results"
    assert main(["benchmark", str(suite), f"--output={output}", "--devices=[cuda:0]"]) == 0
    costs = [json.loads(path.read_text()) for path in output.rglob("*.cost.json")]
    assert costs and all("cuda" in json.dumps(cost) for cost in costs)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "llava"])
def test_levels(kind, tmp_path, photo):
    ref = "levels:" + build(kind, tmp_path / kind)
    images = [photo(56, 56, seed=i) for i in range(3)]
    here, there = ([s.score for s in rali_zoo.load_model(ref, d).score(images)] for d in ("cpu", "cuda"))
    assert np.allclose(here, there, rtol=0, atol=2e-3) and all(map(math.isfinite, there))


def test_exports_of_a_model_on_the_gpu(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from rali_zoo.export.onnx import export_onnx

    export_onnx(rali_zoo.load_model("rali-tiny-synthetic", "cuda"), tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").stat().st_size > 1000


def test_a_run_resumes(tmp_path, monkeypatch):
    """What was saved on the GPU goes on there, and on the CPU."""
    monkeypatch.chdir(tmp_path)
    path = Path(__file__).parents[1] / "configs" / "quickstart" / "synthetic.yaml"
    words = ["fit", f"--config={path}", "--data.train=synthetic:lab?n=60&size=64", "--data.batch_size=8"]
    sets = ["--data.val=synthetic:lab?n=60&size=64", "--data.test=synthetic:lab?n=60&size=64"]
    size = ["--data.train_view.size=48", "--trainer.check_val_every_n_epoch=1"]
    for epochs, device in ((1, "gpu"), (2, "gpu"), (3, "cpu")):
        last = list(tmp_path.glob("one/checkpoints/last.ckpt"))
        again = [f"--ckpt_path={last[0]}"] if last else []
        given = ["--trainer.default_root_dir=one", f"--trainer.max_epochs={epochs}", *again]
        assert main([*words, *sets, *size, *given, f"--trainer.accelerator={device}"]) == 0
