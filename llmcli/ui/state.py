"""What a chat session and its slash commands share.

Plain data; changed by `session.py` and the slash commands.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmcli.errors import quote
from llmcli.ui.backend import THINK_SWITCH, Backend
from llmcli.ui.conversation import Conversation, FittedPrompt
from llmcli.ui.models import Models
from llmcli.ui.notes import Notes
from llmcli.ui.parameters import Parameters
from llmcli.ui.sessions.log import SessionLog
from llmcli.ui.sessions.records import ChatSetup, SavedChat
from llmcli.ui.status import Totals
from llmcli.ui.waiting import Waiting

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine


Measure = Callable[["Engine", Callable[[str], None], Callable[[], bool]], list[tuple[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """What is at the other end, as far as it matters to commands.

    Attributes:
        editor: the command that edits a file; None where there is no terminal to edit on.
        put_clipboard: copies text to the terminal's clipboard; None where there is no terminal.
        paste_command: prints the clipboard; None where no program for it is known.
    """

    editor: str | None = None
    put_clipboard: Callable[[str], None] | None = None
    paste_command: Sequence[str] | None = None


@dataclass(slots=True, kw_only=True)
class ChatState:
    """One chat.

    Attributes:
        conversation: what was said.
        parameters: how answers are sampled.
        notes: where everything but answers is printed.
        backend: call it for the model; it waits while that is loaded, and raises what went wrong with it.
        models: the models that can be switched to.
        log: where the chat is saved.
        show_stats: whether each answer is followed by its numbers.
        drop_turns: leave out the oldest turns when the context is full; else that is an error.
        prefill: how every answer is made to begin.
        template_variables: variables of the chat template that are always given.
        think: whether the model is told to think; None as its template likes.
        thinking_budget: tokens after which reasoning is closed; None leaves it to the model.
        show_thinking: whether what it thinks stays on the screen, or goes into the pipe; None folds it when it ends.
        markdown: whether answers are rendered; None renders them where a person reads along.
        wrap: whether lines of plain answers are broken between words; None does so on a terminal.
        num_logprobs: alternatives shown per token of an answer; None shows no table.
        attachments: texts that go with the next message.
        draft: what the next prompt holds already.
        edited_turns: so many of the last turns are taken back when the next message is sent.
        last_prompt: the prompt that was sent last.
        totals: what all answers have cost.
        fallback: gives the model that was in use before the present one, while that has not answered yet.
        measure: times the engine: told what runs now by the first function, it asks the second whether to stop, and
            returns rows of label and value.
        on_model: is told of a model that the chat switches to, before it is loaded.
    """

    conversation: Conversation
    parameters: Parameters
    notes: Notes
    backend: Waiting
    models: Models
    log: SessionLog
    terminal: Terminal = field(default_factory=Terminal)
    show_stats: bool = True
    drop_turns: bool = True
    prefill: str = ""
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    think: bool | None = None
    thinking_budget: int | None = None
    show_thinking: bool | None = None
    markdown: bool | None = None
    wrap: bool | None = None
    num_logprobs: int | None = None
    attachments: list[str] = field(default_factory=list)
    draft: str = ""
    edited_turns: int = 0
    last_prompt: FittedPrompt | None = None
    totals: Totals = field(default_factory=Totals)
    fallback: Callable[[], Waiting] | None = None
    measure: Measure | None = None
    on_model: Callable[[Waiting], None] = lambda backend: None

    @property
    def template_kwargs(self) -> Mapping[str, Any]:
        """Variables of the chat template that were set."""
        switch = {} if self.think is None else {THINK_SWITCH: self.think}
        return {**self.template_variables, **switch}

    @property
    def overrides(self) -> dict[str, Any]:
        """Sampling fields on top of the model's defaults."""
        shown = {} if self.num_logprobs is None else {"logprobs": self.num_logprobs}
        return self.parameters.overrides | shown

    def loaded(self) -> Backend:
        """The model, once it is there; what was asked for and it does not know is told and left out."""
        backend = self.backend()
        if self.think is not None and not backend.can_think:
            self.think = None
            self.notes.warn(f"the chat template of {quote(backend.name)} has no switch for thinking")
        if self.thinking_budget is not None and not backend.can_limit_thinking:
            self.thinking_budget = None
            self.notes.warn(
                "the thinking budget is left out: of servers only vLLM and llama.cpp are known to take one"
            )
        return backend

    def use(self, backend: Waiting) -> None:
        """Chat with another model from now on; it is loaded in the background."""
        self.backend = backend
        self.last_prompt = None
        self.on_model(backend)
        backend.start()

    def saved(self) -> SavedChat:
        """The chat as it is to be saved."""
        params, model = self.parameters.saved(), self.backend.model
        return SavedChat(
            ChatSetup(
                model.name,
                model.revision,
                model.url,
                self.conversation.system,
                params,
                self.think,
                self.thinking_budget,
            ),
            self.conversation.snapshot(),
        )

    def take_over(self, chat: SavedChat) -> None:
        """Go on with another conversation: what was said, its system prompt and what was set in it."""
        self.conversation.clear()
        self.conversation.turns.extend(chat.turns)
        self.conversation.system = chat.setup.system
        left_out = self.parameters.restore(chat.setup.params)
        if left_out:
            self.notes.warn(f"parameters of the saved chat that are left out: {', '.join(left_out)}")
        self.think, self.thinking_budget = chat.setup.think, chat.setup.thinking_budget
        self.cancel_edit()

    def cancel_edit(self) -> None:
        """Leave the conversation as it is, after all."""
        self.draft, self.edited_turns = "", 0
