"""``fit``, ``validate``, ``test``, ``predict``: a LightningCLI whose known traps are closed.

What differs from Lightning's own: the command line outranks the checkpoint (``checkpoint_settings.py``), errors
carry the near miss (``parser.py``), a run keeps everything in one folder of its own (``runs.py``), and ``fit``
ends with a test report.
"""

from __future__ import annotations

import logging
import math
import random
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from rali_zoo.cli import checkpoint_settings, report, runs
from rali_zoo.cli.parser import RaliParser, explain, torch_first
from rali_zoo.cli.training import COMMANDS, CommandLine
from rali_zoo.errors import ConfigError, NothingMeasuredError, RaliZooError, UsageError, near_miss
from rali_zoo.outputs import numbered
from rali_zoo.paths import atomic_path
from rali_zoo.trainers.checkpoint_io import AtomicCheckpointIO
from rali_zoo.trainers.evaluation import gather

if TYPE_CHECKING:
    from torch import Tensor


class RunConfig(SaveConfigCallback):
    """Write ``config.yaml`` into the run folder when a fit starts, and at no other time."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the resolved configuration; it runs again as it is (``fit --config RUN/config.yaml``)."""
        if stage != "fit" or self.already_saved or not trainer.is_global_zero:
            return
        target = Path(trainer.default_root_dir) / "config.yaml"
        resumed = bool(self.config.get("ckpt_path")) and target.is_file() and target.stat().st_size > 0
        with atomic_path(target.with_name("config.resumed.yaml") if resumed else target) as path:
            path.write_text(self.parser.dump(self.config, skip_none=False))
        self.already_saved = True
        if not resumed:  # else it may be somebody else's
            checkpoint_settings.remember(target)


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt`` by validation SRCC; an epoch in which it is undefined is never best."""

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether a value (a scalar) is among the best; Lightning keeps the first one even if it is NaN."""
        return (
            current is not None
            and bool(torch.isfinite(current))
            and super().check_monitor_top_k(trainer, current)
        )


class SeededSteps(Callback):
    """Draw all that a step draws (dropout among it) from its seed, epoch, number and process.

    A run that was stopped and resumed at an epoch then equals one that was not.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def _draw_from(self, trainer: Trainer, step: int) -> None:
        words = np.random.SeedSequence((self.seed, trainer.current_epoch, step, trainer.global_rank))
        seed = int(words.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before what a module prepares for an epoch."""
        self._draw_from(trainer, 0)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Before a step."""
        self._draw_from(trainer, batch_idx + 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before what a module makes of an epoch, prototypes for example."""
        self._draw_from(trainer, -1 % 2**32)


