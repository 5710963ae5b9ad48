"""Samplers over several data sets joined end to end; each process of a DDP run takes its own share.

Both read the process group when they are iterated, give every process the same number of batches without
overlap, and draw the same order for the same (seed, epoch).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import distributed
from torch.utils.data import DistributedSampler, Sampler

from rali_zoo.data.dataset import Draw
from rali_zoo.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd


def place_of(num_replicas: int | None = None, rank: int | None = None) -> tuple[int, int]:
    """(number of processes, this one's index), from the process group where they are not given."""
    grouped = distributed.is_available() and distributed.is_initialized()
    world = num_replicas if num_replicas is not None else (distributed.get_world_size() if grouped else 1)
    index = rank if rank is not None else (distributed.get_rank() if grouped else 0)
    if not 0 <= index < world:
        raise ConfigError(f"rank {index} of {world} processes: ranks run from 0 to {world - 1}")
    return world, index


def _rows_by_dataset(dataset_ids: Sequence[Hashable]) -> list[np.ndarray]:
    """Row numbers of each data set, in order of first appearance."""
    rows: dict[Hashable, list[int]] = {}
    for row, name in enumerate(dataset_ids):
        rows.setdefault(name, []).append(row)
    if not rows:
        raise ConfigError("no images to sample from: dataset_ids is empty")
    return [np.array(members, dtype=np.int64) for members in rows.values()]


class BalancedSampler(DistributedSampler):
    """Draws equally often from every data set, whatever their sizes.

    A small set is gone through several times in an epoch, a large one over several epochs; each pass
    through a set visits every image once.

    It is a ``DistributedSampler`` by type only so that Lightning leaves it alone: wrapped in another one,
    each process would see a share of its share.

    Args:
        dataset_ids: (n,) the data set of each row.
        num_samples: draws an epoch over all processes, rounded down to a multiple of the number of data
            sets; n if ``None``.
        seed: of the order.
        num_replicas: number of processes; from the process group if ``None``.
        rank: index of this process; from the process group if ``None``.

    Raises:
        ConfigError: no rows, or fewer draws than data sets.
    """

    def __init__(
        self,
        dataset_ids: Sequence[Hashable],
        num_samples: int | None = None,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__(range(len(dataset_ids)), num_replicas=1, rank=0, seed=seed)  # type: ignore[arg-type]
        self._sets = _rows_by_dataset(dataset_ids)
        total = len(dataset_ids) if num_samples is None else num_samples
        self._each = total // len(self._sets)
        if self._each < 1:
            raise ConfigError(
                f"num_samples={total} for {len(self._sets)} data sets: draw at least one of each"
            )
        self._given = num_replicas, rank

    def _stream(self, index: int, start: int, stop: int) -> np.ndarray:
        """Draws ``start`` to ``stop`` of one data set's endless series of shuffled passes."""
        rows = self._sets[index]
        passes = range(start // len(rows), (stop - 1) // len(rows) + 1)
        joined = np.concatenate(
            [np.random.default_rng([self.seed, index, p]).permutation(rows) for p in passes]
        )
        skip = passes.start * len(rows)
        return joined[start - skip : stop - skip]

    def __iter__(self) -> Iterator[int]:
        world, index = place_of(*self._given)
        start = self.epoch * self._each
        drawn = np.concatenate([self._stream(i, start, start + self._each) for i in range(len(self._sets))])
        order = np.random.default_rng([self.seed, self.epoch]).permutation(drawn)
        return iter(order[: len(order) // world * world][index::world].tolist())

    def __len__(self) -> int:
        world, _ = place_of(*self._given)
        return self._each * len(self._sets) // world


class SingleDatasetBatchSampler(Sampler[list[int]]):
    """Batches that each lie inside one data set, as ranking losses need: scales of two sets do not compare.

    Under DDP the batches that do not divide by the number of processes are left out, and so is a last batch of
    one image, which has nothing to be ranked with; with shuffling these are others in each epoch.

    Args:
        dataset_ids: (n,) the data set of each row.
        batch_size: images in a batch of one process.
        shuffle: whether rows and batches are drawn in a new order each epoch.
        seed: of that order.
        drop_last: leave out each data set's last batch when it is not full.
        num_replicas: number of processes; from the process group if ``None``.
        rank: index of this process; from the process group if ``None``.

    Raises:
        ConfigError: no rows, ``batch_size`` below 1, a data set of one image, or fewer batches than processes.
    """

    def __init__(
        self,
        dataset_ids: Sequence[Hashable],
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: a batch holds at least one image")
        self._sets = _rows_by_dataset(dataset_ids)
        self.batch_size, self.shuffle, self.seed, self.drop_last = batch_size, shuffle, seed, drop_last
        if batch_size > 1 and any(len(rows) == 1 for rows in self._sets):
            raise ConfigError(
                "a data set of one image has nothing to be ranked with; leave it out of data.train"
            )
        self.epoch = 0
        self._given = num_replicas, rank

    def set_epoch(self, epoch: int) -> None:
        """Choose the order that the next iteration draws."""
        self.epoch = epoch

    def _cuts(self, rows: np.ndarray) -> list[list[int]]:
        size = self.batch_size
        cuts = [rows[i : i + size].tolist() for i in range(0, len(rows), size)]
        least = size if self.drop_last else min(2, size)
        return [cut for cut in cuts if len(cut) >= least]

    def _share(self) -> tuple[int, int, int]:
        """(batches a process, processes, this one's index)."""
        world, index = place_of(*self._given)
        size = self.batch_size
        total = sum(len(self._cuts(rows)) for rows in self._sets)
        if total < world:
            raise ConfigError(
                f"{total} batches of {size} from data sets of {[len(s) for s in self._sets]} images do not "
                f"reach for {world} process(es); make batch_size smaller"
            )
        return total // world, world, index

    def __iter__(self) -> Iterator[list[int]]:
        each, world, index = self._share()
        rng = np.random.default_rng([self.seed, self.epoch])
        batches: list[list[int]] = []
        for rows in self._sets:
            batches += self._cuts(rng.permutation(rows) if self.shuffle else rows)
        if self.shuffle:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        return iter(batches[: each * world][index::world])

    def __len__(self) -> int:
        return self._share()[0]


class EpochBatches(DistributedSampler):
    """Batches of :class:`~rali_zoo.data.dataset.Draw`, which know their epoch, for a loader of whole batches.

    A ``DistributedSampler`` by type only, as :class:`BalancedSampler`: the order inside is sharded already.

    Args:
        order: of rows, or of batches.
        batch_size: images in a batch, where the order is of rows. A last batch of one image is left out, as
            batch normalisation cannot learn from it; with shuffling it waits for its turn.
        every: whether it is kept.
    """

    def __init__(
        self,
        order: DistributedSampler[int] | SingleDatasetBatchSampler,
        batch_size: int,
        every: bool = False,
    ) -> None:
        super().__init__(range(1), num_replicas=1, rank=0)  # type: ignore[arg-type]
        self.order, self.size = order, batch_size
        #: rows of a last batch that is left out
        self.dropped = 1 if batch_size > 1 and not every else 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the draws of the next iteration."""
        self.epoch = epoch
        self.order.set_epoch(epoch)

    def _rest(self) -> int:
        return len(self.order) % self.size if len(self.order) > self.size else 0

    def _batches(self) -> Iterator[list[int]]:
        if isinstance(self.order, SingleDatasetBatchSampler):
            yield from self.order
            return
        rows = list(self.order)
        if self.dropped and self._rest() == 1:
            rows.pop()
        yield from (rows[i : i + self.size] for i in range(0, len(rows), self.size))

    def __iter__(self) -> Iterator[list[Draw]]:  # type: ignore[override]
        seen: Counter[int] = Counter()
        for batch in self._batches():
            draws = []
            for row in batch:
                draws.append(Draw(row, self.epoch, seen[row]))
                seen[row] += 1
            yield draws

    def __len__(self) -> int:
        if isinstance(self.order, SingleDatasetBatchSampler):
            return len(self.order)
        full, rest = divmod(len(self.order), self.size)
        return full + (rest > 0) - (self.dropped == 1 and self._rest() == 1)


class WithChains(DistributedSampler):
    """Batches of another sampler, each followed by a few chains of images whose order is known.

    A ``DistributedSampler`` by type only, as :class:`BalancedSampler`. A chain that is drawn depends on the seed,
    the epoch, the process and the number of the batch.

    Args:
        batches: of rated images.
        chains: row numbers of each chain, best image first.
        per_batch: chains that follow each batch.
        seed: of the draw.
    """

    def __init__(
        self, batches: EpochBatches, chains: Sequence[Sequence[int]], per_batch: int, seed: int = 0
    ) -> None:
        super().__init__(range(1), num_replicas=1, rank=0, seed=seed)  # type: ignore[arg-type]
        self.batches, self.chains, self.per_batch = batches, chains, per_batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the draws of the next iteration."""
        self.epoch = epoch
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[Draw]]:  # type: ignore[override]
        rng = np.random.default_rng([self.seed, self.epoch, place_of()[1]])
        for number, batch in enumerate(self.batches):
            drawn = rng.integers(len(self.chains), size=self.per_batch)
            visit = number * self.per_batch
            yield [draw._replace(chain=-1) for draw in batch] + [
                Draw(row, self.epoch, visit + k, k) for k, c in enumerate(drawn) for row in self.chains[c]
            ]

    def __len__(self) -> int:
        return len(self.batches)


def chains_of(frame: pd.DataFrame) -> list[list[int]]:
    """Row positions of each chain: one content under one distortion, its pristine image and then its levels.

    Args:
        frame: columns content, distortion and level; of a content, the first row of level 0 is pristine. A set
            without pristine images, such as KADID-10k's distorted ones, has chains of its levels alone.
    """
    chains: dict[tuple[str, str], list[tuple[int, int]]] = {}
    pristine: dict[str, int] = {}
    columns = (frame[c].tolist() for c in ("content", "distortion", "level"))
    for row, (content, kind, level) in enumerate(zip(*columns, strict=True)):
        if int(level) == 0:
            pristine.setdefault(str(content), row)
        elif str(kind) and str(content):
            chains.setdefault((str(content), str(kind)), []).append((int(level), row))
    found = []
    for (content, _), members in chains.items():
        best = [pristine[content]] if content in pristine else []
        by_level = dict(sorted(members, reverse=True))  # of equal levels, which have no order, one
        found.append(best + [by_level[level] for level in sorted(by_level)])
    return [chain for chain in found if len(chain) > 1]
