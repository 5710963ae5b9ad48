"""``rali-zoo pipeline``: recipes, what is skipped and why, and kills."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from rali_zoo.cli import check_words
from rali_zoo.cli.main import main
from rali_zoo.cli.pipeline import check_trust
from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.pipeline import Runner, StageError, seconds
from rali_zoo.recipe import read_recipe

TOY = [sys.executable, str(Path(__file__).with_name("toy_stage.py"))]
ROOT = Path(__file__).parents[2]
SYNTHETIC = ROOT / "configs" / "pipelines" / "ract_synthetic.yaml"
CHAIN = {
    "vars": {"out": "out", "word": "x"},
    "folder": "${out}",
    "launcher": TOY,
    "stages": [
        {"name": "a", "run": ["make", "a.txt"], "inputs": ["given.txt"], "outputs": ["a.txt"]},
        {
            "name": "fit",
            "run": ["fit", "--trainer.default_root_dir=run", "--in=a.txt", "--word=${word}", "--out=fit.txt"],
            "outputs": ["fit.txt"],
        },
        {"name": "c", "run": ["make", "c.txt", "fit.txt"], "outputs": ["c.txt"]},
    ],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("given.txt").write_text("given")
    return tmp_path


def write(content: dict, name: str = "recipe.yaml") -> Path:
    Path(name).write_text(yaml.safe_dump(content, sort_keys=False))
    return Path(name)


def calls() -> list[str]:
    """First words of what has been called since the last look."""
    path = Path("calls.txt")
    found = [line.split()[:2] for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return [" ".join(words) if words[0] == "make" else words[0] for words in found]


def run(**given: str | None) -> list[str]:
    lines: list[str] = []
    recipe = read_recipe(write(CHAIN), {"word": given.pop("word")} if "word" in given else {})
    Runner(recipe, lines.append).run(**given)
    return lines


# ---- recipes ----


def test_repetitions_and_variables(folder):
    content = {
        "vars": {"out": "o", "deep": "${out}/d"},
        "foreach": {"seed": [0, 1]},
        "stages": [
            {
                "name": "train",
                "foreach": {"held": {"lab": {"rest": "[wild]"}, "wild": {"rest": "[lab]"}}},
                "run": ["make", "${deep}/${held}-${seed}.txt", "--data.train=${rest}"],
                "outputs": ["${deep}/${held}-${seed}.txt"],
            },
            {"name": "all", "run": ["make", "o/${seed}"], "outputs": ["o/${seed}"],
             "needs": ["train-${seed}-lab"]},
            {"name": "one", "run": ["make", "o/x${seed}", "o/d/lab-${seed}.txt"], "outputs": ["o/x${seed}"]},
        ],
    }  # fmt: skip
    recipe = read_recipe(write(content), {"out": "p"})
    names = [stage.name for stage in recipe.stages]
    assert names == [f"{n}-{s}{h}" for s in (0, 1) for n, h in
                     (("train", "-lab"), ("train", "-wild"), ("all", ""), ("one", ""))]  # fmt: skip
    assert recipe.stage("train-1-wild").run == ("make", "p/d/wild-1.txt", "--data.train=[lab]")
    assert recipe.stage("all-1").needs == ("train-1-lab",)
    assert recipe.stage("one-0").needs == ()  # it reads below o, and they write below p
    assert read_recipe(Path("recipe.yaml")).stage("one-0").needs == ("train-0-lab",)
    assert recipe.named("train") == {n for n in names if n.startswith("train")}
    assert "--vars.out=p" in recipe.again


def test_a_path_inside_a_longer_one_is_no_need(folder):
    stages = [
        {"name": n, "run": ["make", n, *reads], "outputs": [n]}
        for n, reads in (("a/x", ()), ("a/x.parquet", ()), ("b", ("--t=[a/x.parquet]",)), ("c", ("[a/x,q]",)))
    ]
    for stage, name in zip(stages, "stuv", strict=True):
        stage["name"] = name
    recipe = read_recipe(write({"stages": stages}))
    assert recipe.stage("u").needs == ("t",) and recipe.stage("v").needs == ("s",)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"stagse": []}, UnknownNameError, "stages"),
        ({"stages": [{"name": "a", "runs": []}]}, UnknownNameError, "run"),
        ({"stages": [{"name": "a", "run": ["${outt}"], "outputs": ["b"]}]}, UnknownNameError, "'out'"),
        ({"stages": [{"name": "a", "run": ["x"], "outputs": []}]}, ConfigError, "outputs"),
        ({"stages": [{"name": "a", "run": ["fit"], "outputs": ["b"]}]}, ConfigError, "default_root_dir"),
        ({"stages": []}, ConfigError, "no stages"),
        ({"stages": {"a": 1}}, ConfigError, "list of mappings"),
        ({"stages": ["a"]}, ConfigError, "list of mappings"),
        ({"vars": ["a"]}, ConfigError, "vars is a mapping"),
        ({"vars": {0: "a"}}, ConfigError, "vars is a mapping"),
        ({"foreach": {0: ["a"]}}, ConfigError, "foreach is a mapping"),
        ({"foreach": {"d": {"a": "b"}}}, ConfigError, "mapping of further variables"),
        ({"foreach": {"d": "[a"}}, ConfigError, "no list"),
        ({"stages": [{"name": "a", "run": ["${x"], "outputs": ["b"]}]}, ConfigError, "a variable is"),
        ({"stages": [{"name": "a", "run": ["x", "o"], "outputs": ["p"]},
                     {"name": "b", "run": ["x", "p"], "outputs": ["o"]}]}, ConfigError, "circle"),
        ({"stages": [{"name": "a", "run": ["x"], "outputs": ["p"], "foreach": {"s": [0, 1]}}]},
         ConfigError, "several stages that write p"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said(folder, change, error, words):
    with pytest.raises(error, match=words):
        read_recipe(write({**CHAIN, **change}))


# ---- running ----


def test_only_what_has_changed_runs_again(folder):
    run()
    assert calls() == ["make a.txt", "fit", "make c.txt"] and Path("c.txt").read_text() == "c+fitted"
    assert set(seconds("out")) == {"a", "fit", "c"}
    assert all("skipped, unchanged" in line for line in run()) and calls() == []
    run(word="y")  # the words of one stage: those after it see equal outputs
    assert calls() == ["fit"]
    Path("given.txt").write_text("other")
    run(word="y")
    assert calls() == ["make a.txt"]
    os.utime("a.txt", (1, 1))
    run(word="y")
    assert calls() == [], "a new time alone is no change"
    Path("a.txt").write_text("tampered")
    assert any("is not what the stage wrote" in line for line in run(word="y"))
    assert calls() == ["make a.txt"]
    Path("c.txt").unlink()
    run(word="y", until="fit")
    assert calls() == []
    run(word="y")
    assert calls() == ["make c.txt"]
    run(word="y", force="a")
    assert calls() == ["make a.txt"]


def test_a_changed_config_counts(folder):
    Path("c.yaml").write_text("a: 1")
    words = ["fit", "--config=c.yaml", "--trainer.default_root_dir=run", "--out=fit.txt"]
    recipe = read_recipe(write({**CHAIN, "stages": [{"name": "s", "run": words, "outputs": ["fit.txt"]}]}))
    for text, called in (("a: 1", ["fit"]), ("a: 1", []), ("a: 2", ["fit"])):
        Path("c.yaml").write_text(text)
        Runner(recipe, lambda line: None).run()
        assert calls() == called
    Path("c.yaml").unlink()
    with pytest.raises(StageError, match="stage s: c.yaml is not there"):
        Runner(recipe, lambda line: None).run()


def test_dry_run_does_nothing(folder, capsys):
    path = write(CHAIN)
    assert main(["pipeline", "--trust_recipe", str(path), "--dry_run", "--vars.word=7"]) == 0
    told = capsys.readouterr().out
    assert "--word=7" in told and told.count("not run yet") == 1 and "after a" in told
    assert not Path("out").exists() and calls() == []
    assert main(["pipeline", "--trust_recipe", str(path), "--vars.wrod=7"]) == 1
    assert "'word'" in capsys.readouterr().err
    assert main(["pipeline", "--trust_recipe", str(path), "--until=ab"]) == 1


def test_a_failure_says_where_and_how_to_go_on(folder, capsys):
    bad = {"name": "bad", "run": ["fail", "a.txt"], "outputs": ["b.txt"]}
    path = write({**CHAIN, "stages": [CHAIN["stages"][0], bad]})
    assert main(["pipeline", "--trust_recipe", str(path)]) == 1
    told = capsys.readouterr().err
    for part in (
        "stage bad ended with status 3",
        "what went wrong",
        "out/stages/bad.log",
        f"pipeline {path}",
    ):
        assert part in told
    assert calls() == ["make a.txt", "fail"]
    bad["run"] = ["make", "b.txt", "a.txt"]
    path = write({**CHAIN, "stages": [CHAIN["stages"][0], bad]})
    assert main(["pipeline", "--trust_recipe", str(path)]) == 0 and calls() == ["make b.txt"]
    lazy = {"name": "lazy", "run": ["make", "d.txt"], "outputs": ["e.txt"]}
    assert main(["pipeline", "--trust_recipe", str(write({**CHAIN, "stages": [lazy]}))]) == 1
    assert "did not write e.txt" in capsys.readouterr().err


def start(folder: Path, recipe: Path, *words: str) -> subprocess.Popen[bytes]:
    """The pipeline in a process group of its own, which a kill takes whole."""
    command = [sys.executable, "-m", "rali_zoo", "pipeline", "--trust_recipe", str(recipe), *words]
    with (folder / "pipeline.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def wait_for(condition, child: subprocess.Popen[bytes], limit: float = 120) -> bool:
    """Until the condition holds (True) or the process ends before (False)."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if condition():
            return True
        if child.poll() is not None:
            return bool(condition())
        time.sleep(0.02)
    raise TimeoutError("neither came true nor ended")


