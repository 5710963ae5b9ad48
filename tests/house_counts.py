"""How many homes a thing has, how large the package is, how loosely typed: ``python tests/house_counts.py [ROOT]``.

Of another state of the repository: ``git worktree add /tmp/old COMMIT`` and that folder as ROOT. What is said of a
thing is said of lines of code that only its home has, such as the call that gathers rows across ranks.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

from test_architecture import loosely_typed

#: Thing to what its home, and nothing else, holds a line of.
HOMES = {
    "bootstrap: draws of images": r"\.multinomial\(|rng\.integers\(len\(members\)",
    "bootstrap: draws of seeds": r"\.integers\(len\((runs\.)?seeds\)",
    "provenance: what machine": r"platform\.machine\(\)",
    "JSON: what is not finite is null": (
        r"(?:isfinite\(value\)|isnan\(value\) or math\.isinf\(value\)).*(?:None|value)$"
        r"|(?:return )?None if .*isfinite\(value\)"
    ),
    "slug of a reference": r"^def slug\(",
    "sha256 of a file": r"hashlib\.file_digest\(",
    "gather across ranks": r"all_gather_object\(",
    "seeded sample of a split": r"(?:rows|frame|table)\.sample\(.*random_state=",
    "loader of a reasoner": r"^def (?:load_reasoner|_reasoner)\(",
    "reader of typed settings": (
        r"^def (?:_build\(|_value\((?:value|ref)|_table\(raw|as_settings\(|read_settings\(|_integer\(|take_number\()"
        r"|^class Shape|def read\(cls, uri"
    ),
}


def counts(root: Path) -> dict[str, object]:
    """Everything that is counted, of a checkout."""
    files = sorted(root.glob("rali_zoo/**/*.py"))
    texts = {file.relative_to(root): file.read_text(encoding="utf-8") for file in files}
    found: dict[str, object] = {"lines": sum(len(text.splitlines()) for text in texts.values())}
    for thing, pattern in HOMES.items():
        places = [f"{f}" for f, text in texts.items() for _ in re.finditer(pattern, text, re.MULTILINE)]
        found[thing] = f"{len(places)}  ({', '.join(places)})"
    loose = [what for text in texts.values() for _, what in loosely_typed(ast.parse(text))]
    found["Any in public signatures"] = sum("Any says nothing" in what for what in loose)
    rules = ["ruff", "check", "--isolated", "--select=C901,PLR0911,PLR0912,PLR0915", "--output-format=json"]
    done = subprocess.run([*rules, str(root / "rali_zoo")], capture_output=True, text=True)
    found["functions above ruff's default complexity"] = len(json.loads(done.stdout or "[]"))
    return found


if __name__ == "__main__":
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    for name, value in counts(checkout).items():
        print(f"{name:42} {value}")
