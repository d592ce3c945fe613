"""The random checkpoints: made by scripts/make_random_model.py, each in one piece or not at all."""

import shutil
import sys
from pathlib import Path

from scripts.peers.place import ROOT, Place
from scripts.peers.workload import Model


def make_checkpoint(
    place: Place, model: Model, out: Path, *, awq: bool = False, layers: int | None = None
) -> None:
    """Write the model to the folder `out` where there is none; raises SetupError."""
    if out.exists():
        return
    unfinished = out.with_name(out.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    options = [*(["--awq"] if awq else []), *(["--layers", str(layers)] if layers else [])]
    script = ROOT / "scripts" / "make_random_model.py"
    place.run(f"model {out.name}", [sys.executable, script, model.shape, "--out", unfinished, *options])
    unfinished.rename(out)


def missing_folder(place: Place, folder: Path) -> str:
    return "" if folder.is_dir() else f"no model at {place.portable(str(folder))}: --setup makes it"