def status(path: Path) -> str:
    return json.loads(path.read_text())["status"] if path.exists() else ""


def test_a_killed_fit_goes_on_from_its_checkpoint(folder, monkeypatch):
    path = write(CHAIN)
    Path("hold").touch()
    child = start(folder, path)
    last = Path("run/checkpoints/last.ckpt")
    assert wait_for(lambda: last.exists() and last.read_text() == "3", child)
    # another run keeps its hands off as long as one is at it
    with monkeypatch.context() as patch, pytest.raises(StageError, match="another process"):
        patch.setattr("rali_zoo.pipeline._PATIENCE_S", 0.1)
        run()
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert status(Path("out/stages/fit.json")) == "running"
    Path("hold").unlink()
    calls()
    lines = run()
    assert any("resume (killed before)" in line for line in lines)
    assert calls() == ["fit", "make c.txt"] and Path("c.txt").read_text() == "c+fitted"
    assert "--ckpt_path=run/checkpoints/last.ckpt" in Path("out/stages/fit.log").read_text()


def test_other_settings_do_not_resume_from_the_old_checkpoint(folder):
    path = write(CHAIN)
    Path("hold").touch()
    child = start(folder, path)
    last = Path("run/checkpoints/last.ckpt")
    assert wait_for(lambda: last.exists() and last.read_text() == "3", child)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    Path("hold").unlink()
    run(word="new")
    assert "--ckpt_path" not in Path("out/stages/fit.log").read_text()


