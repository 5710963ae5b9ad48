import os
import sys

import pytest

from rali_zoo.errors import PluginError, UnknownNameError, near_miss
from rali_zoo.paths import atomic_path
from rali_zoo.registry import Table


def test_imports_on_use_and_names_without_import():
    table = Table("thing", "rali_zoo.test_none", {"join": "os.path:join", "missing": "no_such_module_here:x"})
    assert list(table) == ["join", "missing"]
    assert table["join"] is os.path.join
    assert "missing" in table
    with pytest.raises(ModuleNotFoundError):
        table["missing"]


def test_miss_names_the_neighbour():
    table = Table("data set", "rali_zoo.test_none", {"koniq10k": "os:path", "spaq": "os:path"})
    with pytest.raises(UnknownNameError, match="Did you mean 'koniq10k'.*Known: koniq10k, spaq"):
        table["koniq"]


def test_clash_is_refused():
    table = Table("thing", "rali_zoo.test_none", {"a": "os:path"})
    table.register("a", "os:path")
    with pytest.raises(ValueError, match="already"):
        table.register("a", "os:sep")


def test_near_miss_ignores_case_and_shortens():
    assert "Did you mean 'RALI'" in near_miss("rali", ["RALI", "Regression"])
    assert "(40 in all)" in near_miss("x", [f"name{i}" for i in range(40)])


def test_atomic_path_is_all_or_nothing(tmp_path):
    target = tmp_path / "sub" / "file.txt"
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


def plug_in(folder, monkeypatch, rows):
    """A table that reads the entry points of a package installed into ``folder``."""
    info = folder / "odd-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rali_zoo.test_odd]\n{rows}\n")
    monkeypatch.syspath_prepend(folder)
    return Table("thing", "rali_zoo.test_odd", {"own": "os:path"})


@pytest.mark.parametrize("code", ["import no_such_library", "x = (", "1 / 0", ""])
def test_a_broken_plug_in_is_named_with_its_package(code, tmp_path, monkeypatch):
    (tmp_path / "odd_module.py").write_text(code)
    table = plug_in(tmp_path, monkeypatch, "odd = odd_module:thing")
    monkeypatch.delitem(sys.modules, "odd_module", raising=False)
    with pytest.raises(PluginError, match="package 'odd' added .* thing 'odd' is 'odd_module:thing'"):
        table["odd"]
    assert table["own"] is os.path


def test_a_plug_in_that_takes_a_name_is_named_each_time(tmp_path, monkeypatch):
    table = plug_in(tmp_path, monkeypatch, "own = odd_module:thing")
    for _ in range(2):
        with pytest.raises(PluginError, match="package 'odd' added .*'own' is already 'os:path'"):
            list(table)


def test_a_row_without_what_its_kind_needs_is_named(tmp_path, monkeypatch):
    table = Table("thing", "rali_zoo.test_none", {"own": "os:path"}, needs=("join", "create"))
    with pytest.raises(PluginError, match="thing 'own' is 'os:path', which has no create"):
        table["own"]
