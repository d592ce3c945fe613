"""Ids and text against golden files and transformers' own fast tokenizer; errors for broken folders."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, processors
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from llmcli.errors import CheckpointError, LLMCliError, MissingExtraError, RequestError
from llmcli.text.tokenizer import Tokenizer, load_tokenizer

AWKWARD = [
    "",
    " ",
    "\n",
    "Hello, world!",
    "  two  spaces \t\n\n tab ",
    "é中文😀👩‍👩‍👧‍👦 \u202e\u0301 ｆｕｌｌ",
    "<s>[INST] hi [/INST]</s><unk>",
    "x<|im_start|>user\n<|im_end|> y <think></think>",
    "<|endoftext|><|end_story|> <|start_story|>",
    "<0x0A> ▁▁ Ġ Ċ \ufffd \x00\x1b[0m",
    "def f(x):\n    return x ** 2  # 10_000.5e-3\r\n",
    "a" * 500,
]


@pytest.fixture(scope="module")
def peer(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)


def test_golden_prompts_and_texts_are_met(model_folder: Path) -> None:
    tokenizer = load_tokenizer(model_folder)
    cases = json.loads((model_folder / "golden_greedy.json").read_text())["cases"]
    assert cases
    for case in cases:
        assert tokenizer.encode(case["prompt"]) == case["prompt_ids"]
        assert tokenizer.decode(case["output_ids"]) == case["text"]


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("text", AWKWARD)
def test_ids_are_those_of_transformers(
    tokenizer: Tokenizer, peer: PreTrainedTokenizerFast, text: str, special: bool
) -> None:
    assert tokenizer.encode(text, add_special_tokens=special) == peer.encode(text, add_special_tokens=special)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.text(max_size=40), st.lists(st.integers(0, 511), max_size=20))
def test_any_text_and_ids_go_as_in_transformers(
    tokenizer: Tokenizer, peer: PreTrainedTokenizerFast, text: str, ids: list[int]
) -> None:
    assert tokenizer.encode(text) == peer.encode(text)
    assert tokenizer.decode(ids, skip_special_tokens=False) == peer.decode(ids)


def test_the_named_ids_are_those_of_transformers(tokenizer: Tokenizer, peer: PreTrainedTokenizerFast) -> None:
    assert (tokenizer.bos_id, tokenizer.eos_id) == (peer.bos_token_id, peer.eos_token_id)
    assert tokenizer.vocab_size == len(peer)
    assert tokenizer.special_ids == {i for i, token in peer.added_tokens_decoder.items() if token.special}
    assert tokenizer.control_ids == set(peer.added_tokens_decoder)


def test_special_tokens_are_left_out_of_text_but_markers_are_not(minimind: Tokenizer) -> None:
    ids = minimind.encode("<|im_start|>a<think>b<|im_end|>")
    assert minimind.decode(ids) == "a<think>b"
    assert minimind.decode(ids, skip_special_tokens=False) == "<|im_start|>a<think>b<|im_end|>"


def test_ids_without_a_token_have_no_text(minimind: Tokenizer) -> None:
    assert minimind.decode([minimind.vocab_size + 7]) == ""
    assert minimind.id_to_token(minimind.vocab_size + 7) is None


def test_a_lone_surrogate_is_refused(minimind: Tokenizer) -> None:
    with pytest.raises(RequestError, match="character 2 "):
        minimind.encode("a\ud800")


BYTES = {f"<0x{byte:02X}>": byte + 3 for byte in range(256)}


def small_backend() -> Backend:
    """A byte-fallback tokenizer in the manner of Llama 2, which puts bos before a text."""
    backend = Backend(
        models.BPE(vocab={"<unk>": 0, "<s>": 1, "</s>": 2} | BYTES, merges=[], byte_fallback=True)
    )
    backend.add_special_tokens([AddedToken(text, special=True) for text in ("<unk>", "<s>", "</s>")])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend


def write(folder: Path, config: dict[str, Any], backend: Backend | None = None) -> Path:
    (backend or small_backend()).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


NAMES = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize(
    "config",
    [
        NAMES,
        {},
        NAMES | {"add_bos_token": True},
        NAMES | {"add_bos_token": False},
        NAMES | {"add_eos_token": True},
        NAMES | {"add_bos_token": True, "add_eos_token": True},
        NAMES | {"add_bos_token": None, "add_eos_token": None},
        {"bos_token": None, "eos_token": "</s>", "add_bos_token": True, "add_eos_token": True},
        {"bos_token": {"content": "<s>", "__type": "AddedToken"}, "add_bos_token": True},
        NAMES | {"additional_special_tokens": ["<0x41>"], "pad_token": "<pad>"},
        NAMES | {"added_tokens_decoder": {"259": {"content": "<new>", "special": True}}},
        NAMES | {"added_tokens_decoder": {"259": {"content": "<new>", "special": False}}},
    ],
)
def test_config_and_tokenizer_json_together_mean_what_they_mean_in_transformers(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    folder = write(tmp_path, config)
    peer = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    tokenizer = load_tokenizer(folder)
    for text in ("hi", "", "a<s>b</s>c<new>d<0x41>"):
        ids = peer.encode(text)
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == peer.decode(ids, skip_special_tokens=True)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (peer.bos_token_id, peer.eos_token_id)


def test_a_map_of_special_tokens_serves_where_the_config_says_nothing(tmp_path: Path) -> None:
    (write(tmp_path, {}) / "special_tokens_map.json").write_text(json.dumps(NAMES))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)


def test_truncation_and_padding_in_the_file_are_not_obeyed(tmp_path: Path) -> None:
    backend = small_backend()
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    assert len(load_tokenizer(write(tmp_path, NAMES, backend)).encode("abcd")) == 5


def test_a_template_file_comes_before_that_in_the_config(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}]
    write(tmp_path, NAMES | {"chat_template": "config"})
    assert load_tokenizer(tmp_path).render_chat(chat) == "config"
    (tmp_path / "chat_template.json").write_text('{"chat_template": "json"}')
    assert load_tokenizer(tmp_path).render_chat(chat) == "json"
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}jinja")
    assert load_tokenizer(tmp_path).render_chat(chat) == "<s>jinja"


def test_the_same_token_may_begin_and_end(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path, {"bos_token": "</s>", "eos_token": "</s>"}))
    assert tokenizer.bos_id == tokenizer.eos_id == 2


def with_json(**changes: Any) -> bytes:
    parts = json.loads(small_backend().to_str())
    return json.dumps(parts | changes).encode()


def added(token_id: int, text: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": text, "special": True} | flags


BROKEN = {
    "empty": b"",
    "cut": with_json()[:-40],
    "not utf-8": b'{"model": "\xff"}',
    "array": b"[]",
    "no model": b"{}",
    "deep": b"[" * 100_000,
    "web page": b"\n<!DOCTYPE html><html>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "unknown model": with_json(model={"type": "Nonesuch"}),
    "merge of unknown": with_json(model={"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}),
    "same id twice": with_json(model={"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}),
    "id of a word and of an added token": with_json(
        model={"type": "BPE", "vocab": {"a": 0, "b": 5}, "merges": []},
        added_tokens=[added(2, "</s>"), added(5, "<s>")],
    ),
    "added id beyond the vocabulary": with_json(added_tokens=[added(99999, "<far>")]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_tokenizer_file_is_named_with_the_cause(tmp_path: Path, name: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(BROKEN[name])
    with pytest.raises(CheckpointError, match=r"^tokenizer\.json (is|must|gives) .+") as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff", b"<html>", b'{"a": NaN}', b'{"added_tokens_decoder": 3}']
)
def test_a_broken_config_is_named(tmp_path: Path, content: bytes) -> None:
    (write(tmp_path, {}) / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^tokenizer_config\.json "):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["bos_token", "eos_token"])
def test_a_named_token_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=f"{name} <nowhere>"):
        load_tokenizer(write(tmp_path, {name: "<nowhere>"}))


def test_an_added_token_with_another_id_than_declared_is_refused(tmp_path: Path) -> None:
    config = {"added_tokens_decoder": {"700": {"content": "<new>"}}}
    with pytest.raises(CheckpointError, match=r"gives <new> the id 700, but it is 259"):
        load_tokenizer(write(tmp_path, config))


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path)


def test_a_file_that_is_too_big_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(200 * 10**6 + 1)
    with pytest.raises(CheckpointError, match=r"has 200,000,001 bytes, at most 200,000,000"):
        load_tokenizer(tmp_path)


def test_a_pipe_in_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match="is not a regular file"):
        load_tokenizer(tmp_path)


def test_a_sentencepiece_model_needs_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x0e")
    monkeypatch.setattr("llmcli.text.tokenizer_files.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "llmcli\[sentencepiece\]"'):
        load_tokenizer(tmp_path)


def test_cutting_the_file_anywhere_gives_an_error_and_no_crash(minimind_folder: Path, tmp_path: Path) -> None:
    shutil.copy(minimind_folder / "tokenizer_config.json", tmp_path)
    data = (minimind_folder / "tokenizer.json").read_bytes()
    for size in range(0, len(data), len(data) // 20 + 1):
        (tmp_path / "tokenizer.json").write_bytes(data[:size])
        with pytest.raises(LLMCliError):
            load_tokenizer(tmp_path)


def test_a_model_without_template_can_not_chat(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path, NAMES))
    for ask in (tokenizer.render_chat, tokenizer.encode_chat):
        with pytest.raises(RequestError, match="no chat template"):
            ask([{"role": "user", "content": "hi"}])


def test_a_special_token_changed_by_a_normalizer_is_left_out_too(tmp_path: Path) -> None:
    backend = small_backend()
    backend.normalizer = normalizers.Prepend("_")
    backend.add_special_tokens([AddedToken("<end>", special=True, normalized=True)])
    tokenizer = load_tokenizer(write(tmp_path, NAMES, backend))
    assert tokenizer.decode([259, *tokenizer.encode("<end>", add_special_tokens=False)]) == ""


def test_marks_of_reasoning_are_text_even_where_they_are_special(tmp_path: Path) -> None:
    backend = small_backend()
    backend.add_special_tokens(["[THINK]", "[/THINK]", "<pad>"])
    tokenizer = load_tokenizer(write(tmp_path, NAMES, backend))
    ids = tokenizer.encode("[THINK]a[/THINK]b<pad>", add_special_tokens=False)
    assert tokenizer.reasoning.opening == "[THINK]"
    assert tokenizer.decode(ids) == tokenizer.decode(ids[:-1], skip_special_tokens=False)
