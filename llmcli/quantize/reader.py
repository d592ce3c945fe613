"""One decoder layer at a time out of a checkpoint, as float32: dense, or in AWQ's gemm form and then dequantised.

Memory is that of the tensors asked for: files are mapped and closed again after each layer. Knows nothing of
quantizing; the calibration pass and the perplexity read through it.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llmcli.errors import CheckpointError, UnsupportedModelError, quote
from llmcli.model.checkpoint import AGAIN, TensorInfo, read_checkpoint
from llmcli.model.formats import awq
from llmcli.model.spec import ModelSpec
from llmcli.quantize.grid import Quantized
from llmcli.quantize.shape import layer_prefix, layer_tensors

DENSE_DTYPES = ("F32", "F16", "BF16")
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
LayerTensors = dict[str, Tensor]


class LayerReader:
    """A checkpoint by layers.

    Args:
        device: where what is read goes.
    """

    def __init__(self, folder: Path, spec: ModelSpec, device: str = "cpu") -> None:
        self.folder = folder
        self.spec = spec
        self.device = device
        self.tensors: Mapping[str, TensorInfo] = read_checkpoint(folder)

    def layer(self, index: int) -> LayerTensors:
        """All tensors of a layer, float32.

        Raises:
            CheckpointError: one of them has NaN or infinity; names it.
        """
        return {
            name: self._weight(layer_prefix(index) + name).to(self.device)
            for name in layer_tensors(self.spec)
        }

    def tensor(self, name: str) -> Tensor:
        """A dense tensor as it is stored, on the CPU.

        Raises:
            CheckpointError: it can not be read.
        """
        file = self.tensors[name].file
        try:
            with safe_open(str(file), framework="pt") as opened:
                tensor: Tensor = opened.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file} can not be mapped: {quote(str(error))}", fix=AGAIN) from None
        return tensor

    def finite(self, name: str) -> Tensor:
        """A dense tensor without NaN or infinity."""
        tensor = self.tensor(name)
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"tensor {name} in {self.tensors[name].file} has NaN or infinity", fix=AGAIN
            )
        return tensor

    def embed(self, token_ids: Tensor) -> Tensor:
        """[..., hidden_size] float32."""
        return torch.nn.functional.embedding(token_ids, self.tensor(self.embedding_name())).float()

    def embedding_name(self) -> str:
        """A tied matrix may be stored under either of its names."""
        return EMBEDDING if EMBEDDING in self.tensors else HEAD

    def head_name(self) -> str:
        return self.embedding_name() if self.spec.tie_word_embeddings else HEAD

    def _weight(self, name: str) -> Tensor:
        matrix = name.removesuffix(".weight")
        if name in self.tensors:
            return self.finite(name).float()
        parts = (self.tensor(f"{matrix}.{part}") for part in ("qweight", "qzeros", "scales"))
        return Quantized(*awq.unpack_gemm(*parts)).dequantize()


def check_dense(tensors: Mapping[str, TensorInfo], spec: ModelSpec, folder: Path) -> None:
    """See from the headers alone whether a checkpoint has all tensors of a dense model, and no others.

    Raises:
        CheckpointError: a tensor is missing, has another shape or has no place.
        UnsupportedModelError: a tensor has a dtype that is not read.
    """
    expected = dict(_expected(spec))
    if spec.tie_word_embeddings and HEAD in tensors:
        # stored under both names, or under this one alone
        expected[HEAD] = (spec.vocab_size, spec.hidden_size)
        if EMBEDDING not in tensors:
            del expected[EMBEDDING]
    for name, shape in expected.items():
        info = tensors.get(name)
        if info is None:
            raise CheckpointError(f"{folder} lacks tensor {name} of shape {list(shape)}", fix=AGAIN)
        if info.shape != shape:
            raise CheckpointError(
                f"tensor {name} in {info.file} has shape {list(info.shape)}, config.json implies {list(shape)}"
            )
        if info.dtype not in DENSE_DTYPES:
            raise UnsupportedModelError(
                f"tensor {name} in {info.file} has dtype {info.dtype}, which can not be quantized",
                fix=f"start from a dense checkpoint in one of {', '.join(DENSE_DTYPES)}",
            )
    extra = sorted(
        name for name in tensors.keys() - expected.keys() if not name.endswith("rotary_emb.inv_freq")
    )
    if extra:
        raise CheckpointError(
            f"{folder} has {len(extra)} tensors without a place in a {spec.architecture}:"
            f" {quote(', '.join(extra[:5]))}"
        )


def _expected(spec: ModelSpec) -> Mapping[str, tuple[int, ...]]:
    table = (spec.vocab_size, spec.hidden_size)
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: table, NORM: (spec.hidden_size,)}
    if not spec.tie_word_embeddings:
        shapes[HEAD] = table
    for index in range(spec.num_layers):
        shapes |= {layer_prefix(index) + name: shape for name, shape in layer_tensors(spec).items()}
    return shapes
