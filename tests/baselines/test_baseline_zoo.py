"""The one door: schemes of other people's metrics in ``load_model``."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rali_zoo
from rali_zoo.baselines import BASELINES, list_metrics
from rali_zoo.errors import MissingExtraError, UriError


@pytest.mark.parametrize(
    ("ref", "says"),
    [("pyiqua:psnr", "Did you mean 'pyiqa'"), ("psnr", "'piq:psnr'"), ("pyiqa:", "nothing stands after")],
)
def test_bad_references_say_what_to_type(ref, says):
    with pytest.raises(UriError, match=says):
        rali_zoo.load_model(ref)


@pytest.mark.parametrize("library", ["pyiqa", "piq"])
def test_a_library_that_is_not_installed_is_an_extra(library, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"'{library}.*rali-zoo\[{library}\]"):
        rali_zoo.load_model(f"{library}:psnr")
    assert "psnr" in list_metrics(library, offline=True)


def test_every_scheme_lists_its_metrics():
    assert list_metrics("csv") == []
    assert all(list_metrics(scheme, offline=True) for scheme in BASELINES if scheme != "csv")


def test_the_door_opens_without_torch():
    code = "import sys, rali_zoo.zoo, rali_zoo.baselines; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