@pytest.mark.parametrize(
    "path", ["a.txt", "fit.txt", "run/checkpoints/last.ckpt", "run/results.json", "c.txt.parts"]
)
def test_what_no_run_has_written_is_never_removed(folder, path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("made by hand")
    place = path if path != "run/checkpoints/last.ckpt" else "run/checkpoints"
    with pytest.raises(StageError, match=f"would replace {place}, which no run"):
        run()
    assert Path(path).read_text() == "made by hand" and calls() == []


def test_what_was_left_by_other_settings_is_cleared(folder):
    Path("hold").touch()
    child = start(folder, write(CHAIN))
    assert wait_for(lambda: Path("run/checkpoints/last.ckpt").exists(), child)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    Path("hold").unlink()
    Path("run/config.yaml").write_text("of the run that was killed")
    Path("run/notes.txt").write_text("mine")
    Path("fit.txt.parts").mkdir()
    run(word="new")
    assert not Path("run/config.yaml").exists() and Path("run/notes.txt").exists()


def test_a_mistyped_option_is_found_before_anything_is_touched(folder, capsys):
    wrong = [
        (["fit", "--trainer.default_root_dir=run", "--data.trian=[lab]"], "--data.trian"),
        (["fit", "--trainer.default_root_dir=run", "--model=RALLI"], "RALLI"),
        (["list", "--nothing=1"], "--nothing"),
        (["lits"], "lits"),
    ]
    for words, said in wrong:
        stages = [
            {"name": "a", "run": ["list"], "outputs": ["a.txt"]},
            {"name": "b", "run": words, "outputs": ["b.txt"], "needs": ["a"]},
        ]
        Path("w.yaml").write_text(yaml.safe_dump({"stages": stages}))
        with pytest.raises(StageError, match=r"stage b: "):
            Runner(read_recipe("w.yaml"), lambda line: None, check_words).run()
        assert not Path("w").exists()
        assert main(["pipeline", "w.yaml"]) == 1 and said in capsys.readouterr().err


# ---- recipes of others ----


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"launcher": ["touch", "mark"]}, "starts the program 'touch'"),
        ({"run": ["touch", "mark"]}, "no command 'touch'"),
        ({"run": ["pipeline", "x.yaml"]}, "no command 'pipeline'"),
        ({"run": ["list", "--plugin=evil"]}, "can have code run by '--plugin=evil'"),
        ({"run": ["list", "--plugin", "evil"]}, "can have code run by '--plugin'"),
        (
            {"run": ["fit", "--trainer.default_root_dir=r", "--trainer.callbacks=evil.Hook"]},
            "callbacks=evil.Hook",
        ),
        ({"run": ["fit", "--trainer.default_root_dir=r", "--trust_run_config=true"]}, "trust_run_config"),
        (
            {"run": ["fit", "--trainer.default_root_dir=r", "--config=evil.yaml"]},
            "names the class 'evil.Hook'",
        ),
        ({"run": ["fit", "--trainer.default_root_dir=/tmp/x"]}, "'--trainer.default_root_dir=/tmp/x'"),
        (
            {"run": ["fit", "--trainer.default_root_dir=r", "--data.train=webdataset:pipe:touch mark"]},
            "pipe:",
        ),
        ({"outputs": ["../../x"]}, r"'../../x'"),
        ({"outputs": ["${up}/x"]}, r"'\.\.'"),
    ],
)
def test_a_recipe_of_somebody_else_runs_our_commands_below_this_folder_only(folder, capsys, change, said):
    Path("evil.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [{"class_path": "evil.Hook"}]}}))
    Path("evil.py").write_text("open('mark', 'w')")
    stage = {"name": "a", "run": ["list"], "outputs": ["out.txt"], **change}
    given = {"vars": {"up": ".."}} if "up" in str(change) else {}
    Path("r.yaml").write_text(yaml.safe_dump({**given, "stages": [stage]}))
    assert main(["pipeline", "r.yaml"]) == 1
    assert re.search(said, capsys.readouterr().err)
    assert not Path("mark").exists() and not Path("r").exists()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "pipelines").glob("*.yaml")), ids=lambda p: p.stem
)
def test_shipped_recipes_need_no_trust(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    check_trust(read_recipe(path), path)


def test_a_polite_end_ends_the_stage_too(folder):
    Path("hold").touch()
    child = start(folder, write(CHAIN))
    last = Path("run/checkpoints/last.ckpt")
    assert wait_for(lambda: last.exists() and last.read_text() == "3", child)
    child.terminate()
    assert child.wait(30) == 128 + signal.SIGTERM
    Path("hold").unlink()
    run()  # the lock is free: nobody is left
    assert Path("c.txt").exists()


# ---- the recipe of RACT ----

TINY = {
    "n": "60", "size": "64", "vlm": "rali:vlm-tiny?image_size=32&width=64&layers=1&grid=2", "words": "80",
    "vision_epochs": "1", "cold_epochs": "15", "cold_lr": "1e-2", "ract_epochs": "1", "align_epochs": "1",
    "rali_epochs": "2", "crop": "48", "batch": "8", "grpo_steps": "2", "rollouts": "2",
    "text_encoder": "rali:hash", "max_undescribed": "0.9",
}  # fmt: skip


@pytest.fixture
def ract(tmp_path, monkeypatch):
    """The words of the small recipe, run in the repository, with everything written elsewhere."""
    monkeypatch.chdir(ROOT)
    given = {**TINY, "out": str(tmp_path / "run")}
    return [f"--vars.{name}={value}" for name, value in given.items()], tmp_path / "run"


def stages() -> list[str]:
    return [stage.name for stage in read_recipe(SYNTHETIC).stages]


def kill_in(stage: str, words: list[str], out: Path, log: Path) -> None:
    """Run until the stage's own process is at work, and kill all.

    A stage that ends while its moment is waited for was not killed; it is run again, and killed sooner.
    """
    command = [sys.executable, "-m", "rali_zoo", "pipeline", str(SYNTHETIC), f"--until={stage}", *words]
    state, wait, extra = out / "stages" / f"{stage}.json", 4.0, []
    for _ in range(6):
        with log.open("ab") as file:
            child = subprocess.Popen(
                [*command, *extra], cwd=ROOT, stdout=file, stderr=file, start_new_session=True
            )
        started = wait_for(lambda: status(state) == "running", child, 900)
        if started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(wait)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if started and status(state) == "running":
            return
        wait, extra = wait / 2, [f"--force={stage}"]
    raise AssertionError(f"{stage} could not be caught at work: {log.read_text()[-2000:]}")


def check_ended(out: Path, names: list[str]) -> None:
    for name in names:
        assert status(out / "stages" / f"{name}.json") == "done", name


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["vision-lab"])
def test_the_recipe_goes_on_after_a_kill(stage, ract, tmp_path):
    """One real stage, killed at work; the next test does it in all. Toy stages are killed above."""
    words, out = ract
    kill_in(stage, words, out, tmp_path / "log.txt")
    assert main(["pipeline", str(SYNTHETIC), f"--until={stage}", *words]) == 0
    check_ended(out, [stage])


