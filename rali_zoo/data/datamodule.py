"""One DataModule for every data set: references in, loaders out."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

import lightning as L
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from rali_zoo.data.card import one_question
from rali_zoo.data.checks import undecodable
from rali_zoo.data.dataset import Batches, ImageDataset, Texts, collate
from rali_zoo.data.features import cached_features, encoded_at_once
from rali_zoo.data.images import image_size
from rali_zoo.data.samplers import (
    BalancedSampler,
    EpochBatches,
    SingleDatasetBatchSampler,
    WithChains,
    chains_of,
)
from rali_zoo.data.streaming import Shards, ShardStream, is_stream
from rali_zoo.data.tables import DataTable, load_table
from rali_zoo.errors import ConfigError
from rali_zoo.protocols import FeatureSource
from rali_zoo.types import Batch, Sample
from rali_zoo.views import View

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

#: Seconds without a batch after which workers are taken for stuck.
TIMEOUT = 600
_LOOKED_AT = 1000
_SHARED = Path("/dev/shm")  # where workers leave their batches

Sampling = Literal["concat", "balanced", "single_dataset"]
#: One reference or several; one alone need not be quoted in a shell, whatever its options hold.
References = list[str] | tuple[str, ...] | str


def _listed(references: References) -> list[str]:
    return [references] if isinstance(references, str) else list(references)


def _refuse_impossible(**limits: tuple[bool, object, str]) -> None:
    for name, (fits, value, wanted) in limits.items():
        if not fits:  # NaN never does
            raise ConfigError(f"data.{name}={value!r} cannot be; give {wanted}")


class IQADataModule(L.LightningDataModule):
    """Images and their MOS from any number of data sets.

    A reference is a data set's name with options (``koniq10k``, ``kadid10k?protocol=kfold&fold=1``,
    ``csv:scores.csv?mos_range=0,100``, ``synthetic:lab``, ``webdataset:shards/{000..009}.tar``). Its
    rows are taken by role: ``train`` uses those of the split ``train``, and so on.

    Args:
        train: references to train on.
        val: references to validate on; when empty, the validation rows of ``train``.
        test: references to test on, each with a loader and a line of results of its own; when empty,
            the test rows of ``train``.
        predict: references to predict, whole.
        root: folder that holds the data sets' folders.
        batch_size: images a batch and device.
        sampling: ``concat`` = every image once an epoch; ``balanced`` = as many of each data set;
            ``single_dataset`` = each batch inside one data set (for ranking losses and rewards).
        train_view: how a training image is cut.
        eval_view: how an image is cut for validation, test, prototypes and scoring; it travels with
            the checkpoint.
        descriptions: where training images get their texts: captioners (``labels``, ``attributes``,
            with options such as ``labels?seeds=2``) and description tables (``.parquet``, ``.jsonl``).
        ranks: references to images whose order is certain though nobody rated them (``degraded:FOLDER``, or any
            set with a content, a distortion and a level for each image); their training rows, of which
            ``chains`` follow each batch. Where a reference has no such rows, it is an error.
        chains: chains (one content under one distortion, best image first) that follow each training batch.
        max_undescribed: share of a data set's training images in [0, 1] that may be left out because no
            table has a text of them; a reasoner now and then writes one that cannot be read.
        calibration: file of ``rali-zoo calibrate`` that brings the MOS of training images of several data
            sets to one scale; those of validation and test stay as they are.
        cache_features: keep the features of a frozen backbone on disk and train on them.
        check_images: decode every image once, before training (those to test on, too), and leave out what cannot
            be decoded.
        max_undecodable: share of a data set's images in [0, 1] that may be left out.
        limit: use at most this many rows of each split of each data set, drawn with ``seed``.
        num_workers: processes that decode and cut.
        pin_memory: page-locked batches, for GPUs.
        seed: of the samplers, of ``limit``, and of whatever is drawn for a training image.

    Raises:
        ConfigError: a setting that cannot work, nothing to train on, too many undecodable images, or images
            without a text.
        UriError: shards that cannot be named so.
    """

    def __init__(
        self,
        train: References = (),
        val: References = (),
        test: References = (),
        predict: References = (),
        root: str = "data",
        batch_size: int = 32,
        sampling: Sampling = "concat",
        train_view: View | None = None,
        eval_view: View | None = None,
        descriptions: References = (),
        ranks: References = (),
        chains: int = 12,
        max_undescribed: float = 0.05,
        calibration: str | None = None,
        cache_features: bool = True,
        check_images: bool = True,
        max_undecodable: float = 0.01,
        limit: int | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.train_refs = _listed(train)
        self.val_refs = _listed(val) or self.train_refs
        self._val_asked = bool(_listed(val))
        self.test_refs = _listed(test) or self.train_refs
        self.predict_refs = _listed(predict) or self.test_refs
        if any(is_stream(r) for r in self.val_refs + self.test_refs):
            raise ConfigError(
                "a webdataset: reference can be trained on; give val and test as folders or tables"
            )
        for ref in self.streams:
            Shards(ref)  # refuses commands and addresses before anything is built
        _refuse_impossible(
            batch_size=(batch_size >= 1, batch_size, "1 or more"),
            limit=(limit is None or limit >= 1, limit, "1 or more, or null for all images"),
            chains=(chains >= 1, chains, "1 or more"),
            num_workers=(num_workers >= 0, num_workers, "0 or more"),
            max_undescribed=(0 <= max_undescribed <= 1, max_undescribed, "a share in [0, 1]"),
            max_undecodable=(0 <= max_undecodable <= 1, max_undecodable, "a share in [0, 1]"),
            seed=(0 <= seed < 2**32, seed, "0 to 2**32 - 1"),
            sampling=(sampling in get_args(Sampling), sampling, f"one of {', '.join(get_args(Sampling))}"),
        )
        self.root, self.batch_size, self.sampling = root, batch_size, sampling
        self.train_view, self.eval_view = train_view or View(), eval_view or View()
        self.descriptions, self.max_undescribed = _listed(descriptions), max_undescribed
        self.rank_refs, self.chains = _listed(ranks), chains
        self.calibration = calibration
        self.cache_features, self.check_images = cache_features, check_images
        self.max_undecodable = max_undecodable
        self.limit, self.num_workers, self.pin_memory, self.seed = limit, num_workers, pin_memory, seed
        #: undecodable rows by (role, reference); columns of the table plus ``reason``
        self.left_out: dict[tuple[str, str], pd.DataFrame] = {}
        self.texts: Texts | None = None
        self._tables: dict[str, DataTable] = {}
        self._sets: dict[str, list[ImageDataset]] = {}
        self._chains: list[list[int]] = []

    # ---- tables -------------------------------------------------------------------------------

    def table(self, ref: str) -> DataTable:
        """The table behind a reference, read once; quality and aesthetics in one module are a ConfigError."""
        if ref not in self._tables:
            self._tables[ref] = load_table(ref, self.root)
            one_question([table.card for table in self._tables.values()])
        return self._tables[ref]

    @property
    def streams(self) -> list[str]:
        """The training references that are read in sequence and have no length."""
        return [ref for ref in self.train_refs if is_stream(ref)]

    def prepare_data(self) -> None:
        """Build what is built once a machine: the synthetic data sets and the descriptions."""
        for ref in dict.fromkeys(self.train_refs + self.val_refs + self.test_refs + self.rank_refs):
            if not is_stream(ref):
                self.table(ref)

    def rows(self, ref: str, role: str) -> pd.DataFrame:
        """Readable rows of a reference for a role; what is left out is kept in ``left_out`` and said.

        Raises:
            ConfigError: no rows for the role, or more undecodable images than ``max_undecodable``.
        """
        table = self.table(ref)
        frame = table.sample(role, self.limit, self.seed)
        if not self.check_images or table.card.synthetic:
            return frame
        bad = undecodable(frame)
        self.left_out[role, ref] = bad
        if len(bad):
            first = "; ".join(
                f"{i}: {r}" for i, r in zip(bad["id"].head(3), bad["reason"].head(3), strict=True)
            )
            message = f"{ref} ({role}): {len(bad)} of {len(frame)} images left out, e.g. {first}"
            if len(bad) > self.max_undecodable * len(frame):
                raise ConfigError(f"{message}. More than data.max_undecodable = {self.max_undecodable:.1%}")
            log.warning(message)
        return frame.drop(index=bad.index)

    # ---- data sets ----------------------------------------------------------------------------

    @property
    def module(self) -> FeatureSource:
        """The module being trained; it states sizes, and encodes images for the feature cache."""
        if self.trainer is None:
            raise ConfigError("IQADataModule asks the model for its preprocessing: give both to a Trainer")
        return cast(FeatureSource, self.trainer.lightning_module)

    def setup(self, stage: str) -> None:
        """Make the data sets of a stage; the backbone's frozen features are computed here."""
        roles = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}[
            stage
        ]
        for role in roles:
            refs = getattr(self, f"{role}_refs")
            if not refs:
                raise ConfigError(
                    f"nothing to {role}: give data.{role} or data.train, e.g. --data.{role}=[synthetic:lab]"
                )
            if role not in self._sets:
                refs = self._validated(refs) if role == "val" and stage == "fit" else refs
                frames = {ref: self.rows(ref, role) for ref in refs if not is_stream(ref)}
                if role == "train":
                    frames = self._described(self._calibrated(frames))
                texts = self.texts if role == "train" else None
                view = self.train_view if role == "train" else self.eval_view
                self._sets[role] = [self._images(ref, frame, view, texts) for ref, frame in frames.items()]

        if stage == "fit" and self.rank_refs and "ranks" not in self._sets:
            self._set_up_ranks()
        if stage == "fit" and self.check_images:
            for ref in dict.fromkeys(self.test_refs):  # what is wrong with them would show after hours
                if not is_stream(ref) and len(self.table(ref).split("test")):
                    self.rows(ref, "test")

    def _set_up_ranks(self) -> None:
        if self.streams:
            raise ConfigError("data.ranks need data.train as folders or tables, not as streams")
        if not self.module.learns_ranks:
            raise ConfigError(
                f"data.ranks: {type(self.module).__name__} learns nothing from the order of images; leave it out"
            )
        sets, first = [], sum(map(len, self._sets["train"]))
        for ref in self.rank_refs:
            frame = self.rows(ref, "train").reset_index(drop=True)
            found = chains_of(frame)
            if not found:
                raise ConfigError(
                    f"data.ranks={ref!r} has no training rows of one content under one distortion in several levels"
                )
            self._chains += [[first + row for row in chain] for chain in found]
            sets.append(self._images(ref, frame, self.train_view, None))
            first += len(frame)
        self._sets["ranks"] = sets

    def _validated(self, refs: list[str]) -> list[str]:
        """References to validate on while training: those of ``train`` only where they hold rows for it."""
        with_rows = [ref for ref in refs if len(self.table(ref).split("val"))]
        if self._val_asked or len(with_rows) == len(refs):
            return refs
        log.warning(
            "%s: no validation rows, and none are taken from the training rows; ?val_fraction=0.1 would",
            ", ".join(ref for ref in refs if ref not in with_rows),
        )
        self.val_refs = with_rows
        return with_rows

    def _calibrated(self, frames: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        if self.calibration is None:
            return frames
        from rali_zoo.data.calibration import calibrated, read_calibration

        scales = read_calibration(self.calibration, frames)
        return {ref: calibrated(frame, scales[ref]) for ref, frame in frames.items()}

    def _described(self, frames: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        """The rows that have a text, if texts are asked for."""
        if not self.descriptions or not frames:
            return frames
        from rali_zoo.data.texts import gather_texts

        self.texts = texts = gather_texts(self.descriptions, frames, self.max_undescribed)
        return {ref: f[[(ref, str(i)) in texts for i in f["id"]]] for ref, f in frames.items()}

    @property
    def smallest(self) -> int:
        """Shorter side in pixels of the smallest rated training images, of which at most 1,000 a data set are looked
        at; 0 where there is none that has a size, as in a stream.
        """
        sides = []
        for images in self._sets.get("train", ()):
            paths = images.paths[:: -(-len(images.paths) // _LOOKED_AT) or 1]
            sides += [min(size) for path in paths if (size := image_size(path)) is not None]
        return min(sides, default=0)

    def _images(self, ref: str, frame: pd.DataFrame, view: View, texts: Texts | None) -> ImageDataset:
        module, preprocess = self.module, self.module.preprocess
        features = None
        if self.cache_features and module.can_cache:
            if view.is_random:
                raise ConfigError(
                    f"the backbone is frozen and its features are cached, but {view} changes at every visit; "
                    "set data.cache_features=false, unfreeze the backbone, or use a deterministic train_view"
                )
            features = cached_features(
                ref,
                frame,
                module.encode_frozen,
                module.encoder_key,
                view,
                preprocess,
                encoded_at_once(self.batch_size, module.device),
                self.num_workers,
            )
        return ImageDataset(ref, frame, view, preprocess, texts, features, self.seed)

    # ---- loaders ------------------------------------------------------------------------------

    def _sharded(self, dataset: Dataset[Sample] | list[int], shuffle: bool) -> DistributedSampler[int]:
        # One process too: the order is a function of the epoch, so a resumed run goes on as it would have.
        world, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        rows = cast("Dataset[int]", dataset)
        return DistributedSampler(rows, world, rank, shuffle=shuffle, seed=self.seed)

    def _workers(self, view: View) -> int:
        """``num_workers``, where their batches find room; raises :class:`ConfigError`."""
        if self.num_workers and _SHARED.is_dir():
            height, width = view.size_for(self.module.preprocess)
            # Each worker holds two batches ready.
            needed = 2 * self.num_workers * self.batch_size * max(view.crops, 1) * 3 * 4 * height * width
            free = shutil.disk_usage(_SHARED).free
            if free < needed:
                raise ConfigError(
                    f"{self.num_workers} workers keep about {needed / 2**20:.1f} MiB of batches in {_SHARED}, which "
                    f"has {free / 2**20:.1f} MiB: give it more (docker run --shm-size), or data.num_workers=0"
                )
        return self.num_workers

    def _in_order(self, dataset: ImageDataset) -> DataLoader[Batch]:
        workers = self._workers(dataset.view)
        return DataLoader(
            cast("Dataset[Batch]", dataset),
            batch_size=self.batch_size,
            sampler=self._sharded(dataset, shuffle=False),
            collate_fn=collate,
            num_workers=workers,
            pin_memory=self.pin_memory,
            persistent_workers=workers > 0,
            timeout=TIMEOUT if workers else 0,
        )

    def _of_batches(self, sets: list[ImageDataset], order: EpochBatches | WithChains) -> DataLoader[Batch]:
        workers = self._workers(sets[0].view)
        return _LateLoader(
            Batches(sets),
            batch_size=None,
            sampler=order,
            collate_fn=_as_it_is,  # type: ignore[arg-type]  # typed for lists of samples
            num_workers=workers,
            pin_memory=self.pin_memory,
            persistent_workers=workers > 0,
            timeout=TIMEOUT if workers else 0,
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of all training sets, mixed as ``sampling`` says."""
        if streams := self.streams:
            if len(streams) != len(self.train_refs):
                raise ConfigError(
                    "streams and folders cannot be mixed in data.train; pack the folders into shards too"
                )
            stream = ShardStream(streams, self.train_view, self.module.preprocess, self.seed)
            workers = self._workers(self.train_view)
            return _StreamLoader(
                cast("Dataset[Batch]", stream),
                batch_size=self.batch_size,
                num_workers=workers,
                pin_memory=self.pin_memory,
                collate_fn=collate,
                timeout=TIMEOUT if workers else 0,
            ).of(self)
        sets = self._sets["train"]
        owner = [s.ref for s in sets for _ in range(len(s))]
        order: DistributedSampler[int] | SingleDatasetBatchSampler
        if self.sampling == "single_dataset":
            order = SingleDatasetBatchSampler(owner, self.batch_size, seed=self.seed)
        elif self.sampling == "balanced":
            order = BalancedSampler(owner, seed=self.seed)
        else:
            order = self._sharded(list(range(len(owner))), shuffle=True)
        batches = EpochBatches(order, self.batch_size)
        if self._chains:
            with_chains = WithChains(batches, self._chains, self.chains, self.seed)
            return self._of_batches(sets + self._sets["ranks"], with_chains)
        return self._of_batches(sets, batches)

    def train_eval_dataloader(self) -> DataLoader[Batch]:
        """The training images once, in order, cut as for evaluation: what prototypes are made of."""
        sets = [s.with_view(self.eval_view) for s in self._sets["train"]]
        if not sets:
            raise ConfigError("prototypes need the training images as a folder or a table, not as a stream")
        rows = cast("Dataset[int]", range(sum(map(len, sets))))
        whole: DistributedSampler[int] = DistributedSampler(rows, 1, 0, shuffle=False)
        return self._of_batches(sets, EpochBatches(whole, self.batch_size, every=True))

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """A loader for each validation set, in the order of ``val_refs``."""
        return [self._in_order(s) for s in self._sets["val"]]

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """A loader for each test set, in the order of ``test_refs``."""
        return [self._in_order(s) for s in self._sets["test"]]

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """A loader for each set to predict."""
        return [self._in_order(s) for s in self._sets["predict"]]


def _as_it_is(batch: Batch) -> Batch:
    """Instead of torch's conversion, which looks at every string of a batch."""
    return batch


class _LateLoader(DataLoader[Batch]):
    """Begins when its first batch is asked for: Lightning makes an iterator before it tells the epoch."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        yield from super().__iter__()


class _StreamLoader(_LateLoader):
    """Tells its stream the epoch; workers are started anew for each."""

    def of(self, data: IQADataModule) -> _StreamLoader:
        """The loader, of a data module whose trainer knows the epoch."""
        self.data = data
        return self

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        stream = cast(ShardStream, self.dataset)
        stream.epoch = 0 if self.data.trainer is None else self.data.trainer.current_epoch
        yield from super().__iter__()
