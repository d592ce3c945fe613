"""Text to token ids and back, and chats to token ids.

Owns the loaded tokenizer of a model. Knows nothing of requests or the engine; how files are read is in
`text/tokenizer_files.py`, how text is decoded as it streams in `text/detokenizer.py`. Called by the engine,
the front ends and jobs.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from llmcli.errors import RequestError
from llmcli.text.chat_template import ChatTemplate
from llmcli.text.control_tokens import ControlTokens
from llmcli.text.messages import check_messages, plain_json, plain_messages
from llmcli.text.reasoning import THINK, ReasoningMarks, find_marks
from llmcli.text.tokenizer_files import (
    named_tokens,
    read_backend,
    read_config,
    read_template_source,
    require_id,
)


def load_tokenizer(folder: Path, chat_template: str | None = None) -> "Tokenizer":
    """Load the tokenizer of a model folder: tokenizer.json (or tokenizer.model), its config and its chat
    template.

    Args:
        chat_template: the source of another template, in place of the model's.

    Raises:
        CheckpointError: a file is missing or broken, or two contradict each other.
        MissingExtraError: there is only a sentencepiece model, and the packages that convert it are not
            installed.
    """
    config = read_config(folder)
    tokens = named_tokens(config)
    source = read_template_source(folder, config) if chat_template is None else chat_template
    template = None if source is None else ChatTemplate(source, tokens)
    backend = read_backend(folder, config)
    added = [token.content for token in backend.get_added_tokens_decoder().values()]
    return Tokenizer(backend, tokens, template, find_marks(config, source, added))


class Tokenizer:
    """The tokenizer of a model; safe to share between threads.

    Args:
        backend: the tokenizer of the `tokenizers` package.
        special_tokens: texts by name; `bos_token` and `eos_token` are used here.
        chat_template: None for a model that has none.
        reasoning: what stands around the reasoning in an answer.
    """

    def __init__(
        self,
        backend: Backend,
        special_tokens: Mapping[str, str],
        chat_template: ChatTemplate | None = None,
        reasoning: ReasoningMarks = THINK,
    ) -> None:
        self._backend = backend
        self.chat_template = chat_template
        self.reasoning = reasoning
        added = backend.get_added_tokens_decoder()
        marks = reasoning.opening + reasoning.closing
        self.special_ids = frozenset(
            i for i, token in added.items() if token.special and token.content not in marks
        )
        """Ids that `decode` leaves out: special ones, but not those that tell reasoning from answer."""
        self.vocab_size: int = max([backend.get_vocab_size() - 1, *added]) + 1
        """One more than the largest id, added tokens included."""
        self.bos_id, self.eos_id = (
            require_id(backend, name, special_tokens[name]) if name in special_tokens else None
            for name in ("bos_token", "eos_token")
        )
        self._texts: dict[int, str] = {}  # of ids decoded alone

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of a raw prompt, in which the text of a control token is that token.

        Args:
            add_special_tokens: put bos (and eos) around it, as this tokenizer does.

        Raises:
            RequestError: the text holds a lone surrogate.
        """
        _check_text(text)
        return self._backend.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids; ids that the vocabulary lacks are left out."""
        # By id: the library goes by the text, which a normalizer may have changed, and lets such tokens pass.
        kept = [i for i in ids if i not in self.special_ids] if skip_special_tokens else ids
        return self._backend.decode(kept, skip_special_tokens=False)

    def decode_one(self, token_id: int) -> str:
        """The text of one id, special or not; it is remembered, for streams ask for the same ones again and again."""
        text = self._texts.get(token_id)
        if text is None:
            text = self._texts[token_id] = self._backend.decode([token_id], skip_special_tokens=False)
        return text

    def to_json(self) -> str:
        """What tokenizer.json holds, with the tokens that other files have added."""
        return self._backend.to_str()

    def id_to_token(self, token_id: int) -> str | None:
        """The vocabulary's entry for an id, or None."""
        return self._backend.id_to_token(token_id)

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids that the content of a message never encodes to."""
        return self._control.ids

    @cached_property
    def byte_ids(self) -> frozenset[int]:
        """Ids of byte-fallback tokens, which are one byte each."""
        decoder = self._backend.decoder
        if decoder is None or decoder.decode(["<0x41>"]) != "A":
            return frozenset()
        ids = (self._backend.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
        return frozenset(i for i in ids if i is not None)

    @cached_property
    def _control(self) -> ControlTokens:
        return ControlTokens(self._backend)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a chat, for people to read; to generate from it, use `encode_chat`.

        Arguments and errors are those of `check_messages` and `ChatTemplate.render`.
        """
        check_messages(messages, continue_final_message=continue_final_message)
        return self._template().render(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            template_kwargs=template_kwargs,
        )

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Ids of a chat. The template writes bos itself if there is to be one.

        No text in a message, a tool or a template variable becomes a control token; only the template's own
        text does.
        """
        check_messages(messages, continue_final_message=continue_final_message)
        template, control = self._template(), self._control
        switches: dict[str, Any] = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
        }
        chat = plain_messages(messages)
        given = {
            "tools": plain_json(tools, "tools"),
            "template_kwargs": plain_json(template_kwargs, "chat_template_kwargs"),
        }
        text = template.render_plain(chat, **given, **switches)
        _check_text(text)
        marked_chat = [control.mark(message) | {"role": message["role"]} for message in chat]
        marked = control.mark(given)
        if marked_chat == chat and marked == given:
            return self._backend.encode(text, add_special_tokens=False).ids
        return control.encode(text, template.render_plain(marked_chat, **marked, **switches))

    def _template(self) -> ChatTemplate:
        if self.chat_template is None:
            raise RequestError(
                "this model has no chat template, so it can not chat",
                fix="give a prompt instead of messages",
                param="messages",
            )
        return self.chat_template


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"character {error.start + 1} of the text is a lone surrogate, which is no character",
            param="prompt",
        ) from None
