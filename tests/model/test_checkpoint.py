"""Headers of safetensors files are checked against the file before anything is allocated or mapped."""

import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from llmcli.errors import CheckpointError
from llmcli.model.checkpoint import read_checkpoint, read_header
from llmcli.model.facts import fits_integers, read_model_facts
from tests.tiny_models import (
    awq_checkpoints,
    base_config,
    dense_checkpoint,
    save_checkpoint,
    transformers_model,
)

INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n"


def raw(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file of a header, as JSON or as it is, and the bytes after it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: Any, end: Any, shape: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    shape = [(end - begin) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refused(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert caught.value.exit_code == 5
    assert str(path) in caught.value.what
    assert len(str(caught.value)) < 1000
    return caught.value


BROKEN: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "has 0 bytes, too short"),
    "seven bytes": (b"\x08" * 7, "has 7 bytes, too short"),
    "header of no bytes": (struct.pack("<Q", 0), "header of 0 bytes in a file of 8"),
    "header longer than the file": (struct.pack("<Q", 3) + b"{}", "header of 3 bytes in a file of 10"),
    "header of 100 MB": (struct.pack("<Q", 10**8 + 1) + b"{}", "header of 100,000,001 bytes"),
    "header of 2**63 bytes": (struct.pack("<Q", 2**63) + b"{}", "header of 9,223,372,036,854,775,808 bytes"),
    "header not UTF-8": (raw(b'{"\xff": 1}'), "bad header: byte 3 is not UTF-8"),
    "header not JSON": (raw(b"{]"), "bad header"),
    "header a list": (raw([1]), "bad header: not an object"),
    "header too deep": (raw(b'{"a": ' + b"[" * 90 + b"]" * 90 + b"}"), "nesting deeper"),
    "a name twice": (raw(b'{"a": 1, "a": 1}'), "duplicate key 'a'"),
    "no offsets": (raw({"a": {"dtype": "F32", "shape": [1]}}), "tensor a has a bad header entry"),
    "no object": (raw({"a": 5}), "tensor a has a bad header entry"),
    "three offsets": (raw({"a": {**entry(0, 4), "data_offsets": [0, 2, 4]}}), "tensor a has a bad header"),
    "offsets overlap": (raw({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "tensor b starts at byte 4"),
    "a gap": (raw({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), "tensor b starts at byte 8, expected 4"),
    "a gap at the front": (raw({"a": entry(4, 8)}, bytes(8)), "tensor a starts at byte 4, expected 0"),
    "end before start": (raw({"a": entry(8, 4, [1])}, bytes(8)), "its offsets hold -4"),
    "beyond the file": (raw({"a": entry(0, 8)}, bytes(4)), "holds 4 bytes of data, its header lists 8"),
    "more data than tensors": (raw({"a": entry(0, 4)}, bytes(5)), "holds 5 bytes of data"),
    "shape too large": (raw({"a": entry(0, 4, [2])}, bytes(4)), "tensor a of shape .* needs 8 bytes"),
    "shape too small": (raw({"a": entry(0, 8, [1])}, bytes(8)), "needs 4 bytes, its offsets hold 8"),
    "negative size": (raw({"a": entry(0, 4, [-1, -1])}, bytes(4)), "tensor a has a bad shape"),
    "negative offset": (raw({"a": entry(-4, 0, [1])}, bytes(4)), "tensor a has a bad shape"),
    "size not whole": (raw({"a": entry(0, 4, [1.0])}, bytes(4)), "tensor a has a bad shape"),
    "size true": (raw({"a": entry(0, 4, [True])}, bytes(4)), "tensor a has a bad shape"),
    "size a string": (raw({"a": entry(0, 4, "1")}, bytes(4)), "tensor a has a bad shape"),
    "product beyond 64 bit": (raw({"a": entry(0, 4, [2**32, 2**32, 2**32])}, bytes(4)), "tensor a of shape"),
    "size beyond 64 bit": (raw({"a": entry(0, 4, [2**64])}, bytes(4)), "tensor a has a bad shape"),
    "many huge sizes": (raw({"a": entry(0, 4, [10**300] * 1000)}, bytes(4)), "tensor a has a bad shape"),
    "many sizes": (raw({"a": entry(0, 4, [1] * 9)}, bytes(4)), "tensor a has a bad shape"),
    "dtype unknown": (raw({"a": entry(0, 4, [1], "Q4")}, bytes(4)), "tensor a has unknown dtype Q4"),
    "dtype a list": (raw({"a": entry(0, 4, [1], ["F32"])}, bytes(4)), "tensor a has unknown dtype"),
    "control characters": (raw({"\x1b[2J" * 100: 5}), r"\\x1b\[2J"),
    "an LFS pointer": (POINTER, "looks like a Git LFS pointer"),
    "an HTML page": (b"\n <!DOCTYPE html><html>401</html>", "looks like an HTML page"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    error = refused(path)
    with pytest.raises(CheckpointError, match=message):
        raise error


def test_a_header_that_claims_to_be_huge_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", 1 << 40))
        stream.truncate(3 << 30)  # sparse: the file really is larger than the limit
    tracemalloc.start()
    refused(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_what_safetensors_writes_is_read(tmp_path: Path) -> None:
    tensors = {"b": torch.zeros(3, 2), "a": torch.zeros(5, dtype=torch.bfloat16), "empty": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = read_header(tmp_path / "model.safetensors")
    assert {name: (info.dtype, info.shape, info.num_bytes) for name, info in found.items()} == {
        "a": ("BF16", (5,), 10),
        "b": ("F32", (3, 2), 24),
        "empty": ("F32", (0, 4), 0),
    }


def test_entries_need_not_be_in_the_order_of_their_data(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(raw({"late": entry(4, 8), "early": entry(0, 4)}, bytes(8)))
    assert set(read_header(tmp_path / "model.safetensors")) == {"late", "early"}


def test_a_truncated_file_names_both_sizes_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(8), "b": torch.zeros(8)}, path)
    whole = path.stat().st_size
    for lost in (1, 32, 64):  # the second of them is exactly a tensor
        os.truncate(path, whole - lost)
        error = refused(path)
        assert f"holds {64 - lost} bytes of data, its header lists 64" in error.what
        assert "download it again" in error.fix


def sharded(folder: Path, weight_map: Any = None) -> Path:
    """Two shards with tensors a and b, and an index of them."""
    folder.mkdir(exist_ok=True)
    save_file({"a": torch.zeros(2)}, folder / "one.safetensors")
    save_file({"b": torch.zeros(3)}, folder / "two.safetensors")
    weight_map = {"a": "one.safetensors", "b": "two.safetensors"} if weight_map is None else weight_map
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 20}, "weight_map": weight_map}))
    return folder


def test_an_index_decides_which_files_are_read(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    (folder / "other.safetensors").write_bytes(b"not read")
    assert {name: info.file.name for name, info in read_checkpoint(folder).items()} == {
        "a": "one.safetensors",
        "b": "two.safetensors",
    }


@pytest.mark.parametrize(
    "name",
    [
        "../two.safetensors",
        "/etc/passwd",
        "/etc/x.safetensors",
        "a/../../b.safetensors",
        "./two.safetensors",
        "..\\two.safetensors",
        "two\0.safetensors",
        "two.bin",
        "..",
        "",
        "x" * 300 + ".safetensors",
        None,
        7,
        ["two.safetensors"],
        {"file": "two.safetensors"},
    ],
)
def test_a_shard_that_is_no_plain_file_name_is_refused(tmp_path: Path, name: Any) -> None:
    folder = sharded(tmp_path / "model", {"a": "one.safetensors", "b": name})
    save_file({"b": torch.zeros(3)}, tmp_path / "two.safetensors")
    with pytest.raises(CheckpointError, match="of tensor b is not the name of a safetensors file") as caught:
        read_checkpoint(folder)
    assert INDEX in caught.value.what


def remove_shard(folder: Path) -> None:
    (folder / "two.safetensors").unlink()


def dangle(folder: Path) -> None:
    remove_shard(folder)
    (folder / "two.safetensors").symlink_to("nowhere.safetensors")


def link_to_secret(folder: Path) -> None:
    remove_shard(folder)
    secret = folder.parent / "secret"
    save_file({"b": torch.zeros(3)}, secret)
    (folder / "two.safetensors").symlink_to(secret)


def pipe(folder: Path) -> None:
    remove_shard(folder)
    os.mkfifo(folder / "two.safetensors")


def device(folder: Path) -> None:
    remove_shard(folder)
    (folder / "two.safetensors").symlink_to("/dev/zero")


def directory(folder: Path) -> None:
    remove_shard(folder)
    (folder / "two.safetensors").mkdir()


def other_tensor(folder: Path) -> None:
    save_file({"c": torch.zeros(3)}, folder / "two.safetensors")


def twice(folder: Path) -> None:
    save_file({"a": torch.zeros(2), "b": torch.zeros(3)}, folder / "two.safetensors")


SHARDS: list[tuple[Callable[[Path], None], str]] = [
    (remove_shard, "lacks 1 of 2 shards: two.safetensors"),
    (dangle, "lacks 1 of 2 shards: two.safetensors"),
    (link_to_secret, "two.safetensors is a link to .*secret, which is no safetensors file"),
    (pipe, "two.safetensors can not be read: not a regular file"),
    (device, "two.safetensors can not be read: not a regular file"),
    (directory, "two.safetensors can not be read: not a regular file"),
    (other_tensor, "two.safetensors lacks tensor b"),
    (twice, "tensor a is in both one.safetensors and two.safetensors"),
]


@pytest.mark.parametrize(("damage", "message"), SHARDS)
def test_a_shard_that_is_not_what_the_index_says_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = sharded(tmp_path / "model")
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


def test_links_as_the_hub_cache_and_people_make_them_are_followed(tmp_path: Path) -> None:
    cache = tmp_path / "models--owner--name"
    folder = cache / "snapshots" / "abc"
    folder.mkdir(parents=True)
    sharded(folder)
    (cache / "blobs").mkdir()
    (folder / "one.safetensors").rename(cache / "blobs" / "5f70bf18")
    (folder / "one.safetensors").symlink_to("../../blobs/5f70bf18")
    (folder / "two.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "two.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    assert set(read_checkpoint(folder)) == {"a", "b"}


@pytest.mark.parametrize("weight_map", [None, [], {}, "one.safetensors", 5])
def test_an_index_without_a_map_is_refused(tmp_path: Path, weight_map: Any) -> None:
    folder = sharded(tmp_path / "model")
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match="has no weight_map"):
        read_checkpoint(folder)


def test_an_index_of_endless_length_is_not_read(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    with (folder / INDEX).open("wb") as stream:
        stream.truncate(200_000_000)
    with pytest.raises(CheckpointError, match="200,000,000 bytes, at most 16,777,216 are read"):
        read_checkpoint(folder)


def test_an_index_of_a_million_entries_is_not_read(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    entries = ",".join(f'"{number}":"one.safetensors"' for number in range(10**6))
    (folder / INDEX).write_text(f'{{"weight_map":{{{entries}}}}}')
    with pytest.raises(CheckpointError, match="at most 16,777,216 are read"):
        read_checkpoint(folder)


def test_a_folder_without_safetensors_says_what_it_has(tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "model.gguf"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no safetensors file\nfound: model.gguf, pytorch_model.bin"):
        read_checkpoint(tmp_path)


def test_without_an_index_the_whole_file_wins_over_other_forms_of_it(tmp_path: Path) -> None:
    for name in ("consolidated", "model"):
        save_file({name: torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    assert set(read_checkpoint(tmp_path)) == {"model"}
    (tmp_path / "model.safetensors").rename(tmp_path / "awq_model_w4_g128.safetensors")
    assert set(read_checkpoint(tmp_path)) == {"model", "consolidated"}


def test_a_pipe_in_the_place_of_a_file_never_blocks(tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        os.mkfifo(tmp_path / name)
    for reader in (read_checkpoint, read_model_facts):
        with pytest.raises(CheckpointError, match="not a regular file"):
            reader(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_refused_with_the_systems_reason(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").chmod(0)
    assert "Permission denied" in refused(tmp_path / "model.safetensors").what


def test_facts_count_dense_weights_and_packed_bytes(tmp_path: Path) -> None:
    config = base_config(hidden_size=64, intermediate_size=64, num_attention_heads=4, num_key_value_heads=4)
    quantized, dense = awq_checkpoints(tmp_path, config, "gemm", 32)
    all_dense = 2 * 211 * 64 + 3 * (7 * 64 * 64 + 2 * 64) + 64
    assert read_model_facts(dense).dense_parameters == all_dense
    facts = read_model_facts(quantized)
    assert facts.dense_parameters == all_dense - 3 * 7 * 64 * 64
    assert facts.quantized_bytes == 3 * 7 * (64 * 64 // 2 + 2 * 64 * 2 + 2 * 64 // 2)
    assert facts.checkpoint_dtype == "float32"
    assert facts.largest_int4 == 64 * (3 * 64)
    assert read_model_facts(dense).largest_int4 == 0


HEADS: list[tuple[bool, str, bool]] = [
    (False, "lm_head.weight", True),
    (False, "lm_head.qweight", False),
    (True, "model.norm.weight", True),
]


@pytest.mark.parametrize(("tied", "tensor", "dense"), HEADS)
def test_facts_tell_a_dense_head_from_a_quantized_one(
    tmp_path: Path, tied: bool, tensor: str, dense: bool
) -> None:
    block = {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm"}
    config = base_config(tie_word_embeddings=tied, quantization_config=block)
    folder = save_checkpoint(tmp_path, config, {tensor: torch.zeros(8)})
    assert read_model_facts(folder).dense_head == dense


ODD = {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 4, "num_key_value_heads": 4}
INTEGER_MODELS: list[tuple[dict[str, int], int, tuple[str, ...], bool]] = [
    (ODD | {"intermediate_size": 256}, 32, (), True),
    (ODD | {"intermediate_size": 256}, -1, (), True),
    (ODD, 64, (), False),
    (ODD, 64, ("down_proj",), True),
    (ODD | {"intermediate_size": 256, "head_dim": 16}, 64, (), False),
    (ODD | {"intermediate_size": 256, "head_dim": 16}, 64, ("o_proj",), True),
    (ODD | {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32}, 64, (), False),
]


@pytest.mark.parametrize(("sizes", "group", "dense", "expected"), INTEGER_MODELS)
def test_facts_tell_whether_integer_kernels_take_every_quantized_layer(
    tmp_path: Path, sizes: dict[str, int], group: int, dense: tuple[str, ...], expected: bool
) -> None:
    quantized, _ = awq_checkpoints(tmp_path, base_config(**sizes), "gemm", group, dense)
    assert read_model_facts(quantized).integer_layers == expected


def test_the_rule_for_integer_layers_is_that_of_the_kernels() -> None:
    pytest.importorskip("llvmlite", reason="llvmlite is not installed")
    from llmcli_kernels.int4_linear import Int4Weight
    from llmcli_kernels.int4_linear.native.records import fits

    for k in (0, 32, 64, 96, 128, 192, 256, 320, 384, 768):
        for group in (8, 16, 32, 64, 96, 128, 192, 256, 320, 384, 768):
            if k % group == 0:
                groups = torch.zeros(8, k // group)
                q = torch.zeros(8, k // 2, dtype=torch.uint8)
                weight = Int4Weight(q, groups.to(torch.uint8), groups.half(), group)
                assert fits_integers(k, group) == fits(weight), (k, group)


def test_the_dtype_of_a_checkpoint_is_that_of_most_of_its_weights(tmp_path: Path) -> None:
    config = base_config()
    tensors = dict(transformers_model(config).half().state_dict())
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    assert read_model_facts(save_checkpoint(tmp_path, config, tensors)).checkpoint_dtype == "float16"


def test_facts_of_a_tied_model_count_its_matrix_once(tmp_path: Path) -> None:
    config = base_config(tie_word_embeddings=True)
    model = transformers_model(config).to(torch.bfloat16)
    facts = read_model_facts(dense_checkpoint(tmp_path, config, model))
    assert facts.dense_parameters == sum(p.numel() for p in model.parameters())
    assert facts.checkpoint_dtype == "bfloat16"
