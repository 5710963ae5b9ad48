"""The shape of the package: which part may import which, and the limits that keep files readable."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import rali_zoo

PACKAGE = Path(rali_zoo.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

#: Parts of the package by layer; a part imports from lower layers and its own, never upwards.
LAYERS = (
    ("types", "uri", "registry", "errors", "paths", "recipe"),
    ("backbones", "text", "data", "metrics", "prototypes", "losses"),
    ("rl", "models"),
    ("baselines", "zoo"),
    ("bench", "pipeline", "scoring", "export", "serving"),
    ("cli",),
    ("__init__", "__main__"),
)
LAYER = {part: level for level, parts in enumerate(LAYERS) for part in parts}
MAX_FILE = 400
MAX_FUNCTION = 60


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def type_checking_only(tree: ast.Module) -> set[ast.AST]:
    """Nodes below ``if TYPE_CHECKING:``; they are never imported when the package runs."""
    blocks = [
        n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test).endswith("TYPE_CHECKING")
    ]
    return {node for block in blocks for statement in block.body for node in ast.walk(statement)}


def imported_parts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and part of every import of our own at run time, also those inside functions."""
    skipped = type_checking_only(tree)
    for node in ast.walk(tree):
        if node in skipped:
            continue
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports in full"
            module = node.module or ""
            names = [f"rali_zoo.{alias.name}" for alias in node.names] if module == "rali_zoo" else [module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("rali_zoo."):
                yield node.lineno, name.split(".")[1]


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_every_part_has_a_layer() -> None:
    assert {part_of(path) for path in FILES} <= set(LAYER)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_file(path: Path) -> None:
    """One test a file, so that a failure names it and lists all that is wrong with it."""
    tree, text = tree_of(path), path.read_text(encoding="utf-8")
    wrong = []
    if len(text.splitlines()) > MAX_FILE:
        wrong.append(f"{len(text.splitlines())} lines; at most {MAX_FILE}")
    wrong += [
        f"line {line}: {part_of(path)} imports {part}, which stands above it"
        for line, part in imported_parts(tree)
        if LAYER.get(part, 0) > LAYER[part_of(path)]
    ]
    wrong += [
        f"line {f.lineno}: {f.name} has {f.end_lineno - f.lineno + 1} lines; at most {MAX_FUNCTION}"
        for f in functions(tree)
        if f.end_lineno is not None and f.end_lineno - f.lineno + 1 > MAX_FUNCTION
    ]
    wrong += [f"line {line}: {what}" for line, what in [*undocumented(tree), *forbidden(tree)]]
    assert not wrong, "\n" + "\n".join(wrong)


def undocumented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Public classes and functions, and public methods of public classes, without a docstring."""
    if ast.get_docstring(tree) is None:
        yield 1, "the module has no docstring"
    for node in tree.body:
        yield from _undocumented(node, "")


def _undocumented(node: ast.stmt, owner: str) -> Iterator[tuple[int, str]]:
    if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith(
        "_"
    ):
        return
    overload = any(ast.unparse(d).endswith("overload") for d in node.decorator_list)
    if ast.get_docstring(node) is None and not overload:
        yield node.lineno, f"{owner}{node.name} has no docstring"
    if isinstance(node, ast.ClassDef):
        for child in node.body:
            yield from _undocumented(child, f"{node.name}.")


def forbidden(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """What no file of the package may contain."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield node.lineno, "assert vanishes under python -O; raise one of rali_zoo.errors"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from _unsafe_import(node)
        if isinstance(node, ast.Call):
            yield from _unsafe_call(node)


def _unsafe_import(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[int, str]]:
    modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    # The exception that torch.load raises when it refuses a file is pickle's; nothing else of it is wanted.
    harmless = isinstance(node, ast.ImportFrom) and {a.name for a in node.names} <= {"UnpicklingError"}
    for module in modules:
        if module.split(".")[0] in {"pickle", "dill", "cloudpickle", "shelve"} and not harmless:
            yield node.lineno, f"{module} runs code of whoever wrote the file"


def _unsafe_call(node: ast.Call) -> Iterator[tuple[int, str]]:
    name = ast.unparse(node.func)
    keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
    if name == "torch.load" and keywords.get("weights_only") != "True":
        yield node.lineno, "torch.load needs weights_only=True"
    if name in {"np.load", "numpy.load"} and keywords.get("allow_pickle", "False") != "False":
        yield node.lineno, "numpy.load must not allow pickles"
    if name.endswith("read_pickle") or name in {
        "eval",
        "exec",
        "joblib.load",
        "yaml.load",
        "yaml.unsafe_load",
    }:
        yield node.lineno, f"{name} runs code of whoever wrote its input"


def test_the_rules_can_fail() -> None:
    """Each rule finds what it is for."""
    bad = (
        "import pickle\nfrom rali_zoo.cli import main\n"
        "def f(x):\n    assert x\n    torch.load(x)\n    np.load(x, allow_pickle=True)\n    return eval(x)\n"
    )
    tree = ast.parse(bad)
    assert [line for line, _ in forbidden(tree)].count(1) == 1
    assert {line for line, _ in forbidden(tree)} == {1, 4, 5, 6, 7}
    assert list(imported_parts(tree)) == [(2, "cli")]
    assert [what for _, what in undocumented(tree)] == ["the module has no docstring", "f has no docstring"]
    assert not list(imported_parts(ast.parse("if TYPE_CHECKING:\n    from rali_zoo.cli import main\n")))
