"""Which tensors a model's folder holds: the headers of its safetensors files, checked before anything is allocated.

The format: 8 bytes little-endian header length, a JSON object of name -> dtype, shape, data_offsets, then the data
(https://huggingface.co/docs/safetensors). Standard library only, so that `show` can read sizes without torch;
`model/weights.py` maps the data. Pickle files are never opened.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcli import strict_json
from llmcli.errors import CheckpointError, quote
from llmcli.model.spec import read_json_object

MAX_HEADER_BYTES = 100_000_000
MAX_INDEX_BYTES = 16 << 20
MAX_DIMENSIONS = 8
MAX_FILE_NAME = 255
ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
} | {
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "U32": 4,
    "U64": 8,
}
AGAIN = "the file is damaged: download it again (`llmcli pull`)"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor on disk; dtype is safetensors' name, num_bytes its data."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


def read_checkpoint(folder: Path) -> Mapping[str, TensorInfo]:
    """All tensors of a model, from model.safetensors.index.json or the *.safetensors files themselves.

    Raises:
        CheckpointError: no safetensors file, a shard is missing or damaged, a tensor is missing or there twice.
    """
    index = folder / "model.safetensors.index.json"
    weight_map = _weight_map(index) if index.is_file() else {}
    files = _shards(index, weight_map) if weight_map else _unindexed_files(folder)
    if not files:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:20])
        raise CheckpointError(
            f"{folder} has no safetensors file",
            why=f"found: {quote(found)}",
            fix="only safetensors weights are read; pickle files (.bin, .pt) are refused because they can run code",
        )
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        for name, info in read_header(file).items():
            if name in tensors:
                raise CheckpointError(
                    f"tensor {quote(name)} is in both {tensors[name].file.name} and {file.name}"
                )
            tensors[name] = info
    for name, file_name in weight_map.items():
        if name not in tensors or tensors[name].file.name != file_name:
            raise CheckpointError(
                f"{folder / file_name} lacks tensor {quote(name)}, which {index.name} lists", fix=AGAIN
            )
    return tensors


def read_header(file: Path) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file.

    Raises:
        CheckpointError: too short, not safetensors, offsets that overlap, leave gaps or leave the file.
    """
    try:
        if not file.is_file():
            raise OSError(2, "not a regular file" if file.exists() else "no such file")
        _check_link(file)
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(8)
            if len(prefix) < 8:
                raise CheckpointError(f"{file} has {size} bytes, too short to be safetensors", fix=AGAIN)
            length = struct.unpack("<Q", prefix)[0]
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise CheckpointError(
                    f"{file} is not safetensors: it declares a header of {length:,} bytes in a file of {size:,}",
                    why=_looks_like(prefix),
                    fix=AGAIN,
                )
            header = strict_json.loads(stream.read(length))
    except OSError as error:
        raise CheckpointError(f"{file} can not be read: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{file} has a bad header: {error}", fix=AGAIN) from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{file} has a bad header: not an object", fix=AGAIN)
    header.pop("__metadata__", None)
    return _check_layout(file, header, size - 8 - length)


def _check_layout(file: Path, header: dict[str, Any], data_bytes: int) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    ranges: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            numbers = (begin, end, *shape)
        except (TypeError, KeyError, ValueError):
            raise CheckpointError(f"{file}: tensor {quote(name)} has a bad header entry", fix=AGAIN) from None
        sound = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**63 for n in numbers)
        if not sound or len(shape) > MAX_DIMENSIONS:
            raise CheckpointError(
                f"{file}: tensor {quote(name)} has a bad shape {quote(list(shape))} or offsets {quote([begin, end])}",
                fix=AGAIN,
            )
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise CheckpointError(f"{file}: tensor {quote(name)} has unknown dtype {quote(dtype)}")
        count = ITEM_BYTES[dtype]
        for n in shape:
            count *= n
        if end - begin != count:
            raise CheckpointError(
                f"{file}: tensor {quote(name)} of shape {list(shape)} and dtype {dtype} needs {count:,} bytes,"
                f" its offsets hold {end - begin:,}",
                fix=AGAIN,
            )
        tensors[name] = TensorInfo(file, dtype, shape, count)
        ranges.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(ranges):
        if begin != position:
            raise CheckpointError(
                f"{file}: tensor {quote(name)} starts at byte {begin:,}, expected {position:,}", fix=AGAIN
            )
        position = end
    if position != data_bytes:
        raise CheckpointError(
            f"{file} holds {data_bytes:,} bytes of data, its header lists {position:,}", fix=AGAIN
        )
    return tensors


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> file name, each of them the name of a safetensors file and no path."""
    weight_map = read_json_object(index, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map")
    for tensor, name in weight_map.items():
        plain = isinstance(name, str) and not set(name) & {"/", "\\", "\0"} and len(name) <= MAX_FILE_NAME
        if not plain or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: shard {quote(name)} of tensor {quote(tensor)} is not the name of a safetensors file"
                " in this folder"
            )
    return weight_map


def _shards(index: Path, weight_map: Mapping[str, str]) -> list[Path]:
    folder, names = index.parent, sorted(set(weight_map.values()))
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of {len(names)} shards: {quote(', '.join(missing))}",
            fix="fetch them with `llmcli pull`",
        )
    return [folder / name for name in names]


def _unindexed_files(folder: Path) -> list[Path]:
    """model.safetensors, or all there are: repositories keep other forms of the same weights beside it."""
    whole = folder / "model.safetensors"
    return [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))


def _check_link(file: Path) -> None:
    """Follow links into the hub's cache, and to other safetensors files; to nothing else on this machine."""
    target = file.resolve() if file.is_symlink() else file
    if target.suffix != ".safetensors" and target.parent.name != "blobs":
        raise CheckpointError(f"{file} is a link to {quote(str(target))}, which is no safetensors file")


def _looks_like(prefix: bytes) -> str:
    if prefix.startswith(b"version "):
        return "it looks like a Git LFS pointer, not the file itself"
    if prefix.lstrip()[:1] == b"<":
        return "it looks like an HTML page"
    return ""
