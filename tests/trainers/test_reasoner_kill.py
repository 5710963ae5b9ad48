"""A fit that is killed goes on from its last checkpoint and ends where an undisturbed one ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import pytest
import torch
from reasoner_toys import TINY, data, trainer

from rali_zoo.trainers import Reasoner
from rali_zoo.trainers.checkpoint_io import AtomicCheckpointIO

EPOCHS = 25


def command(folder: Path, ref: str, texts: str, objective: str, *more: str) -> list[str]:
    settings = {
        "model": "Reasoner", "model.vlm": TINY, "model.objective": objective, "model.schedule.lr": "1e-2",
        "model.grpo.max_completion_length": "12", "model.sampling.rollouts": "3", "data.train": ref,
        "data.descriptions": texts, "data.batch_size": "8", "trainer.max_epochs": str(EPOCHS),
        "trainer.accelerator": "cpu", "trainer.devices": "1", "trainer.limit_train_batches": "2",
        "trainer.limit_val_batches": "1", "trainer.default_root_dir": str(folder),
        "trainer.enable_progress_bar": "false", "test_after_fit": "false",
        "model.rewards": '{"format": 1, "length_guard": 1}',
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "rali_zoo", "fit", *words, *more]


def run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, timeout=900)
    assert done.returncode == 0, done.stderr.decode()[-3000:]


def kill_after_first_checkpoint(words: list[str], checkpoint: Path) -> None:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 900
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(0.05)  # into the next epoch
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL, "it had ended before it could be killed"


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["sft", "grpo"])
def test_killed_fit_ends_where_an_undisturbed_one_ends(objective, blurred, texts, tmp_path):
    run(command(tmp_path / "whole", blurred, texts, objective))
    broken = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    words = command(tmp_path / "killed", blurred, texts, objective)
    kill_after_first_checkpoint(words, broken)
    state = torch.load(broken, weights_only=True)
    assert state["epoch"] < EPOCHS - 1, "killed too late to show anything"
    run([*words, f"--ckpt_path={broken}"])
    whole = torch.load(tmp_path / "whole" / "checkpoints" / "last.ckpt", weights_only=True)
    ended = torch.load(broken, weights_only=True)
    assert ended["epoch"] == whole["epoch"] == EPOCHS - 1
    assert ended["global_step"] == whole["global_step"] == 2 * EPOCHS
    moved = [k for k, v in whole["state_dict"].items() if not torch.equal(v, state["state_dict"][k])]
    assert moved, "nothing was learned after the kill"
    for name, value in whole["state_dict"].items():
        torch.testing.assert_close(ended["state_dict"][name], value, rtol=0, atol=0, msg=name)


def test_checkpoint_is_the_old_or_the_new_one(tmp_path, monkeypatch):
    """A save that is cut off leaves the checkpoint before it, and nothing beside it."""
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"epoch": 0}, path)
    save = torch.save

    def cut_off(what, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", cut_off)
    with pytest.raises(KeyboardInterrupt):
        io.save_checkpoint({"epoch": 1}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 0} and list(tmp_path.iterdir()) == [path]
    monkeypatch.setattr(torch, "save", save)
    io.save_checkpoint({"epoch": 1}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}


def test_a_trainer_writes_with_it_and_reads_back(blurred, texts, tmp_path):
    L.seed_everything(0)
    module = Reasoner(TINY)
    loop = trainer(tmp_path, max_steps=1, plugins=[AtomicCheckpointIO()])
    loop.fit(module, data(blurred, descriptions=texts))
    loop.save_checkpoint(tmp_path / "a.ckpt")
    again = trainer(tmp_path, max_steps=2, max_epochs=2)
    again.fit(
        Reasoner(TINY), data(blurred, descriptions=texts), ckpt_path=tmp_path / "a.ckpt", weights_only=False
    )
    assert again.global_step == 2
