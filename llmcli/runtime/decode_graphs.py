"""Steps in which every sequence decodes, as captured graphs: one launch in the place of hundreds.

A graph is made for a number of rows, on first use; a step takes the next larger one and fills it up with rows that
have no keys and write nothing. All that changes from step to step lies in tensors that stay where they are: one copy
brings the numbers of a step, another one the entries of block tables that are new. The sampler is in the graph too.
Owns the buckets, these tensors and what is in them; how a graph is captured and replayed is the business of the
`Capture` that is handed in, so that everything else runs without a GPU. Called by `runtime/runner.py`.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmcli.model.decoder import Decoder
from llmcli.model.forward_batch import ForwardBatch, KVCache
from llmcli.runtime.forward import CPU, Drawing, LastDrawn, pending_tokens, specs_of
from llmcli.runtime.sampler import Drawn, draw, is_plain, sampling_parameters
from llmcli.runtime.transfer import on_host, to_device, unpack
from llmcli.scheduler.step import SampleSpec, SequenceSlice, Step
from llmcli_kernels.paged_attention import AttentionBatch
from llmcli_kernels.sampling import SamplingBatch

BUCKETS = (1, 2, 4, 8, 12, *range(16, 257, 8))

Run = Callable[[], Tensor]
Capture = Callable[[Run], Run]
"""From a function that launches kernels on tensors that stay, to one that launches the same ones again."""


def buckets_up_to(rows: int) -> tuple[int, ...]:
    """The numbers of rows that graphs are made for, where a step has at most `rows`."""
    return BUCKETS[: bisect_left(BUCKETS, rows) + 1]


def is_decode(step: Step) -> bool:
    """Whether every sequence computes one token and draws the next."""
    return all(part.sample is not None and len(part.token_ids) == 1 for part in step.slices)


class DecodeGraphs:
    """Graphs of one decoder on one cache.

    Args:
        max_rows: most sequences of a step.
        max_model_len: most tokens of a sequence.
    """

    def __init__(
        self, decoder: Decoder, cache: KVCache, max_rows: int, max_model_len: int, capture: Capture
    ) -> None:
        layer = cache.layers[0]
        self._decoder = decoder
        self._cache = cache
        self._capture = capture
        self._device = decoder.cos_sin.device
        self._block_size = layer.block_size
        self._max_model_len = max_model_len
        self._buckets = buckets_up_to(max_rows)
        rows = self._buckets[-1]
        self._tables = TableRows(rows, -(-max_model_len // layer.block_size), self._device)
        # The step before may have drawn for more sequences than a graph has rows.
        self._last = torch.zeros(max(rows, max_rows), dtype=torch.int64, device=self._device)
        # One for all graphs: what a graph keeps for itself, no other one can use.
        vocabulary = decoder.spec.vocab_size
        self._logits = torch.empty(rows, vocabulary, dtype=torch.float32, device=self._device)
        self._graphs: dict[int, _Graph] = {}

    def take(self, step: Step) -> bool:
        """Whether a step can run as a graph."""
        return len(step.slices) <= self._buckets[-1] and is_decode(step)

    def run(self, step: Step, last: LastDrawn | None) -> Drawing:
        """Start a step that `take` takes.

        Args:
            last: where the tokens of late slices are.

        Returns:
            What has its tokens drawn, of as many rows as the graph has; they are overwritten by the next step.
        """
        count = len(step.slices)
        rows = self._buckets[bisect_left(self._buckets, count)]
        if not self._graphs:  # the largest first: the others find room in the memory that it leaves
            self._make(self._buckets[-1])
        graph = self._graphs.get(rows) or self._make(rows)
        if last is not None:
            known = min(len(last.ids), len(self._last))
            self._last[:known].copy_(last.ids[:known])
        self._tables.write(step.slices)
        graph.fill(row_numbers(step.slices, specs_of(step), rows, self._block_size, last))
        tokens = graph.replay()
        # The graph has overwritten what `last` refers to, but not its copy.
        pending = pending_tokens(step, None if last is None else LastDrawn(self._last, last.rows))

        def drawing(step: Step) -> Drawn:
            specs = specs_of(step)
            if all(map(is_plain, specs)):
                return Drawn(tokens)
            return draw(self._logits[:count], specs, self._decoder.kernels, pending)  # drawn again

        return drawing

    def _make(self, rows: int) -> "_Graph":
        """Capture a graph while it has nothing but rows that fill up."""
        idle = on_host(row_numbers((), (), rows, self._block_size, None), pinned=False)
        inputs = idle.to(self._device)
        numbers = RowNumbers(
            *unpack(inputs, [torch.empty(rows, dtype=dtype, device=CPU) for _, dtype in _TYPES])
        )
        attention = AttentionBatch(
            query_starts=tuple(range(rows + 1)),
            kv_lens=(self._max_model_len,) * rows,
            block_tables=self._tables.on_device[:rows],
            lengths=numbers.kv_lens,
        )
        every_row = torch.arange(rows, device=self._device)

        def run() -> Tensor:
            token_ids = torch.where(numbers.late, self._last[numbers.sources], numbers.token_ids)
            batch = ForwardBatch(token_ids, numbers.positions, numbers.slots, attention, every_row)
            logits = self._logits[:rows].copy_(self._decoder.forward(batch, self._cache))
            ids, finite = self._decoder.kernels.sample(logits, numbers.sampling())
            return torch.stack((ids, finite.to(ids.dtype)))

        self._graphs[rows] = _Graph(inputs, (attention, every_row), self._capture(run))
        return self._graphs[rows]


@dataclass(frozen=True, eq=False)
class RowNumbers:
    """What changes from step to step, for each row, on the device.

    Attributes:
        token_ids, positions, slots: int64, as in `ForwardBatch`.
        late: bool: the token is that of row sources (int64) of the step before.
        kv_lens: int32, 0 for a row that only fills up.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    sources: Tensor
    late: Tensor
    kv_lens: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    uniforms: Tensor

    def sampling(self) -> SamplingBatch:
        return SamplingBatch(self.temperature, self.top_k, self.top_p, self.min_p, self.uniforms)


