"""Stands in for ``python -m rali_zoo`` in tests of the runner: a recipe names it as its launcher.

``make OUT [IN…]`` writes OUT from the contents of IN. ``fit`` counts steps into ``checkpoints/last.ckpt``,
stops for good at step 3 while the file ``hold`` is there, resumes with ``--ckpt_path``, and writes ``OUT`` at
step 5.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

words = sys.argv[sys.argv.index("rali_zoo") + 1 :]
print("toy:", *words, flush=True)
with Path("calls.txt").open("a") as calls:
    calls.write(" ".join(words) + "\n")
if words[0] == "make":
    Path(words[1]).write_text("+".join([Path(words[1]).stem, *(Path(w).read_text() for w in words[2:])]))
elif words[0] == "fit":
    options = dict(word.removeprefix("--").split("=", 1) for word in words[1:])
    last = Path(options["trainer.default_root_dir"]) / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True, exist_ok=True)
    step = int(Path(options["ckpt_path"]).read_text()) if "ckpt_path" in options else 0
    while step < 5:
        step += 1
        last.write_text(str(step))
        while step == 3 and Path("hold").exists():
            time.sleep(0.02)
    Path(options["out"]).write_text("fitted")
elif words[0] == "fail":
    print("what went wrong")
    sys.exit(3)