@pytest.mark.slow
def test_the_recipe_ends_though_killed_in_every_stage(ract, tmp_path, capsys):
    words, out = ract
    log = tmp_path / "log.txt"
    for stage in stages():
        kill_in(stage, words, out, log)
    assert main(["pipeline", str(SYNTHETIC), *words]) == 0
    check_ended(out, stages())
    texts = [pd.read_parquet(out / "ract_texts" / f"{d}.parquet") for d in ("lab", "wild", "phone")]
    assert all(len(table) > 0 and not table.duplicated(["image_id", "seed"]).any() for table in texts)
    for name in ("ract", "rali"):
        found = json.loads((out / name / "results.json").read_text())["datasets"]
        assert len(found) == 3 and all(row["n"] + row["failed"] > 0 for row in found.values())
    gap = json.loads((out / "gap" / "domains.json").read_text())["results"]
    assert set(gap["spaces"]) == {
        "vision, before", "vision, after", "student, student_before", "student, student_after", "text, before",
        "text, after",
    }  # fmt: skip
    assert set(gap["scores"]) == {"lab_alone", "ract", "rali"}
    capsys.readouterr()
    assert main(["pipeline", str(SYNTHETIC), *words]) == 0
    assert capsys.readouterr().out.count("skipped, unchanged") == len(stages())


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "3",
        "{",
        '{"key": 1, "status": "done", "words": []}',
        '{"key": "a", "status": "odd", "words": []}',
        '{"key": "a", "status": "done", "words": [], "outputs": {"x": 3}}',
        "[" * 100_000,
    ],
)
def test_a_state_of_another_shape_is_one_error_that_names_the_file(tmp_path, content):
    from rali_zoo.errors import RaliZooError
    from rali_zoo.pipeline import _state

    (tmp_path / "fit.json").write_text(content)
    with pytest.raises(RaliZooError, match=r"fit\.json.*remove it to run the stage"):
        _state(tmp_path / "fit.json")
