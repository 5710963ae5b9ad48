"""Samplers: equal shares, whole epochs, one data set a batch, and no overlap between processes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from rali_zoo.data.samplers import BalancedSampler, EpochBatches, SingleDatasetBatchSampler
from rali_zoo.errors import ConfigError

IDS = st.lists(st.sampled_from(["koniq10k", "kadid10k", "spaq"]), min_size=3, max_size=60)
PAIRS = IDS.map(lambda ids: ids + sorted(set(ids)))  # no data set of one image


@given(IDS, st.integers(3, 100), st.integers(0, 5), st.integers(0, 3))
def test_balanced_draws_are_equal(ids, num_samples, seed, epoch):
    sampler = BalancedSampler(ids, num_samples, seed)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    counts = Counter(ids[i] for i in drawn)
    assert len(drawn) == len(sampler) == num_samples // len(set(ids)) * len(set(ids))
    assert set(counts) == set(ids) and len(set(counts.values())) == 1
    again = BalancedSampler(ids, num_samples, seed)
    again.set_epoch(epoch)
    assert list(again) == drawn


@given(IDS, st.integers(0, 5))
def test_no_image_is_visited_twice_before_all_of_its_set_are(ids, seed):
    """Over any number of epochs the visits of two images of one set differ by one at most."""
    sampler, visits = BalancedSampler(ids, seed=seed), Counter()
    for epoch in range(5):
        sampler.set_epoch(epoch)
        visits.update(sampler)
        for name in set(ids):
            counts = [visits[i] for i, owner in enumerate(ids) if owner == name]
            assert max(counts) - min(counts) <= 1


@given(IDS, st.integers(0, 3), st.integers(1, 4))
def test_balanced_shares_of_processes(ids, epoch, world):
    whole = BalancedSampler(ids, 40)
    whole.set_epoch(epoch)
    shares = []
    for rank in range(world):
        sampler = BalancedSampler(ids, 40, num_replicas=world, rank=rank)
        sampler.set_epoch(epoch)
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1])
    assert len({len(s) for s in shares}) == 1
    # As multisets: a small set is drawn several times in an epoch.
    left_out = Counter(whole) - Counter(i for s in shares for i in s)
    assert sum(left_out.values()) == len(whole) % world


@given(PAIRS, st.integers(1, 9), st.booleans(), st.booleans(), st.integers(0, 3))
def test_batches_stay_in_one_set_and_cover_everything(ids, size, shuffle, drop_last, epoch):
    sampler = SingleDatasetBatchSampler(ids, size, shuffle, seed=1, drop_last=drop_last)
    sampler.set_epoch(epoch)
    full = sum(n // size for n in Counter(ids).values())
    if drop_last and not full:
        with pytest.raises(ConfigError, match="batch_size smaller"):
            list(sampler)
        return
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert all(len({ids[i] for i in b}) == 1 for b in batches)
    rows = [i for b in batches for i in b]
    assert len(rows) == len(set(rows))
    if drop_last:
        assert all(len(b) == size for b in batches) and len(batches) == full
    else:
        alone = sum(n % size == 1 for n in Counter(ids).values()) if size > 1 else 0
        assert len(rows) == len(ids) - alone and max(map(len, batches)) <= size
        assert size == 1 or min(map(len, batches)) > 1
    assert list(sampler) == batches


@given(PAIRS, st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))
def test_batches_of_processes_do_not_overlap(ids, size, world, epoch):
    def share(rank, world):
        sampler = SingleDatasetBatchSampler(ids, size, num_replicas=world, rank=rank)
        sampler.set_epoch(epoch)
        return [tuple(b) for b in sampler]

    everything = share(0, 1)
    if len(everything) < world:
        with pytest.raises(ConfigError, match="process"):
            share(0, world)
        return
    shares = [share(r, world) for r in range(world)]
    assert {len(s) for s in shares} == {len(everything) // world}
    joined = [b for s in shares for b in s]
    assert len(set(joined)) == len(joined) and set(joined) <= set(everything)


def test_epochs_differ_and_order_without_shuffle_does_not():
    ids = ["a"] * 30 + ["b"] * 10
    for sampler in (BalancedSampler(ids), SingleDatasetBatchSampler(ids, 4)):
        first = list(sampler)
        sampler.set_epoch(1)
        assert list(sampler) != first
    still = SingleDatasetBatchSampler(ids, 4, shuffle=False)
    first = list(still)
    still.set_epoch(1)
    assert list(still) == first and first[0] == [0, 1, 2, 3]


class Echo(Dataset):
    def __getitem__(self, draws):
        return draws


def test_lightning_sets_their_epoch_and_leaves_them_whole():
    from lightning.fabric.utilities.data import _set_sampler_epoch

    ids = ["a"] * 8 + ["b"] * 4
    for order in (BalancedSampler(ids), SingleDatasetBatchSampler(ids, 2)):
        loader = DataLoader(Echo(), batch_size=None, sampler=EpochBatches(order, 2))
        _set_sampler_epoch(loader, 7)
        batches = list(loader)
        assert len(batches) == len(loader) == 6 and all(
            draw.epoch == 7 for batch in batches for draw in batch
        )
        assert order.epoch == 7
        assert isinstance(loader.sampler, DistributedSampler)  # so that it is not wrapped in another one


@pytest.mark.parametrize(("rows", "size", "lengths"), [
    (20, 19, [19]), (20, 6, [6, 6, 6, 2]), (20, 64, [20]), (3, 1, [1, 1, 1]), (1, 4, [1]),
])  # fmt: skip
def test_a_last_batch_of_one_is_left_out(rows, size, lengths):
    order = DistributedSampler(range(rows), 1, 0)
    batches = EpochBatches(order, size)
    assert [len(b) for b in batches] == lengths and len(batches) == len(lengths)
    every = EpochBatches(order, size, every=True)
    assert sum(len(b) for b in every) == rows and len(every) == -(-rows // size)


def test_visits_of_one_image_in_an_epoch_are_counted():
    batches = EpochBatches(BalancedSampler(["a"] * 9 + ["b"] * 3), 4)
    draws = [draw for batch in batches for draw in batch]
    assert len(set(draws)) == len(draws) and {d.visit for d in draws if d.row >= 9} == {0, 1}


def test_settings_that_cannot_work():
    with pytest.raises(ConfigError, match="empty"):
        BalancedSampler([])
    with pytest.raises(ConfigError, match="at least one of each"):
        BalancedSampler(["a", "b"], num_samples=1)
    with pytest.raises(ConfigError, match="batch_size=0"):
        SingleDatasetBatchSampler(["a"], 0)
    with pytest.raises(ConfigError, match="nothing to be ranked with"):
        SingleDatasetBatchSampler(["a", "b", "b"], 2)
    with pytest.raises(ConfigError, match="ranks run from 0 to 1"):
        list(BalancedSampler(["a", "b"], num_replicas=2, rank=2))
