"""Which tokens may come next: the masks of a matcher against what regular expressions and JSON say themselves."""

import json
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcli.errors import RequestError
from llmcli.structured import StructuredOutput
from llmcli.text.grammar import MAX_KEPT, GrammarCompiler, Matcher, check_form, without
from llmcli.text.tokenizer import Tokenizer, load_tokenizer
from tests.tiny_models import write_tokenizer

VOCAB = 300
MODEL_VOCAB = 309  # the model's has ids that the tokenizer lacks
END, OTHER_END = 2, 1
NAMES = ("gpt2", "mistral-v1")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, VOCAB)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, MODEL_VOCAB, {END, OTHER_END})


def reasoning_tokenizer(folder: Path) -> Tokenizer:
    """One whose <think> and </think> are a token each."""
    write_tokenizer(folder, VOCAB)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    for place, mark in enumerate(("<think>", "</think>")):
        content["added_tokens"].append(
            {"id": VOCAB + place, "content": mark, "special": False, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        )
    file.write_text(json.dumps(content))
    return load_tokenizer(folder)


def test_reasoning_may_come_first_where_the_model_opens_it(tmp_path: Path) -> None:
    tokenizer = reasoning_tokenizer(tmp_path)
    compiler = GrammarCompiler(tokenizer, MODEL_VOCAB, {END, OTHER_END})
    form = StructuredOutput.regex("[ab]{2}").behind_any("<think>", "</think>")
    letters = {tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "ab"}
    thinks = compiler.matcher(form)
    assert ids(thinks.allowed) == letters | {VOCAB}
    thinks.accept(VOCAB)
    free = ids(thinks.allowed)
    assert free.isdisjoint({END, OTHER_END})
    assert {7, 200, VOCAB + 1} <= free
    for token in (7, 200, VOCAB, VOCAB + 1):
        thinks.accept(token)
    assert ids(thinks.allowed) == letters
    answers = compiler.matcher(form)
    answers.accept(min(letters))
    assert ids(answers.allowed) == letters  # it has begun, and may not think any more


def test_where_the_mark_is_several_tokens_the_form_begins_at_once(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    form = StructuredOutput.regex("[ab]{2}")
    either = compiler.matcher(form.behind_any("<think>", "</think>"))
    assert ids(either.allowed) == ids(compiler.matcher(form).allowed)
    either.accept(min(ids(either.allowed)))
    assert not either.finished


def ids(mask: bytes) -> set[int]:
    return {8 * place + bit for place, byte in enumerate(mask) if byte for bit in range(8) if byte >> bit & 1}


def walk(matcher: Matcher, source: random.Random, ends: set[int], limit: int = 300) -> list[int]:
    """Tokens drawn among those that are allowed, until the form is whole and an end is drawn."""
    tokens: list[int] = []
    while not matcher.finished and len(tokens) < limit:
        token = source.choice(sorted(ids(matcher.allowed)))
        if token in ends:
            break
        tokens.append(token)
        matcher.accept(token)
    return tokens


@pytest.mark.parametrize("pattern", ["[ab]{2}", "a?b?", "(ab|ba)*a", "a{0,3}", "[^b-z ]+!"])
def test_a_token_is_allowed_when_a_match_can_begin_so(
    pattern: str, compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    """The truth: all texts of four letters of a small alphabet, matched by re."""
    alphabet = "ab!"
    known = {letter: tokenizer.encode(letter, add_special_tokens=False)[0] for letter in alphabet}
    texts = [""]
    for _ in range(6):
        texts += [text + letter for text in texts for letter in alphabet if len(text) < 6]
    whole = {text for text in texts if re.fullmatch(pattern, text)}
    for begun in {text[:size] for text in whole for size in range(min(3, len(text)) + 1)}:
        matcher = compiler.matcher(StructuredOutput.regex(pattern))
        for letter in begun:
            matcher.accept(known[letter])
        allowed = ids(matcher.allowed)
        following = {text[len(begun)] for text in whole if text.startswith(begun) and text != begun}
        assert {letter for letter in alphabet if known[letter] in allowed} == following
        assert ({END, OTHER_END} <= allowed) == (begun in whole)
        assert not allowed & {0, *range(VOCAB, 8 * len(matcher.allowed))}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "pattern", [r"(19|20)[0-9]{2}-[01][0-9]", r"[A-Z][a-z]+( [a-z]+){1,4}\.", "[é一-三]{1,3}"]
)
def test_walks_over_the_tokens_of_real_tokenizers_match(name: str, pattern: str, shared_data: Path) -> None:
    tokenizer = real(name, shared_data)
    compiler = GrammarCompiler(tokenizer, tokenizer.vocab_size + 5, {tokenizer.eos_id or 0})
    for seed in range(8):
        matcher = compiler.matcher(StructuredOutput.regex(pattern))
        tokens = walk(matcher, random.Random(seed), {tokenizer.eos_id or 0}, 80)
        assert len(tokens) == 80 or re.fullmatch(pattern, tokenizer.decode(tokens))


def real(name: str, shared_data: Path) -> Tokenizer:
    folder = shared_data / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"no tokenizer at {folder}")
    return load_tokenizer(folder)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_the_same_tokens_lead_to_the_same_place(compiler: GrammarCompiler, seed: int) -> None:
    form = StructuredOutput.json_schema({"type": "object", "properties": {"a": {"type": "string"}}})
    first = compiler.matcher(form)
    tokens = walk(first, random.Random(seed), {END, OTHER_END}, 25)
    rebuilt = compiler.matcher(form)
    for token in tokens:
        rebuilt.accept(token)
    assert (rebuilt.allowed, rebuilt.finished) == (first.allowed, first.finished)


def test_matchers_of_one_form_do_not_touch_each_other(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    form = StructuredOutput.regex("ab|cd")
    one, other = compiler.matcher(form), compiler.matcher(form)
    before = other.allowed
    one.accept(tokenizer.encode("a", add_special_tokens=False)[0])
    assert other.allowed == before
    assert compiler.matcher(form).allowed == before


def test_a_whole_text_that_can_not_go_on_is_finished(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.matcher(StructuredOutput.choice(["a", "ab"]))
    for letter, finished in (("a", False), ("b", True)):
        matcher.accept(tokenizer.encode(letter, add_special_tokens=False)[0])
        assert matcher.finished == finished
    assert ids(matcher.allowed) == {END, OTHER_END}


def test_a_token_that_is_not_allowed_is_an_error(compiler: GrammarCompiler) -> None:
    matcher = compiler.matcher(StructuredOutput.regex("[a-z]+"))
    wrong = min(set(range(VOCAB)) - ids(matcher.allowed))
    with pytest.raises(RequestError, match="can not be held to its form"):
        matcher.accept(wrong)


@pytest.mark.parametrize(
    "text", ["😀", "tab\tand\nline", '"quoted"', "back\\slash", "/slash/", "a|b", "[x]{2}"]
)
def test_a_choice_is_taken_to_the_letter(text: str, compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    tokens = walk(compiler.matcher(StructuredOutput.choice([text])), random.Random(0), {END, OTHER_END})
    assert tokenizer.decode(tokens) == text


def test_white_space_in_json_is_bounded(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    form = StructuredOutput.json_schema(
        {"type": "array", "items": {"const": 1}, "minItems": 3, "maxItems": 3}
    )
    for seed in range(30):
        text = tokenizer.decode(walk(compiler.matcher(form), random.Random(seed), {END, OTHER_END}))
        assert json.loads(text) == [1, 1, 1]
        assert max(map(len, re.findall(r"\s+", text)), default=0) <= 22


@pytest.mark.parametrize(
    ("form", "reason", "place"),
    [
        (StructuredOutput.regex("ab(c"), "unclosed group", "at character 3 of ab(c"),
        (StructuredOutput.regex("(?=a)b"), "look-around", "at character 1"),
        (StructuredOutput.regex(r"(a)\1"), "backreferences are not supported", "at character 4"),
        (StructuredOutput.json_schema({"items": {"type": "something"}}), "something", "at /items/type"),
        (
            StructuredOutput.json_schema({"properties": {"x": {"type": "array", "uniqueItems": True}}}),
            "uniqueItems",
            "at /properties/x/uniqueItems",
        ),
        (StructuredOutput.json_schema({"$ref": "http://x/y"}), "http://x/y", "at /$ref"),
        (StructuredOutput.grammar('start: "a" word'), "word", "at line 1, character"),
        (StructuredOutput.grammar('start: "a"\nb: ('), "", "at line 2"),
        (StructuredOutput.grammar("root ::= ("), "no GBNF", ""),
    ],
    ids=str,
)
def test_a_form_that_can_not_be_used_is_refused_with_reason_and_place(
    form: StructuredOutput, reason: str, place: str, compiler: GrammarCompiler
) -> None:
    for refuse in (check_form, compiler.matcher):
        with pytest.raises(RequestError) as caught:
            refuse(form)
        assert reason in caught.value.what
        assert place in caught.value.why
        assert caught.value.param == form.kind
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "form", [StructuredOutput.regex(r"[^\s\S]"), StructuredOutput.json_schema({"$ref": "#"})]
)
def test_a_form_that_no_text_fits_is_refused(form: StructuredOutput, compiler: GrammarCompiler) -> None:
    with pytest.raises(RequestError, match="no text fits it"):
        compiler.matcher(form)


def test_a_beginning_that_does_not_fit_is_refused(compiler: GrammarCompiler) -> None:
    with pytest.raises(RequestError, match="the answer begins with “x”, which does not fit regex"):
        compiler.matcher(StructuredOutput("regex", "[ab]+", begun="x"))


def test_no_more_than_so_many_compiled_forms_are_kept(tokenizer: Tokenizer) -> None:
    compiler = GrammarCompiler(tokenizer, VOCAB, {END})
    for number in range(3 * MAX_KEPT):
        compiler.matcher(StructuredOutput.regex(f"a{{{number + 1}}}"))
    assert len(compiler._kept) == MAX_KEPT


def test_many_threads_may_ask_at_once(tokenizer: Tokenizer) -> None:
    compiler = GrammarCompiler(tokenizer, VOCAB, {END})
    expected = ids(compiler.matcher(StructuredOutput.regex("[a-f]")).allowed)
    found: list[set[int]] = []

    def ask() -> None:
        for _ in range(50):
            found.append(ids(compiler.matcher(StructuredOutput.regex("[a-f]")).allowed))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 200


def test_tokens_are_taken_out_of_a_mask() -> None:
    assert without(b"\x0f\x80", [0, 15, 99]) == b"\x0e\x00"
    assert without(b"\x01\x00", [0]) == b""


# The worst that fits the bounds; each runs in a process of its own, as a defect of the library could end that.
WORST = {
    "references in a chain": """StructuredOutput.json_schema({"$ref": "#/$defs/d0", "$defs": {
        f"d{i}": {"type": "array", "items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(499)} | {"d499": {}}})""",
    "rules in a chain": """StructuredOutput.grammar(
        "start: r0\\n" + "\\n".join(f"r{i}: r{i + 1}" for i in range(498)) + '\\nr498: "x"')""",
    "terminals in a chain": """StructuredOutput.grammar(
        "start: A0\\n" + "\\n".join(f'A{i}: "a" A{i + 1}' for i in range(498)) + '\\nA498: "x"')""",
    "alternatives": "StructuredOutput.regex('(a|bc)*' * 1000)",
    "options": "StructuredOutput.regex('a?' * 4000)",
    "repeats in repeats": "StructuredOutput.regex('(((((a{1,99}){1,99}){1,99}){1,99}){1,99})')",
    "a regex that backtracks elsewhere": "StructuredOutput.regex('(a+)+(a*)*b')",
    "groups": "StructuredOutput.regex('(' * 4000 + 'a' + ')' * 4000)",
    "groups of a grammar": """StructuredOutput.grammar('start: ' + '(' * 8000 + '"a"' + ')' * 8000)""",
    "groups of GBNF": """StructuredOutput.grammar('root ::= ' + '(' * 8000 + '"a"' + ')' * 8000)""",
    "optional rules": """StructuredOutput.grammar('start: ' + '"w"? ' * 2600)""",
    "a billion items": "StructuredOutput.json_schema({'type': 'array', 'minItems': 10**9, 'items': {}})",
    "a billion characters": "StructuredOutput.json_schema({'type': 'string', 'minLength': 10**9})",
    "a circle": "StructuredOutput.json_schema({'$ref': '#/$defs/a', '$defs': {'a': {'$ref': '#/$defs/a'}}})",
    "doubling": """StructuredOutput.json_schema({"$ref": "#/$defs/d0", "$defs": {
        f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": {"type": "null"}}})""",
    "all of any": """StructuredOutput.json_schema({"allOf": [{"anyOf": [{"type": "object", "required": [f"a{i}{j}"]}
        for j in range(5)]} for i in range(12)]})""",
    "many properties": """StructuredOutput.json_schema(
        {"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(1800)}})""",
    "many choices": "StructuredOutput.choice([f'choice {i}' for i in range(3000)])",
    "patterns": """StructuredOutput.json_schema({"type": "array", "prefixItems": [
        {"type": "string", "pattern": "^(a|b)*" + "(c|d)*" * 50 + "$"}] * 25})""",
}
TRY = """
import random, sys
from pathlib import Path
from llmcli.errors import RequestError
from llmcli.structured import StructuredOutput
from llmcli.text.grammar import GrammarCompiler, check_form
from llmcli.text.tokenizer import load_tokenizer
compiler = GrammarCompiler(load_tokenizer(Path(sys.argv[1])), 300, {2})
try:
    form = FORM
    check_form(form)
    matcher = compiler.matcher(form)
    for _ in range(50):
        if matcher.finished:
            break
        bits = [i for i in range(300) if matcher.allowed[i // 8] >> i % 8 & 1 and i != 2]
        if not bits:
            break
        matcher.accept(random.Random(1).choice(bits))
    print("followed")
except RequestError as error:
    print("refused:", error.what)
"""


@pytest.mark.parametrize("name", WORST)
def test_the_worst_forms_are_followed_or_refused_and_end_no_process(
    name: str, tmp_path: Path, program_env: dict[str, str]
) -> None:
    write_tokenizer(tmp_path, VOCAB)
    code = [sys.executable, "-c", TRY.replace("FORM", WORST[name]), str(tmp_path)]
    result = subprocess.run(code, env=program_env, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(("followed", "refused: ")), result.stdout
