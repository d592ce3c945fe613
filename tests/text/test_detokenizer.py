"""Streaming text against one decode of the whole, for every tokenizer, any ids, any cut and any stop
strings."""

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from llmcli.text.detokenizer import Detokenizer
from llmcli.text.tokenizer import Tokenizer

# The tokenizer is shared by all examples, and is not changed by any.
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)


def stream(detokenizer: Detokenizer, ids: Sequence[int], size: int = 1) -> str:
    pushed = [detokenizer.push(ids[i : i + size]) for i in range(0, len(ids), size)]
    return "".join(pushed) + detokenizer.finish()


def draw_ids(data: st.DataObject, tokenizer: Tokenizer) -> list[int]:
    """Ids of all kinds: any, small ones (single bytes and control tokens), unknown ones, and bytes of real
    text."""
    text = data.draw(st.text("aé中😀 \n\ufffd", max_size=12))
    kinds = [st.integers(0, tokenizer.vocab_size + 2), st.integers(0, 260)]
    if tokenizer.byte_ids:
        kinds.append(st.sampled_from(sorted(tokenizer.byte_ids)))
    ids = data.draw(st.lists(st.one_of(kinds), max_size=30))
    return ids + tokenizer.encode(text) + ids[:5]


@shared
@given(st.data(), st.booleans(), st.integers(1, 4))
def test_the_pieces_are_the_whole_decode(
    tokenizer: Tokenizer, data: st.DataObject, skip: bool, size: int
) -> None:
    ids = draw_ids(data, tokenizer)
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip)
    assert stream(detokenizer, ids, size) == tokenizer.decode(ids, skip_special_tokens=skip)


@shared
@given(st.text(max_size=30))
def test_no_character_is_split(tokenizer: Tokenizer, text: str) -> None:
    assume("\ufffd" not in text)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assume("\ufffd" not in tokenizer.decode(ids))
    detokenizer = Detokenizer(tokenizer)
    assert all("\ufffd" not in detokenizer.push([i]) for i in ids)


def cut(text: str, stops: Sequence[str], include: bool) -> tuple[str, str | None]:
    """By definition: read on until the text read so far ends with a stop string."""
    for end in range(1, len(text) + 1):
        matches = [stop for stop in stops if text[:end].endswith(stop)]
        if matches:
            stop = max(matches, key=len)
            return text[: end if include else end - len(stop)], stop
    return text, None


@shared
@given(st.data(), st.booleans(), st.integers(1, 4))
def test_the_text_ends_at_the_first_stop_string(
    tokenizer: Tokenizer, data: st.DataObject, include: bool, size: int
) -> None:
    ids = draw_ids(data, tokenizer)
    text = tokenizer.decode(ids)
    places = st.tuples(st.integers(0, max(len(text) - 1, 0)), st.integers(1, 9))
    inside = places.map(lambda place: text[place[0] : place[0] + place[1]])
    stops = data.draw(st.lists((inside | st.text("ab \n\ufffd", max_size=3)).filter(bool), max_size=4))
    detokenizer = Detokenizer(tokenizer, stop=stops, include_stop=include)
    assert (stream(detokenizer, ids, size), detokenizer.matched) == cut(text, stops, include)


@shared
@given(st.text("ab", max_size=40), st.lists(st.text("ab", min_size=1, max_size=5), max_size=3))
def test_only_what_could_become_a_stop_string_is_held(
    minimind: Tokenizer, text: str, stops: list[str]
) -> None:
    detokenizer = Detokenizer(minimind, stop=stops)
    shown, ids = "", minimind.encode(text)
    for count, token_id in enumerate(ids, 1):
        shown += detokenizer.push([token_id])
        if detokenizer.matched is None:
            read = minimind.decode(ids[:count])
            held = read.removeprefix(shown)
            possible = [size for stop in stops for size in range(1, len(stop)) if read.endswith(stop[:size])]
            assert len(held) == max(possible, default=0)


def test_after_a_stop_string_nothing_more_is_shown(minimind: Tokenizer) -> None:
    detokenizer = Detokenizer(minimind, stop=["cat"])
    assert detokenizer.push(minimind.encode("a dog, a cat, a cow")) == "a dog, a "
    assert (detokenizer.push(minimind.encode("more")), detokenizer.finish()) == ("", "")
    assert detokenizer.matched == "cat"


def test_a_stop_string_may_be_an_unfinished_character(minimind: Tokenizer) -> None:
    detokenizer = Detokenizer(minimind, stop=["\ufffd"])
    assert detokenizer.push(minimind.encode("𒀀")[:1]) == ""
    assert (detokenizer.finish(), detokenizer.matched) == ("", "\ufffd")


@pytest.mark.parametrize("count", [100, 1000])
def test_bytes_that_are_no_character_do_not_pile_up(minimind: Tokenizer, count: int) -> None:
    invalid = minimind.encode("𒀀")[0]
    assert minimind.decode([invalid]) == "\ufffd"
    detokenizer = Detokenizer(minimind)
    shown = "".join(detokenizer.push([invalid]) for _ in range(count))
    assert count - len(shown) <= 8
    assert shown + detokenizer.finish() == minimind.decode([invalid] * count)
