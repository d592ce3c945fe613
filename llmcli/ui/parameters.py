"""The sampling parameters of a chat, in layers: built-in < the model's generation_config.json < file, environment,
flag < /set.

Knows no engine and no terminal. The chat session turns the layers into SamplingParams; `/set` and `/status`
read and change them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmcli.errors import RequestError, quote
from llmcli.nearest import did_you_mean
from llmcli.sampling import SamplingParams
from llmcli.structured import StructuredOutput

BUILT_IN = "built-in"
MODEL = "model's generation_config.json"
FLAG = "flag"
SESSION = "session"
SERVER = "left to the server"


def _boolean(text: str) -> bool:
    words = {
        "true": True,
        "on": True,
        "yes": True,
        "1": True,
        "false": False,
        "off": False,
        "no": False,
        "0": False,
    }
    return words[text.lower()]


def _strings(text: str) -> tuple[str, ...]:
    """One stop string, \\n and \\t understood."""
    return (text.replace("\\n", "\n").replace("\\t", "\t"),)


# What /set may change, with how its value is read. Fields that change the shape of an answer (n, logprobs)
# are no business of a chat.
SETTABLE: Mapping[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "seed": int,
    "stop": _strings,
    "max_tokens": int,
    "min_tokens": int,
    "ignore_eos": _boolean,
}

KINDS: Mapping[str, str] = {
    name: "an integer" if reader is int else "a number" if reader is float else "on or off"
    for name, reader in SETTABLE.items()
}

ALIASES: Mapping[str, str] = {
    "temp": "temperature",
    "max_new_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "repeat_penalty": "repetition_penalty",
}

FIXED_AT_START: Mapping[str, str] = {
    "num_ctx": "--max-model-len",
    "ctx_size": "--max-model-len",
    "max_model_len": "--max-model-len",
    "dtype": "--dtype",
    "threads": "--threads",
    "num_threads": "--threads",
    "num_thread": "--threads",
}

UNSET_WORDS = ("default", "none")
FORM = "structured"  # set by commands of its own
SHOWN = {FORM: "form"}  # as people know it


@dataclass(frozen=True, slots=True)
class ParameterValue:
    """A parameter in force and the layer that it comes from."""

    name: str
    value: Any
    origin: str


class Parameters:
    """The layers that the user controls.

    Args:
        flags: sampling fields given on the command line, in the environment or in a file; None values are as if not
            given.
        origins: where each of those comes from; FLAG for one that is not in it.
        of_defaults: where the defaults below them come from.
    """

    def __init__(
        self,
        flags: Mapping[str, Any] | None = None,
        origins: Mapping[str, str] | None = None,
        of_defaults: str = MODEL,
    ) -> None:
        self.flags = {name: value for name, value in (flags or {}).items() if value is not None}
        self.session: dict[str, Any] = {}
        self._origins = dict(origins or {})
        self._of_defaults = of_defaults
        SamplingParams(**self.flags)  # an error in a flag is said before a model is loaded

    def fill(self, defaults: Mapping[str, Any]) -> None:
        """Have defaults sent with every request, to a server that can not be told them otherwise."""
        for name, value in defaults.items():
            if name not in self.flags:
                self.flags[name], self._origins[name] = value, self._of_defaults

    @property
    def overrides(self) -> dict[str, Any]:
        """What goes on top of the model's defaults."""
        return {**self.flags, **self.session}

    def set(self, name: str, text: str) -> str:
        """Change one parameter for the session ("default" takes the change back); returns its full name.

        Raises:
            RequestError: an unknown name, or a value that is out of range.
        """
        name = settable_name(name)
        if text.strip().lower() in UNSET_WORDS:
            self.session.pop(name, None)
            return name
        try:
            value = SETTABLE[name](text.strip())
        except (ValueError, KeyError):
            raise RequestError(f"{name} must be {KINDS[name]}, got {quote(text)}", param=name) from None
        SamplingParams(**{**self.overrides, name: value})
        self.session[name] = value
        return name

    @property
    def form(self) -> StructuredOutput | None:
        """The form that answers must have."""
        form = self.overrides.get(FORM)
        return form if isinstance(form, StructuredOutput) else None

    def set_form(self, form: StructuredOutput | None) -> None:
        """Hold answers to a form for the session; None takes back what a flag asks for, too."""
        self.session[FORM] = form
        if form is None and FORM not in self.flags:
            del self.session[FORM]

    def saved(self) -> dict[str, Any]:
        """What is set, in the values that JSON has; `restore` takes it over."""
        form = {FORM: {"kind": self.form.kind, "text": self.form.text}} if self.form is not None else {}
        plain = {
            name: list(value) if isinstance(value, tuple) else value for name, value in self.overrides.items()
        }
        return plain | form

    def restore(self, saved: Mapping[str, Any]) -> list[str]:
        """Take over what was set in a saved chat, above files and environment, below flags; returns the names
        that are left out, as unknown or out of range."""
        self.session = {}
        left_out = []
        for name, value in saved.items():
            try:
                if name not in (*SETTABLE, FORM):
                    raise RequestError(f"unknown parameter {quote(name, 40)}")
                value = _restored(name, value)
                SamplingParams(**{**self.session, name: value})
            except RequestError:
                left_out.append(name)
                continue
            if name not in self.flags or self._origins.get(name, FLAG) != FLAG:
                self.session[name] = value
        return left_out

    def in_force(self, model_defaults: Mapping[str, Any] | None) -> list[ParameterValue]:
        """Every settable parameter with its value and origin.

        Args:
            model_defaults: None where a server has them, and does not tell.
        """
        built_in = None if model_defaults is None else SamplingParams()
        layers: tuple[tuple[Mapping[str, Any], Mapping[str, str], str], ...] = (
            (self.session, {}, SESSION),
            (self.flags, self._origins, FLAG),
            (model_defaults or {}, {}, self._of_defaults),
        )
        return [
            next(
                (
                    ParameterValue(SHOWN.get(name, name), layer[name], told.get(name, origin))
                    for layer, told, origin in layers
                    if name in layer
                ),
                ParameterValue(name, getattr(built_in, name, None), BUILT_IN if built_in else SERVER),
            )
            for name in (*SETTABLE, *([FORM] if FORM in self.overrides else ()))
        ]


