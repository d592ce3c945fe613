"""The files of a quantized model: read back by safetensors itself."""

import json

import pytest
import torch
from safetensors.torch import load_file

from llmcli.errors import OutputError
from llmcli.model.checkpoint import read_checkpoint
from llmcli.model.spec import read_model_spec
from llmcli.quantize.output import Entry, ShardWriter, check_room, entries_of, plan_shards
from llmcli.quantize.shape import Grid, Recipe
from tests.quantize.small_models import small_model

ENTRIES = [
    Entry("odd", "F16", (3, 5)),
    Entry("words", "I32", (7, 3)),
    Entry("wide", "BF16", (2, 9)),
    Entry("whole", "F32", (4,)),
]
DTYPES = {"F16": torch.float16, "I32": torch.int32, "BF16": torch.bfloat16, "F32": torch.float32}


def values() -> dict[str, torch.Tensor]:
    return {
        entry.name: torch.arange(torch.Size(entry.shape).numel()).reshape(entry.shape).to(DTYPES[entry.dtype])
        for entry in ENTRIES
    }


def test_what_is_written_in_any_order_is_what_safetensors_reads(tmp_path) -> None:
    writer = ShardWriter(tmp_path, plan_shards(ENTRIES))
    writer.create()
    for name in ("whole", "odd", "wide", "words"):
        writer.write({name: values()[name]})
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == values().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in values().items())


def test_a_part_that_was_cut_short_is_written_over(tmp_path) -> None:
    writer = ShardWriter(tmp_path, plan_shards(ENTRIES))
    writer.create()
    writer.write({name: torch.ones_like(tensor) for name, tensor in values().items()})
    ShardWriter(tmp_path, plan_shards(ENTRIES)).write(values())
    assert torch.equal(load_file(tmp_path / "model.safetensors")["words"], values()["words"])


def test_files_hold_no_more_than_the_limit_and_the_index_says_what_is_where(tmp_path) -> None:
    shards = plan_shards(ENTRIES, 100)
    assert [shard.file_name for shard in shards] == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    ]
    writer = ShardWriter(tmp_path, shards)
    writer.create()
    writer.write(values())
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(entry.num_bytes for entry in ENTRIES) == 166
    for name, file_name in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file_name)[name], values()[name])
    assert read_checkpoint(tmp_path).keys() == values().keys()


def test_each_tensor_begins_at_a_multiple_of_its_items() -> None:
    sizes = {"F16": 2, "I32": 4, "BF16": 2, "F32": 4}
    for shard in plan_shards(ENTRIES):
        assert all(begin % sizes[shard.entries[name].dtype] == 0 for name, begin in shard.begins.items())


def test_a_skipped_matrix_is_planned_dense_and_a_tied_head_not_at_all(tmp_path) -> None:
    spec = read_model_spec(small_model(tmp_path, tie_word_embeddings=True))
    entries = {e.name: e for e in entries_of(spec, Recipe("rtn", Grid(32), ("layers.1.mlp",), "bfloat16"))}
    assert "lm_head.weight" not in entries
    assert entries["model.layers.1.mlp.up_proj.weight"].dtype == "BF16"
    assert entries["model.layers.0.mlp.up_proj.qweight"].shape == (64, 12)
    assert "model.layers.0.mlp.up_proj.weight" not in entries


def test_too_small_a_disk_is_told_before_anything_is_written(tmp_path) -> None:
    with pytest.raises(OutputError, match="free"):
        check_room(tmp_path, 1 << 60)
