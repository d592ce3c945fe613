"""The texts that `quantize` runs through a model: built in, or a .txt or .jsonl file of the user's.

Owns their reading, checking and cutting into token ids of equal length. Knows nothing of weights. Called by
`jobs/quantize/job.py`.
"""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcli import strict_json
from llmcli.config import human_bytes
from llmcli.errors import CheckpointError, LLMCliError, UsageError, quote
from llmcli.text.messages import check_messages
from llmcli.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT = "default"
ASSETS = Path(__file__).resolve().parents[2] / "assets" / "calibration"
CALIBRATION_TEXT, HELD_OUT_TEXT = ASSETS / "calibration.txt", ASSETS / "held_out.txt"
SEPARATOR = "%%\n"  # between the pieces of the built-in texts
BYTES_PER_TOKEN = 32  # read of a file for each token asked for: several times what there are on average
LEAST_BYTES = 1 << 20
SHORTEST = 16
TEXT_KEYS = ("text", "prompt", "content")
ANSWER_KEYS = ("completion", "response", "answer", "output")


def check_dataset(option: str, name: str) -> None:
    """Refuse what is no dataset before a model is looked for.

    Raises:
        UsageError: neither `default` nor a .txt or .jsonl file.
    """
    if name == DEFAULT:
        return
    if not name.endswith((".txt", ".jsonl")):
        raise UsageError(
            f"{option} {quote(name)} is not known", fix="give default, or a file that ends in .txt or .jsonl"
        )
    if not Path(name).is_file():
        raise UsageError(f"{option} {quote(name)}: there is no such file")


def read_texts(option: str, name: str, built_in: Path, tokenizer: Tokenizer, num_tokens: int) -> list[str]:
    """The texts of a dataset; of a large file, what is enough for so many tokens.

    Raises:
        UsageError: the file can not be read, or a line is no text; names the line.
    """
    if name == DEFAULT:
        return [part for part in built_in.read_text("utf-8").split(SEPARATOR) if part.strip()]
    limit = max(LEAST_BYTES, BYTES_PER_TOKEN * num_tokens)
    try:
        with open(name, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{option} {quote(name)} can not be read: {error.strerror}") from None
    if len(data) > limit:  # up to the last whole line
        data = data[: data.rfind(b"\n", 0, limit) + 1] or data[:limit]
    if name.endswith(".jsonl"):
        texts = list(_lines(option, name, data, tokenizer))
    else:
        texts = [data.decode("utf-8", "replace")]
    if not any(text.strip() for text in texts):
        raise UsageError(f"{option} {quote(name)} has no text in its first {human_bytes(limit)}")
    return texts


def cut(
    texts: list[str], tokenizer: Tokenizer, *, count: int, length: int, seed: int, vocab: int
) -> "Tensor":
    """Texts one after the other, cut into pieces of `length` tokens; `count` of them by chance where there are more.

    Returns:
        [at most count, at most length] int64; one shorter piece where the texts have less than `length` tokens.

    Raises:
        UsageError: the texts have next to no tokens.
        CheckpointError: the tokenizer makes ids that the model has no embedding for.
    """
    import torch

    ids = [token for text in texts for token in tokenizer.encode(text)]
    if len(ids) < SHORTEST:
        raise UsageError(f"the text has {len(ids)} tokens, at least {SHORTEST} are needed")
    if max(ids) >= vocab:
        raise CheckpointError(f"the tokenizer makes the id {max(ids)}, the model has {vocab} (vocab_size)")
    length = min(length, len(ids))
    pieces = [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
    if len(pieces) > count:
        chosen = sorted(random.Random(seed).sample(range(len(pieces)), count))
        pieces = [pieces[index] for index in chosen]
    return torch.tensor(pieces, dtype=torch.int64)


def _lines(option: str, name: str, data: bytes, tokenizer: Tokenizer) -> Iterator[str]:
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield _text(strict_json.loads(line), tokenizer)
        except (ValueError, LLMCliError) as error:
            raise UsageError(
                f"{option} {quote(name)} line {number}: {quote(str(error))}",
                fix='a line is "text", {"text": ...}, {"prompt": ...} or {"messages": [...]}',
            ) from None


def _text(value: Any, tokenizer: Tokenizer) -> str:
    """The text of one line.

    Raises:
        ValueError: there is none.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{type(value).__name__} is no text")
    if "messages" in value:
        return _chat(value["messages"], tokenizer)
    for key in TEXT_KEYS:
        if isinstance(value.get(key), str):
            answers = (value.get(answer) for answer in ANSWER_KEYS)
            return "\n".join([value[key], *(answer for answer in answers if isinstance(answer, str))])
    raise ValueError(f"none of text, prompt and messages is there, only {quote(', '.join(map(str, value)))}")


def _chat(messages: Any, tokenizer: Tokenizer) -> str:
    """A conversation as the model's template writes it, or its messages below each other."""
    if not isinstance(messages, list) or not all(isinstance(m, Mapping) for m in messages) or not messages:
        raise ValueError("messages must be a list of objects")
    # Most end with an answer, which nothing is to be added to; the check knows that only as one to be continued.
    check_messages(messages, continue_final_message=messages[-1].get("role") == "assistant")
    if tokenizer.chat_template is not None:
        return tokenizer.chat_template.render(messages, add_generation_prompt=False)
    contents = [message.get("content") for message in messages]
    return "\n".join(text for text in contents if isinstance(text, str))
