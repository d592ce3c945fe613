"""One conversation: a system prompt and its turns, what of it the model sees, how it fits the context.

Pure state: knows no terminal, no engine and no tokenizer (the caller passes a function that encodes
messages). Changed by the chat session and its slash commands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmcli.errors import RequestError

Message = dict[str, str]
Encode = Callable[[Sequence[Message]], Sequence[int]]

ANSWER_RESERVE = 256  # tokens kept free for an answer while there are old turns that can make room
ANSWER_RESERVE_SHARE = 4  # ... but no more than this part of the context


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user said and what the model answered.

    Attributes:
        answer: None while it is awaited.
        stopped: cut short by the user or by a failure.
        used_tokens: what prompt and answer took of the context.
        reasoning: what the model thought before it answered.
    """

    user: str
    answer: str | None = None
    stopped: bool = False
    used_tokens: int = 0
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """The token ids of a prompt that leaves room for an answer, and how many old turns had to go for it."""

    token_ids: Sequence[int]
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
        that user and assistant alternate. Reasoning goes along under its own name: a template that wants it back
        writes it, any other leaves it out.
        """
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns[self.num_dropped :]:
            if turn.answer == "":
                continue
            messages.append({"role": "user", "content": turn.user})
            if turn.answer is not None:
                thought = {"reasoning_content": turn.reasoning} if turn.reasoning else {}
                messages.append({"role": "assistant", "content": turn.answer, **thought})
        return messages

    def add_user(self, text: str) -> None:
        """Open a turn."""
        assert not self.awaits_answer, "the turn before has no answer yet"
        self.turns.append(Turn(text))

    def add_answer(
        self, text: str, *, stopped: bool = False, used_tokens: int = 0, reasoning: str = ""
    ) -> None:
        """Close the open turn."""
        assert self.awaits_answer, "no turn is open"
        self.turns[-1] = Turn(self.turns[-1].user, text, stopped, used_tokens, reasoning)

    def last_reasoning(self) -> str:
        """What the model thought before its last answer; empty if it did not."""
        return self.turns[-1].reasoning if self.turns else ""

    @property
    def used_tokens(self) -> int:
        """What the conversation takes of the context, as far as it has been computed."""
        return self.turns[-1].used_tokens if self.turns else 0

    def regen(self) -> bool:
        """Forget the last answer so that the last turn is open again; False when there is no turn."""
        if not self.turns:
            return False
        self.turns[-1] = Turn(self.turns[-1].user)
        return True

    def cancel(self, previous: Turn | None = None) -> None:
        """Take back the open turn, or put `previous` in its place: the question could not be asked."""
        assert self.awaits_answer, "no turn is open"
        self.turns[-1:] = [previous] if previous else []

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

    def fit(self, encode: Encode, max_model_len: int, max_tokens: int | None = None) -> FittedPrompt:
        """Encode the conversation, hiding whole oldest turns until the prompt and an answer fit.

        Args:
            encode: messages -> token ids of the prompt.
            max_model_len: tokens that prompt and answer may take together.
            max_tokens: the longest answer wanted, None for as long as there is room.

        Raises:
            RequestError: the last turn does not even fit alone; `num_dropped` is then as it was.
        """
        assert self.awaits_answer, "no turn is open"
        before = self.num_dropped
        reserve = min(max_tokens or ANSWER_RESERVE, ANSWER_RESERVE, max_model_len // ANSWER_RESERVE_SHARE)
        token_ids = encode(self.messages())
        while len(token_ids) + reserve > max_model_len and self.num_dropped < len(self.turns) - 1:
            self.num_dropped += 1
            token_ids = encode(self.messages())
        if len(token_ids) >= max_model_len:
            self.num_dropped = before
            parts = "the message and the system prompt take" if self.system else "the message takes"
            raise RequestError(
                f"{parts} {len(token_ids):,} tokens, the context holds {max_model_len:,} with the answer",
                fix="send a shorter message" + (", shorten /system" if self.system else ""),
            )
        return FittedPrompt(token_ids, self.num_dropped - before)

    @property
    def awaits_answer(self) -> bool:
        """Whether a turn is open."""
        return bool(self.turns) and self.turns[-1].answer is None
