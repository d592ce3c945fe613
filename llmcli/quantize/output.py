"""The safetensors files of a quantized model, laid out before the first weight is known, filled in any order.

All names, dtypes and shapes follow from the model's shape and the recipe. So the headers are written first, and each
layer goes to its place: what is on disk after a layer is its final form, nothing is written twice, and a layer that was
cut short is written over. The format is that of https://huggingface.co/docs/safetensors. Called by
`jobs/quantize/job.py`.
"""

import errno
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from llmcli.config import human_bytes
from llmcli.errors import OutputError, quote
from llmcli.model.formats.awq import expected_shapes
from llmcli.model.spec import ModelSpec
from llmcli.quantize.reader import EMBEDDING, HEAD, NORM
from llmcli.quantize.shape import SHARD_BYTES, Recipe, layer_prefix, layer_tensors, matrices

INDEX = "model.safetensors.index.json"
ITEM_BYTES = {"F32": 4, "I32": 4, "F16": 2, "BF16": 2}
DTYPE_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
TORCH_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor that a file is to hold; dtype is safetensors' name."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Shard:
    """A file: its header with the length before it, and where each tensor begins."""

    file_name: str
    header: bytes
    entries: Mapping[str, Entry]
    begins: Mapping[str, int]
    num_bytes: int


def entries_of(spec: ModelSpec, recipe: Recipe) -> list[Entry]:
    """All tensors of the quantized model, in the order in which a forward pass reads them."""
    dense = DTYPE_NAMES[recipe.dtype]
    table = (spec.vocab_size, spec.hidden_size)
    entries = [Entry(EMBEDDING, dense, table)]
    sizes = matrices(spec)
    for index in range(spec.num_layers):
        prefix = layer_prefix(index)
        for name, shape in layer_tensors(spec).items():
            matrix = name.removesuffix(".weight")
            if matrix in sizes and recipe.quantizes(prefix + matrix):
                parts = expected_shapes("gemm", *sizes[matrix], recipe.grid.group_size)
                entries += [
                    Entry(f"{prefix}{matrix}.{part}", "F16" if part == "scales" else "I32", shape)
                    for part, shape in parts.items()
                ]
            else:
                entries.append(Entry(prefix + name, dense, shape))
    entries.append(Entry(NORM, dense, (spec.hidden_size,)))
    return entries if spec.tie_word_embeddings else [*entries, Entry(HEAD, dense, table)]


def plan_shards(entries: Iterable[Entry], limit: int = SHARD_BYTES) -> tuple[Shard, ...]:
    """Files of at most `limit` bytes of data each, or of one tensor that is larger."""
    parts: list[list[Entry]] = [[]]
    for entry in entries:
        taken = sum(other.num_bytes for other in parts[-1])
        if parts[-1] and taken + entry.num_bytes > limit:
            parts.append([])
        parts[-1].append(entry)
    if len(parts) == 1:
        return (_shard("model.safetensors", parts[0]),)
    return tuple(
        _shard(f"model-{number:05d}-of-{len(parts):05d}.safetensors", part)
        for number, part in enumerate(parts, 1)
    )


def _shard(file_name: str, entries: list[Entry]) -> Shard:
    # The largest items first: each tensor then begins at a multiple of its item's size.
    ordered = sorted(entries, key=lambda entry: (-ITEM_BYTES[entry.dtype], entry.name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begins: dict[str, int] = {}
    position = 0
    for entry in ordered:
        begins[entry.name] = position
        end = position + entry.num_bytes
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return Shard(
        file_name,
        head,
        {entry.name: entry for entry in ordered},
        {name: len(head) + begin for name, begin in begins.items()},
        len(head) + position,
    )


class ShardWriter:
    """The files of a plan in one folder."""

    def __init__(self, folder: Path, shards: tuple[Shard, ...]) -> None:
        self.folder = folder
        self.shards = shards
        self._place = {name: shard for shard in shards for name in shard.begins}

    def create(self) -> None:
        """Write all headers and take the room for the data.

        Raises:
            OutputError: the disk has too little room, or the folder can not be written.
        """
        total = sum(shard.num_bytes for shard in self.shards)
        check_room(self.folder, total)
        try:
            for shard in self.shards:
                with open(self.folder / shard.file_name, "wb") as file:
                    file.write(shard.header)
                    file.truncate(shard.num_bytes)
            if len(self.shards) > 1:
                weight_map = {name: shard.file_name for name, shard in self._place.items()}
                tensors = sum(entry.num_bytes for shard in self.shards for entry in shard.entries.values())
                index = {"metadata": {"total_size": tensors}, "weight_map": weight_map}
                (self.folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", "utf-8")
        except OSError as error:
            raise write_error(self.folder, error) from None

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors into their places, and see them on the disk.

        Raises:
            OutputError: the disk is full or can not be written.
        """
        by_shard: dict[str, list[str]] = {}
        for name, tensor in tensors.items():
            shard = self._place[name]
            entry = shard.entries[name]
            assert (TORCH_NAMES[tensor.dtype], tuple(tensor.shape)) == (entry.dtype, entry.shape), name
            by_shard.setdefault(shard.file_name, []).append(name)
        try:
            for file_name, names in by_shard.items():
                with open(self.folder / file_name, "r+b") as file:
                    for name in names:
                        file.seek(self._place[name].begins[name])
                        file.write(_bytes(tensors[name]))
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise write_error(self.folder, error) from None


def check_room(folder: Path, needed: int) -> None:
    """Raise OutputError unless the disk of a folder has that many bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"the quantized model needs {human_bytes(needed)}, the disk of {quote(str(folder))} has"
            f" {human_bytes(free)} free",
            fix="free some room, or choose another folder with -o",
        )


def write_error(folder: Path, error: OSError) -> OutputError:
    """What to say when the operating system refuses a write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"the disk of {quote(str(folder))} is full",
            fix="free some room, then add --resume to the command",
        )
    return OutputError(f"{quote(str(folder))} can not be written: {error.strerror or error}")


def _bytes(tensor: Tensor) -> memoryview:
    """The data of a tensor, row-major and little-endian as the format wants it."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data
