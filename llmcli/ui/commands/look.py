"""Slash commands that show how things stand: model, memory, context, prompt, tokens. Used by `table.py`."""

from llmcli.errors import RequestError, UsageError, quote
from llmcli.ui.commands.command import Command, Outcome
from llmcli.ui.commands.setting import thinking
from llmcli.ui.conversation import Turn
from llmcli.ui.interrupt import StopRequest
from llmcli.ui.parameters import show_value
from llmcli.ui.state import ChatState
from llmcli.ui.status import context_use, count, sampling_rows

MAX_SHOWN_TOKENS = 500
SUBJECTS = ("info", "template", "license", "params")


def status(state: ChatState, argument: str) -> Outcome:
    """Show the model, how it runs, the conversation, and each parameter with its origin."""
    backend = state.backend()
    rows = [
        *backend.describe(),
        ("conversation", _conversation(state, backend.max_model_len)),
        ("when full", "the oldest turns are left out" if state.drop_turns else "an error"),
        ("session", state.log.place),
    ]
    if state.attachments:
        rows.append(("next message", f"with {len(state.attachments)} file(s)"))
    if (state.think, state.show_thinking, state.thinking_budget) != (None, None, None):
        rows.append(("thinking", thinking(state)))
    rows += sampling_rows(state.parameters, backend.generation_defaults)
    state.notes.table(rows)
    return Outcome.GO_ON


def _conversation(state: ChatState, max_model_len: int | None) -> str:
    conversation = state.conversation
    turns = "1 turn" if len(conversation.turns) == 1 else f"{len(conversation.turns)} turns"
    dropped = f", the oldest {conversation.num_dropped} left out" if conversation.num_dropped else ""
    return f"{turns}{dropped}, {context_use(conversation.used_tokens, max_model_len)}"


def show(state: ChatState, argument: str) -> Outcome:
    """Show the model, its chat template, licence or sampling defaults."""
    subject = argument.lower() or "info"
    if subject not in SUBJECTS:
        raise UsageError(f"/show takes {', '.join(SUBJECTS)}, got {quote(argument, 40)}")
    backend = state.backend()
    if subject == "info":
        state.notes.table(backend.describe())
    elif subject == "template":
        state.notes.say(backend.template() or f"{quote(backend.name)} has no chat template")
    elif subject == "license":
        state.notes.say(backend.license() or f"{quote(backend.name)} brings no licence")
    elif backend.generation_defaults is None:
        state.notes.say("a server does not tell its sampling defaults")
    elif backend.generation_defaults:
        state.notes.table([(k, show_value(v)) for k, v in backend.generation_defaults.items()])
    else:
        state.notes.say(f"{quote(backend.name)} has no sampling defaults of its own")
    return Outcome.GO_ON


def tokens(state: ChatState, argument: str) -> Outcome:
    """Show the tokens of a text; without one, those of what was said last."""
    text = argument
    if not text:
        if not state.conversation.turns:
            raise RequestError(
                "there is nothing to take apart yet", fix="/tokens TEXT shows the tokens of a text"
            )
        last: Turn = state.conversation.turns[-1]
        text = last.answer or last.user
    pieces = state.backend().pieces(text)
    shown = [f"{token_id}:{quote(repr(piece), 60)}" for token_id, piece in pieces[:MAX_SHOWN_TOKENS]]
    state.notes.say(" ".join(shown))
    more = f", the first {MAX_SHOWN_TOKENS} shown" if len(pieces) > MAX_SHOWN_TOKENS else ""
    state.notes.dim(f"{count(len(pieces))} tokens{more}, {count(len(text))} characters")
    return Outcome.GO_ON


def prompt(state: ChatState, argument: str) -> Outcome:
    """Show the last prompt as it was sent; with a text, the one that would be sent now."""
    backend = state.backend()
    if argument:
        before = state.conversation.snapshot()
        state.conversation.add_user(argument, state.prefill)
        try:
            token_ids = backend.encode(state.conversation.prompt(state.template_kwargs))
        finally:
            state.conversation.restore(before)
    elif state.last_prompt is not None:
        token_ids = state.last_prompt.token_ids
    else:
        raise RequestError("nothing was sent yet", fix="/prompt TEXT shows what would be sent")
    state.notes.say(backend.show_prompt(token_ids))
    state.notes.dim(f"{count(len(token_ids or ()))} tokens; control tokens stand in ⟦ ⟧")
    return Outcome.GO_ON


def stats(state: ChatState, argument: str) -> Outcome:
    """Show what all answers of this chat have cost."""
    state.notes.table(state.totals.rows())
    return Outcome.GO_ON


def bench(state: ChatState, argument: str) -> Outcome:
    """Time the model: a prompt, and an answer. Ctrl-C stops it; the conversation stays as it is."""
    if argument:
        raise UsageError("/bench takes nothing", fix="llmcli bench has options for all that it measures")
    measure, notes = state.measure, state.notes
    if measure is None:
        raise RequestError("there is nothing to measure with here", fix="llmcli bench measures a model")
    backend = state.loaded()
    with StopRequest() as stop, notes.working("bench") as tell:
        rows = backend.with_engine(lambda engine: measure(engine, tell, lambda: stop.requested))
    notes.table(rows)
    if stop.requested:
        notes.warn("(stopped)")
    notes.dim("the prefix cache is empty now: the next message computes the whole conversation again")
    return Outcome.GO_ON


LOOK_COMMANDS: tuple[Command, ...] = (
    Command("status", "", "Show the model, memory, context and parameters.", status),
    Command("show", "[info|template|license|params]", "Show what the model brings along.", show),
    Command("bench", "", "Time the model; the conversation stays.", bench),
    Command("stats", "", "Show the totals of this chat.", stats),
    Command("tokens", "[TEXT]", "Show the tokens of a text, or of the last answer.", tokens),
    Command("prompt", "[TEXT]", "Show the prompt as it is really sent, control tokens visible.", prompt),
)
