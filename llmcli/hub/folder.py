"""Does a folder hold a model that llmcli can load? Looks at file names, and at those in a shard index.

Knows nothing of the hub; the content of the files is for `model/` to judge. Called by `hub/models.py` and
`hub/download.py`.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from llmcli.errors import CheckpointError, quote

INDEX = "model.safetensors.index.json"
MAX_INDEX_BYTES = 64 << 20
MAX_NAMES_SHOWN = 12
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_FOREIGN = (".gguf", ".ggml", ".onnx", ".h5", ".msgpack")


def missing_files(folder: Path) -> list[str]:
    """What a cached snapshot lacks before it can be loaded: config, tokenizer, weights, every shard."""
    missing = [] if (folder / "config.json").exists() else ["config.json"]
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        missing.append("tokenizer.json")
    if (folder / INDEX).exists():
        return missing + [name for name in _shards(folder / INDEX) if not (folder / name).exists()]
    if not any(path.exists() for path in folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    return missing


def check_folder(folder: Path, shown: str) -> None:
    """Raise CheckpointError unless the folder has a config.json and safetensors weights."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        cause = quote(error.strerror or str(error))
        raise CheckpointError(f"can not read the folder {quote(shown)}: {cause}") from None
    if "config.json" not in names:
        raise CheckpointError(
            f"{quote(shown)} has no config.json, so it is not a model's folder",
            why=f"files found: {_some(names)}",
            fix="name the folder that holds config.json, tokenizer.json and *.safetensors",
        )
    if not any(name.endswith(".safetensors") for name in names):
        raise no_weights(shown, names)


def python_files(folder: Path) -> list[str]:
    """Names of the code files beside a model: never run, worth a note."""
    return sorted(path.name for path in folder.glob("*.py"))


def no_weights(shown: str, names: Iterable[str]) -> CheckpointError:
    """The error for a model without safetensors weights, by what it has instead."""
    names = list(names)
    pickled = [name for name in names if name.endswith(_PICKLED)]
    foreign = [name for name in names if name.endswith(_FOREIGN)]
    if pickled:
        return CheckpointError(
            f"{quote(shown)} has pickled weights only ({_some(pickled)}), which llmcli refuses to read",
            why="a pickle can run any code; llmcli loads *.safetensors only",
            fix="look for a safetensors revision, or convert it elsewhere with save_pretrained(FOLDER)",
        )
    if foreign:
        return CheckpointError(
            f"{quote(shown)} has no safetensors weights; the format of {_some(foreign)} is not supported",
            fix="use the original or an AWQ repository of the same model",
        )
    return CheckpointError(
        f"{quote(shown)} has no weights that llmcli reads (config.json and *.safetensors)",
        why=f"files found: {_some(names)}",
    )


def _shards(index: Path) -> list[str]:
    """File names in a shard index; one that can not be read lacks nothing here, and fails in `model/`."""
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            return []
        weight_map = json.loads(index.read_bytes())["weight_map"]
        names = sorted({str(name) for name in weight_map.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return [name for name in names if "/" not in name and "\\" not in name and "\0" not in name]


def _some(names: list[str]) -> str:
    """A short list of names, safe to print."""
    shown = ", ".join(quote(name, 60) for name in names[:MAX_NAMES_SHOWN]) or "none"
    rest = len(names) - MAX_NAMES_SHOWN
    return quote(f"{shown} and {rest} more" if rest > 0 else shown, 400)
