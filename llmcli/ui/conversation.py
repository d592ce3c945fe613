"""One conversation: a system prompt and its turns, what of it the model sees, how it fits the context.

Pure state: knows no terminal, no engine and no tokenizer (the caller passes a function that encodes a
prompt). Changed by the chat session and its slash commands.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmcli.errors import RequestError
from llmcli.outputs import FinishReason, RequestStats

Message = dict[str, str]

ANSWER_RESERVE = 256  # tokens kept free for an answer while there are old turns that can make room
ANSWER_RESERVE_SHARE = 4  # ... but no more than this part of the context


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user said and what the model answered.

    Attributes:
        answer: None while it is awaited.
        prefill: how the awaited answer begins; empty once it is there.
        reasoning: what the model thought before the answer.
        finish_reason: why the answer ended: "abort" when the user stopped it.
        stats: counts and times of the answer, where they are known.
    """

    user: str
    answer: str | None = None
    prefill: str = ""
    reasoning: str = ""
    finish_reason: FinishReason | None = None
    stats: RequestStats | None = None

    @property
    def stopped(self) -> bool:
        """Whether the answer was cut short by the user or by a failure."""
        return self.finish_reason in ("abort", "error")

    @property
    def used_tokens(self) -> int:
        """What prompt and answer took of the context; 0 where it is not known."""
        return 0 if self.stats is None else self.stats.num_prompt_tokens + self.stats.num_output_tokens


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """What is put before the model.

    Attributes:
        continues: the last message is the assistant's, and is to be gone on with.
        template_kwargs: further variables of the chat template, such as `enable_thinking`.
    """

    messages: Sequence[Message]
    continues: bool = False
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