class RaliCLI(LightningCLI):
    """The training command line.

    Args:
        model_class: base class of the models a config may name.
        datamodule_class: the one data module.
        args: the command, then what the user typed after it.
    """

    def __init__(
        self,
        model_class: type[LightningModule],
        datamodule_class: type[LightningDataModule],
        args: Sequence[str],
    ) -> None:
        self.line = CommandLine.read(args)
        self.checkpoint = checkpoint_settings.read(self.line, model_class)
        self.claimed: Path | None = None
        self.started = time.monotonic()
        try:
            super().__init__(
                model_class,
                datamodule_class,
                save_config_callback=RunConfig,
                seed_everything_default=0,
                parser_kwargs={"prog": "rali-zoo", "allow_abbrev": False}
                | {command: {"allow_abbrev": False} for command in COMMANDS},
                parser_class=RaliParser,
                subclass_mode_model=True,
                auto_configure_optimizers=False,
                args=list(args),
            )
        finally:
            if self.claimed is not None:
                runs.release(self.claimed)

    # ---- parsing -------------------------------------------------------------------------------------------

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Our own top-level settings; every command takes them so that one config serves all four."""
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=True,
            help="After fit: test the best checkpoint on data.test, write results.json into the run folder.",
        )
        parser.add_argument(
            "--trust_run_config",
            type=bool,
            default=False,
            help="Use all of the config.yaml beside --ckpt_path though no fit of yours wrote it; it can run code.",
        )
        parser.add_argument(
            "--run", type=str | None, default=None, help="Name of the run folder, below runs/."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse with the checkpoint's settings below what the user typed, so that the user wins."""
        command, *words = cast("list[str]", args)
        looking = any(re.match(r"-h$|--help|--print_config|--model\.help", word) for word in words)
        if self.line.checkpoint is None and command != "fit" and not looking:
            _needs_checkpoint(self.line)
        with tempfile.TemporaryDirectory() as folder:
            below = []
            if self.checkpoint is not None and self.checkpoint.config:
                base = Path(folder) / "checkpoint.yaml"
                base.write_text(yaml.safe_dump(self.checkpoint.config))
                below = ["--config", str(base)]
            with torch_first():
                self.config = parser.parse_args([command, *below, *words])
        self.config[command].pop("config", None)
        self._settle(command)

    def _parse_ckpt_path(self) -> None:
        """Lightning lets the checkpoint replace the command line here; ``parse_arguments`` has done it."""

    def _settle(self, command: str) -> None:
        """Fill in what depends on the rest: the run folder; and report what the checkpoint had otherwise."""
        settings = self.config[command]
        model = settings.model.as_dict() if settings.get("model") else {}
        if self.checkpoint is not None:
            checkpoint_settings.check_same_class(self.checkpoint, model.get("class_path", ""))
            notes = checkpoint_settings.differences(self.checkpoint, model.get("init_args", {}))
            if notes and command == "fit":
                notes.append("the optimizer's state, learning rate included, is the checkpoint's")
            for line in notes:
                print(f"note: {line}", file=sys.stderr)
            if command == "fit":
                self._check_epochs(settings.trainer.max_epochs)
        trainer = settings.trainer
        if settings.get("run"):
            trainer.default_root_dir = str(Path("runs") / settings.run)
        if trainer.default_root_dir is None:
            if self.checkpoint is not None:
                trainer.default_root_dir = str(self.checkpoint.run)
            else:
                stems = "+".join(path.stem for path in self.line.configs)
                trainer.default_root_dir = str(
                    Path("runs") / (stems or model.get("class_path", "run").rpartition(".")[2].lower())
                )
        if command == "fit" and self.line.checkpoint is None and not trainer.fast_dev_run:
            wanted = Path(trainer.default_root_dir)
            self.claimed = runs.claim(wanted)
            trainer.default_root_dir = str(self.claimed)
            if self.claimed != wanted:
                print(f"note: {wanted} holds an earlier run, this one is {self.claimed}", file=sys.stderr)

    def _check_epochs(self, wanted: int | None) -> None:
        if self.checkpoint is None:
            return
        done = self.checkpoint.content.get("epoch")
        if isinstance(done, int) and wanted is not None and 0 <= wanted < done + 1:
            raise ConfigError(
                f"{self.checkpoint.path} has been trained for {done + 1} epochs already, and "
                f"--trainer.max_epochs={wanted} is less; give the number of epochs of the whole run"
            )

    def instantiate_classes(self) -> None:
        """Build everything; a checkpoint's weights are in the model before the data are set up.

        Lightning restores them after ``setup``, which is too late for features cached there, and it would
        fetch pretrained weights only to overwrite them.
        """
        if self.checkpoint is None:
            self._instantiate()
            return
        from rali_zoo.models.base import weights_follow

        resuming = self.subcommand == "fit"
        with nullcontext() if resuming else weights_follow():
            self._instantiate()
        checkpoint_settings.load_weights(self.checkpoint, self.model, whole=resuming)

    def _instantiate(self) -> None:
        """Build everything, data first: weights may be a long download for data that are not there.

        Whatever is impossible comes out as an error of ours, without jsonargparse's and Lightning's wrapping.
        """
        try:
            data = None
            if self.subcommand == "fit" and getattr(rank_zero_only, "rank", 0) == 0:
                partly = self.config.clone()
                for other in ("model", "trainer"):
                    partly[self.subcommand].pop(other, None)
                data = self.parser.instantiate_classes(partly)[self.subcommand].data
                data.prepare_data()
            super().instantiate_classes()
            self.datamodule = data or self.datamodule
        except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, RaliZooError):
                cause = cause.__cause__ or cause.__context__
            if cause is not None:
                raise cause from None
            if isinstance(error, TypeError):
                raise
            raise ConfigError(" ".join(explain(str(error), self.parser).split())) from error

    # ---- running -------------------------------------------------------------------------------------------

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer; a CSV log and checkpoints go to the run folder unless the user set them otherwise."""
        settings = self._get(self.config_init, "trainer")
        run = Path(settings["default_root_dir"])
        callbacks = _listed(settings["callbacks"])
        own = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
        if self.subcommand == "fit":
            seed = self.config["fit"].seed_everything
            callbacks += [] if seed is False else [SeededSteps(int(seed))]
            if settings["enable_checkpointing"] is not False and not own:
                callbacks += _checkpointing(run / "checkpoints", validated=settings["limit_val_batches"] != 0)
        if settings["logger"] is None or settings["logger"] is True:
            # Made on use: a command that logs nothing leaves no folder behind.
            kwargs["logger"] = CSVLogger(save_dir=run, name="logs")
        plugins = _listed(settings["plugins"])
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        return super().instantiate_trainer(**kwargs, callbacks=callbacks)

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except (SystemExit, KeyboardInterrupt) as stop:
            # Lightning turns Ctrl-C into exit(1) once it has saved what there is.
            if isinstance(stop, SystemExit) and not self.trainer.interrupted:
                raise
            last = Path(self.trainer.default_root_dir) / "checkpoints" / "last.ckpt"
            if subcommand == "fit" and last.is_file():
                again = f"rali-zoo fit --ckpt_path {_short(str(last))}"
                raise KeyboardInterrupt(f"interrupted; go on with: {again}") from stop
            raise KeyboardInterrupt from stop

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand != "fit" and self.checkpoint is not None:
            kwargs["ckpt_path"] = None  # its weights are in the model already
        return kwargs

    def fit(self, **kwargs: Any) -> None:
        """Train; then test the best checkpoint and write the report."""
        run = Path(self.trainer.default_root_dir)
        if self.checkpoint is not None:
            print(f"resuming from {self.checkpoint.path} (settings: {self.checkpoint.source})")
        print(f"run folder: {run}")
        alone = self.trainer.is_global_zero and not self.trainer.fast_dev_run  # type: ignore[attr-defined]
        with runs.training(run) if alone else nullcontext():
            self.trainer.fit(**kwargs)
            if not self.trainer.fast_dev_run and self.config["fit"].test_after_fit:  # type: ignore[attr-defined]
                self._test_after_fit(run)

    def _test_after_fit(self, run: Path) -> None:
        fit_s = round(time.monotonic() - self.started, 1)
        best = _short(_best(self.trainer))
        try:
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best or None, verbose=False)
        except ConfigError as error:
            if self.config["fit"].data.get("test"):
                raise
            # No test set was asked for, and those of data.train have no test rows.
            print(f"not tested: {error}", file=sys.stderr)
            return
        self._report(run, best, {"fit_seconds": fit_s})

    def validate(self, **kwargs: Any) -> None:
        """Run the validation sets through a checkpoint and print their metrics."""
        (metrics,) = self.trainer.validate(**{**kwargs, "verbose": False})[:1] or [{}]
        for name, value in metrics.items():
            print(f"{name}: {value:.4g}")
        if math.isnan(metrics.get("val/srcc", 0.0)):
            raise NothingMeasuredError("val/srcc is undefined: too few images with different scores and MOS")

    def test(self, **kwargs: Any) -> None:
        """Test a checkpoint and write the report below ``RUN/test``, beside the one that ``fit`` wrote."""
        self.trainer.test(**{**kwargs, "verbose": False})
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            checkpoint = str(self.checkpoint.path) if self.checkpoint is not None else ""
            self._report(Path(self.trainer.default_root_dir), checkpoint, {})

    def predict(self, **kwargs: Any) -> None:
        """Predict ``data.predict`` and write one parquet a data set below ``RUN/predict``."""
        outputs = self.trainer.predict(**{**kwargs, "return_predictions": True}) or []
        batches = [batch for part in outputs for batch in (part if isinstance(part, list) else [part])]
        batches = gather(batches)
        if not self.trainer.is_global_zero:
            return
        left_out = {ref: bad for (role, ref), bad in self.datamodule.left_out.items() if role == "predict"}
        tables = report.predictions(batches, left_out)
        folder = numbered(Path(self.trainer.default_root_dir) / "predict")
        scored = 0
        for dataset, file in report.write_tables(folder.parent, folder.name, tables).items():
            failed = int((tables[dataset]["error"] != "").sum())
            scored += len(tables[dataset]) - failed
            print(
                f"{dataset}: {len(tables[dataset]) - failed} scored, {failed} failed: {folder.parent / file}"
            )
        if tables and not scored:
            raise NothingMeasuredError("no image has a score; the column error of the tables has the reasons")

    def _report(self, run: Path, checkpoint: str, extra: dict[str, float]) -> None:
        """Write what a test found, below ``run/test`` where a fit has not just ended (``extra``) or was resumed."""
        if not self.trainer.is_global_zero:
            return
        folder = run if extra and not (run / "results.json").exists() else numbered(run / "test")
        results = report.read_metrics(self.trainer.callback_metrics)
        sets = {dataset: self.datamodule.table(dataset) for dataset in results}
        report.add_intervals(results, self.model.test_tables, {name: t.frame for name, t in sets.items()})
        synthetic = {dataset for dataset, table in sets.items() if table.card.synthetic}
        self._dump_config()
        path = report.write(
            folder,
            results,
            self.model.test_tables,
            checkpoint,
            self.config_dump,
            synthetic=synthetic,
            extra=extra,
        )
        report.show(results, synthetic)
        print(f"written: {path}" + (f"\ncheckpoint: {checkpoint}" if checkpoint else ""))
        # What a test counts as n are the images that have a finite score.
        if results and not any(row.get("n", 0) > 0 for row in results.values()):
            raise NothingMeasuredError(
                f"nothing was measured: no image of {', '.join(results)} has a finite score; see the predictions"
            )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []


def _checkpointing(folder: Path, validated: bool) -> list[ModelCheckpoint]:
    """``best.ckpt`` by validation SRCC, where there is any, and ``last.ckpt`` of every epoch."""
    # Two callbacks, because save_last=True of Lightning 2.6 writes last.ckpt only when best.ckpt improves.
    # By default Lightning saves where it validates, so that a run that ends between two validations is lost.
    last = ModelCheckpoint(
        dirpath=folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    best = BestCheckpoint(
        dirpath=folder, filename="best", monitor="val/srcc", mode="max", enable_version_counter=False
    )
    return [best, last] if validated else [last]


def _best(trainer: Trainer) -> str:
    """The best checkpoint of a fit; where no epoch was measured, the last one, which is reported."""
    saved = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    monitored = [c for c in saved if isinstance(c, BestCheckpoint)]
    for callback in monitored or saved:
        if callback.best_model_path:
            return str(callback.best_model_path)
    last = next((c.best_model_path for c in saved if c.best_model_path), "")
    if last and monitored:
        print(
            "note: val/srcc was undefined in every epoch (it needs two images of different MOS and finite scores), "
            "so there is no best.ckpt; last.ckpt is used",
            file=sys.stderr,
        )
    return str(last)


def _short(path: str) -> str:
    """``path`` as it would be typed here: relative if it lies below the working directory."""
    return str(Path(path).relative_to(Path.cwd())) if path and Path(path).is_relative_to(Path.cwd()) else path


def _needs_checkpoint(line: CommandLine) -> None:
    """Refuse to ``test`` freshly initialised weights, which Lightning would do without a word."""
    example = Path("runs", *(path.stem for path in [*line.configs][-1:]), *([] if line.configs else ["NAME"]))
    example = example / "checkpoints" / "best.ckpt"
    found = sorted(Path("runs").glob("*/checkpoints/best.ckpt"))
    if found and example not in found:
        example = max(found, key=lambda path: path.stat().st_mtime)
    raise ConfigError(
        f"{line.command} needs the checkpoint of a trained model: rali-zoo {line.command} --ckpt_path {example}"
        + ("" if found else "  (train one first: rali-zoo fit --config configs/FILE.yaml)")
    )


def _quiet() -> None:
    """Drop Lightning's advertising and warnings about choices that are ours."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(lambda record: "Tip: For seamless" not in record.getMessage())
    for message in (
        r".*isinstance\(treespec, LeafSpec\).*",
        r".*smaller than the logging interval.*",
        r"Be aware that when using `ckpt_path`, callbacks.*",
        r"Checkpoint directory .* exists and is not empty.*",
        r"Experiment logs directory .*",
        r".*gradient_checkpointing.* is deprecated.*",
        r"Found \d+ module\(s\) in eval mode.*",  # a frozen backbone is meant to be
    ):
        warnings.filterwarnings("ignore", message=message)


def main(
    args: Sequence[str] | None = None,
    model_class: type[LightningModule] | None = None,
    datamodule_class: type[LightningDataModule] | None = None,
) -> None:
    """Run one of the four commands.

    Args:
        args: the command, then its options; those of the process by default.
        model_class: base class of the models, another one in tests.
        datamodule_class: the data module, another one in tests.

    Raises:
        UsageError: a command that is none of the four, or options before it.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] not in COMMANDS:
        asked = words[0] if words else ""
        raise UsageError(
            f"the command comes first: rali-zoo fit --config FILE.yaml. {near_miss(asked, COMMANDS)}"
        )
    if model_class is None or datamodule_class is None:
        from rali_zoo.data import IQADataModule
        from rali_zoo.trainers import TRAINERS, IQAModule

        for name in CommandLine.read(words).models or TRAINERS:
            if name in TRAINERS:
                TRAINERS[name]  # importing it is what makes its short name work
        model_class, datamodule_class = model_class or IQAModule, datamodule_class or IQADataModule
    _quiet()
    RaliCLI(model_class, datamodule_class, args=words)
