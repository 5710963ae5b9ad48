"""The reasoner under FSDP2: two processes that hold half the weights each do what one process does."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

SCRIPT = """
import json, sys
import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.tensor import DTensor
from rali_zoo.data import IQADataModule
from rali_zoo.trainers import Reasoner
from rali_zoo.rl.grpo import Sampling
from rali_zoo.trainers.reasoner import Schedule
from rali_zoo.vlm.tuning import Tuning
from rali_zoo.rl.objective import Objective

ref, texts, processes = sys.argv[1:]
processes = int(processes)


class Same(Reasoner):
    # every process computes on the same images with the same random numbers, so that the mean of their
    # gradients is that of one process
    global_rank = property(lambda self: 0)


class SameData(IQADataModule):
    def _sharded(self, dataset, shuffle):
        self.trainer, trainer = None, self.trainer
        try:
            return super()._sharded(dataset, shuffle)
        finally:
            self.trainer = trainer


class Losses(L.Callback):
    def __init__(self):
        self.values, self.sharded = [], None

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(float(trainer.callback_metrics["train/loss"]))
        shares = [isinstance(p, DTensor) and p.to_local().numel() < p.numel() for p in module.parameters()]
        self.sharded = sum(shares) / len(shares)


def fit(objective, method, start=None):
    L.seed_everything(0)
    module = Same(
        "rali:vlm-tiny?image_size=40&width=32&layers=2&grid=2", objective,
        rewards={"format": 1, "length_guard": 1},
        schedule=Schedule(lr=1e-2), sampling=Sampling(rollouts=4),
        tuning=Tuning(method=method, rank=4, freeze_vision=False),
        grpo=Objective(beta=0.01, max_completion_length=6),
    )
    if objective == "grpo":
        roll_out = module.reinforcement.roll_out
        def watched(questions, prompts, seed):
            done = roll_out(questions, prompts, seed)
            # without that all rewards of so young a model are equal and nothing is learned
            return done._replace(advantages=done.advantages + (done.completions.ids[:, 0] % 2).float())
        module.reinforcement.roll_out = watched
    strategy = "auto"
    if processes > 1:
        strategy = ModelParallelStrategy(processes, 1, save_distributed_checkpoint=False)
    losses = Losses()
    name = f"{objective}-{method}-{processes}"
    each = ModelCheckpoint(".", filename=name + "-{epoch}", save_top_k=-1)
    loop = L.Trainer(
        max_epochs=2, limit_train_batches=2, accelerator="cpu", devices=processes, strategy=strategy,
        logger=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        use_distributed_sampler=False, callbacks=[losses] if start else [losses, each],
        enable_checkpointing=not start,
    )
    data = SameData(train=ref, batch_size=4, descriptions=texts)
    loop.fit(module, data, ckpt_path=start, weights_only=False if start else None)
    if start:
        loop.save_checkpoint(name + "-resumed.ckpt")
    return name, losses


result = {}
for objective in ("sft", "grpo"):
    for method in ("full", "lora"):
        name, losses = fit(objective, method)
        _, resumed = fit(objective, method, name + "-epoch=0.ckpt")
        result[f"{objective}-{method}"] = [losses.values, resumed.values, losses.sharded]
if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
    print("RESULT" + json.dumps(result))
"""


def run(folder, *words) -> dict:
    done = subprocess.run(
        [sys.executable, str(folder / "run.py"), *map(str, words)], capture_output=True, timeout=900,
        cwd=folder, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return json.loads(done.stdout.decode().partition("RESULT")[2].splitlines()[0])


@pytest.mark.slow
def test_two_processes_do_what_one_does(blurred, texts, tmp_path):
    """Losses of four steps, and the weights after them; a checkpoint of two goes on as it would have."""
    (tmp_path / "run.py").write_text(SCRIPT)
    alone, spread = run(tmp_path, blurred, texts, 1), run(tmp_path, blurred, texts, 2)
    for name, (losses, resumed, sharded) in alone.items():
        assert len(set(losses)) == 4 and resumed == pytest.approx(losses[2:]) and sharded == 0
        both, again, sharded = spread[name]
        assert sharded > 0.9, "the weights are not spread"
        assert both == pytest.approx(losses, rel=1e-4), name
        assert again == pytest.approx(losses[2:], rel=1e-4), name
        one, two, three = (
            torch.load(tmp_path / f"{name}-{end}.ckpt", weights_only=True)["state_dict"]
            for end in ("1-epoch=1", "2-epoch=1", "2-resumed")
        )
        assert all("lora" in key for key in one) == name.endswith("lora")
        assert one.keys() == two.keys() == three.keys()
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4, msg=f"{name} {key}")
            torch.testing.assert_close(three[key], value, rtol=1e-3, atol=1e-4, msg=f"{name} {key}")
