"""Our data and rewards in the hands of TRL's ``GRPOTrainer``, for those who train with TRL.

TRL samples, steps and saves; from here come the images of our data sets with their questions, the rewards
of :mod:`rali_zoo.rl.rewards`, and the model. :func:`trl_settings` and :func:`grpo_trainer` alone need TRL itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rali_zoo.data.images import load_image
from rali_zoo.errors import ConfigError, MissingExtraError, UnknownNameError
from rali_zoo.rl.rewards import RewardSet, Rollouts
from rali_zoo.vlm.model import VLM, merged
from rali_zoo.vlm.prompts import Prompt

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

#: What rewards read of a data set.
COLUMNS = ("task", "dataset", "id", "mos", "distortion", "level")
_WORDS = {"true": True, "false": False}


def completion_text(completion: str | Sequence[Mapping[str, object]]) -> str:
    """The text of a completion as TRL passes it: a string, or messages of string or block content."""
    if isinstance(completion, str):
        return completion
    parts: list[str] = []
    for message in completion:
        content = message.get("content")
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        parts += [str(block.get("text", "")) for block in blocks if block.get("type") == "text"]
    return "".join(parts)


class TrlReward:
    """One reward of a set with TRL's signature; a class, so that it can be sent to worker processes."""

    def __init__(self, reward_set: RewardSet, name: str, limit: int | None, vocabulary: str) -> None:
        self.reward_set, self.name, self.limit, self.vocabulary = reward_set, name, limit, vocabulary
        self.__name__ = name  # TRL logs a reward under this name

    def __call__(
        self, completions: list[str] | list[list[dict[str, object]]], **columns: object
    ) -> list[float | None]:
        """One number a completion, ``None`` where the reward does not apply.

        The data set's :data:`COLUMNS` come by name, as far as the reward needs them; other columns are ignored.
        """
        known: dict[str, Any] = {name: columns.get(name) for name in COLUMNS}
        ids = columns.get("completion_ids")
        length = [len(i) for i in ids] if isinstance(ids, list) else None
        texts = [completion_text(c) for c in completions]
        rollouts = Rollouts(texts, length=length, limit=self.limit, vocabulary=self.vocabulary, **known)
        return [None if v != v else v for v in self.reward_set.grade(self.name, rollouts).tolist()]


def as_trl_rewards(
    reward_set: RewardSet, limit: int | None = None, vocabulary: str = "q-insight"
) -> list[TrlReward]:
    """For ``GRPOTrainer(reward_funcs=…)``, with ``reward_weights=list(reward_set.weights.values())``.

    Args:
        reward_set: what completions are worth.
        limit: ``max_completion_length`` of TRL, which ``length_guard`` needs.
        vocabulary: name of the classes that the questions about the degradation offer.
    """
    return [TrlReward(reward_set, name, limit, vocabulary) for name in reward_set.weights]


def questions_table(rows: pd.DataFrame, asked: Sequence[Prompt]) -> Dataset:
    """A data set as ``GRPOTrainer`` wants it.

    Args:
        rows: columns path, dataset, id, mos, distortion and level, one row an image.
        asked: the question about each.

    Returns:
        Columns ``prompt`` (a conversation, to which TRL adds the image in front of the question), ``image``
        (PIL, decoded when it is asked for), and what the rewards read.
    """
    from datasets import Dataset

    table = rows[["path", "dataset", "id", "mos", "distortion"]].reset_index(drop=True)
    table = table.assign(level=rows["level"].astype(str).to_list(), task=[q.task for q in asked])
    made = Dataset.from_dict({"prompt": [_conversation(q) for q in asked], **table.to_dict("list")})

    def with_image(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {
            **{name: values for name, values in batch.items() if name != "path"},
            "image": [load_image(path) for path in batch["path"]],
        }

    return made.with_transform(with_image)


def _conversation(asked: Prompt) -> list[dict[str, str]]:
    system = [{"role": "system", "content": asked.system}] if asked.system else []
    return [*system, {"role": "user", "content": asked.text()}]


def trl_settings(given: Mapping[str, object], output: Path) -> GRPOConfig:
    """TRL's settings.

    Args:
        given: names and values of ``trl.GRPOConfig``.
        output: where TRL writes.

    Raises:
        MissingExtraError: TRL is not installed.
        UnknownNameError: a name that ``GRPOConfig`` has not.
        ConfigError: settings that it refuses.
    """
    try:
        from trl import GRPOConfig
    except ImportError as error:
        raise MissingExtraError("trl", "reasoner") from error
    known = {f.name: f for f in fields(GRPOConfig) if f.name not in ("output_dir", "remove_unused_columns")}
    settings: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise UnknownNameError("setting of trl.GRPOConfig", name, known)
        # a command line writes booleans as words, and any word is true for TRL
        words = _WORDS if "bool" in str(known[name].type) else {}
        settings[name] = words.get(str(value).lower(), value)
    try:
        return GRPOConfig(output_dir=str(output), remove_unused_columns=False, **settings)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"trl.GRPOConfig refuses these settings: {error}") from error


def grpo_trainer(
    vlm: VLM, rewards: RewardSet, data: Dataset, settings: GRPOConfig, vocabulary: str = "q-insight"
) -> GRPOTrainer:
    """TRL's trainer over our parts.

    Args:
        vlm: the policy, frozen and adapted as it is to learn.
        rewards: what completions are worth.
        data: of :func:`questions_table`.
        settings: of :func:`trl_settings`; its ``reward_weights`` are those of ``rewards``.
        vocabulary: see :func:`as_trl_rewards`.
    """
    from trl import GRPOTrainer

    settings.reward_weights = list(rewards.weights.values())
    return GRPOTrainer(
        vlm.model,
        reward_funcs=list(as_trl_rewards(rewards, settings.max_completion_length, vocabulary)),
        args=settings,
        train_dataset=data,
        processing_class=vlm.processor,
    )


def save_trained(trainer: GRPOTrainer, vlm: VLM, folder: Path) -> None:
    """Write the trained model with its processor for ``hf:local-dir:FOLDER``; every process has to call it.

    An adapter is added to the weights. Weights that DeepSpeed or FSDP has sharded are collected by TRL.

    Args:
        trainer: of :func:`grpo_trainer`, after training.
        vlm: that was given to it.
        folder: where to.
    """
    if not hasattr(vlm.model, "merge_and_unload"):
        trainer.save_model(str(folder))
        if trainer.accelerator.is_main_process:
            vlm.processor.save_pretrained(folder)
    elif trainer.accelerator.is_main_process:
        merged(vlm).save(folder)
