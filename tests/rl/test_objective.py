"""The loss against TRL's own trainer code on the same model, and against formulas written out."""

from collections import defaultdict
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from rali_zoo.errors import ConfigError
from rali_zoo.rl.objective import (
    ImportanceLevel,
    LossType,
    Objective,
    PolicyLoss,
    group_advantages,
    k3_kl,
    policy_loss,
)
from rali_zoo.vlm.generation import token_logps

NAN = float("nan")
TEMPERATURE, MAX_LENGTH, VOCABULARY = 0.7, 12, 29


class Case(NamedTuple):
    """A micro-batch of 4 completions with padding on both sides, as TRL's loss wants it."""

    model: torch.nn.Module
    inputs: dict[str, Tensor]


@pytest.fixture(scope="module")
def case() -> Case:
    pytest.importorskip("trl")
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).double()
    torch.nn.init.normal_(
        model.lm_head.weight, std=0.7
    )  # far from uniform, so that ratios and KL are not tiny
    add_fused_lm_head(model, temperature=TEMPERATURE, outputs=("log_probs", "entropy"))
    mask = (torch.arange(9) < torch.tensor([[9], [4], [1], [6]])).long()
    inputs = {
        "prompt_ids": torch.randint(1, VOCABULARY, (4, 5)),
        "prompt_mask": (torch.arange(5) >= torch.tensor([[0], [2], [0], [1]])).long(),
        "completion_ids": torch.randint(1, VOCABULARY, (4, 9)) * mask,
        "completion_mask": mask,
        "advantages": torch.tensor([1.3, -0.7, -1.1, 0.4], dtype=torch.float64),
        "num_items_in_batch": torch.tensor(31.0),
    }
    with torch.no_grad():
        logps, _ = our_logps(model, inputs)
    noise = torch.Generator().manual_seed(1)
    for name in ("old_per_token_logps", "ref_per_token_logps"):
        inputs[name] = (logps + 0.35 * torch.randn(logps.shape, generator=noise)).double()
    return Case(model, inputs)


