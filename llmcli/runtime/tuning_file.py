"""Where the tile sizes that `llmcli tune` found for a GPU are kept.

Knows neither torch nor what is in the file. The kernel set of that GPU reads it, `runtime/tuning.py` writes it.
"""

import re
from pathlib import Path


def user_tuning_file(gpu_name: str) -> Path:
    """$XDG_CACHE_HOME/llmcli/tuning/<GPU name>.json, or the system's own cache folder; need not exist."""
    import platformdirs

    safe = re.sub(r"[^A-Za-z0-9 ._+-]", "_", gpu_name).strip(" .") or "GPU"
    return Path(platformdirs.user_cache_dir("llmcli", appauthor=False)) / "tuning" / f"{safe}.json"
