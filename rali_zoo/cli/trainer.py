"""``fit``, ``validate``, ``test``, ``predict``: a thin LightningCLI whose known traps are closed.

What differs from Lightning's own: the command line outranks the checkpoint (``carried.py``), errors carry
the near miss (``parser.py``), a run keeps everything in one folder, and ``fit`` ends with a test report.
"""

from __future__ import annotations

import logging
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import CheckpointIO
from torch import distributed

from rali_zoo.cli import checkpoint_settings as carried
from rali_zoo.cli import report
from rali_zoo.cli.parser import COMMANDS, RaliParser
from rali_zoo.errors import ConfigError, RaliZooError, near_miss
from rali_zoo.paths import atomic_path
from rali_zoo.trainers.checkpoint_io import AtomicCheckpointIO


class RunConfig(SaveConfigCallback):
    """Write ``config.yaml`` into the run folder when a fit starts, and at no other time."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the resolved configuration; it runs again as it is (``fit --config RUN/config.yaml``)."""
        if stage != "fit" or self.already_saved or not trainer.is_global_zero:
            return
        with atomic_path(Path(trainer.default_root_dir) / "config.yaml") as path:
            path.write_text(self.parser.dump(self.config, skip_none=False))
        self.already_saved = True


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
        self.carried: carried.Carried | None = None
        self.started = time.monotonic()
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

    # ---- parsing -------------------------------------------------------------------------------------------

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Our own top-level settings; every command takes them so that one config serves all four."""
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=True,
            help="After fit: test the best checkpoint on data.test, write results.json into the run folder.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse with what the checkpoint carries below what the user typed, so that the user wins."""
        command, *words = args
        checkpoint, configs = carried.typed(words)
        if checkpoint is not None:
            self.carried = carried.read(checkpoint, resuming=command == "fit", has_config=bool(configs))
        elif command != "fit" and not any(
            re.match(r"-h$|--help|--print_config|--model\.help", w) for w in words
        ):
            _needs_checkpoint(command, configs)
        with tempfile.TemporaryDirectory() as folder:
            below = []
            if self.carried is not None and self.carried.config:
                base = Path(folder) / "carried.yaml"
                base.write_text(yaml.safe_dump(self.carried.config))
                below = ["--config", str(base)]
            self.config = parser.parse_args([command, *below, *words])
        self.config[command].pop("config", None)
        self._settle(command, configs)

    def _parse_ckpt_path(self) -> None:
        """Lightning lets the checkpoint replace the command line here; ``parse_arguments`` has done it."""

    def _settle(self, command: str, configs: Sequence[str]) -> None:
        """Fill in what depends on the rest: the run folder; and say what the checkpoint had otherwise."""
        settings = self.config[command]
        model = settings.model.as_dict() if settings.get("model") else {}
        if self.carried is not None:
            carried.check_same_class(self.carried, model.get("class_path", ""))
            for line in carried.differences(self.carried, model.get("init_args", {})):
                print(f"note: {line}", file=sys.stderr)
                if command == "fit":
                    print(
                        "note: the optimizer's state, learning rate included, is the checkpoint's",
                        file=sys.stderr,
                    )
        if settings.trainer.default_root_dir is None:
            if self.carried is not None:
                run = self.carried.run
            elif configs:
                run = Path("runs") / Path(configs[-1]).stem
            else:
                run = Path("runs") / model.get("class_path", "run").rpartition(".")[2].lower()
            settings.trainer.default_root_dir = str(run)

    def instantiate_classes(self) -> None:
        """Build everything; a checkpoint's weights are in the model before the data are set up.

        Lightning restores them after ``setup``, which is too late for features cached there, and it would
        fetch pretrained weights only to overwrite them.
        """
        if self.carried is None:
            self._instantiate()
            return
        from rali_zoo.models.base import weights_follow

        resuming = self.subcommand == "fit"
        with nullcontext() if resuming else weights_follow():
            self._instantiate()
        carried.pour(self.carried, self.model, whole=resuming)

    def _instantiate(self) -> None:
        """Build everything; an error of ours comes out as it is, without jsonargparse's wrapping."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, RaliZooError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise
            raise cause from None

    # ---- running -------------------------------------------------------------------------------------------

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer; a CSV log and checkpoints go to the run folder unless the user set them otherwise."""
        settings = self._get(self.config_init, "trainer")
        run = Path(settings["default_root_dir"])
        callbacks = settings["callbacks"] or []
        callbacks = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
        own = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
        if self.subcommand == "fit" and settings["enable_checkpointing"] is not False and not own:
            callbacks += _checkpointing(run / "checkpoints", validated=settings["limit_val_batches"] != 0)
        if settings["logger"] is None or settings["logger"] is True:
            # Made on use: a command that logs nothing leaves no folder behind.
            kwargs["logger"] = CSVLogger(save_dir=run, name="logs")
        plugins = settings["plugins"] or []
        plugins = list(plugins) if isinstance(plugins, (list, tuple)) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        return super().instantiate_trainer(**kwargs, callbacks=callbacks)

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except SystemExit as stop:
            # Lightning turns Ctrl-C into exit(1) once it has saved what there is.
            if self.trainer.interrupted:
                raise KeyboardInterrupt from stop
            raise

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand != "fit" and self.carried is not None:
            kwargs["ckpt_path"] = None  # its weights are in the model already
        return kwargs

    def fit(self, **kwargs: Any) -> None:
        """Train; then test the best checkpoint and write the report."""
        run = Path(self.trainer.default_root_dir)
        if self.carried is not None:
            print(f"resuming from {self.carried.path} (settings: {self.carried.source})")
        print(f"run folder: {run}")
        self.trainer.fit(**kwargs)
        if self.trainer.fast_dev_run or not self.config["fit"].test_after_fit:  # type: ignore[attr-defined]
            return
        fit_s = round(time.monotonic() - self.started, 1)
        best = _short(getattr(self.trainer.checkpoint_callback, "best_model_path", ""))
        try:
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best or None, verbose=False)
        except ConfigError as error:
            if self.config["fit"].data.get("test"):
                raise
            # No test set was asked for, and those of data.train have no test rows.
            print(f"not tested: {error}", file=sys.stderr)
            return
        self._report(run, best, {"fit_seconds": fit_s})

    def test(self, **kwargs: Any) -> None:
        """Test a checkpoint and write the report below ``RUN/test``, beside the one that ``fit`` wrote."""
        self.trainer.test(**{**kwargs, "verbose": False})
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            checkpoint = str(self.carried.path) if self.carried is not None else ""
            self._report(Path(self.trainer.default_root_dir) / "test", checkpoint, {})

    def predict(self, **kwargs: Any) -> None:
        """Predict ``data.predict`` and write one parquet a data set below ``RUN/predict``."""
        outputs = self.trainer.predict(**{**kwargs, "return_predictions": True}) or []
        batches = [batch for part in outputs for batch in (part if isinstance(part, list) else [part])]
        if self.trainer.world_size > 1:
            everyone: list[Any] = [None] * self.trainer.world_size
            distributed.all_gather_object(everyone, batches)
            batches = [batch for part in everyone for batch in part]
        if not self.trainer.is_global_zero:
            return
        left_out = {ref: bad for (role, ref), bad in self.datamodule.left_out.items() if role == "predict"}
        tables = report.predictions(batches, left_out)
        folder = Path(self.trainer.default_root_dir)
        for dataset, file in report.write_tables(folder, "predict", tables).items():
            failed = int((tables[dataset]["error"] != "").sum())
            print(f"{dataset}: {len(tables[dataset]) - failed} scored, {failed} failed: {folder / file}")

    def _report(self, folder: Path, checkpoint: str, extra: dict[str, float]) -> None:
        if not self.trainer.is_global_zero:
            return
        results = report.read_metrics(self.trainer.callback_metrics)
        synthetic = {dataset for dataset in results if self.datamodule.table(dataset).card.synthetic}
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


