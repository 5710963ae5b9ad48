"""Nothing we call may run code out of a repository: every loader of transformers is told so."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "rali_zoo"
LOADERS = ("from_pretrained", "from_config")


def faults(source):
    """Line numbers of loaders that are not called, or called without ``trust_remote_code=False``."""
    tree = ast.parse(source)
    loaders = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in LOADERS]
    calls = {id(n.func): n for n in ast.walk(tree) if isinstance(n, ast.Call)}

    def refuses(keyword):
        constant = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        return keyword.arg == "trust_remote_code" and constant

    return [
        loader.lineno
        for loader in loaders
        if id(loader) not in calls or not any(map(refuses, calls[id(loader)].keywords))
    ]


def test_every_loader_refuses_foreign_code():
    found = {
        str(path.relative_to(PACKAGE.parent)): faults(path.read_text()) for path in PACKAGE.rglob("*.py")
    }
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_the_walk_sees_what_it_should():
    assert faults("AutoModel.from_pretrained(x)") == [1]
    assert faults("load = AutoModel.from_pretrained") == [1]
    assert faults("AutoModel.from_config(x, trust_remote_code=True)") == [1]
    assert faults("AutoModel.from_config(x, **known)") == [1]
    assert faults("AutoModel.from_config(x, trust_remote_code=False)") == []
