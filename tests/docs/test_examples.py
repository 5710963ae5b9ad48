"""Every example of README and docs is run, checked to parse, or listed as not run; see CONTRIBUTING.md."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_blocks import PAGES, ROOT, SHELL, Block, blocks, commands, has_placeholder, ours
from plug_in import install

from rali_zoo.cli.main import COMMANDS, main

#: Commands that are run wherever they stand; others take long or need data, and are checked to parse.
QUICK = ("list", "show", "score", "describe")
#: First words of commands that are not ours, with what is checked of them.
FOREIGN = ("pip", "python", "git", "cd", "curl", "ruff", "mypy", "mkdocs", "bash", "chromium")
DATA = {"json": json.loads, "yaml": yaml.safe_load, "yml": yaml.safe_load, "toml": tomllib.loads}
PROSE = ("", "text", "csv", "bibtex", "html")
_CHECKPOINT = re.compile(r"(?:ckpt:|--ckpt_path[= ])([\w./-]+\.ckpt)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def shorten(text: str) -> str:
    """The same with small synthetic data sets, and random weights in place of those that are fetched."""
    text = re.sub(r"synthetic:(lab|wild|phone)(?![\w?])", r"synthetic:\1?n=60&size=64", text)
    return re.sub(r"\b(timm:\w[\w.]*)(?![\w.?:/*])", r"\1?pretrained=false&size=64", text)


@pytest.fixture
def page_folder(
    tmp_path: Path, photo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[Block]], Path]:
    """Maker of a folder in which a page's examples find what they name."""

    def make(found: list[Block]) -> Path:
        from PIL import Image

        text = "".join(block.text for block in found)
        names = ["a.jpg", "b.png", "photo.jpg", *(f"folder/{i}.jpg" for i in range(3))]
        if "photos/" in text:
            names += [f"photos/{i:02d}.jpg" for i in range(20)]
        for seed, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(photo(96, 128, seed=seed)).save(path)
        for name in ("configs", "benchmarks"):
            (tmp_path / name).symlink_to(ROOT / name)
        for block in found:
            if block.title:
                (tmp_path / block.title).write_text(shorten(block.text))
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        if (tmp_path / "pyproject.toml").exists():
            install(tmp_path, monkeypatch)
        return tmp_path

    return make


def provide_checkpoints(text: str) -> None:
    """A checkpoint wherever an example names one that no earlier example made, with the shipped weights."""
    import torch

    from rali_zoo.models.files import read_scorer
    from rali_zoo.paths import SHIPPED

    for name in _CHECKPOINT.findall(text):
        if Path(name).exists():
            continue
        model = "reasoner-tiny-synthetic" if "describe" in text else "rali-tiny-synthetic"
        header, weights = read_scorer(SHIPPED[model])
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        content = {"rali_zoo": header["extra"], "hyper_parameters": header["hparams"], "state_dict": weights}
        torch.save(content, name)


