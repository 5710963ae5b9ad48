"""TRL's trainer on our data and rewards: what it is given, and two steps of it."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from PIL import Image

from rali_zoo.cli.main import main
from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.rl.rewards import RewardSet
from rali_zoo.rl.trl import questions_table, trl_settings
from rali_zoo.vlm.model import load_vlm
from rali_zoo.vlm.questions import Tasks, ask_rows

TINY = "rali:vlm-tiny?image_size=40&width=32&layers=1&grid=2"


@pytest.fixture
def rows(photo_folder) -> pd.DataFrame:
    files = photo_folder(4, height=40, width=40)
    return pd.DataFrame(
        {
            "id": [f.name for f in files], "path": [str(f) for f in files], "level": [3, 0, 0, 2],
            "mos": [1.0, 2.0, 3.0, float("nan")], "distortion": ["gaussian_blur", "", "", "jpeg"],
        }
    )  # fmt: skip


def test_questions_carry_what_the_rewards_read(rows):
    pytest.importorskip("datasets")
    tasks = Tasks("score", "degradation-synthetic", 1.0)
    table, asked = ask_rows(tasks, {"a": rows[:2], "b": rows[2:]}, 0)
    assert [q.task for q in asked] == ["degradation", "score", "score", "degradation"]
    made = questions_table(table, asked)
    first = made[0]
    assert isinstance(first["image"], Image.Image) and first["image"].size == (40, 40)
    assert [turn["role"] for turn in first["prompt"]] == ["system", "user"]
    assert first["prompt"][1]["content"] == tasks.degradation.text()
    assert (first["task"], first["dataset"], first["distortion"], first["level"]) == (
        "degradation", "a", "gaussian_blur", "3",
    )  # fmt: skip
    assert made[2]["dataset"] == "b" and made[2]["mos"] == 3.0 and "path" not in made[2]


def test_the_image_stands_before_the_question(rows):
    """What TRL makes of a row is what our own policy is asked."""
    trl = pytest.importorskip("trl.data_utils")
    tasks = Tasks("score", None, 0.0)
    table, asked = ask_rows(tasks, {"a": rows[:1]}, 0)
    row = questions_table(table, asked)[0]
    vlm = load_vlm(TINY)
    conversation = trl.prepare_multimodal_messages(row["prompt"], images=[row["image"]])
    theirs = vlm.processor.apply_chat_template(
        conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    pixels = torch.frombuffer(bytearray(row["image"].tobytes()), dtype=torch.uint8).view(40, 40, 3)
    ours = vlm.ask(pixels.permute(2, 0, 1)[None] / 255, asked)
    assert torch.equal(theirs["input_ids"], ours.inputs["input_ids"])
    torch.testing.assert_close(theirs["pixel_values"], ours.inputs["pixel_values"])


def test_settings_are_those_of_trl(tmp_path):
    pytest.importorskip("trl")
    plain = {"use_cpu": True, "bf16": "false", "num_generations": 2, "per_device_train_batch_size": 2}
    settings = trl_settings({**plain, "beta": 0.1}, tmp_path)
    assert settings.bf16 is False and settings.beta == 0.1 and settings.output_dir == str(tmp_path)
    with pytest.raises(UnknownNameError, match="Did you mean 'num_generations'"):
        trl_settings({"num_generation": 2}, tmp_path)
    with pytest.raises(ConfigError, match="refuses"):
        trl_settings({**plain, "save_strategy": "never"}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_steps_through_the_command_line(method, rows, tmp_path, monkeypatch):
    """The weights move, every reward is logged under its name, and the model is read back."""
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    grade = RewardSet.grade

    def graded(self, name, rollouts):
        # so young a model earns the same for all it writes, and would learn nothing
        odd = torch.tensor([float(len(text) % 2) for text in rollouts.texts])
        return grade(self, name, rollouts) + (odd if name == "format" else 0)

    monkeypatch.setattr(RewardSet, "grade", graded)
    table = rows[:3].assign(image=rows["id"][:3], split=["train", "train", "val"])
    folder = tmp_path / "photos"
    table[["image", "mos", "split"]].to_csv(folder / "s.csv", index=False)
    settings = {
        "vlm": TINY, "train": json.dumps([f"csv:{folder / 's.csv'}?mos_range=0,5"]), "output": "run",
        "prompt": "score-short", "tuning.method": method, "tuning.rank": 2,
        "rewards": '{"format": 0.5, "length_guard": 1.0}',
        "grpo.use_cpu": "true",
        "grpo.bf16": "false", "grpo.max_steps": 2, "grpo.num_generations": 4, "grpo.beta": 0.1,
        "grpo.per_device_train_batch_size": 4, "grpo.max_completion_length": 8,
        "grpo.learning_rate": 0.01, "grpo.gradient_checkpointing": "false", "grpo.report_to": "none",
        "grpo.logging_steps": 1, "grpo.save_steps": 2,
    }  # fmt: skip
    assert main(["trl", *(f"--{name}={value}" for name, value in settings.items())]) == 0
    state = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    logged = state["log_history"][0]
    assert {"rewards/format/mean", "rewards/length_guard/mean", "kl"} <= set(logged)
    trained, fresh = (load_vlm(ref).model.state_dict() for ref in ("hf:local-dir:run/model", TINY))
    assert trained.keys() == fresh.keys()
    moved = [name for name in fresh if not torch.equal(trained[name], fresh[name])]
    assert moved and not any("vision_tower" in name for name in moved)