def our_logps(model: torch.nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    width = inputs["completion_ids"].shape[1]
    logits = model(input_ids=ids, attention_mask=attention).logits[:, -width - 1 : -1]
    return token_logps(logits, inputs["completion_ids"], inputs["completion_mask"], TEMPERATURE)


def trl_loss(case: Case, objective: Objective, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """TRL's own ``_compute_loss`` on a trainer that was never constructed (that needs data and a hub)."""
    from accelerate import Accelerator
    from trl import GRPOTrainer

    trainer = object.__new__(GRPOTrainer)
    trainer.__dict__.update(
        accelerator=Accelerator(cpu=True), model=case.model.train(), beta=objective.beta,
        loss_type=objective.loss, importance_sampling_level=objective.importance_level,
        epsilon_low=objective.epsilon_low, epsilon_high=objective.epsilon_high,
        max_completion_length=objective.max_completion_length, aux_loss_enabled=False,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False,
        current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        args=SimpleNamespace(
            use_bias_correction_kl=objective.kl_bias_correction, delta=None, steps_per_generation=1
        ),
    )  # fmt: skip
    loss = GRPOTrainer._compute_loss(trainer, case.model, inputs)
    return loss, {name: values[0] for name, values in trainer._metrics["train"].items()}


def our_loss(case: Case, objective: Objective, inputs: dict[str, Tensor]) -> tuple[PolicyLoss, Tensor]:
    logps, entropy = our_logps(case.model, inputs)
    loss = policy_loss(
        objective, logps, inputs["advantages"], inputs["completion_mask"],
        inputs.get("old_per_token_logps"),
        inputs["ref_per_token_logps"] if objective.beta else None, inputs["num_items_in_batch"],
    )  # fmt: skip
    return loss, entropy


def gradients(model: torch.nn.Module, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("on_policy", [False, True], ids=["old", "on-policy"])
@pytest.mark.parametrize(("beta", "correct"), [(0.0, False), (0.04, False), (0.04, True)])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dr_grpo", "dapo"])
def test_loss_and_gradient_are_trls(
    case: Case, loss: LossType, level: ImportanceLevel, beta: float, correct: bool, on_policy: bool
) -> None:
    objective = Objective(loss, level, "group", 0.1, 0.2, beta, correct, MAX_LENGTH)
    inputs = {k: v for k, v in case.inputs.items() if not (on_policy and k == "old_per_token_logps")}
    theirs, metrics = trl_loss(case, objective, inputs)
    their_gradient = gradients(case.model, theirs)
    ours, entropy = our_loss(case, objective, inputs)
    our_gradient = gradients(case.model, ours.loss)

    assert ours.loss.item() == pytest.approx(theirs.item(), rel=1e-5, abs=1e-7)
    assert torch.allclose(our_gradient, their_gradient, rtol=1e-4, atol=1e-7)
    assert their_gradient.abs().max() > 1e-3
    mask = inputs["completion_mask"]
    assert (entropy.sum() / mask.sum()).item() == pytest.approx(metrics["entropy"], rel=1e-5)
    assert ours.clip_low.item() == pytest.approx(metrics["clip_ratio/low_mean"])
    assert ours.clip_high.item() == pytest.approx(metrics["clip_ratio/high_mean"])
    if on_policy:
        assert ours.ratio.item() == 1 and ours.clip_low == ours.clip_high == 0
    if beta and not correct:
        assert ours.kl.item() == pytest.approx(metrics["kl"], rel=1e-5)
    assert ours.kl.isnan() == (beta == 0)


def test_both_clips_act_in_the_comparison(case: Case) -> None:
    stats, _ = our_loss(case, Objective(epsilon_low=0.1, epsilon_high=0.2), case.inputs)
    assert stats.clip_low > 0 and stats.clip_high > 0


def test_log_probabilities_are_those_of_the_suppressed_and_tempered_softmax() -> None:
    torch.manual_seed(0)
    logits, tokens = torch.randn(3, 5, 11) * 4, torch.randint(3, 11, (3, 5))
    mask = torch.ones(3, 5)
    allowed = logits[..., 3:].double() / 0.6
    expected = allowed.log_softmax(-1)
    logps, entropy = token_logps(logits, tokens, mask, 0.6, suppressed=(0, 1, 2))
    picked = expected.gather(-1, (tokens - 3)[..., None]).squeeze(-1)
    assert torch.allclose(logps.double(), picked, atol=1e-5)
    assert torch.allclose(
        entropy.double(), torch.distributions.Categorical(logits=allowed).entropy(), atol=1e-5
    )


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tokens, mask = torch.randint(0, 11, (3, 5)), torch.rand(3, 5) > 0.3
    base = torch.randn(3, 5, 11)
    results = []
    for elements in (2**25, 22):  # all at once; two tokens at a time
        monkeypatch.setattr("rali_zoo.vlm.generation._CHUNK_ELEMENTS", elements)
        logits = base.clone().requires_grad_()
        logps, entropy = token_logps(logits, tokens, mask)
        (logps * torch.arange(15.0).view(3, 5)).sum().backward()
        results.append((logps.detach(), entropy, logits.grad))
    for whole, parts in zip(*results, strict=True):
        assert torch.equal(whole, parts)


def test_a_suppressed_token_that_was_sampled_is_an_error_and_padding_is_not() -> None:
    logits, tokens = torch.zeros(1, 3, 5), torch.tensor([[1, 2, 0]])
    logps, entropy = token_logps(logits, tokens, torch.tensor([[1, 1, 0]]), suppressed=[0])
    assert logps[0, 2] == 0 and entropy[0, 2] == 0
    assert logps[0, 0].item() == pytest.approx(-torch.tensor(4.0).log().item())
    with pytest.raises(ConfigError, match=r"\[0\] were sampled"):
        token_logps(logits, tokens, torch.ones(1, 3), suppressed=[0])
    with pytest.raises(ConfigError, match="temperature"):
        token_logps(logits, tokens, torch.ones(1, 3), temperature=0)


def test_bfloat16_extremes_give_finite_loss_and_gradient() -> None:
    """Huge logits, a suppressed pad token under the mask, a policy that ran away, and an empty completion."""
    torch.manual_seed(0)
    logits = (torch.randn(3, 4, 50, dtype=torch.bfloat16) * 300).requires_grad_()
    tokens = torch.randint(1, 50, (3, 4))
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    tokens[mask == 0] = 0
    for level in ("token", "sequence"):
        for loss in ("grpo", "bnpo", "dr_grpo", "dapo"):
            logits.grad = None
            logps, entropy = token_logps(logits, tokens, mask, suppressed=[0])
            assert logps.dtype == entropy.dtype == torch.float32
            old, ref = torch.full((3, 4), -1e-3), torch.full((3, 4), float("-inf"))
            ref[:2, :3] = -400.0
            stats = policy_loss(
                Objective(loss=loss, importance_level=level, beta=0.1),  # type: ignore[arg-type]
                logps, torch.tensor([1.0, -1.0, 1.0]), mask, old, ref,
            )  # fmt: skip
            stats.loss.backward()
            assert logits.grad is not None and logits.grad.isfinite().all()
            assert all(value.isfinite() for value in stats)
            assert (logits.grad[2] == 0).all() and (logits.grad[..., 0] == 0).all()


def test_bfloat16_logits_agree_with_float32() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 6, 40).bfloat16()
    tokens, mask = torch.randint(0, 40, (2, 6)), torch.ones(2, 6)
    assert torch.equal(token_logps(logits, tokens, mask)[0], token_logps(logits.float(), tokens, mask)[0])


def test_dr_grpo_and_dapo_divisors_by_hand() -> None:
    logps, mask = torch.full((2, 3), -1.0), torch.tensor([[1, 1, 1], [1, 0, 0]])
    advantages = torch.tensor([1.0, -2.0])  # on-policy: each token's loss is -advantage

    def loss(kind: LossType, num_items: float | None = None) -> float:
        objective = Objective(loss=kind, beta=0, max_completion_length=10)
        return policy_loss(objective, logps, advantages, mask, num_items=num_items).loss.item()

    assert loss("grpo") == pytest.approx((-1 + 2) / 2)
    assert loss("bnpo") == loss("dapo") == pytest.approx((-3 + 2) / 4)
    assert loss("dr_grpo") == pytest.approx((-3 + 2) / 20)
    assert loss("dapo", 8) == pytest.approx((-3 + 2) / 8)


def test_k3_estimates_the_kl_and_is_never_negative() -> None:
    torch.manual_seed(0)
    policy, reference = torch.randn(20).log_softmax(0), torch.randn(20).log_softmax(0)
    estimate = k3_kl(policy, reference)
    assert (estimate >= 0).all()
    exact = (policy.exp() * (policy - reference)).sum()
    assert (policy.exp() * estimate).sum().item() == pytest.approx(exact.item(), rel=1e-5)


def test_advantages_by_group_batch_and_without_scale() -> None:
    rewards = torch.tensor([1.0, 2.0, 3.0, 5.0, 5.0, 5.0])
    groups = rewards.view(2, 3)
    centred = groups - groups.mean(1, keepdim=True)
    by_group = group_advantages(rewards, 3)
    assert torch.allclose(by_group.values.view(2, 3), centred / (groups.std(1, keepdim=True) + 1e-4))
    assert by_group.zero_variance == 0.5
    batch = group_advantages(rewards, 3, "batch").values
    assert torch.allclose(batch.view(2, 3), centred / (rewards.std() + 1e-4))
    assert torch.equal(group_advantages(rewards, 3, "none").values.view(2, 3), centred)


def test_ungraded_completions_stay_out_of_their_group() -> None:
    values, zero = group_advantages(torch.tensor([1.0, NAN, 3.0, NAN, NAN, 2.0, NAN, NAN, NAN]), 3)
    graded = torch.tensor([1.0, 3.0])
    expected = (graded - 2) / (graded.std() + 1e-4)
    assert torch.allclose(values[[0, 2]], expected) and (values[[1, 3, 4, 5, 6, 7, 8]] == 0).all()
    assert zero.item() == pytest.approx(2 / 3)  # a lone value and no value teach as little as equal ones


def test_settings_that_cannot_work_are_refused() -> None:
    for size in (1, 4):
        with pytest.raises(ConfigError, match="at least 2"):
            group_advantages(torch.zeros(6), size)
    for bad in ({"epsilon_low": 1.5}, {"epsilon_high": -0.1}, {"beta": -1.0}, {"max_completion_length": 0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            Objective(**bad)
    with pytest.raises(ConfigError, match="reference"):
        policy_loss(Objective(beta=0.1), torch.zeros(1, 1), torch.zeros(1), torch.ones(1, 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_of_padding_may_be_anything(value: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 7)
    logits[:, 2] = value
    logits.requires_grad_()
    tokens, mask = torch.randint(0, 7, (2, 3)), torch.tensor([[1, 1, 0], [1, 1, 0]])
    logps, entropy = token_logps(logits, tokens, mask)
    policy_loss(Objective(beta=0.0), logps, torch.tensor([1.0, -1.0]), mask).loss.backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and (logits.grad[:, 2] == 0).all()
    assert entropy.isfinite().all() and logits.grad[:, :2].abs().sum() > 0