def outcome(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as stop:  # --help and --print_config end so
        return int(stop.code or 0)


def run_shell(block: Block, capfd: pytest.CaptureFixture[str]) -> None:
    for words in commands(block):
        mine = ours(words)
        if mine is None:
            check_foreign(words, block)
            continue
        mine = [shorten(word) for word in mine]
        provide_checkpoints(" ".join(mine))
        wanted = block.mode == "run" or mine[0] in QUICK
        if not wanted or has_placeholder(mine) or needs_data(mine):
            status = outcome([*mine, "--print_config"])
        else:
            status = outcome([*mine, *_faster(mine[0])])
        said = capfd.readouterr()
        assert status == 0, f"{block.place}: {' '.join(words)}\n{said.out[-1500:]}\n{said.err[-1500:]}"


def needs_data(words: list[str]) -> bool:
    """Whether a command reads a public data set, which is not here."""
    from rali_zoo.data.registry import DATASETS

    asked = [after.partition("?")[0] for word, after in pairwise(words) if word in ("--data", "--dataset")]
    return any(name in DATASETS and not Path("data", name).exists() for name in asked)


def _faster(command: str) -> list[str]:
    if command != "fit":
        return []
    return ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


def check_foreign(words: list[str], block: Block) -> None:
    assert words[0] in FOREIGN, f"{block.place}: what is {words[0]!r}? Run it, or write 'sh no-run REASON'"
    if words[0] == "python" and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file(), f"{block.place}: there is no {words[1]}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_page(path, page_folder, capfd):
    found = [b for b in blocks(path) if b.mode != "no-run"]
    folder = page_folder(found)
    before, namespace = set(sys.modules), {"__name__": "page"}
    try:
        for block in found:
            if block.language == "python" and not block.title:
                provide_checkpoints(block.text)
                code = compile("\n" * block.line + block.text, block.place, "exec")
                exec(code, namespace)
            elif block.language in SHELL:
                run_shell(block, capfd)
            elif block.language in DATA:
                DATA[block.language](block.text)
    finally:
        for name in set(sys.modules) - before:  # modules that the page itself holds
            if str(folder) in (getattr(sys.modules[name], "__file__", None) or ""):
                del sys.modules[name]


def test_no_example_is_left_out(capsys):
    """What is not run is listed, with its reason, in the output of the tests."""
    every = [block for path in PAGES for block in blocks(path)]
    known = ("python", *SHELL, *DATA, *PROSE)
    wrong = [f"{b.place}: unknown language {b.language!r}" for b in every if b.language not in known]
    wrong += [f"{b.place}: unknown mode {b.mode!r}" for b in every if b.mode not in ("", "run", "no-run")]
    idle = [b for b in every if b.mode == "no-run"]
    calls = [(b, w) for b in every if b.language in SHELL and b.mode != "no-run" for w in commands(b)]
    mine = [(b, ours(w)) for b, w in calls if ours(w) is not None]
    wrong += [f"{b.place}: unknown command {w}" for b, w in mine if w[0] not in COMMANDS and w[0][0] != "-"]
    assert not wrong, "\n".join(wrong)
    run = sum((b.mode == "run" or w[0] in QUICK) and not has_placeholder(w) for b, w in mine)
    python = sum(b.language == "python" and b.mode != "no-run" for b in every)
    foreign = [" ".join(w)[:60] for _, w in calls if ours(w) is None]
    assert run > 20 and python > 8, "the examples were not found"
    with capsys.disabled():
        print(f"\nexamples: {python} python blocks and {run} commands run, {len(mine) - run} commands parsed")
        print(f"not ours, not run ({len(foreign)}): " + "; ".join(dict.fromkeys(foreign)))
        print("\n".join(f"not run: {b.place}: {b.reason or b.text.splitlines()[0]}" for b in idle))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```sh\nrali-zoo score a.jpg --modell rali-tiny-synthetic\n```", AssertionError),
        ("```sh\nrali-zoo fit --config configs/quickstart/no_such.yaml\n```", AssertionError),
        ("```sh\nrali-zoo export --modle x\n```", AssertionError),
        ("```sh\nwget something\n```", AssertionError),
        ("```python\nassert 1 == 2\n```", AssertionError),
        ("```json\n{\n```", ValueError),
    ],
)
def test_wrong_examples_are_found(text, problem, page_folder, capfd, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(text)
    monkeypatch.setattr("markdown_blocks.ROOT", tmp_path)
    with pytest.raises(problem):
        test_page(page, page_folder, capfd)


def test_commands_of_a_block():
    text = "A=1 rali-zoo list  # all\npip install x && rali-zoo show 'a b' \\\n  --pretrained | head\n"
    block = Block("p", 1, "sh", "", "", "", text)
    assert commands(block) == [
        ["rali-zoo", "list"],
        ["pip", "install", "x"],
        ["rali-zoo", "show", "a b", "--pretrained"],
    ]
