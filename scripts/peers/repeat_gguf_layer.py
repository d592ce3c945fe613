"""Write a GGUF file with as many layers as wanted, all of them copies of the first layer of another file.

    python repeat_gguf_layer.py LLAMA_CPP_SOURCE IN OUT LAYERS

The copies lie at different places in memory, so reading them takes as long as reading different ones.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FIRST_LAYER = "blk.0."


def main() -> None:
    source, one, many, layers = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    sys.path[:0] = [str(source / "gguf-py")]
    import gguf

    reader = gguf.GGUFReader(one)
    architecture = reader.fields[gguf.Keys.General.ARCHITECTURE].contents()
    writer = gguf.GGUFWriter(many, arch=architecture)
    block_count = gguf.Keys.LLM.BLOCK_COUNT.format(arch=architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == gguf.Keys.General.ARCHITECTURE:
            continue  # the writer's own
        value = layers if field.name == block_count else field.contents()
        item_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], sub_type=item_type)
    tensors = list(_repeated(reader.tensors, layers))
    for name, tensor in tensors:
        data = tensor.data
        writer.add_tensor_info(name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, tensor in tensors:
        writer.write_tensor_data(tensor.data)
    writer.close()


def _repeated(tensors: list[Any], layers: int) -> Iterator[tuple[str, Any]]:
    for tensor in tensors:
        if not tensor.name.startswith(FIRST_LAYER):
            yield tensor.name, tensor
    for layer in range(layers):
        for tensor in tensors:
            if tensor.name.startswith(FIRST_LAYER):
                yield f"blk.{layer}.{tensor.name.removeprefix(FIRST_LAYER)}", tensor


if __name__ == "__main__":
    main()
