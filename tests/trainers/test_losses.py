import math

import pytest
import torch
from scipy.stats import norm, pearsonr
from torch.nn import functional as F

from rali_zoo.trainers.losses import (
    alike_scores,
    fidelity_loss,
    info_nce,
    plcc_loss,
    score_loss,
    within_groups,
)


def test_info_nce_equals_open_clip_when_texts_differ():
    from open_clip.loss import ClipLoss

    torch.manual_seed(0)
    image, text = F.normalize(torch.randn(6, 5), dim=-1), F.normalize(torch.randn(6, 5), dim=-1)
    ours = info_nce(image, text, torch.arange(6), 14.0)
    theirs = ClipLoss()(image, text, torch.tensor(14.0))
    torch.testing.assert_close(ours, theirs)


def test_equal_texts_are_not_negatives():
    image = F.normalize(torch.randn(4, 8), dim=-1)
    text = F.normalize(torch.randn(1, 8), dim=-1).expand(4, 8)
    same = info_nce(image, text, torch.zeros(4, dtype=torch.long), 10.0)
    # All images share one text: there is nothing to tell apart, so the loss is that of chance.
    rows = F.cross_entropy(10.0 * image @ text.T, torch.full((4, 4), 0.25))
    columns = F.cross_entropy(10.0 * text @ image.T, torch.full((4, 4), 0.25))
    torch.testing.assert_close(same, (rows + columns) / 2)


def test_near_scores_of_one_data_set_are_positives_in_part():
    mos, sets = torch.tensor([2.0, 2.5, 2.0, float("nan")]), ["a", "a", "b", "a"]
    alike = alike_scores(mos, sets, 0.5)
    near = norm.pdf(1) / norm.pdf(0)
    expected = torch.tensor([[1, near, 0, 0], [near, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(alike, expected.float())
    image, text = F.normalize(torch.randn(4, 5), dim=-1), F.normalize(torch.randn(4, 5), dim=-1)
    target = torch.maximum(expected.float(), torch.eye(4))
    target = target / target.sum(1, keepdim=True)
    rows, columns = (F.cross_entropy(x, target) for x in (9 * image @ text.T, 9 * text @ image.T))
    torch.testing.assert_close(info_nce(image, text, torch.arange(4), 9.0, alike), (rows + columns) / 2)
    # ever narrower, it is the loss without it
    plain, narrow = info_nce(image, text, torch.arange(4), 9.0), alike_scores(mos, sets, 1e-3)
    torch.testing.assert_close(info_nce(image, text, torch.arange(4), 9.0, narrow), plain)


def test_a_perfect_match_costs_nothing_beyond_its_duplicates():
    eye = torch.eye(4)
    assert info_nce(eye, eye, torch.arange(4), 100.0).item() == pytest.approx(0, abs=1e-6)
    # Two of four images share a text: the best a row can do is log 2 for each of the two.
    shared = eye[[0, 0, 1, 2]]
    assert info_nce(shared, shared, torch.tensor([0, 0, 1, 2]), 100.0).item() == pytest.approx(
        math.log(2) / 2, abs=1e-6
    )


def test_plcc_loss_against_scipy_and_constants():
    torch.manual_seed(0)
    p, m = torch.randn(50), torch.randn(50)
    assert plcc_loss(p, m).item() == pytest.approx((1 - pearsonr(p, m)[0]) / 2, abs=1e-5)
    constant = torch.full((5,), 3.0, requires_grad=True)
    loss = plcc_loss(constant, torch.arange(5.0))
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert torch.isfinite(constant.grad).all()


def test_fidelity_by_hand():
    pred, mos, std = torch.tensor([3.0, 2.0]), torch.tensor([4.0, 3.5]), torch.tensor([0.3, 0.4])
    p, q = norm.cdf(1 / math.sqrt(2)), norm.cdf(0.5 / 0.5)
    expected = 1 - math.sqrt(p * q) - math.sqrt((1 - p) * (1 - q))
    assert fidelity_loss(pred, mos, std).item() == pytest.approx(expected, abs=1e-4)
    unknown = torch.full((2,), float("nan"))
    assert fidelity_loss(pred, mos, unknown).item() == pytest.approx(1 - math.sqrt(p), abs=2e-3)
    assert fidelity_loss(pred[:1], mos[:1]).item() == 0.0


def test_ranking_never_crosses_data_sets():
    pred = torch.tensor([1.0, 2.0, 5.0, 4.0], requires_grad=True)
    mos = torch.tensor([1.0, 2.0, 1.0, 2.0])
    std = torch.full((4,), float("nan"))
    value = score_loss(pred, mos, std, ["a", "a", "b", "b"], "mse", (0.0, 0.0, 1.0))
    by_hand = (fidelity_loss(pred[:2], mos[:2]) + fidelity_loss(pred[2:], mos[2:])) / 2
    torch.testing.assert_close(value, by_hand)
    assert within_groups(["a", "b", "a"]) == [[0, 2]]


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_are_computed_in_full(half):
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(6, 8, generator=generator).to(half) for _ in range(2))
    ids, scale = torch.arange(6), torch.tensor(20.0)
    whole = info_nce(image.float(), text.float(), ids, scale)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = info_nce(image, text.float(), ids, scale)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, whole)
    pred, mos, std = (1 + 4 * torch.rand(6, generator=generator) for _ in range(3))
    pred = pred.to(half)
    sets, weights = ["a"] * 6, (1.0, 1.0, 1.0)
    for kind in ("mse", "mae", "huber"):
        value = score_loss(pred, mos, std, sets, kind, weights)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, score_loss(pred.float(), mos, std, sets, kind, weights))
