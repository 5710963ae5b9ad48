"""What 0.1.0 saved of a reasoner still loads: as a scorer, and as the settings of a run that goes on."""

from __future__ import annotations

import pytest
import torch
from reasoner_toys import TINY, images

import rali_zoo
from rali_zoo.models.files import load_checkpoint
from rali_zoo.trainers import RACT, Reasoner

#: The hyperparameters of a reinforced reasoner, as 0.1.0 wrote them.
OLD = {
    "vlm": TINY, "objective": "grpo", "init_from": None, "vision_from": None, "prompt": "score-short",
    "degradation_prompt": "degradation-short", "degradation_share": 0.5, "answers": "text-and-score",
    "tuning": {"method": "lora", "rank": 2, "alpha": 32.0, "dropout": 0.0, "freeze_vision": True,
               "freeze_language": False, "gradient_checkpointing": False, "precision": "float32"},
    "schedule": None, "sampling": {"rollouts": 3, "temperature": 0.7, "updates": 1, "engine": "transformers",
                                   "vllm_memory": 0.3, "vllm_length": 4096},
    "grpo": {"loss": "grpo", "importance_level": "token", "scale_rewards": "group", "epsilon_low": 0.2,
             "epsilon_high": 0.2, "beta": 0.001, "kl_bias_correction": False, "max_completion_length": 9},
    "rewards": {"score_within": 1.0, "length_guard": 0.5},
    "reward_options": {"epsilon": 0.5, "sigma": 0.5, "gamma": 1e-6, "vocabulary": "synthetic", "max_length": 9,
                       "length_cache": 4},
    "limits": None, "window": 64, "scoring": None, "seed": 3,
}  # fmt: skip


@pytest.fixture
def old(tmp_path) -> tuple[str, Reasoner]:
    """A checkpoint as 0.1.0 wrote it, when the trainer was the network, and the trainer of its settings."""
    module = Reasoner(**OLD)
    state = {
        k.removeprefix("network."): v + 0.01 for k, v in module.state_dict().items() if k in module.learning
    }
    extra = module.network.extra_state()
    content = {
        "state_dict": state,
        "hyper_parameters": {**OLD, "_class_path": "rali_zoo.models.Reasoner"},
        "rali_zoo": {"class": "Reasoner", **extra},
    }
    torch.save(content, tmp_path / "old.ckpt")
    module.load_state_dict(state)
    return str(tmp_path / "old.ckpt"), module


def test_as_a_scorer(old):
    path, module = old
    network = load_checkpoint(path)
    assert network.limit == 9 and network.temperature == 0.7 and network.settings["adapter"]["rank"] == 2
    assert network.revision == module.network.revision
    assert network.eval().write(images()).texts == module.eval().network.write(images()).texts
    rali_zoo.load_model(f"ckpt:{path}")


def test_as_settings(old):
    _, module = old
    assert module.rewards.weights == OLD["rewards"] and module.monitor.window == 64
    within, guard = (module.rewards._rewards[name] for name in OLD["rewards"])
    assert within.epsilon == 0.5 and guard.cache == 4


def test_of_ract(tmp_path):
    module = RACT(TINY, max_completion_length=7)
    kept = dict(module.hparams)
    content = {
        "state_dict": {k.removeprefix("network."): v for k, v in module.state_dict().items()},
        "hyper_parameters": {**kept, "tuning": None, "scoring": None},
        "rali_zoo": {"class": "RACT", **module.network.extra_state()},
    }
    torch.save(content, tmp_path / "old.ckpt")
    network = load_checkpoint(str(tmp_path / "old.ckpt"))
    assert network.limit == 7 and network.revision == module.network.revision
