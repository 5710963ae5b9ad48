"""``rali-zoo trl``: our data and rewards through TRL's GRPOTrainer."""

from __future__ import annotations

from pathlib import Path

from rali_zoo.rl.rewards import Option
from rali_zoo.vlm.tuning import Tuning

#: A setting of TRL; whole numbers are tried first and stay whole.
Setting = int | float | str | bool


def command(
    vlm: str,
    train: list[str],
    output: Path,
    root: str = "data",
    limit: int | None = None,
    prompt: str = "score",
    degradation_prompt: str | None = None,
    degradation_share: float = 0.5,
    tuning: Tuning | None = None,
    rewards: dict[str, float] | None = None,
    reward_options: dict[str, Option | dict[str, Option]] | None = None,
    grpo: dict[str, Setting] | None = None,
    seed: int = 0,
) -> None:
    """Reinforce a vision-language model with TRL's GRPOTrainer on our data sets and rewards.

    Args:
        vlm: vision-language model: hf:ORG/REPO[@REV], hf:local-dir:FOLDER or rali:vlm-tiny.
        train: data sets, as for data.train of a fit.
        output: folder for TRL's checkpoints and, in OUTPUT/model, for the model (hf:local-dir:OUTPUT/model).
        root: folder that holds the data sets' folders.
        limit: use at most this many images of each data set.
        prompt: name of the question about the score.
        degradation_prompt: name of the question about the degradation; left out by default.
        degradation_share: probability that an image of known degradation is asked about that.
        tuning: which weights learn: the names of model.tuning of a Reasoner, such as method, rank.
        rewards: reward to weight; Q-Insight's by default.
        reward_options: reward to its own options, as for a Reasoner.
        grpo: settings of trl.GRPOConfig by their names there, such as beta, num_generations, max_steps.
        seed: of the questions and of TRL.
    """
    from rali_zoo.rl.trl import grpo_trainer, questions_table, save_trained, trl_settings

    settings = trl_settings({"seed": seed, **(grpo or {})}, output)
    from rali_zoo.data import IQADataModule
    from rali_zoo.rl.rewards import RewardSet
    from rali_zoo.vlm.model import load_vlm
    from rali_zoo.vlm.questions import Tasks, ask_rows
    from rali_zoo.vlm.tuning import prepare

    chosen = tuning or Tuning()
    reward_set = RewardSet(rewards, reward_options)
    data = IQADataModule(train=train, root=root, limit=limit, seed=seed)
    tasks = Tasks(prompt, degradation_prompt, degradation_share)
    rows, asked = ask_rows(tasks, {ref: data.rows(ref, "train") for ref in data.train_refs}, seed)
    policy = prepare(load_vlm(vlm, True, chosen.precision), chosen)
    words = tasks.degradation.vocabulary if tasks.degradation else "q-insight"
    trainer = grpo_trainer(policy, reward_set, questions_table(rows, asked), settings, words)
    trainer.train()
    save_trained(trainer, policy, output / "model")
    if trainer.accelerator.is_main_process:
        print(f"written: {output / 'model'}; use it as hf:local-dir:{output / 'model'}")
