"""Keys of lines: different for all lines of a file, and the same in every run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.errors import OutputError
from llmcli.jobs.batch.keys import KeyMaker, SpillingMap, key_of_record
from tests.jobs.batch.test_batch_output import file_size_limit

LINES = st.lists(
    st.tuples(st.binary(max_size=2), st.none() | st.sampled_from(["a", "b-1", 1, 2])), max_size=20
)


@given(LINES)
def test_a_record_leads_back_to_the_line_that_it_answers(lines: list[tuple[bytes, str | int | None]]) -> None:
    maker = KeyMaker()
    for data, request_id in lines:
        key = maker.key(data, request_id)
        assert key_of_record(key.text, request_id) == key


@given(st.lists(st.binary(max_size=1), max_size=30))
def test_lines_without_an_id_all_differ(lines: list[bytes]) -> None:
    maker = KeyMaker()
    names = [maker.key(data, None).name for data in lines]
    assert len(set(names)) == len(names)
    assert names == [again.key(data, None).name for again in [KeyMaker()] for data in lines]


def test_adding_a_line_elsewhere_changes_no_key() -> None:
    one, two = KeyMaker(), KeyMaker()
    before = [one.key(data, None) for data in (b"a", b"b", b"a")]
    after = [two.key(data, None) for data in (b"new", b"a", b"more", b"b", b"a")]
    assert set(before) < set(after)


def test_an_id_is_the_same_as_a_number_or_as_a_text() -> None:
    maker = KeyMaker()
    assert maker.first_line(7, 1) == 1
    assert maker.first_line("7", 2) == 1
    assert maker.first_line("8", 3) == 3


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 9) | st.just(""))), st.integers(1, 5))
def test_a_spilling_map_is_a_mapping(entries: list[tuple[str, int | str]], max_in_memory: int) -> None:
    spilling, plain = SpillingMap(max_in_memory), {}
    for name, value in entries:
        assert spilling.get(name) == plain.get(name)
        spilling.set(name, value)
        plain[name] = value
    assert {name: spilling.get(name) for name in "abcdefghi"} == {
        name: plain.get(name) for name in "abcdefghi"
    }


def fill(spilling: SpillingMap) -> None:
    for number in range(1_000_000):
        spilling.set(f"={number}", number)


def test_a_disk_without_room_for_the_keys_is_told() -> None:
    with file_size_limit(0), pytest.raises(OutputError, match="can not be kept in a temporary file"):
        fill(SpillingMap())
