"""The training command line on toys: who wins over whom, what is written where, what errors say."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from toy_cli import DeepToy, InterruptedToy, ToyData, ToyModule

from rali_zoo.cli import trainer
from rali_zoo.errors import CheckpointError, ConfigError

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
    assert (here / "runs/toy/config.yaml").read_text() == before


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


def test_test_needs_no_config_beside_its_checkpoint(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    run("fit", *words, "--ckpt_path", "runs/toy/checkpoints/last.ckpt")
    assert (hparams()["gain"], hparams()["loss"]) == (0.5, "mae")


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
        ("--data.train=[lab]", "model is not given. Give a config: --config configs/FILE.yaml"),
        ("--config nope.yaml", "nope.yaml"),
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
