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


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
