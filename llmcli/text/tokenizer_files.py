"""The tokenizer files of a model folder, read and checked: what a `Tokenizer` is made from.

Owns file names, precedence between them (that of transformers) and the errors for broken ones. Knows nothing
of encoding or chats. Called by `text/tokenizer.py` only.
"""

import json
import stat
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from llmcli import strict_json
from llmcli.errors import CheckpointError, MissingExtraError, quote

MAX_FILE_BYTES = 200 * 10**6
MAX_TEMPLATE_BYTES = 2**20
_SENTENCEPIECE_TOKENS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def read_bytes(path: Path, limit: int = MAX_FILE_BYTES) -> bytes | None:
    """The content of a regular file, or None where there is none.

    Raises:
        CheckpointError: not a regular file, unreadable, larger than `limit`, or a web page or pointer in its
            place.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{quote(path.name)} is not a regular file", why=quote(str(path)))
        if status.st_size > limit:
            raise CheckpointError(
                f"{quote(path.name)} has {status.st_size:,} bytes, at most {limit:,} are read"
            )
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(
            f"{quote(path.name)} can not be read: {error.strerror}", why=quote(str(path))
        ) from None
    if data.startswith(b"version https://git-lfs"):
        raise _broken(path, "is a Git LFS pointer, not the file itself", "run: git lfs pull")
    if path.suffix == ".json" and data.lstrip().startswith(b"<"):
        raise _broken(path, "is a web page, not JSON")
    return data


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a small file; empty where there is no file."""
    data = read_bytes(path)
    if data is None:
        return {}
    try:
        value = strict_json.loads(data)
    except ValueError as error:
        raise _broken(path, f"is not valid JSON: {quote(str(error))}") from None
    if not isinstance(value, dict):
        raise _broken(path, f"must hold a JSON object, got {quote(value, 80)}")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, with special_tokens_map.json over it for folders older than
    `added_tokens_decoder`."""
    config = read_object(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        config |= read_object(folder / "special_tokens_map.json")
    if not (folder / "tokenizer.json").exists():
        config = _SENTENCEPIECE_TOKENS | config
    return config


def read_template_source(folder: Path, config: Mapping[str, Any]) -> object | None:
    """The chat template in whatever form it is kept: its own file before the entry of the config."""
    path = folder / "chat_template.jinja"
    data = read_bytes(path, MAX_TEMPLATE_BYTES)
    if data is not None:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _broken(path, f"is not UTF-8 at byte {error.start + 1}") from None
    return read_object(folder / "chat_template.json").get("chat_template") or config.get("chat_template")


def named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens by name (`bos_token` and so on), as templates see them; empty and null ones left out."""
    extra = config.get("extra_special_tokens")
    entries = {**config, **extra} if isinstance(extra, dict) else config
    texts = {name: _content(value) for name, value in entries.items() if name.endswith("_token")}
    return {name: text for name, text in texts.items() if text}


