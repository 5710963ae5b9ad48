"""The shape of the package: which part may import which, and what no file may hold."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rali_zoo

PACKAGE = Path(rali_zoo.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

#: Parts of the package by layer; a part imports from lower layers and its own, never upwards.
LAYERS = (
    ("types", "uri", "registry", "errors", "paths", "trust"),
    ("protocols", "settings", "report", "outputs", "views"),
    ("backbones", "text", "data", "metrics"),
    ("vlm",),
    ("rl", "models"),
    ("trainers", "baselines", "zoo"),
    ("recipe",),
    ("pipeline",),
    ("analysis", "bench", "scoring", "export", "serving"),
    ("cli",),
    ("__init__", "__main__"),
)
LAYER = {part: level for level, parts in enumerate(LAYERS) for part in parts}
#: A function with as many arguments lists them all; fewer may be told in a sentence.
ARGS_FROM = 4
#: Public functions whose keywords somebody else's protocol hands over: Lightning's command line, TRL, timm.
OTHERS_KEYWORDS = frozenset(
    [
        *(f"RaliCLI.{name}" for name in ("instantiate_trainer", "fit", "validate", "test", "predict")),
        "TrlReward.__call__",
        "rali_vlm_vision",
    ]
)
#: What counts as a shape in a docstring: (B, 3, H, W), (n,), (), "of any shape", "scalar".
SHAPE = re.compile(r"\([A-Za-z0-9.…][^()]{0,20}[,)]|\(\)|\bshape|\bscalar|\bflat", re.IGNORECASE)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_parts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and part of every import of our own, also those inside functions and for type checkers alone."""
    for node in ast.walk(tree):
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


def test_every_part_has_a_layer() -> None:
    assert {part_of(path) for path in FILES} <= set(LAYER)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_file(path: Path) -> None:
    """One test a file, so that a failure names it and lists all that is wrong with it."""
    tree = tree_of(path)
    wrong = []
    wrong += [
        f"line {line}: {part_of(path)} imports {part}, which stands above it"
        for line, part in imported_parts(tree)
        if LAYER.get(part, 0) > LAYER[part_of(path)]
    ]
    found = [*undocumented(tree), *half_documented(tree), *loosely_typed(tree), *forbidden(tree)]
    wrong += [f"line {line}: {what}" for line, what in found]
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


def loosely_typed(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Public signatures that say nothing: ``Any``, any keyword, a choice of which one is a bool."""
    for owner, node in _signatures(tree.body, ""):
        given = node.args
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        types = [a.annotation for a in arguments if a and a.annotation]
        if f"{owner}{node.name}" in OTHERS_KEYWORDS:
            continue
        if given.kwarg is not None:
            yield node.lineno, f"{node.name} takes any keyword; name what it takes"
        for annotation in [*types, *([node.returns] if node.returns else [])]:
            if any(isinstance(n, ast.Name) and n.id == "Any" for n in ast.walk(annotation)):
                yield node.lineno, f"{node.name}: Any says nothing; name the type, or object"
            if any(_chooses_bool(n) for n in ast.walk(annotation)):
                yield node.lineno, f"{node.name}: {ast.unparse(annotation)}: a choice has names (Literal)"


def _chooses_bool(node: ast.AST) -> bool:
    """Whether a type is a union of a bool and something beside ``None``."""
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)):
        return False
    parts = set(ast.unparse(node).split(" | "))
    return "bool" in parts and not parts <= {"bool", "None"}


def _signatures(
    body: list[ast.stmt], owner: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Public functions and methods, constructors and calls of public classes."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _signatures(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
            not node.name.startswith("_") or node.name in ("__init__", "__call__")
        ):
            yield owner, node


def public_functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Public functions, and public methods of public classes; whether each is a method."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from ((child, True) for child in node.body if _is_public(child))
        elif _is_public(node):
            yield node, False


def _is_public(node: ast.stmt) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_")


def half_documented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings that leave out arguments, describe others, or do not give the shape of a tensor."""
    for node, method in public_functions(tree):
        doc = ast.get_docstring(node) or ""
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        names = [a.arg for a in given if a.arg not in ("self", "cls")]
        section = re.search(r"^Args:\n((?:(?: {4}.*)?\n?)*)", doc, re.MULTILINE)
        if section is None:
            if not method and len(names) >= ARGS_FROM:
                yield node.lineno, f"{node.name} takes {len(names)} arguments and has no section Args"
        elif (told := re.findall(r"^ {4}(\w+):", section[1], re.MULTILINE)) != names:
            yield node.lineno, f"{node.name}: Args are {told} in the docstring, {names} in the signature"
        types = [a.annotation for a in given if a.annotation] + [node.returns] * (node.returns is not None)
        if any(map(_is_array, types)) and not SHAPE.search(doc):
            yield node.lineno, f"{node.name} takes or gives a tensor and does not say its shape"


def _is_array(annotation: ast.expr) -> bool:
    """Whether a type names a tensor or an array that is not one of a state dict."""
    text = ast.unparse(annotation)
    return bool(re.search(r"\b(Tensor|ndarray|NDArray)\b", text)) and not re.search(
        r"\b(dict|Mapping|str)\b", text
    )


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
    if name == "yaml.load" and "Safe" not in keywords.get("Loader", ""):
        yield node.lineno, "yaml.load needs a safe loader"
    if name.endswith("read_pickle") or name in {
        "eval",
        "exec",
        "joblib.load",
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
    half = ast.parse(
        'def f(a, b, c, d):\n    """Do."""\n'
        'def g(a, b):\n    """Do.\n\n    Args:\n        a: this.\n        c: that.\n    """\n'
        'def h(x: Tensor):\n    """Do."""\ndef i(x: Tensor):\n    """Do with (B, C)."""\n'
        'def j(x: dict[str, Tensor]):\n    """Do."""\n'
    )
    assert [line for line, _ in half_documented(half)] == [1, 3, 10]
    assert list(imported_parts(ast.parse("if TYPE_CHECKING:\n    from rali_zoo.cli import main\n"))) == [
        (2, "cli")
    ]


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("x: dict[str, Any]", "Any says nothing"),
        ("**given: int", "any keyword"),
        ("x: str | bool = False", "a choice has names"),
        ("x: list[bool | int | None]", "a choice has names"),
        ("x: bool | None = None", ""),
        ("x: object, *names: str", ""),
    ],
)
def test_a_loose_signature_is_seen(signature: str, said: str) -> None:
    for text in (f"def f({signature}): ...", f"class A:\n  def __init__(self, {signature}): ..."):
        found = list(loosely_typed(ast.parse(text)))
        assert bool(found) == bool(said) and all(said in what for _, what in found)
