"""Our rewards as reward functions of TRL's ``GRPOTrainer``; TRL itself is not needed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rali_zoo.rl.rewards import RewardSet, Rollouts


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

    def __init__(self, reward_set: RewardSet, name: str) -> None:
        self.reward_set = reward_set
        self.name = name
        self.__name__ = name  # TRL logs a reward under this name

    def __call__(self, completions: list, **columns: object) -> list[float | None]:
        """One number a completion, ``None`` where the reward does not apply.

        The data set's columns ``task, dataset, id, mos, distortion, level`` come by name, as far as the
        reward needs them; other columns are ignored.
        """
        known = {k: columns.get(k) for k in ("task", "dataset", "id", "mos", "distortion", "level")}
        ids = columns.get("completion_ids")
        length = [len(i) for i in ids] if isinstance(ids, list) else None
        rollouts = Rollouts([completion_text(c) for c in completions], length=length, **known)  # type: ignore[arg-type]
        return [None if v != v else v for v in self.reward_set.grade(self.name, rollouts).tolist()]


def as_trl_rewards(reward_set: RewardSet) -> list[TrlReward]:
    """For ``GRPOTrainer(reward_funcs=…)``, with ``reward_weights=list(reward_set.weights.values())``."""
    return [TrlReward(reward_set, name) for name in reward_set.weights]
