"""One DataModule for every data set: references in, loaders out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, cast

import lightning as L
from torch.utils.data import ConcatDataset, DataLoader, Dataset, DistributedSampler

from rali_zoo.data.checks import unreadable
from rali_zoo.data.dataset import ImageDataset, Texts, collate
from rali_zoo.data.features import CPU_BATCH, cached_features
from rali_zoo.data.samplers import BalancedSampler, SingleDatasetBatchSampler
from rali_zoo.data.streaming import ShardStream, is_stream
from rali_zoo.data.tables import DataTable, load_table
from rali_zoo.errors import ConfigError
from rali_zoo.protocols import FeatureSource
from rali_zoo.types import Sample
from rali_zoo.views import View

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Sampling = Literal["concat", "balanced", "single_dataset"]
#: One reference or several; one alone need not be quoted in a shell, whatever its options hold.
References = list[str] | tuple[str, ...] | str


def _listed(references: References) -> list[str]:
    return [references] if isinstance(references, str) else list(references)


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
        max_undescribed: share of a data set's training images in [0, 1] that may be left out because no
            table has a text of them; a reasoner now and then writes one that cannot be read.
        calibration: file of ``rali-zoo calibrate`` that brings the MOS of training images of several data
            sets to one scale; those of validation and test stay as they are.
        cache_features: keep the features of a frozen backbone on disk and train on them.
        check_images: decode every image once, before training, and leave out what cannot be read.
        max_unreadable: share of a data set's images in [0, 1] that may be left out.
        limit: use at most this many rows of each split of each data set, drawn with ``seed``.
        num_workers: processes that decode and cut.
        pin_memory: page-locked batches, for GPUs.
        seed: of the samplers and of ``limit``.

    Raises:
        ConfigError: nothing to train on, too many unreadable images, or images without a text.
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
        max_undescribed: float = 0.05,
        calibration: str | None = None,
        cache_features: bool = True,
        check_images: bool = True,
        max_unreadable: float = 0.01,
        limit: int | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.train_refs = _listed(train)
        self.val_refs = _listed(val) or self.train_refs
        self.test_refs = _listed(test) or self.train_refs
        self.predict_refs = _listed(predict) or self.test_refs
        if any(is_stream(r) for r in self.val_refs + self.test_refs):
            raise ConfigError(
                "a webdataset: reference can be trained on; give val and test as folders or tables"
            )
        self.root, self.batch_size, self.sampling = root, batch_size, sampling
        self.train_view, self.eval_view = train_view or View(), eval_view or View()
        self.descriptions, self.max_undescribed = _listed(descriptions), max_undescribed
        self.calibration = calibration
        self.cache_features, self.check_images, self.max_unreadable = (
            cache_features,
            check_images,
            max_unreadable,
        )
        self.limit, self.num_workers, self.pin_memory, self.seed = limit, num_workers, pin_memory, seed
        #: unreadable rows by (role, reference); columns of the table plus ``reason``
        self.left_out: dict[tuple[str, str], pd.DataFrame] = {}
        self.texts: Texts | None = None
        self._tables: dict[str, DataTable] = {}
        self._sets: dict[str, list[ImageDataset]] = {}

    # ---- tables -------------------------------------------------------------------------------

    def table(self, ref: str) -> DataTable:
        """The table behind a reference, read once."""
        if ref not in self._tables:
            self._tables[ref] = load_table(ref, self.root)
        return self._tables[ref]

    @property
    def streams(self) -> list[str]:
        """The training references that are read in sequence and have no length."""
        return [ref for ref in self.train_refs if is_stream(ref)]

    def prepare_data(self) -> None:
        """Build what is built once a machine: the synthetic data sets and the descriptions."""
        for ref in dict.fromkeys(self.train_refs + self.val_refs + self.test_refs):
            if not is_stream(ref):
                self.table(ref)

    def rows(self, ref: str, role: str) -> pd.DataFrame:
        """Readable rows of a reference for a role; what is left out is kept in ``left_out`` and said.

        Raises:
            ConfigError: no rows for the role, or more unreadable images than ``max_unreadable``.
        """
        table = self.table(ref)
        frame = table.frame if role == "predict" else table.split(role)
        if frame.empty:
            raise ConfigError(f"{ref!r} has no {role} rows; {table.describe()}")
        if self.limit is not None and len(frame) > self.limit:
            frame = frame.sample(self.limit, random_state=self.seed).sort_index()
        if not self.check_images or table.card.synthetic:
            return frame
        bad = unreadable(frame)
        self.left_out[role, ref] = bad
        if len(bad):
            first = "; ".join(
                f"{i}: {r}" for i, r in zip(bad["id"].head(3), bad["reason"].head(3), strict=True)
            )
            message = f"{ref} ({role}): {len(bad)} of {len(frame)} images left out, e.g. {first}"
            if len(bad) > self.max_unreadable * len(frame):
                raise ConfigError(f"{message}. More than data.max_unreadable = {self.max_unreadable:.1%}")
            log.warning(message)
        return frame.drop(index=bad.index)

    # ---- data sets ----------------------------------------------------------------------------

    @property
    def module(self) -> FeatureSource:
        """The module being trained; it tells sizes, and encodes images for the feature cache."""
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
                frames = {ref: self.rows(ref, role) for ref in refs if not is_stream(ref)}
                if role == "train":
                    frames = self._described(self._calibrated(frames))
                texts = self.texts if role == "train" else None
                view = self.train_view if role == "train" else self.eval_view
                self._sets[role] = [self._images(ref, frame, view, texts) for ref, frame in frames.items()]

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

    def _images(self, ref: str, frame: pd.DataFrame, view: View, texts: Texts | None) -> ImageDataset:
        module, preprocess = self.module, self.module.preprocess
        features = None
        if self.cache_features and module.encoder_is_frozen:
            if view.is_random:
                raise ConfigError(
                    f"the backbone is frozen and its features are cached, but {view} changes at every visit; "
                    "set data.cache_features=false, unfreeze the backbone, or use a deterministic train_view"
                )
            at_once = min(self.batch_size, CPU_BATCH) if module.device.type == "cpu" else self.batch_size
            features = cached_features(
                ref,
                frame,
                module.encode_frozen,
                module.encoder_key,
                view,
                preprocess,
                at_once,
                self.num_workers,
            )
        return ImageDataset(ref, frame, view, preprocess, texts, features)

    # ---- loaders ------------------------------------------------------------------------------

    def _dealt(self, dataset: Any, shuffle: bool) -> DistributedSampler[Any]:
        # One process too: the order is a function of the epoch, so a resumed run goes on as it would have.
        world, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        return DistributedSampler(dataset, world, rank, shuffle=shuffle, seed=self.seed)

    def _make(self, dataset: Dataset[Sample], **order: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate,
            **order,
        )

    def _in_order(self, dataset: Dataset[Sample]) -> DataLoader[Any]:
        return self._make(dataset, batch_size=self.batch_size, sampler=self._dealt(dataset, shuffle=False))

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches of all training sets, mixed as ``sampling`` says."""
        if streams := self.streams:
            if len(streams) != len(self.train_refs):
                raise ConfigError(
                    "streams and folders cannot be mixed in data.train; pack the folders into shards too"
                )
            stream = ShardStream(streams, self.train_view, self.module.preprocess, self.seed)
            return self._make(stream, batch_size=self.batch_size)
        sets = self._sets["train"]
        joined: ConcatDataset[Sample] = ConcatDataset(sets)
        owner = [s.ref for s in sets for _ in range(len(s))]
        if self.sampling == "single_dataset":
            connector = self.trainer._accelerator_connector if self.trainer is not None else None
            if connector is not None and connector.is_distributed and connector.use_distributed_sampler:
                raise ConfigError(
                    "sampling=single_dataset makes whole batches and deals them out to the processes itself, "
                    "which Lightning would do again: give --trainer.use_distributed_sampler=false"
                )
            return self._make(
                joined, batch_sampler=SingleDatasetBatchSampler(owner, self.batch_size, seed=self.seed)
            )
        balanced = BalancedSampler(owner, seed=self.seed) if self.sampling == "balanced" else None
        sampler = balanced or self._dealt(joined, shuffle=True)
        # Batch normalisation cannot learn from one image, so that a last batch of one waits for its turn.
        lonely = len(sampler) > self.batch_size and len(sampler) % self.batch_size == 1
        return self._make(joined, batch_size=self.batch_size, sampler=sampler, drop_last=lonely)

    def train_eval_dataloader(self) -> DataLoader[Any]:
        """The training images once, in order, cut as for evaluation: what prototypes are made of."""
        sets = [s.with_view(self.eval_view) for s in self._sets["train"]]
        if not sets:
            raise ConfigError("prototypes need the training images as a folder or a table, not as a stream")
        return self._make(ConcatDataset(sets), batch_size=self.batch_size)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """A loader for each validation set, in the order of ``val_refs``."""
        return [self._in_order(s) for s in self._sets["val"]]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """A loader for each test set, in the order of ``test_refs``."""
        return [self._in_order(s) for s in self._sets["test"]]

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """A loader for each set to predict."""
        return [self._in_order(s) for s in self._sets["predict"]]