def _content(value: object) -> str | None:
    """The text of a token written as a string or as an object."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def read_backend(folder: Path, config: Mapping[str, Any]) -> Backend:
    """The tokenizer of the folder, with the added and special tokens of its config.

    Whether bos and eos are put around a text is for the post-processor in tokenizer.json to say;
    add_bos_token and add_eos_token of the config count only where there is no tokenizer.json, as in
    transformers.

    Raises:
        CheckpointError: a file is missing or broken, or two contradict each other.
        MissingExtraError: there is only a sentencepiece model, and the packages that convert it are not
            installed.
    """
    path = folder / "tokenizer.json"
    data = read_bytes(path)
    if data is None:
        backend = _from_sentencepiece(folder, config)
    else:
        backend = _from_json(path, data)
    backend.no_truncation()
    backend.no_padding()
    _add_tokens(backend, folder, config)
    return backend


def _from_json(path: Path, data: bytes) -> Backend:
    try:
        parts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"is not valid JSON: {quote(str(error))}") from None
    if not isinstance(parts, dict) or not isinstance(parts.get("model"), dict):
        raise _broken(path, "must hold a JSON object with a model")
    try:
        backend = Backend.from_str(data.decode("utf-8"))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the Rust library is no Exception
        raise _broken(path, f"is not a tokenizer: {quote(str(error))}") from None
    for token in parts.get("added_tokens") or ():
        _check_id(path, backend, token["content"], token["id"])
    _check_unique_ids(path, parts["model"].get("vocab"), backend)
    return backend


def _check_unique_ids(path: Path, vocab: object, backend: Backend) -> None:
    if not isinstance(vocab, dict):
        return
    added = {token.content: i for i, token in backend.get_added_tokens_decoder().items()}
    ids = vocab | added
    if len(set(ids.values())) == len(ids):
        return
    first: dict[int, str] = {}
    for token, token_id in ids.items():
        if token_id in first:
            pair = f"{quote(first[token_id], 40)} and {quote(token, 40)}"
            raise _broken(path, f"gives the id {token_id} to two tokens, {pair}")
        first[token_id] = token


def _check_id(path: Path, backend: Backend, content: str, declared: int) -> None:
    found = backend.token_to_id(content)
    if found != declared:
        size = backend.get_vocab_size()
        raise _broken(
            path, f"gives {quote(content, 40)} the id {declared}, but it is {found} of {size:,} tokens"
        )


def _from_sentencepiece(folder: Path, config: Mapping[str, Any]) -> Backend:
    path = folder / "tokenizer.model"
    if read_bytes(path) is None:
        raise CheckpointError("tokenizer.json is missing", why=quote(str(folder)))
    if find_spec("transformers") is None or find_spec("sentencepiece") is None:
        raise MissingExtraError(
            "this model has only tokenizer.model, which other packages must convert",
            fix='install them: pip install "llmcli[sentencepiece]"',
        )
    from sentencepiece import SentencePieceProcessor
    from transformers import LlamaTokenizerFast

    # Llama's own code puts bos before a text and no eos after it; transformers 5 asks to be told.
    flags = {
        "add_bos_token": config.get("add_bos_token", True),
        "add_eos_token": config.get("add_eos_token", False),
    }
    try:
        SentencePieceProcessor(model_file=str(path))  # transformers guesses at another format when this fails
        converted = LlamaTokenizerFast.from_pretrained(str(folder), local_files_only=True, **flags)
    except Exception as error:  # of many kinds, all of them about this file
        raise _broken(path, f"can not be converted: {quote(str(error))}") from None
    backend: Backend = converted.backend_tokenizer
    return backend


def _add_tokens(backend: Backend, folder: Path, config: Mapping[str, Any]) -> None:
    added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    for token_id, token in _declared_tokens(folder, config):
        if token.content not in added:
            backend.add_tokens([token])
            _check_id(folder / "tokenizer_config.json", backend, token.content, token_id)
    for content in _special_contents(config):
        if backend.token_to_id(content) is not None and not (content in added and added[content].special):
            token = added.get(content) or AddedToken(content, normalized=False)
            token.special = True
            backend.add_special_tokens([token])


def _declared_tokens(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[int, AddedToken]]:
    """Added tokens that stand beside tokenizer.json, by id."""
    path = folder / "tokenizer_config.json"
    try:
        if "added_tokens_decoder" in config:
            entries = [
                (int(key), AddedToken(**entry)) for key, entry in config["added_tokens_decoder"].items()
            ]
        else:
            path = folder / "added_tokens.json"
            entries = [(int(key), AddedToken(text)) for text, key in read_object(path).items()]
    except (TypeError, ValueError, AttributeError) as error:
        raise _broken(path, f"has a bad added token: {quote(str(error))}") from None
    return iter(sorted(entries, key=lambda entry: entry[0]))


def _special_contents(config: Mapping[str, Any]) -> list[str]:
    lists = [config.get(name) for name in ("additional_special_tokens", "extra_special_tokens")]
    listed = [_content(entry) for entries in lists if isinstance(entries, list) for entry in entries]
    return [text for text in (*named_tokens(config).values(), *listed) if text]


def require_id(backend: Backend, name: str, text: str) -> int:
    """The id of a special token that the config names."""
    token_id = backend.token_to_id(text)
    if token_id is None:
        raise CheckpointError(f"{name} {quote(text, 80)} of tokenizer_config.json is not in the vocabulary")
    return token_id


def _broken(path: Path, what: str, fix: str = "") -> CheckpointError:
    return CheckpointError(f"{quote(path.name)} {what}", why=quote(str(path.parent)), fix=fix)
