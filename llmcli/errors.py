"""Every error that llmcli raises on purpose, each with an exit code and a next step.

    LLMCliError                    1   anything that went wrong at run time
    ├── EngineError                1   the engine died or a step failed
    │   └── OutputError            1   a result could not be written
    ├── UsageError                 2   a wrong argument, option or input file
    │   ├── RequestError           2   one request that can not be served as asked
    │   │   └── ContextFullError   2   its prompt is longer than the context
    │   ├── MissingExtraError      2   an optional package is not installed
    │   └── DeviceUnavailableError 2   the device asked for can not be used
    ├── ItemsFailedError           3   the work is done, but some items failed
    ├── ModelUnavailableError      4   the model could not be obtained
    │   ├── ModelNotFoundError     4
    │   ├── GatedModelError        4
    │   └── OfflineError           4
    ├── ModelNotRunnableError      5   the model is here, but can not run here
    │   ├── UnsupportedModelError  5
    │   ├── CheckpointError        5
    │   └── DoesNotFitError        5
    └── ServerError                6   a server can not be reached, or fails

Knows nothing of how an error is shown; `cli/app.py` prints it and exits with its code.
"""

from typing import ClassVar

MAX_QUOTED = 200


def quote(value: object, limit: int = MAX_QUOTED) -> str:
    """Show an untrusted value in a message: control characters escaped, at most `limit` characters."""
    text = value if isinstance(value, str) else repr(value)
    clean = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


class LLMCliError(Exception):
    """An error meant for people: what happened, why, and what to type next.

    Args:
        what: one line, with the value and the limit.
        why: one line on the cause, or empty.
        fix: what to type or change, or empty.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.why, self.fix) if line)


class EngineError(LLMCliError):
    """The engine can not go on; every open request has failed with it."""


class OutputError(EngineError):
    """A result could not be written (disk full, file closed)."""


class UsageError(LLMCliError):
    """A wrong argument, option or input file."""

    exit_code = 2


class RequestError(UsageError, ValueError):
    """One request that can not be served as asked; `param` names the field at fault."""

    def __init__(self, what: str, *, why: str = "", fix: str = "", param: str | None = None) -> None:
        super().__init__(what, why=why, fix=fix)
        self.param = param


class ContextFullError(RequestError):
    """The prompt of a request is longer than the context."""


class MissingExtraError(UsageError):
    """An optional package is not installed."""


class DeviceUnavailableError(UsageError):
    """The device asked for is not there, or can not be used."""


class ItemsFailedError(LLMCliError):
    """The work is done, but some of its items failed."""

    exit_code = 3


class ModelUnavailableError(LLMCliError):
    """The model could not be obtained."""

    exit_code = 4


class ModelNotFoundError(ModelUnavailableError):
    """No such repository, revision or folder."""


class GatedModelError(ModelUnavailableError):
    """The repository wants a login or an accepted licence."""


class OfflineError(ModelUnavailableError):
    """The network is off or out of reach, and the model is not in the cache."""


class ModelNotRunnableError(LLMCliError):
    """The model is here, but can not run here."""

    exit_code = 5


class UnsupportedModelError(ModelNotRunnableError):
    """An architecture, quantization or option of the model that llmcli does not implement."""


class CheckpointError(ModelNotRunnableError):
    """A file of the model is missing, damaged or contradicts another."""


class DoesNotFitError(ModelNotRunnableError):
    """The model and its KV cache need more memory than there is."""


class ServerError(LLMCliError):
    """A server can not be reached, or does not answer as it should."""

    exit_code = 6
