import os

import pytest

from rali_zoo.errors import UnknownNameError, near_miss
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
