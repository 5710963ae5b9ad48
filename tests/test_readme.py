"""The README tells the truth: its tables come from the results files, its commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rali_zoo.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
CALLS = re.findall(r"(?:python -m rali_zoo|^rali-zoo) (.+)", SHELL, re.MULTILINE)


def test_tables_are_those_of_the_results_files():
    done = subprocess.run(
        [sys.executable, "benchmarks/studies/tables.py", "--check"], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("call", CALLS)
def test_commands_and_configs_exist(call):
    words = shlex.split(call, comments=True)
    assert words[0] in COMMANDS
    for flag, value in zip(words, words[1:], strict=False):
        if flag == "--config":
            assert yaml.safe_load((ROOT / value).read_text())["model"]


def test_a_table_of_ones_own_can_be_trained_on(tmp_path, monkeypatch):
    """As README, the page of the model and its config name one: a table without a column that splits it."""
    from PIL import Image

    from rali_zoo.data.tables import load_table
    from rali_zoo.errors import ConfigError

    monkeypatch.chdir(tmp_path)
    places = ("README.md", "docs/photographs.md", "configs/photo/finetune.yaml")
    refs = {ref for p in places for ref in re.findall(r"csv:[\w/.]+\?[\w=,&]+", (ROOT / p).read_text())}
    assert len(refs) == 2
    for ref in refs:
        table = tmp_path / ref.removeprefix("csv:").partition("?")[0]
        table.parent.mkdir(exist_ok=True)
        for i in range(10):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(table.parent / f"{i}.png")
        table.write_text("image,mos\n" + "".join(f"{i}.png,{1 + i / 3}\n" for i in range(10)))
        assert len(load_table(ref).sample("train", None))
        plain = ref.removesuffix("&protocol=random")
        with pytest.raises(ConfigError, match=re.escape(f"write {ref!r}")):
            load_table(plain).sample("train", None)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