# Of each field of `RowNumbers`: the type of its numbers for `array`, and for torch.
_INT, _FLOAT = ("q", torch.int64), ("f", torch.float32)
_TYPES = (
    *(_INT,) * 4,
    ("b", torch.bool),
    ("i", torch.int32),
    _FLOAT,
    _INT,
    _FLOAT,
    _FLOAT,
    ("d", torch.float64),
)


def row_numbers(
    slices: Sequence[SequenceSlice],
    specs: Sequence[SampleSpec],
    rows: int,
    block_size: int,
    last: LastDrawn | None,
) -> tuple["array[Any]", ...]:
    """The fields of `RowNumbers` in order, for decoding slices and rows that fill up."""
    assert last is not None or not any(part.late for part in slices), "late, and no step was started before"
    more = rows - len(slices)
    idle = [0] * more
    positions = [part.start for part in slices]
    temperatures, top_ks, top_ps, min_ps, uniforms = sampling_parameters(specs)
    columns: tuple[list[Any], ...] = (
        [part.token_ids[0] for part in slices] + idle,
        positions + idle,
        [part.block_ids[-1] * block_size + part.start % block_size for part in slices] + idle,
        [last.rows[part.seq_id] if part.late and last is not None else 0 for part in slices] + idle,
        [part.late for part in slices] + idle,
        [start + 1 for start in positions] + idle,
        temperatures + idle,
        top_ks + idle,
        top_ps + [1] * more,
        min_ps + idle,
        uniforms + idle,
    )
    return tuple(array(code, column) for (code, _), column in zip(_TYPES, columns, strict=True))


class TableRows:
    """Block tables on the device, one row for each sequence of a step.

    Knows what they hold, so that a step only sends what differs: mostly nothing, or a block for one row in so many as
    a block has tokens.

    Attributes:
        on_device: [rows, width] int32.
    """

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        self.on_device = torch.zeros(rows, width, dtype=torch.int32, device=device)
        self._held: list[tuple[int, ...]] = [()] * rows

    def write(self, slices: Sequence[SequenceSlice]) -> None:
        """Bring the blocks of each slice into the row of its number."""
        try:
            places, blocks = self.changes(slices)
            if places:
                numbers = (
                    torch.tensor(places, device=CPU),
                    torch.tensor(blocks, dtype=torch.int32, device=CPU),
                )
                there, values = to_device(numbers, self.on_device.device)
                self.on_device.view(-1)[there] = values
        except BaseException:  # Ctrl-C among them: what has arrived is not known
            self._held = [()] * len(self._held)
            raise

    def changes(self, slices: Sequence[SequenceSlice]) -> tuple[list[int], list[int]]:
        """Places in the flattened tables and the blocks to write there; from now on they count as written."""
        places: list[int] = []
        blocks: list[int] = []
        width = self.on_device.shape[1]
        for row, part in enumerate(slices):
            held, wanted = self._held[row], part.block_ids
            if wanted is held:
                continue
            same = len(held) if wanted[: len(held)] == held else 0
            places.extend(range(row * width + same, row * width + len(wanted)))
            blocks.extend(wanted[same:])
            self._held[row] = wanted
        return places, blocks


@dataclass(frozen=True, eq=False)
class _Graph:
    """A captured graph, the buffer on its device that it reads `RowNumbers` from, and what else it reads.

    A graph knows addresses alone: what it reads must live as long as it does.
    """

    inputs: Tensor
    reads: tuple[object, ...]
    replay: Run

    def fill(self, numbers: Sequence["array[Any]"]) -> None:
        self.inputs.copy_(on_host(numbers, pinned=self.inputs.is_cuda), non_blocking=True)
