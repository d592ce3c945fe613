"""What `llmcli tune` tries: every case runs, asks the table with the sizes it says, and tries settings that exist."""

from collections.abc import Iterator

import pytest
import torch

from llmcli_kernels.tune.attention_data import AttentionShape
from llmcli_kernels.tune.cases import SPACES, STANDARD_SHAPES, Load, ModelShape, cases_for
from llmcli_kernels.tune.timing import ROTATED_BYTES, num_copies
from llmcli_kernels.tune.tuner import Case, Trial, attempt
from llmcli_kernels.tuning import TuningRow, TuningTable, TuningTableError, load_table

TABLE = load_table((9, 0))
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TINY = ModelShape(
    linears=((128, 256),),
    group_size=128,
    attention=AttentionShape(num_heads=6, num_kv_heads=2, head_size=64),
)
TINY_LOAD = Load(
    skinny_rows=(8,), wide_rows=(40,), crossover_rows=(20, 40), decodes=(((1, 20),),), prefills=(((20, 40),),)
)
CASES = cases_for((TINY,), DEVICE, TINY_LOAD)


@pytest.fixture(autouse=True)
def _one_copy(monkeypatch, triton_device) -> Iterator[None]:
    """The interpreter has no cache to rotate the data out of."""
    monkeypatch.setattr("llmcli_kernels.tune.int4_data.num_copies", lambda num_bytes: 1)
    with torch.device("cpu"):  # as in the program, where no default device is set
        yield


def tried(case: Case, table: TuningTable) -> Trial:
    """The config of the table, whose timer runs what it is given."""

    def run(calls) -> float:
        for call in calls:
            call()
        return 1.0

    return attempt(case, case.prepare(), table, table.pick(case.operation, **case.sizes), run)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_the_present_config_of_every_case_passes_its_own_check(case):
    assert tried(case, TABLE) == Trial(TABLE.pick(case.operation, **case.sizes), 1.0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_a_case_says_the_sizes_with_which_its_operation_asks(case):
    config = TABLE.pick(case.operation, **case.sizes)
    prepared = case.prepare()

    def bounded(sizes: dict[str, int]) -> TuningTable:
        return TuningTable("bounded", {**TABLE.rows, case.operation: (TuningRow(sizes, config, "bounded"),)})

    assert prepared.output(bounded(dict(case.sizes))).shape == prepared.expected.shape
    for name, size in case.sizes.items():
        if size > 0:
            with pytest.raises(TuningTableError, match="no row"):
                prepared.output(bounded({**case.sizes, name: size - 1}))


@pytest.mark.parametrize("operation", SPACES)
def test_every_setting_that_is_tried_is_one_that_the_tables_have(operation):
    assert SPACES[operation].keys() <= TABLE.rows[operation][0].config.keys()


def test_shapes_that_two_models_share_are_tuned_once():
    cases = cases_for((*STANDARD_SHAPES, *STANDARD_SHAPES), DEVICE)
    keys = [(case.operation, *case.sizes.items()) for case in cases]
    assert len(keys) == len(set(keys)) == len(cases_for(STANDARD_SHAPES, DEVICE))


def test_a_model_without_int4_layers_has_attention_only():
    dense = ModelShape(linears=(), group_size=0, attention=TINY.attention)
    assert {case.operation for case in cases_for((dense,), DEVICE)} == {
        "attention_decode",
        "attention_prefill",
    }


@pytest.mark.parametrize("num_bytes", [0, 1, 1 << 20, ROTATED_BYTES // 3, ROTATED_BYTES, 1 << 40])
def test_copies_of_data_are_larger_than_a_cache_and_few(num_bytes):
    copies = num_copies(num_bytes)
    assert 1 <= copies <= 64
    assert copies == 64 or copies * num_bytes >= ROTATED_BYTES