def _checkpointing(folder: Path, validated: bool) -> list[ModelCheckpoint]:
    """``best.ckpt`` by validation SRCC, where there is any, and ``last.ckpt`` of every epoch."""
    # Two callbacks, because save_last=True of Lightning 2.6 writes last.ckpt only when best.ckpt improves.
    # No version counter: a second run of the same name replaces the first, whole.
    # By default Lightning saves where it validates, so that a run that ends between two validations is lost.
    last = ModelCheckpoint(
        dirpath=folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    if not validated:
        return [last]
    return [
        ModelCheckpoint(
            dirpath=folder, filename="best", monitor="val/srcc", mode="max", enable_version_counter=False
        ),
        last,
    ]


def _short(path: str) -> str:
    """``path`` as it would be typed here: relative if it lies below the working directory."""
    return str(Path(path).relative_to(Path.cwd())) if path and Path(path).is_relative_to(Path.cwd()) else path


def _needs_checkpoint(command: str, configs: Sequence[str]) -> None:
    """Refuse to ``test`` freshly initialised weights, which Lightning would do without a word."""
    run = Path("runs") / (Path(configs[-1]).stem if configs else "NAME")
    found = sorted(Path("runs").glob("*/checkpoints/best.ckpt"))
    example = run / "checkpoints" / "best.ckpt"
    if found and example not in found:
        example = max(found, key=lambda path: path.stat().st_mtime)
    raise ConfigError(
        f"{command} needs the checkpoint of a trained model: rali-zoo {command} --ckpt_path {example}"
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
        ConfigError: a command that is none of the four, or options before it.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] not in COMMANDS:
        asked = words[0] if words else ""
        raise ConfigError(
            f"the command comes first: rali-zoo fit --config FILE.yaml. {near_miss(asked, COMMANDS)}"
        )
    if model_class is None or datamodule_class is None:
        from rali_zoo.data import IQADataModule
        from rali_zoo.trainers import TRAINERS, IQAModule

        for name in TRAINERS:  # imported, a class may be named in short
            _ = TRAINERS[name]

        model_class, datamodule_class = model_class or IQAModule, datamodule_class or IQADataModule
    _quiet()
    RaliCLI(model_class, datamodule_class, args=words)
