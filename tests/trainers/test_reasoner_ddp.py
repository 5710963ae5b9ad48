"""The reasoner in two processes: they see different images and end with the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from reasoner_toys import images

import rali_zoo
from rali_zoo.models.files import read_checkpoint

SCRIPT = """
import json, sys
import lightning as L
import torch
from torch import distributed
from rali_zoo.data import IQADataModule
from rali_zoo.rl.grpo import Sampling
from rali_zoo.trainers import RACT, Reasoner
from rali_zoo.trainers.reasoner import Schedule
from rali_zoo.rl.objective import Objective
from rali_zoo.vlm.tuning import Tuning

ref, texts, kind, folder = sys.argv[1:]
tiny = "rali:vlm-tiny?image_size=40&width=32&layers=1&grid=2"
seen = []
if kind == "ract":
    module = RACT(tiny, schedule=Schedule(lr=1e-2), max_completion_length=6)
elif kind == "sft":
    tuning = Tuning(freeze_vision=False)
    module = Reasoner(tiny, tuning=tuning, schedule=Schedule(lr=1e-2), grpo=Objective(max_completion_length=6))
else:
    loss, updates = kind.split("-")
    module = Reasoner(
        tiny, "grpo", rewards={"format": 1, "length_guard": 1}, schedule=Schedule(lr=1e-2),
        sampling=Sampling(rollouts=3, updates=int(updates)), tuning=Tuning(freeze_vision=False),
        grpo=Objective(loss=loss, beta=0.01, max_completion_length=6),
    )
    roll_out = module.reinforcement.roll_out
    def watched(questions, prompts, seed):
        done = roll_out(questions, prompts, seed)
        seen.extend((q.id, text) for q, text in zip(questions, done.completions.texts[::3]))
        # one completion in six ends early: without that all rewards are equal and nothing is learned
        return done._replace(advantages=done.advantages + (done.completions.ids[:, 0] % 2).float())
    module.reinforcement.roll_out = watched
loop = L.Trainer(
    max_epochs=1, limit_train_batches=2, accelerator="cpu", devices=2, strategy="ddp", logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)
before = module.network.revision
loop.fit(module, IQADataModule(train=ref, batch_size=4, descriptions=texts))
loop.save_checkpoint(folder + "/last.ckpt")
state = {k: [v.double().sum().item(), v.double().square().sum().item()] for k, v in module.state_dict().items()}
image = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
written = module.eval().network.write(image).texts
everyone = [None, None]
mine = {"seen": seen, "revision": module.network.revision, "before": before, "state": state, "written": written}
distributed.all_gather_object(everyone, mine)
if loop.is_global_zero:
    print("RESULT" + json.dumps(everyone))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grpo-1", "dapo-2", "sft", "ract"])
def test_two_processes_end_with_the_same_model(kind, blurred, texts, tmp_path):
    """Every parameter and buffer; and one process that loads the checkpoint writes the same."""
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), blurred, texts, kind, str(tmp_path)], capture_output=True, timeout=300,
        cwd=tmp_path, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    first, second = json.loads(done.stdout.decode().partition("RESULT")[2].splitlines()[0])
    assert first["state"] == second["state"]
    assert first["revision"] == second["revision"] != first["before"] == second["before"]
    network = rali_zoo.load_model(f"ckpt:{tmp_path / 'last.ckpt'}").network
    assert network.revision == first["revision"]
    assert network.write(images()).texts == first["written"] == second["written"]
    if kind in ("grpo-1", "dapo-2"):
        ids = [{name for name, _ in part["seen"]} for part in (first, second)]
        assert len(ids[0]) == len(ids[1]) == 8 and not ids[0] & ids[1]
        assert {text for _, text in first["seen"]} != {text for _, text in second["seen"]}


@pytest.mark.slow
def test_the_command_line_trains_resumes_and_scores(photo_folder, tmp_path):
    """Supervised start and resumption through the real command line; the checkpoint is a scorer."""
    paths = photo_folder(20, tmp_path / "photos", 40, 40)
    split = ["train"] * 10 + ["val"] * 5 + ["test"] * 5
    frame = pd.DataFrame({"image": [p.name for p in paths], "mos": range(20), "split": split})
    frame.to_csv(tmp_path / "photos" / "s.csv", index=False)
    words = [
        *("fit", "--model=Reasoner", "--model.vlm=rali:vlm-tiny?image_size=40&width=32&layers=1&grid=2"),
        *("--model.tuning.method=lora", "--model.tuning.rank=2", "--model.grpo.max_completion_length=8"),
        *("--model.limits.entropy=0.1", "--data.train=csv:photos/s.csv?mos_range=0,20"),
        *("--data.descriptions=attributes", "--data.batch_size=5", "--trainer.accelerator=cpu"),
        *("--trainer.default_root_dir=run", "--trainer.enable_progress_bar=false"),
    ]
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    for more in (["--trainer.max_epochs=1"], ["--trainer.max_epochs=2", f"--ckpt_path={last}"]):
        done = subprocess.run(
            [sys.executable, "-m", "rali_zoo", *words, *more], cwd=tmp_path, capture_output=True, timeout=300
        )
        # eight tokens are no answer: the model is there, and that nothing could be measured is an error
        error = done.stderr.decode()
        assert done.returncode == 1 and "nothing was measured" in error, error[-3000:]
    result = json.loads((tmp_path / "run" / "results.json").read_text())["datasets"]
    (numbers,) = result.values()
    assert numbers["n"] + numbers["failed"] == 5
    network = rali_zoo.load_model(f"ckpt:{last}").network
    assert network.settings["adapter"]["rank"] == 2 and network.limit == 8 and network.training_sets
    kept = read_checkpoint(str(last))["hyper_parameters"]
    assert kept["tuning"]["method"] == "lora" and kept["limits"]["entropy"] == 0.1
