"""Tuning tables: which row is picked, which table a GPU gets, and what a wrong file is told."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli_kernels.tuning import (
    FOLDER,
    TuningTable,
    TuningTableError,
    load_table,
    nearest_architecture,
    read_table,
)

TABLES = sorted(FOLDER.glob("*.json"))
ROWS = [
    {"up_to": {"m": 8, "n": 4096}, "config": {"BN": 64}},
    {"up_to": {"m": 8}, "config": {"BN": 128}},
    {"up_to": {}, "config": {"BN": 256}},
]


def written(folder: Path, rows: object, name: str = "mine.json") -> Path:
    """A file with rows for one operation."""
    path = folder / name
    path.write_text(json.dumps({"operations": {"int4_skinny": rows}}))
    return path


def table(folder: Path, rows: object = ROWS) -> TuningTable:
    return read_table(written(folder, rows))


@pytest.mark.parametrize(("m", "n", "bn"), [(1, 1, 64), (8, 4096, 64), (8, 4097, 128), (9, 1, 256)])
def test_the_first_row_whose_bounds_hold_is_picked(tmp_path, m, n, bn):
    assert table(tmp_path).pick("int4_skinny", m=m, n=n) == {"BN": bn}


def test_sizes_that_no_row_bounds_do_not_matter(tmp_path):
    assert table(tmp_path).pick("int4_skinny", m=1, n=1, k=1 << 30) == {"BN": 64}


def test_a_picked_config_may_be_changed_without_changing_the_table(tmp_path):
    rows = table(tmp_path)
    rows.pick("int4_skinny", m=1, n=1).clear()
    assert rows.pick("int4_skinny", m=1, n=1) == {"BN": 64}


def test_what_has_to_compile_is_each_config_once(tmp_path):
    rows = [{"up_to": {"m": m}, "config": {"BN": bn}} for m, bn in ((1, 64), (2, 128), (4, 64))]
    assert table(tmp_path, rows).configs("int4_skinny") == [{"BN": 64}, {"BN": 128}]


@given(m=st.integers(1, 20), n=st.integers(1, 9000))
def test_what_is_picked_is_among_what_has_to_compile(tmp_path_factory, m, n):
    rows = table(tmp_path_factory.mktemp("table"))
    picked = rows.pick("int4_skinny", m=m, n=n)
    assert picked in rows.configs("int4_skinny", m=m)
    assert picked in rows.configs("int4_skinny", n=n)
    assert [picked] == rows.configs("int4_skinny", m=m, n=n)


def test_rows_out_of_reach_need_not_compile(tmp_path):
    assert table(tmp_path).configs("int4_skinny", m=8) == [{"BN": 64}, {"BN": 128}]
    assert table(tmp_path).configs("int4_skinny", m=9) == [{"BN": 256}]


def test_sizes_beyond_every_row_are_told(tmp_path):
    with pytest.raises(TuningTableError, match=r"mine\.json: no row of 'int4_skinny' is for m 9, n 5"):
        table(tmp_path, ROWS[:2]).pick("int4_skinny", m=9, n=5)


def test_an_operation_that_is_not_there_is_told_with_those_that_are(tmp_path):
    with pytest.raises(TuningTableError, match="no operation 'int4_skiny'; there are: int4_skinny"):
        table(tmp_path).pick("int4_skiny", m=1)


def test_a_bound_of_a_size_that_nobody_gives_is_told_with_its_row(tmp_path):
    with pytest.raises(TuningTableError, match=r"mine\.json: int4_skinny row 1: no size is called 'm'"):
        table(tmp_path).pick("int4_skinny", rows=1)


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ((8, 0), "sm_80"),
        ((8, 6), "sm_86"),
        ((8, 7), "sm_86"),
        ((8, 9), "sm_89"),
        ((9, 0), "sm_90"),
        ((10, 0), "sm_90"),
        ((12, 0), "sm_120"),
        ((12, 1), "sm_120"),
        ((13, 0), "sm_120"),
    ],
)
def test_a_gpu_gets_the_nearest_table_that_is_not_for_a_newer_one(capability, name):
    assert nearest_architecture(capability) == name
    assert load_table(capability).rows


def test_a_gpu_older_than_all_tables_is_told_so():
    with pytest.raises(TuningTableError, match=r"compute capability 7\.5 is older than 8\.0"):
        load_table((7, 5))


def test_consumer_blackwell_takes_the_rows_of_ada():
    assert load_table((12, 0)) == load_table((8, 9))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_checked_in_operation_has_a_row_for_any_size(path):
    for operation, rows in read_table(path).rows.items():
        assert rows[-1].up_to == {}, operation
        assert all(row.up_to for row in rows[:-1]), f"{operation}: rows after one without bounds"


def test_all_architectures_have_the_same_operations_with_the_same_settings():
    tables = [read_table(path) for path in TABLES]
    shapes = [{name: rows[0].config.keys() for name, rows in found.rows.items()} for found in tables]
    assert all(shape == shapes[0] for shape in shapes)


def test_the_rows_of_the_user_go_first(tmp_path):
    base = load_table((9, 0))
    operation, other = list(base.rows)[:2]
    ours = dict(base.rows[operation][-1].config)
    theirs = {name: value * 2 for name, value in ours.items()}
    path = tmp_path / "mine.json"
    rows = [{"up_to": {"tokens": 4}, "config": theirs, "note": "7.1 µs instead of 8.0 µs"}]
    path.write_text(json.dumps({"about": {"gpu": "NVIDIA H200"}, "operations": {operation: rows}}))
    table = load_table((9, 0), path)
    assert table.rows[operation][0].config == theirs
    assert table.rows[operation][1:] == base.rows[operation]
    assert table.rows[other] == base.rows[other]


def test_a_user_file_need_not_exist(tmp_path):
    assert load_table((9, 0), tmp_path / "none.json") == load_table((9, 0))


ROW = {"up_to": {}, "config": {"BN": 64}}
WRONG_FILES = [
    ("{", "Expecting property name"),
    ('{"operations": {}, "operations": {}}', "'operations' is there twice"),
    ("[]", "must be an object"),
    ("{}", "operations: must be an object, got None"),
    ('{"operation": {}}', "unknown key 'operation'"),
    ('{"operations": {"a": []}}', "a: must be a list of rows"),
    ('{"operations": {"a": {}}}', "a: must be a list of rows"),
    ('{"operations": {}, "same_as": "sm_80"}', "stands instead of operations"),
    ('{"same_as": 80}', "stands instead of operations"),
    ('{"same_as": "sm_1"}', r"sm_1\.json"),
    ('{"about": {"note": 1}, "operations": {}}', "about holds texts only"),
]
WRONG_ROWS = [
    (1, "row 1: must be an object"),
    ({"up_to": {}}, "row 1: config: must be an object, got None"),
    ({"config": {}}, "row 1: up_to: must be an object, got None"),
    (ROW | {"m": 8}, "row 1: unknown key 'm'; known: config, note, up_to"),
    (ROW | {"note": 1}, "row 1: note must be a text, got 1"),
    (ROW | {"up_to": {"m": "8"}}, "row 1: up_to m must be a whole number, got '8'"),
    (ROW | {"up_to": {"m": True}}, "row 1: up_to m must be a whole number, got True"),
    (ROW | {"up_to": {"m": -1}}, "row 1: up_to m must be a whole number, got -1"),
    (ROW | {"config": {"BN": 6.4}}, "row 1: config BN must be a whole number, a text or true/false, got 6.4"),
    (ROW | {"config": {"BN": None}}, "row 1: config BN must be"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_FILES, ids=[message for _, message in WRONG_FILES])
def test_a_wrong_file_is_refused_with_its_name(tmp_path, text, message):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(TuningTableError, match=message) as caught:
        load_table((9, 0), path)
    assert str(path.name) in str(caught.value) or "sm_1" in str(caught.value)
    assert "run `llmcli tune` again" in str(caught.value)


@pytest.mark.parametrize(("row", "message"), WRONG_ROWS, ids=[message for _, message in WRONG_ROWS])
def test_a_wrong_row_is_refused_with_its_place(tmp_path, row, message):
    with pytest.raises(TuningTableError, match=r"mine\.json: int4_skinny " + message):
        table(tmp_path, [row])


@pytest.mark.parametrize("config", [{"BN": 64, "extra": 1}, {}, {"BN": "64"}, {"BN": True}])
def test_configs_of_an_operation_are_of_one_form(tmp_path, config):
    with pytest.raises(TuningTableError, match=r"row 2: config differs from that of .* row 1 in (BN|extra)"):
        table(tmp_path, [{"up_to": {"m": 1}, "config": {"BN": 64}}, {"up_to": {}, "config": config}])


def test_a_user_row_of_an_older_form_is_refused(tmp_path):
    path = written(tmp_path, [{"up_to": {}, "config": {"GONE": 1}}])
    with pytest.raises(TuningTableError, match=r"mine\.json: int4_skinny row 1: config differs .* GONE"):
        load_table((9, 0), path)


def test_a_user_row_for_an_operation_that_is_gone_is_refused(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"operations": {"int5_linear": [{"up_to": {}, "config": {}}]}}')
    with pytest.raises(TuningTableError, match="has no operation 'int5_linear'"):
        load_table((9, 0), path)


def test_a_user_file_that_is_a_folder_is_refused(tmp_path):
    with pytest.raises(TuningTableError, match="Is a directory"):
        load_table((9, 0), tmp_path)


def test_every_operation_of_the_tables_is_asked_for_by_a_kernel():
    sources = "".join(path.read_text("utf-8") for path in FOLDER.parent.rglob("triton_*.py"))
    assert [
        name for name in load_table((9, 0)).rows if f'.pick("{name}"' not in "".join(sources.split())
    ] == []
