"""The torchmetrics classes: batches, ranks and dtypes make no difference to the number."""

import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from rali_zoo import metrics as plain
from rali_zoo.errors import UnknownNameError
from rali_zoo.metrics.lightning import Agreement, iqa_metrics
from rali_zoo.report import STATISTICS


def _data(n=57):
    generator = torch.Generator().manual_seed(0)
    mos = torch.randint(10, 51, (n,), generator=generator) / 10
    return (mos + torch.randn(n, generator=generator)).round(decimals=1), mos  # with ties


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("size", [1, 8, 57])
def test_batches_add_up(name, size):
    preds, mos = _data()
    metric = Agreement(name)
    for p, m in zip(preds.split(size), mos.split(size), strict=True):
        metric.update(p, m)
    value = metric.compute()
    assert value.dtype == torch.float64 and value.shape == ()
    assert value.item() == getattr(plain, name)(preds.double().numpy(), mos.double().numpy())


def test_equal_to_scipy_where_float32_only_sees_ties():
    preds = 1e9 + torch.arange(30, dtype=torch.float64) * 1e-3
    mos = torch.arange(30, dtype=torch.float64) % 11
    metric = Agreement("srcc")
    metric.update(preds, mos)
    assert metric.compute().item() == pytest.approx(stats.spearmanr(preds.numpy(), mos.numpy()).statistic)


@pytest.mark.parametrize("name", ["srcc", "plcc", "plcc_mapped", "krcc"])
def test_constant_predictions_are_nan_with_the_reason(name):
    metric = Agreement(name)
    metric.update(torch.full((8,), 3.0), torch.arange(8.0))
    with pytest.warns(UserWarning, match="all 8 predictions are 3"):
        assert metric.compute().isnan()


def test_without_a_batch():
    metric = Agreement("rmse")
    with pytest.warns(UserWarning):
        assert metric.compute().isnan()


def test_nan_and_mismatch_are_refused():
    with pytest.raises(ValueError, match="preds has a NaN"):
        Agreement("srcc").update(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="target has a NaN"):
        Agreement("srcc").update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, float("inf")]))
    with pytest.raises(ValueError, match="pair up"):
        Agreement("srcc").update(torch.ones(3), torch.ones(2))


def test_columns_bfloat16_and_gradients():
    preds, mos = _data()
    metric = Agreement("plcc")
    metric.update(preds.bfloat16()[:, None].requires_grad_(), mos[:, None])
    assert metric.compute().item() == plain.plcc(preds.bfloat16().double().numpy(), mos.double().numpy())
    assert not metric.compute().requires_grad


def test_an_unknown_name():
    with pytest.raises(UnknownNameError, match="Did you mean 'srcc'"):
        Agreement("scrc")
    assert not Agreement("mae").higher_is_better


def test_reset_and_pickle():
    preds, mos = _data()
    metric = Agreement("srcc")
    metric.update(preds, mos)
    copy = pickle.loads(pickle.dumps(metric))
    assert copy.compute() == metric.compute()
    metric.reset()
    metric.update(preds[:20], mos[:20])
    assert metric.compute().item() == plain.srcc(preds[:20].double().numpy(), mos[:20].double().numpy())


def test_the_collection():
    preds, mos = _data()
    collection = iqa_metrics("val/")
    for p, m in zip(preds.split(10), mos.split(10), strict=True):
        collection.update(p, m)
    values = collection.compute()
    assert list(values) == [f"val/{name}" for name in sorted(STATISTICS)]
    for name, value in values.items():
        f = getattr(plain, name.removeprefix("val/"))
        assert value.item() == f(preds.double().numpy(), mos.double().numpy())


def _rank(rank, store, results, shares):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", world_size=3, rank=rank)
    metric = Agreement("srcc")
    for preds, mos in shares[rank]:
        metric.update(torch.tensor(preds), torch.tensor(mos))
    results.put((rank, metric.compute().item()))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_gathered_across_processes_of_uneven_shares(tmp_path):
    """One rank has two batches, one a single image, one nothing at all."""
    preds, mos = (t.double().numpy() for t in _data())
    shares = [[(preds[:30], mos[:30]), (preds[30:56], mos[30:56])], [(preds[56:], mos[56:])], []]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_rank, args=(r, tmp_path / "store", results, shares)) for r in range(3)]
    for worker in workers:
        worker.start()
    values = dict(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(timeout=60)
    assert values == pytest.approx(dict.fromkeys(range(3), plain.srcc(preds, mos)), abs=1e-12)
    assert np.isfinite(values[0])
