"""From a model's folder to the decoder's weights: mapped, checked and converted tensor by tensor.

Peak memory stays near the size of the model, because one layer at a time is read, merged and repacked. A GPU repacks
a matrix while the next one is read from the disk.
Every tensor must have the shape that config.json implies and every tensor of the file must be used.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llmcli.errors import CheckpointError, UnsupportedModelError, quote
from llmcli.model.checkpoint import AGAIN, TensorInfo, read_checkpoint
from llmcli.model.formats import awq
from llmcli.model.linear import DenseLinear, Int4, Int8Linear, Linear, merge
from llmcli.model.spec import AwqSpec, ModelSpec
from llmcli_kernels import KernelSet
from llmcli_kernels.rope_kv_write import QKNorm

DENSE_DTYPES = ("F32", "F16", "BF16")
PIECE = 16 << 20  # elements that go to a GPU together, through locked memory
MOST_PIECES = 4  # on their way at once


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer. Norm weights are [hidden_size], those in qk_norm [head_dim]."""

    input_norm: Tensor
    qkv: Linear
    qk_norm: QKNorm | None
    o: Linear
    post_norm: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """All of them. embedding is [vocab_size, hidden_size]; lm_head shares it when the model ties them."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    lm_head: Linear


def load_weights(
    folder: Path,
    spec: ModelSpec,
    kernels: KernelSet,
    dtype: torch.dtype,
    on_layer: Callable[[int, int], None] | None = None,
    device: str = "cpu",
    lm_head: str = "full",
) -> DecoderWeights:
    """Read all weights.

    Args:
        dtype: dense weights are converted to it; int4 ones are packed for activations of it.
        device: where they go; int4 ones are packed there.
        lm_head: "full", or "int8" for a dense output head in 8 bits.
        on_layer: called with (layers done, layers in all).

    Raises:
        CheckpointError: a tensor is missing, unused, damaged or has another shape; names and shapes are given.
        UnsupportedModelError: a tensor has a dtype that is not read.
    """
    with _Reader(folder, spec, kernels, dtype, device) as reader:
        embedding = reader.dense(reader.embedding_name(), (spec.vocab_size, spec.hidden_size))
        reader.unmap()
        # Before the layers, because it is there twice for a moment.
        head = _load_head(reader, spec, embedding, lm_head)
        reader.unmap()
        layers = []
        for index in range(spec.num_layers):
            layers.append(_load_layer(reader, spec, f"model.layers.{index}."))
            reader.unmap()
            if on_layer is not None:
                on_layer(index + 1, spec.num_layers)
        norm = reader.dense("model.norm.weight", (spec.hidden_size,))
        reader.check_all_used()
    return DecoderWeights(embedding, tuple(layers), norm, head)


def _load_head(reader: "_Reader", spec: ModelSpec, embedding: Tensor, form: str) -> Linear:
    if spec.tie_word_embeddings:
        head: Linear = DenseLinear(embedding, None)
    else:
        head = reader.linear("", ("lm_head",), (spec.vocab_size,), spec.hidden_size, False)
    if form == "int8" and isinstance(head, DenseLinear):
        return Int8Linear(reader.kernels, head.weight)
    return head


def _load_layer(reader: "_Reader", spec: ModelSpec, prefix: str) -> LayerWeights:
    hidden, inner = spec.hidden_size, spec.intermediate_size
    q, kv = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    return LayerWeights(
        input_norm=reader.dense(prefix + "input_layernorm.weight", (hidden,)),
        qkv=reader.linear(attention, ("q_proj", "k_proj", "v_proj"), (q, kv, kv), hidden, spec.qkv_bias),
        qk_norm=_load_qk_norm(reader, spec, attention) if spec.qk_norm else None,
        o=reader.linear(attention, ("o_proj",), (hidden,), q, spec.o_bias),
        post_norm=reader.dense(prefix + "post_attention_layernorm.weight", (hidden,)),
        gate_up=reader.linear(mlp, ("gate_proj", "up_proj"), (inner, inner), hidden, spec.mlp_bias),
        down=reader.linear(mlp, ("down_proj",), (hidden,), inner, spec.mlp_bias),
    )


def _load_qk_norm(reader: "_Reader", spec: ModelSpec, prefix: str) -> QKNorm:
    size = (spec.head_dim,)
    return QKNorm(
        reader.dense(prefix + "q_norm.weight", size),
        reader.dense(prefix + "k_norm.weight", size),
        spec.rms_norm_eps,
    )


class _Reader:
    """Takes tensors out of the mapped files by name, and knows in the end which were never asked for."""

    def __init__(
        self, folder: Path, spec: ModelSpec, kernels: KernelSet, dtype: torch.dtype, device: str
    ) -> None:
        self.folder = folder
        self.spec = spec
        self.kernels = kernels
        self.dtype = dtype
        self.device = device
        self.tensors = dict(read_checkpoint(folder))
        self.used: set[str] = set()
        self.files: dict[Path, Any] = {}
        self.on_their_way: deque[torch.cuda.Event] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unmap()

    def unmap(self) -> None:
        """Close the files until they are read again: pages that were read count as this process's memory."""
        for file in self.files.values():
            file.__exit__(None, None, None)
        self.files.clear()

    def dense(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor of the given shape, in the engine's dtype and on its device; always a copy that owns its memory."""
        info = self._info(name, shape)
        if info.dtype not in DENSE_DTYPES:
            raise UnsupportedModelError(
                f"tensor {name} in {info.file} has dtype {info.dtype}",
                fix=f"supported: {', '.join(DENSE_DTYPES)}",
            )
        return self._sent(self._take(name)).to(self.dtype, copy=self.device == "cpu")

    def embedding_name(self) -> str:
        """A tied matrix may be stored under either of its names, or under both."""
        name = "model.embed_tokens.weight"
        return "lm_head.weight" if self.spec.tie_word_embeddings and name not in self.tensors else name

    def linear(
        self, prefix: str, names: tuple[str, ...], sizes: tuple[int, ...], k: int, has_bias: bool
    ) -> Linear:
        """One layer from the named matrices, each with sizes[i] outputs and k inputs."""
        weights = [self._matrix(prefix + name, n, k) for name, n in zip(names, sizes, strict=True)]
        biases = [
            self.dense(f"{prefix}{name}.bias", (n,)) if has_bias else None
            for name, n in zip(names, sizes, strict=True)
        ]
        return merge(weights, biases, self.kernels, self.dtype)

    def check_all_used(self) -> None:
        ignored = {"lm_head.weight"} if self.spec.tie_word_embeddings else set()
        extra = sorted(
            name
            for name in self.tensors.keys() - self.used - ignored
            if not name.endswith("rotary_emb.inv_freq")
        )
        if extra:
            shown = ", ".join(f"{name} {list(self.tensors[name].shape)}" for name in extra[:5])
            raise CheckpointError(
                f"{self.folder} has {len(extra)} tensors without a place in a {self.spec.architecture}: {quote(shown)}"
            )

    def _matrix(self, name: str, n: int, k: int) -> Tensor | Int4:
        quantization = self.spec.quantization
        if quantization is None or not self._is_int4(name, quantization):
            return self.dense(f"{name}.weight", (n, k))
        group = k if quantization.group_size == -1 else quantization.group_size
        if k % group or n % 8 or k % 8:
            raise CheckpointError(
                f"{self.folder}: {name} of {n} x {k} can not be AWQ with group size {group}: sizes do not divide"
            )
        shapes = awq.expected_shapes(quantization.version, n, k, group)
        for part, dtype in (("qweight", "I32"), ("qzeros", "I32"), ("scales", "F16")):
            if part == "qzeros" and not quantization.zero_point and f"{name}.qzeros" not in self.tensors:
                continue
            info = self._info(f"{name}.{part}", shapes[part])
            if info.dtype != dtype:
                raise CheckpointError(
                    f"tensor {name}.{part} in {info.file} has dtype {info.dtype}, expected {dtype}"
                )
        qzeros = self._sent(self._take(f"{name}.qzeros")) if f"{name}.qzeros" in self.tensors else None
        scales = self._take(f"{name}.scales")
        if not scales.sum(dtype=torch.float32).isfinite():  # no sum of finite ones is too large
            raise CheckpointError(
                f"tensor {name}.scales in {self.tensors[f'{name}.scales'].file} has NaN or infinity"
            )
        normalise = awq.from_gemm if quantization.version == "gemm" else awq.from_gemv
        return normalise(self._sent(self._take(f"{name}.qweight")), qzeros, self._sent(scales), group)

    def _is_int4(self, name: str, quantization: AwqSpec) -> bool:
        """Whether a matrix is quantized: the files decide, config.json may only name what is not."""
        listed = any(skipped in name for skipped in quantization.modules_to_not_convert)
        info = self.tensors.get(f"{name}.qweight")
        if info is not None and listed:
            raise CheckpointError(
                f"{name} is quantized in {info.file}, but config.json lists it in modules_to_not_convert"
            )
        parts = any(f"{name}.{part}" in self.tensors for part in ("qweight", "qzeros", "scales"))
        return parts and f"{name}.weight" not in self.tensors

    def _info(self, name: str, shape: tuple[int, ...]) -> TensorInfo:
        info = self.tensors.get(name)
        if info is None:
            raise CheckpointError(f"{self.folder} lacks tensor {name} of shape {list(shape)}", fix=AGAIN)
        if info.shape != shape:
            raise CheckpointError(
                f"tensor {name} in {info.file} has shape {list(info.shape)}, config.json implies {list(shape)}"
            )
        return info

    def _sent(self, mapped: Tensor) -> Tensor:
        """A tensor of a file on the device. A GPU fetches one piece while the next is read, and is not waited for."""
        if self.device != "cuda":
            return mapped.to(self.device)
        there = torch.empty_like(mapped, device=self.device)
        pieces = (tensor.flatten().split(PIECE) for tensor in (there, mapped))
        for target, piece in zip(*pieces, strict=True):
            if len(self.on_their_way) == MOST_PIECES:
                self.on_their_way.popleft().synchronize()
            locked = piece.pin_memory()  # torch uses its memory again when the copy is done
            target.copy_(locked, non_blocking=True)
            self.on_their_way.append(torch.cuda.current_stream().record_event())
        return there

    def _take(self, name: str) -> Tensor:
        """A tensor as it lies in its file; it is read from the disk when it is looked at."""
        self.used.add(name)
        file = self.tensors[name].file
        try:
            if file not in self.files:
                self.files[file] = safe_open(str(file), framework="pt").__enter__()
            tensor: Tensor = self.files[file].get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file} can not be mapped: {quote(str(error))}", fix=AGAIN) from None
        return tensor