Encode = Callable[[ChatPrompt], Sequence[int] | None]


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A prompt that leaves room for an answer.

    Attributes:
        token_ids: None where only a server can count them.
        num_dropped: how many old turns had to go for it.
    """

    chat: ChatPrompt
    token_ids: Sequence[int] | None
    num_dropped: int


class Conversation:
    """The turns of a chat, oldest first.

    Turns that no longer fit the context stay in `turns`; `num_dropped` of the oldest are hidden from the
    model.
    """

    def __init__(self, system: str | None = None) -> None:
        self.system = system or None
        self.turns: list[Turn] = []
        self.num_dropped = 0

    def messages(self) -> list[Message]:
        """The conversation as the model is to see it.

        A turn whose answer is empty (stopped before its first word) is left out: many chat templates insist
        that user and assistant alternate. Reasoning goes along; the template decides whether it is shown.
        """
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns[self.num_dropped :]:
            if turn.answer == "":
                continue
            messages.append({"role": "user", "content": turn.user})
            answer = turn.prefill if turn.answer is None else turn.answer
            if answer:
                reasoning = {"reasoning_content": turn.reasoning} if turn.reasoning else {}
                messages.append({"role": "assistant", "content": answer} | reasoning)
        return messages

    def prompt(self, template_kwargs: Mapping[str, Any] | None = None) -> ChatPrompt:
        """The prompt for the open turn."""
        return ChatPrompt(self.messages(), bool(self.turns and self.turns[-1].prefill), template_kwargs or {})

    def add_user(self, text: str, prefill: str = "") -> None:
        """Open a turn, whose answer begins with `prefill`."""
        assert not self.awaits_answer, "the turn before has no answer yet"
        self.turns.append(Turn(text, prefill=prefill))

    def add_answer(
        self,
        text: str,
        finish_reason: FinishReason = "stop",
        *,
        reasoning: str = "",
        stats: RequestStats | None = None,
    ) -> None:
        """Close the open turn; what it began with is put before `text`."""
        assert self.awaits_answer, "no turn is open"
        turn = self.turns[-1]
        whole = turn.prefill + text
        reasoning = turn.reasoning + reasoning
        self.turns[-1] = Turn(turn.user, whole, reasoning=reasoning, finish_reason=finish_reason, stats=stats)

    def last_reasoning(self) -> str:
        """What the model thought before its last answer; empty if it did not."""
        return self.turns[-1].reasoning if self.turns else ""

    @property
    def used_tokens(self) -> int:
        """What the conversation takes of the context, as far as that is known."""
        return next((turn.used_tokens for turn in reversed(self.turns) if turn.stats is not None), 0)

    @property
    def awaits_answer(self) -> bool:
        """Whether a turn is open."""
        return bool(self.turns) and self.turns[-1].answer is None

    def reopen(self, *, keep_answer: bool = False, prefill: str = "") -> None:
        """Await another answer to the last message; with `keep_answer`, the rest of the one that is there."""
        assert self.turns, "there is no turn"
        turn = self.turns[-1]
        if keep_answer:
            self.turns[-1] = Turn(turn.user, prefill=turn.answer or "", reasoning=turn.reasoning)
        else:
            self.turns[-1] = Turn(turn.user, prefill=prefill)

    def snapshot(self) -> tuple[Turn, ...]:
        """The turns as they are now, for `restore`."""
        return tuple(self.turns)

    def restore(self, turns: Sequence[Turn]) -> None:
        """Put back what a question that could not be asked has changed."""
        self.turns[:] = turns
        self.num_dropped = min(self.num_dropped, max(0, len(self.turns) - 1))

    def undo(self, count: int = 1) -> list[Turn]:
        """Take back the last `count` turns, oldest first; turns that were hidden may fit again."""
        count = min(count, len(self.turns))
        taken = self.turns[len(self.turns) - count :]
        del self.turns[len(self.turns) - count :]
        self.num_dropped = 0
        return taken

    def clear(self) -> None:
        """Forget all turns; the system prompt stays."""
        self.turns.clear()
        self.num_dropped = 0

    def hide_oldest(self) -> bool:
        """Hide one more of the oldest turns from the model; False when only the last one is left."""
        if self.num_dropped >= len(self.turns) - 1:
            return False
        self.num_dropped += 1
        return True

    def fit(
        self,
        encode: Encode,
        max_model_len: int | None,
        max_tokens: int | None = None,
        *,
        drop: bool = True,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> FittedPrompt:
        """Encode the conversation, hiding whole oldest turns until the prompt and an answer fit.

        Args:
            encode: prompt -> its token ids; None where they can not be known, and nothing is hidden then.
            max_model_len: tokens that prompt and answer may take together.
            max_tokens: the longest answer wanted, None for as long as there is room.
            drop: hide old turns; else a conversation that does not fit is an error.

        Raises:
            RequestError: the last turn does not even fit alone, or, without `drop`, the conversation does
            not; `num_dropped` is then as it was.
        """
        assert self.awaits_answer, "no turn is open"
        before = self.num_dropped
        chat = self.prompt(template_kwargs)
        token_ids = encode(chat)
        if token_ids is None or max_model_len is None:
            return FittedPrompt(chat, token_ids, 0)
        reserve = min(max_tokens or ANSWER_RESERVE, ANSWER_RESERVE, max_model_len // ANSWER_RESERVE_SHARE)
        while drop and len(token_ids) + reserve > max_model_len and self.hide_oldest():
            chat = self.prompt(template_kwargs)
            token_ids = encode(chat) or ()
        if len(token_ids) >= max_model_len:
            self.num_dropped = before
            raise self._too_long(len(token_ids), max_model_len, drop)
        return FittedPrompt(chat, token_ids, self.num_dropped - before)

    def _too_long(self, num_tokens: int, max_model_len: int, drop: bool) -> RequestError:
        limit = f"{num_tokens:,} tokens, the context holds {max_model_len:,} with the answer"
        if not drop and len(self.turns) - self.num_dropped > 1:
            return RequestError(
                f"the conversation takes {limit}",
                fix="/undo or /clear makes room; --overflow drop leaves out the oldest turns",
            )
        parts = "the message and the system prompt take" if self.system else "the message takes"
        return RequestError(
            f"{parts} {limit}", fix="send a shorter message" + (", shorten /system" if self.system else "")
        )