def _restored(name: str, value: Any) -> Any:
    """A value of a saved chat as it was set."""
    if name != FORM or value is None:
        return tuple(value) if isinstance(value, list) else value
    if not isinstance(value, Mapping) or not value.keys() <= {"kind", "text"}:
        raise RequestError(f"{FORM} must not be {quote(value, 40)}", param=name)
    return StructuredOutput(value.get("kind", ""), value.get("text", ""))


def settable_name(name: str) -> str:
    """The field that a name or one of its aliases stands for.

    Raises:
        RequestError: no such parameter, or one that only a flag can set.
    """
    plain = name.strip().lstrip("-").replace("-", "_").lower()
    plain = ALIASES.get(plain, plain)
    if plain in FIXED_AT_START:
        raise RequestError(
            f"{plain} is fixed when the model is loaded", fix=f"start with {FIXED_AT_START[plain]}"
        )
    if plain not in SETTABLE:
        raise RequestError(
            f"unknown parameter {quote(name, 40)}",
            fix=did_you_mean(plain, SETTABLE) or f"one of: {', '.join(SETTABLE)}",
            param=plain,
        )
    return plain


def show_value(value: Any) -> str:
    """A parameter's value for people: None is "not set", stop strings are escaped."""
    if value is None or value == ():
        return "not set"
    if isinstance(value, (tuple, list)):
        return " ".join(f'"{quote(str(item))}"' for item in value)
    return (
        f"{value:g}"
        if isinstance(value, float)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
