"""Slash commands that change how answers are made and by which model. Used by `table.py`."""

import re
from collections.abc import Callable
from functools import partial

from llmcli.config import parse_number
from llmcli.errors import RequestError, UsageError, quote
from llmcli.sampling import MAX_LOGPROBS
from llmcli.structured import StructuredOutput
from llmcli.ui.commands.command import Command, Outcome, on_or_off
from llmcli.ui.commands.history import system
from llmcli.ui.forms import schema_text
from llmcli.ui.parameters import settable_name, show_value
from llmcli.ui.state import ChatState
from llmcli.ui.status import count, sampling_rows

LOGPROBS = 3
THINKING = ("on", "off", "default", "fold", "show", "hide")
SHOWN = {"fold": None, "show": True, "hide": False}
SWITCHES = {"stats": "show_stats", "markdown": "markdown", "wrap": "wrap"}  # name -> field of the state


def set_parameter(state: ChatState, argument: str) -> Outcome:
    """Show or change a sampling parameter or how answers are shown."""
    argument = re.sub(r"^parameter(\s+|$)", "", argument)
    name, _, value = argument.partition(" ")
    if name == "system":
        return system(state, value.strip())
    if name in SWITCHES:
        return _set_switch(state, name, value)
    if not name:
        rows = sampling_rows(state.parameters, state.backend().generation_defaults)
        state.notes.table([*rows, *((name, _switch(state, name)) for name in SWITCHES)])
        return Outcome.GO_ON
    name = settable_name(name)
    if value.strip():
        state.parameters.set(name, value)
    in_force = {entry.name: entry for entry in state.parameters.in_force(state.backend().generation_defaults)}
    state.notes.dim(f"{name} = {show_value(in_force[name].value)} ({in_force[name].origin})")
    return Outcome.GO_ON


def _set_switch(state: ChatState, name: str, value: str) -> Outcome:
    if value.strip():
        setattr(state, SWITCHES[name], on_or_off(value, name))
    state.notes.dim(f"{name} = {_switch(state, name)}")
    return Outcome.GO_ON


def _switch(state: ChatState, name: str) -> str:
    value = getattr(state, SWITCHES[name])
    return "as the terminal allows" if value is None else "on" if value else "off"


def model(state: ChatState, argument: str) -> Outcome:
    """List the models, or switch to one and keep the conversation."""
    if not argument:
        listed = [f"{'*' if name == state.backend.name else ' '} {name}" for name in state.models.names()]
        listed += [f"  {quote(alias)} is {quote(name)}" for alias, name in state.models.aliases.items()]
        state.notes.say("\n".join(listed))
        state.notes.dim("/model and a name switches; the conversation stays")
        return Outcome.GO_ON
    argument = state.models.aliases.get(argument, argument)
    if argument in (state.backend.name, state.backend.model.name):
        state.notes.dim(f"{quote(argument)} is in use already")
        return Outcome.GO_ON
    old, new = state.backend, state.models.prepare(argument)
    old()  # one that is being loaded can not be stopped, and two at once may not fit the memory
    old.close()
    state.fallback = partial(state.models.prepare, old.model.name, old.model.revision)
    state.use(new)
    state.notes.dim(f"{quote(new.name)} from the next message on")
    return Outcome.GO_ON


def think(state: ChatState, argument: str) -> Outcome:
    """Switch thinking on or off, or hide what is thought."""
    word, _, value = argument.partition(" ")
    word = word.lower()
    if word == "budget":
        state.thinking_budget = _budget(value.strip())
    elif word and (word not in THINKING or value):
        raise UsageError(f"/think takes {', '.join(THINKING)}, budget N, got {quote(argument, 40)}")
    elif word in SHOWN:
        state.show_thinking = SHOWN[word]
    elif word in ("on", "off"):
        if not state.backend().can_think:
            raise RequestError(f"the chat template of {quote(state.backend.name)} has no switch for thinking")
        state.think = word == "on"
    elif word == "default":
        state.think = None
    state.notes.dim(f"thinking: {thinking(state)}")
    return Outcome.GO_ON


def _budget(value: str) -> int | None:
    """The N of `/think budget N`; None for off.

    Raises:
        UsageError: neither.
    """
    if value.lower() == "off":
        return None
    try:
        number = parse_number(value)
    except ValueError:
        number = 0
    if number < 1:
        raise UsageError(f"/think budget takes a number of tokens or off, got {quote(value, 40)}")
    return number


def thinking(state: ChatState) -> str:
    """How thinking is set."""
    wanted = "as the model likes" if state.think is None else "on" if state.think else "off"
    shown = next(word for word, value in SHOWN.items() if value is state.show_thinking)
    limit = "" if state.thinking_budget is None else f", at most {count(state.thinking_budget)} tokens"
    return f"{wanted}, {shown}{limit}"


def logprobs(state: ChatState, argument: str) -> Outcome:
    """Show after each answer how likely its tokens were."""
    if argument.isascii() and argument.isdigit() and len(argument) < 4:
        if int(argument) > MAX_LOGPROBS:
            raise UsageError(f"/logprobs shows at most {MAX_LOGPROBS} alternatives, got {argument}")
        state.num_logprobs = int(argument)
    elif argument:
        state.num_logprobs = LOGPROBS if on_or_off(argument, "logprobs") else None
    shown = "off" if state.num_logprobs is None else f"{state.num_logprobs} alternatives for each token"
    state.notes.dim(f"logprobs: {shown}")
    return Outcome.GO_ON


def json_form(state: ChatState, argument: str) -> Outcome:
    """Hold the next answers to a JSON schema, or to any JSON object."""
    return _set_form(state, argument, lambda text: StructuredOutput.json_schema(schema_text(text)))


def regex_form(state: ChatState, argument: str) -> Outcome:
    """Hold the next answers to a regular expression."""
    return _set_form(state, argument, StructuredOutput.regex)


def _set_form(state: ChatState, argument: str, read: Callable[[str], StructuredOutput]) -> Outcome:
    if argument:
        wanted = None if argument.lower() == "off" else read(argument)
        if wanted is not None:
            state.models.check_form(wanted)
        state.parameters.set_form(wanted)
    form = state.parameters.form
    state.notes.dim(f"answers: {'any text' if form is None else form}")
    return Outcome.GO_ON


SETTING_COMMANDS: tuple[Command, ...] = (
    Command(
        "set",
        "[NAME [VALUE]]",
        "Show or set a sampling parameter (default resets it), or stats, markdown, wrap on or off.",
        set_parameter,
    ),
    Command("model", "[ID]", "List the models, or switch to one; the conversation stays.", model, ("load",)),
    Command(
        "think",
        "[on|off|default|fold|show|hide|budget N]",
        "Have a model think or not, how that is shown, and after how many tokens its answer begins.",
        think,
    ),
    Command("json", "[SCHEMA|FILE|off]", "Hold answers to a JSON schema; {} is any JSON object.", json_form),
    Command("regex", "[PATTERN|off]", "Hold answers to a regular expression.", regex_form),
    Command("logprobs", "[on|off|N]", "Show how likely each token was, and its alternatives.", logprobs),
)
