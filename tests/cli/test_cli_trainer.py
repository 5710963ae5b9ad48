"""The training command line on toys: who wins over whom, what is written where, what errors say."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from jsonargparse import _typehints
from toy_cli import DeepToy, InterruptedToy, ToyData, ToyModule

from rali_zoo.cli import trainer
from rali_zoo.cli.parser import torch_first
from rali_zoo.errors import CheckpointError, ConfigError, NothingMeasuredError

CONFIG = {
    "model": {"class_path": "LinearToy", "init_args": {"gain": 0.5}},
    "data": {"train": ["lab"], "test": ["synthetic:lab", "csv:x/scores.csv"], "predict": ["lab"]},
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}
LRR = {"class_path": "Adam", "init_args": {"lrr": 1}}
BEST = "runs/toy/checkpoints/best.ckpt"
assert DeepToy and InterruptedToy  # imported, so that configs can name them


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``fit --config toy.yaml`` has run."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("toy.yaml").write_text(yaml.safe_dump(CONFIG))
        run("fit", "--config", "toy.yaml")
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of ``trained`` as working directory."""
    import shutil

    shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def run(*words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.main(list(words), ToyModule, ToyData)


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def hparams(path: str = "runs/toy/config.yaml") -> dict[str, object]:
    return yaml.safe_load(Path(path).read_text())["model"]["init_args"]


# ---- what a run leaves behind -----------------------------------------------------------------------------


def test_fit_keeps_everything_in_its_run_folder(here: Path) -> None:
    assert sorted(p.name for p in here.iterdir()) == ["runs", "toy.yaml"]
    run_folder = here / "runs" / "toy"
    assert (run_folder / "config.yaml").is_file()
    assert {p.name for p in (run_folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list((run_folder / "logs").rglob("metrics.csv"))


def test_fit_writes_results_with_provenance(here: Path) -> None:
    results = json.loads((here / "runs/toy/results.json").read_text())
    lab = results["datasets"]["synthetic:lab"]
    assert lab["synthetic"] and not results["datasets"]["csv:x/scores.csv"]["synthetic"]
    assert (lab["n"], lab["failed"], lab["srcc"], lab["plcc"]) == (4, 1, 0.25, None)
    assert results["checkpoint"] == BEST and len(results["checkpoint_sha256"]) == 64
    assert results["seed"] == 0 and len(results["config_sha256"]) == 64
    assert results["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert results["hardware"]["torch_threads"] == torch.get_num_threads()
    for row in results["datasets"].values():
        frame = pd.read_parquet(here / "runs/toy" / row["predictions"])
        assert list(frame["id"]) == ["0.png", "1.png", "2.png", "3.png"]


def test_the_saved_config_runs_again_as_it_is(here: Path) -> None:
    before = (here / "runs/toy/config.yaml").read_text()
    run("fit", "--config", "runs/toy/config.yaml")
    again = (here / "runs/toy-2/config.yaml").read_text()
    assert again.replace("runs/toy-2", "runs/toy") == before
    assert (here / "runs/toy/config.yaml").read_text() == before


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_replaces_nothing_of_an_earlier_one(here: Path) -> None:
    before = files(Path("runs/toy"))
    run("fit", "--config", "toy.yaml")
    run("fit", "--config", "toy.yaml", "--run=toy", "--test_after_fit=false")
    run("fit", "--config", "toy.yaml", "--trainer.default_root_dir=runs/toy", "--test_after_fit=false")
    assert files(Path("runs/toy")) == before
    assert sorted(p.name for p in Path("runs").iterdir()) == ["toy", "toy-2", "toy-3", "toy-4"]
    run("test", "--ckpt_path", BEST)
    first = files(Path("runs/toy/test"))
    run("test", "--ckpt_path", BEST)
    assert files(Path("runs/toy/test")) == first and Path("runs/toy/test-2/results.json").is_file()


def test_a_folder_of_something_else_keeps_it(here: Path) -> None:
    Path("runs/mine/checkpoints").mkdir(parents=True)
    Path("runs/mine/checkpoints/last.ckpt").write_text("made by hand")
    run("fit", "--config", "toy.yaml", "--run=mine", "--test_after_fit=false")
    assert Path("runs/mine/checkpoints/last.ckpt").read_text() == "made by hand"
    assert Path("runs/mine-2/checkpoints/last.ckpt").is_file()


def test_two_configs_name_the_run_together(here: Path) -> None:
    Path("fast.yaml").write_text("trainer: {limit_train_batches: 1}")
    run("fit", "--config", "toy.yaml", "--config", "fast.yaml", "--test_after_fit=false")
    assert Path("runs/toy+fast/checkpoints/last.ckpt").is_file()


def test_a_run_that_never_began_leaves_no_folder(here: Path) -> None:
    with pytest.raises(ConfigError):
        run("fit", "--config", "toy.yaml", "--run=none", "--trainer.devices=0")
    assert not Path("runs/none").exists()


def test_a_resumed_run_is_trained_by_one_process_and_keeps_its_files(here: Path) -> None:
    from rali_zoo.cli import runs

    half = Path("runs/toy/checkpoints/.last.ckpt.abc.tmp")
    half.write_text("of a fit that was killed")
    results = Path("runs/toy/results.json").read_text()
    words = ("fit", "--ckpt_path", "runs/toy/checkpoints/last.ckpt", "--trainer.max_epochs=2")
    with runs.training(Path("runs/other")):
        pass
    lock = runs.FileLock("runs/toy/.lock")
    with lock, pytest.raises(ConfigError, match="trained by another process"):
        run(*words)
    half.write_text("of a fit that was killed")
    run(*words)
    assert not half.exists() and Path("runs/toy/results.json").read_text() == results
    assert Path("runs/toy/test/results.json").is_file()


def test_fewer_epochs_than_were_trained_are_refused(here: Path) -> None:
    run("fit", "--ckpt_path", "runs/toy/checkpoints/last.ckpt", "--trainer.max_epochs=3")
    with pytest.raises(ConfigError, match=r"trained for 3 epochs already.*max_epochs=2 is less"):
        run("fit", "--ckpt_path", "runs/toy/checkpoints/last.ckpt", "--trainer.max_epochs=2")


# ---- undefined metrics ------------------------------------------------------------------------------------


@pytest.mark.parametrize("defined", [[], [1, 2]])
def test_an_undefined_monitor_is_never_best(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, defined: list[int]
) -> None:
    def log(module: ToyModule, batch: object, index: int, dataloader_idx: int = 0) -> None:
        epoch = module.current_epoch
        module.log("val/srcc", torch.tensor(0.9 - epoch / 10 if epoch in defined else float("nan")))

    monkeypatch.setattr(ToyModule, "validation_step", log)
    run("fit", "--config", "toy.yaml", "--run=nan", "--trainer.max_epochs=3")
    results = json.loads(Path("runs/nan/results.json").read_text())
    if defined:
        assert torch.load("runs/nan/checkpoints/best.ckpt", weights_only=True)["epoch"] == 1
        assert results["checkpoint"] == "runs/nan/checkpoints/best.ckpt"
    else:
        assert not Path("runs/nan/checkpoints/best.ckpt").exists()
        assert results["checkpoint"] == "runs/nan/checkpoints/last.ckpt"
        assert "undefined in every epoch" in capsys.readouterr().err


def test_a_test_that_measures_nothing_is_an_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def log(module: ToyModule, batch: dict[str, list[str]], index: int, dataloader_idx: int = 0) -> None:
        rows = {"id": batch["id"], "mos": batch["mos"], "score": float("nan"), "error": "no finite score"}
        module.test_tables[batch["dataset"][0]] = pd.DataFrame(rows)
        for metric, value in {"n": 0.0, "failed": 4.0, "srcc": float("nan")}.items():
            module.log(f"test/{batch['dataset'][0]}/{metric}", value, add_dataloader_idx=False)

    monkeypatch.setattr(ToyModule, "test_step", log)
    with pytest.raises(NothingMeasuredError, match="no image of synthetic:lab"):
        run("test", "--ckpt_path", BEST)
    assert Path("runs/toy/test/results.json").is_file()


def test_fast_dev_run_tests_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(yaml.safe_dump(CONFIG))
    run("fit", "--config", "toy.yaml", "--trainer.fast_dev_run=true")
    assert [p.name for p in tmp_path.rglob("*")] == ["toy.yaml"]


def test_test_after_fit_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(yaml.safe_dump(CONFIG))
    run("fit", "--config", "toy.yaml", "--test_after_fit=false", "--trainer.default_root_dir=elsewhere")
    assert not Path("elsewhere/results.json").exists() and Path("elsewhere/checkpoints/last.ckpt").exists()


def test_own_checkpoint_callback_replaces_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "mine", "filename": "own"}}
    config = {**CONFIG, "trainer": {**CONFIG["trainer"], "callbacks": [own]}, "test_after_fit": False}
    Path("toy.yaml").write_text(yaml.safe_dump(config))
    run("fit", "--config", "toy.yaml")
    assert [p.name for p in Path("mine").iterdir()] == ["own.ckpt"]
    assert not Path("runs/toy/checkpoints").exists()


# ---- checkpoint against command line ----------------------------------------------------------------------


def test_test_needs_no_config_beside_its_checkpoint(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    saved = (here / "runs/toy/config.yaml").read_text()
    run("test", "--ckpt_path", BEST)
    out = capsys.readouterr().out
    assert "synthetic:lab (synthetic)" in " ".join(out.split()) or "(synthetic)" in out
    assert "undefined" in out
    assert json.loads((here / "runs/toy/test/results.json").read_text())["checkpoint"] == BEST
    assert (here / "runs/toy/config.yaml").read_text() == saved
    assert sorted(p.name for p in here.iterdir()) == ["runs", "toy.yaml"]


def test_test_scores_with_the_weights_of_the_checkpoint(here: Path) -> None:
    run("test", "--ckpt_path", BEST)
    weights = torch.load(BEST, weights_only=True)["state_dict"]
    x = torch.arange(4.0)[:, None].expand(4, 4)
    expected = x @ weights["backbone.weight"].T + weights["backbone.bias"]
    file = json.loads(Path("runs/toy/test/results.json").read_text())["datasets"]["synthetic:lab"][
        "predictions"
    ]
    score = pd.read_parquet(Path("runs/toy/test") / file)["score"]
    torch.testing.assert_close(torch.tensor(score.to_numpy()), expected.squeeze(1), check_dtype=False)


def test_a_moved_run_folder_is_its_own_run(here: Path) -> None:
    (here / "runs/toy").rename(here / "archive")
    run("test", "--ckpt_path", "archive/checkpoints/best.ckpt")
    assert Path("archive/test/results.json").exists() and not Path("runs/toy").exists()


def test_typed_settings_win_over_the_checkpoint_and_it_is_said(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = []
    monkeypatch.setattr(
        trainer.RaliCLI, "after_instantiate_classes", lambda cli: gains.append(cli.model.gain)
    )
    run("test", "--ckpt_path", BEST)
    assert "note:" not in capsys.readouterr().err
    run("test", "--ckpt_path", BEST, "--model.gain=0.9")
    assert "model.gain = 0.9 as given here; the checkpoint was trained with 0.5" in capsys.readouterr().err
    config = {**CONFIG, "model": {"class_path": "LinearToy", "init_args": {"gain": 0.7}}}
    Path("other.yaml").write_text(yaml.safe_dump(config))
    run("test", "--config", "other.yaml", "--ckpt_path", BEST)
    assert gains == [0.5, 0.9, 0.7]


def test_what_is_not_typed_comes_from_the_checkpoint(here: Path) -> None:
    run("fit", "--config", "toy.yaml", "--model.loss=mae", "--test_after_fit=false")
    Path("bare.yaml").write_text(yaml.safe_dump({**CONFIG, "model": {"class_path": "LinearToy"}}))
    words = ["--config", "bare.yaml", "--trainer.max_epochs=2", "--test_after_fit=false"]
    run("fit", *words, "--ckpt_path", "runs/toy-2/checkpoints/last.ckpt")
    assert (
        hparams("runs/toy-2/config.resumed.yaml")["gain"],
        hparams("runs/toy-2/config.resumed.yaml")["loss"],
    ) == (0.5, "mae")


@pytest.mark.parametrize("command", ["fit", "test"])
def test_another_class_than_the_checkpoint_is_refused(here: Path, command: str) -> None:
    with pytest.raises(ConfigError, match=r"trained with model class LinearToy.* asks for DeepToy"):
        run(command, "--ckpt_path", BEST, "--model=DeepToy")


def test_resume_continues_in_the_same_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("fit", "--ckpt_path", "runs/toy/checkpoints/last.ckpt", "--trainer.max_epochs=3")
    assert "resuming from" in capsys.readouterr().out
    content = torch.load("runs/toy/checkpoints/last.ckpt", weights_only=True)
    assert content["epoch"] == 2
    assert sorted(p.name for p in Path("runs").iterdir()) == ["toy"]


def test_weights_that_do_not_fit_are_an_error_of_ours(here: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not fit the model as configured here(.|\n)*extra"):
        run("test", "--ckpt_path", BEST, "--model.width=3")


def test_checkpoints_that_are_none(here: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Did you mean 'runs/toy/checkpoints/best.ckpt'"):
        run("test", "--ckpt_path", "runs/toy/checkpoints/bst.ckpt")
    with pytest.raises(CheckpointError, match=r"is a folder.*best.ckpt"):
        run("test", "--ckpt_path", "runs/toy")
    Path("no.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"no\.ckpt"):
        run("test", "--ckpt_path", "no.ckpt")


def test_untrained_weights_are_not_tested_by_accident(here: Path) -> None:
    with pytest.raises(ConfigError, match=rf"test needs the checkpoint.*--ckpt_path {BEST}"):
        run("test", "--config", "toy.yaml")


def test_predict_writes_one_table_a_data_set(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("predict", "--ckpt_path", BEST)
    frame = pd.read_parquet("runs/toy/predict/lab.parquet")
    assert list(frame["id"]) == ["0.png", "1.png", "2.png", "3.png", "bad.png"]
    assert list(frame["error"]) == ["", "", "", "", "truncated"]
    assert frame["score"].notna().tolist() == [True] * 4 + [False]
    assert "lab: 4 scored, 1 failed" in capsys.readouterr().out


def test_interrupt_comes_out_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(yaml.safe_dump({**CONFIG, "model": {"class_path": "InterruptedToy"}}))
    try:
        with pytest.raises(KeyboardInterrupt):
            run("fit", "--config", "toy.yaml")
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored


# ---- what errors say --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model=Lineartoy", "unknown class 'Lineartoy' at 'model'. Did you mean 'LinearToy'?"),
        ("--model=toy_cli.LinerToy", "unknown class 'toy_cli.LinerToy' at 'model'"),
        ("--model=LinearToy --model.gian=1", "LinearToy has no option 'gian'. Did you mean 'gain'?"),
        ("--model=LinearToy --model.loss=mes", "loss: expected one of 'mse', 'mae', got 'mes'"),
        (
            "--model=LinearToy --model.optimizer=Adm",
            "class 'Adm' at 'model.optimizer'. Did you mean 'Adam'?",
        ),
        ("--model=LinearToy --data.trian=[lab]", "unknown option '--data.trian'. Did you mean 'data.train'?"),
        ("--model=LinearToy --trainer.max_epoch=1", "Did you mean 'trainer.max_epochs'?"),
        ("--model=LinearToy --trainer.max_epochs=x", "trainer.max_epochs: expected int"),
        ("--model=LinearToy --trainer.logger=CVSLogger", "Did you mean 'CSVLogger'?"),
        (
            "--model=LinearToy --trainer.logger=CSVLogger",
            "CSVLogger lacks a setting at 'trainer.logger': add --trainer.logger.save_dir=VALUE",
        ),
        ("--model=LinearToy --trainer.callbacks+=EarlyStopping", "add --trainer.callbacks.monitor=VALUE"),
        ("--data.train=[lab]", "model is not given. Give a config: --config configs/FILE.yaml"),
    ],
)
def test_command_line_errors(
    words: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = error_of(capsys, "fit", *words.split())
    assert said in error
    assert len(error.splitlines()) <= 4 and "Traceback" not in error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"class_path": "Lineartoy"}}, "Did you mean 'LinearToy'?"),
        ({"model": {"class_path": "LinearToy", "init_args": {"gian": 1}}}, "Did you mean 'gain'?"),
        ({"modle": {"class_path": "LinearToy"}}, "fit has no setting 'modle'. Did you mean 'model'?"),
        ({"data": {"trian": ["lab"]}}, "fit has no setting 'data.trian'. Did you mean 'data.train'?"),
        ({"trainer": {"max_epoch": 1}}, "Did you mean 'trainer.max_epochs'?"),
        ({"fit": {"trainer": {"max_epochs": 1}}}, "the config nests its settings under 'fit'"),
        (
            {
                "model": {
                    "class_path": "LinearToy",
                    "init_args": {"optimizer": LRR},
                }
            },
            "Adam has no option 'lrr'. Did you mean 'lr'?",
        ),
    ],
)
def test_config_errors(
    change: dict[str, object],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(yaml.safe_dump({**CONFIG, **change}))
    error = error_of(capsys, "fit", "--config", "bad.yaml")
    assert said in error and len(error.splitlines()) <= 4


def test_a_logger_whose_package_is_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_utilities.core.imports import RequirementCache

    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", RequirementCache("no_such>=3"))
    with pytest.raises(ConfigError, match=r"^WandbLogger needs a package .*: pip install 'no_such>=3'$"):
        run("fit", "--config", "toy.yaml", "--trainer.logger=WandbLogger")


def test_an_optimizer_of_torch_is_named_alone_whatever_else_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = type("Adam", (torch.optim.Optimizer,), {"__module__": "elsewhere"})  # as bitsandbytes brings one
    monkeypatch.setitem(sys.modules, "elsewhere", SimpleNamespace(Adam=other))
    with pytest.raises(ValueError, match="Multiple subclasses"):
        _typehints.resolve_class_path_by_name(torch.optim.Optimizer, "Adam")
    with torch_first():
        found = _typehints.resolve_class_path_by_name(torch.optim.Optimizer, "Adam")
    assert found.startswith("torch.optim.")


def test_config_that_is_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("model: [\n  a: b")
    with pytest.raises(ConfigError, match=r"bad\.yaml cannot be read as yaml"):
        run("fit", "--config", str(tmp_path / "bad.yaml"))


def test_config_before_the_command_is_refused() -> None:
    with pytest.raises(ConfigError, match="the command comes first"):
        run("--config", "toy.yaml", "fit")


def test_a_run_that_stops_between_validations_keeps_its_weights(here):
    words = ("--trainer.max_epochs=-1", "--trainer.max_steps=1", "--trainer.check_val_every_n_epoch=3")
    run("fit", "--config", "toy.yaml", "--trainer.default_root_dir=short", *words)
    assert torch.load("short/checkpoints/last.ckpt", weights_only=True)["global_step"] == 1


# ---- trust ------------------------------------------------------------------------------------------------

HOOK = """import pathlib
pathlib.Path(r"{mark}").write_text("imported")
from lightning.pytorch import Callback
class Hook(Callback):
    def setup(self, *a, **k): pathlib.Path(r"{mark}").write_text("ran")
from toy_cli import LinearToy
class Evil(LinearToy): pass
"""


@pytest.fixture
def foreign(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run folder of somebody else, beside a module that leaves ``mark`` when it is imported."""
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))  # where nothing of ours was noted
    Path("runs/toy").rename("dl")
    Path("hookmod.py").write_text(HOOK.format(mark=here / "mark"))
    monkeypatch.syspath_prepend(str(here))  # as under python -m
    return here / "dl"


def edit(folder: Path, part: str, **settings: object) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config[part].update(settings)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("setting", ["callbacks", "logger", "plugins", "strategy"])
def test_trainer_settings_of_a_strange_run_folder_run_nothing(
    foreign: Path, command: str, setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(foreign, "trainer", **{setting: [{"class_path": "hookmod.Hook"}]})
    words = [command, "--ckpt_path", "dl/checkpoints/last.ckpt", "--trainer.accelerator=cpu"]
    run(*words, *(["--trainer.max_epochs=2"] if command == "fit" else []))
    assert not Path("mark").exists()
    assert "was not written by a fit of yours" in capsys.readouterr().err
    run("test", *words[1:])  # a resumed fit does not make it ours
    assert not Path("mark").exists() and "was not written by a fit of yours" in capsys.readouterr().err


def test_a_named_flag_trusts_a_run_folder(foreign: Path) -> None:
    edit(foreign, "trainer", callbacks=[{"class_path": "hookmod.Hook"}])
    run("test", "--ckpt_path", "dl/checkpoints/last.ckpt", "--trust_run_config=true")
    assert Path("mark").read_text() == "ran"


@pytest.mark.parametrize("name", ["hookmod.Evil", "hookmod.LinearToy", "os.system"])
@pytest.mark.parametrize("config", [True, False])
def test_a_checkpoint_imports_no_code(foreign: Path, name: str, config: bool) -> None:
    sys.modules.pop("hookmod", None)
    content = torch.load("dl/checkpoints/last.ckpt", weights_only=True)
    content["hyper_parameters"]["_class_path"] = name
    torch.save(content, "dl/checkpoints/last.ckpt")
    if not config:
        Path("dl/config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"cannot have code imported.*--plugin"):
        run("test", "--ckpt_path", "dl/checkpoints/last.ckpt")
    assert not Path("mark").exists()


def test_classes_inside_the_settings_of_a_model_are_known_ones(foreign: Path) -> None:
    content = torch.load("dl/checkpoints/last.ckpt", weights_only=True)
    content["hyper_parameters"]["optimizer"] = {"class_path": "hookmod.Hook"}
    torch.save(content, "dl/checkpoints/last.ckpt")
    with pytest.raises(CheckpointError, match=r"model.optimizer names the class 'hookmod.Hook'"):
        run("test", "--ckpt_path", "dl/checkpoints/last.ckpt")
    assert not Path("mark").exists()


@pytest.mark.parametrize(
    "reference",
    [
        "webdataset:pipe:touch mark",
        "webdataset:https://example.org/a.tar",
        "webdataset:{pipe:touch mark,a}",
        "csv:/etc/passwd",
        "csv:x.csv?root=%2Fetc",
        "csv:~/x.csv",
        "csv:../x.csv",
        "csv:C:\\x.csv",
    ],
)
@pytest.mark.parametrize("config", [True, False])
def test_only_a_user_names_commands_addresses_and_paths_outside(
    foreign: Path, reference: str, config: bool
) -> None:
    if config:
        edit(foreign, "data", test=[reference])
    else:
        Path("dl/config.yaml").unlink()
        content = torch.load("dl/checkpoints/last.ckpt", weights_only=True)
        data = {"train": ["lab"], "test": [reference], "_instantiator": "x"}
        torch.save({**content, "datamodule_hyper_parameters": data}, "dl/checkpoints/last.ckpt")
    words = ["test", "--ckpt_path", "dl/checkpoints/last.ckpt"]
    with pytest.raises(CheckpointError, match=r"data.test names .*type it: --data.test="):
        run(*words)
    run(*words, "--data.test=[lab]")
    run(*words, f"--data.test=['{reference}']")  # the toy does not open it


def test_a_run_folder_of_ones_own_is_trusted_whole_wherever_it_lies(here: Path) -> None:
    config = {**CONFIG, "data": {"train": ["lab"], "test": [f"csv:{here}/x.csv"]}}
    Path("own.yaml").write_text(yaml.safe_dump(config))
    run("fit", "--config", "own.yaml", "--test_after_fit=false")
    Path("runs/own").rename("moved")
    run("test", "--ckpt_path", "moved/checkpoints/best.ckpt")
    assert f"csv:{here}/x.csv" in json.loads(Path("moved/test/results.json").read_text())["datasets"]


def test_settings_of_0_1_0_have_their_names_of_today() -> None:
    from rali_zoo.cli.checkpoint_settings import renamed

    assert renamed({"max_unreadable": 0.5, "limit": 3}) == {"max_undecodable": 0.5, "limit": 3}
