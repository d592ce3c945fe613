"""JSON from strangers: what Python's parser lets through and should not is a ValueError with the place."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.strict_json import MAX_DEPTH, loads

REFUSED: list[tuple[bytes, str]] = [
    (b"", "column 1"),
    (b"   ", "Expecting value"),
    (b"{", "column 2"),
    (b'{"a": 1,}', "column 9"),
    (b"{'a': 1}", "column 2"),
    (b'{"a": 1} x', "Extra data"),
    (b'{"a":\n 1,\n}', "line 3 column 1"),
    (b'"a\nb"', "control character"),
    (b"\xef\xbb\xbf{}", "BOM"),
    (b'{"a": "\xff"}', "byte 8 is not UTF-8"),
    (b'"\xed\xa0\x80"', "byte 2 is not UTF-8"),
    (b'"\\ud800"', "lone surrogate"),
    (b'{"\\udfff": 1}', "lone surrogate"),
    (b"NaN", "NaN is not a finite number"),
    (b"[Infinity]", "Infinity is not a finite number"),
    (b"-Infinity", "-Infinity is not a finite number"),
    (b"1e999", "1e999 is not a finite number"),
    (b"-1e999", "-1e999 is not a finite number"),
    (b"1." + b"0" * 500, "not a finite number"),
    (b"9" * 401, "a number of 401 digits is too long"),
    (b"9" * 100_000, "a number of 100000 digits is too long"),
    (b'{"a": 1, "b": 2, "a": 3}', "duplicate key 'a'"),
    (b'[{"x": {"k": 1, "k": 1}}]', "duplicate key 'k'"),
    (b'{"a": 1, "\\u0061": 2}', "duplicate key 'a'"),
    (b"[" * 65 + b"]" * 65, "nesting deeper than 64"),
    (b'{"a":' * 100_000, "nesting deeper than 64"),
    (b"[" * 10_000_000, "nesting deeper than 64"),
]


@pytest.mark.parametrize(("data", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_is_not_strict_json_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        loads(data)
    assert len(str(caught.value)) < 200


ACCEPTED: list[tuple[bytes, object]] = [
    (b" [1, 2.5, true, null] ", [1, 2.5, True, None]),
    (b'"\\ud83d\\ude00"', "😀"),
    ('"é😀"'.encode(), "é😀"),
    (b"9" * 400, int("9" * 400)),
    (b"-0.0", 0.0),
    (b"1e-999", 0.0),
    (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
    (b'"' + b"[" * 1000 + b'"', "[" * 1000),
    (b'["\\"' + b"[{" * 100 + b'", "\\\\", []]', ['"' + "[{" * 100, "\\", []]),
    (b'{"a": {"a": 1}, "b": {"a": 1}}', {"a": {"a": 1}, "b": {"a": 1}}),
]


@pytest.mark.parametrize(("data", "value"), ACCEPTED)
def test_strict_json_is_read(data: bytes, value: object) -> None:
    assert loads(data) == (json.loads(data) if value is None else value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner)
    ),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_what_the_standard_library_writes_is_read_back(value: object, ascii_only: bool) -> None:
    assert loads(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=40) | st.text('[]{}",:\\ue10-.naNI ', max_size=40).map(str.encode))
def test_any_bytes_give_a_value_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        json.dumps(loads(data), allow_nan=False)
