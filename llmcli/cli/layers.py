"""The configuration files, in layers: the user's, then the project's.

Within a file [defaults] < [COMMAND] < [models."owner/name"], exact names above globs; keys above all sections belong
to [defaults]. [aliases] sets no option: its keys are names of models. Owns where the files are, how they are read and
which of their values apply to a command and a model.
Which keys there are and what they may hold is the business of `cli/keys.py`. Called by `cli/command.py` and
`cli/config.py`.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

from llmcli.cli.options import HIDDEN_ALIASES
from llmcli.errors import UsageError, quote

DEFAULTS = "defaults"
MODELS = "models"
MODEL = "model"  # the key of the default model
ALIASES = "aliases"  # the section of short names for models
PROJECT_FILE = Path("llmcli.toml")
MAX_BYTES = 1 << 20
WILDCARDS = "*?["


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of a configuration file, and where it stands.

    Attributes:
        key: name of the option it sets, without the dashes in front: "max-tokens"; in [aliases] the short name.
        value: what TOML gave.
        command: the command that it is for, or ALIASES; None is every command.
        pattern: the model or glob of models that it is for; None is every model.
    """

    key: str
    value: object
    path: Path
    command: str | None = None
    pattern: str | None = None

    @property
    def section(self) -> str:
        """Its section, as written in the file."""
        if self.pattern is not None:
            return f'{MODELS}."{quote(self.pattern)}"'
        return DEFAULTS if self.command is None else quote(self.command)

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        return f"{shown(self.path)} [{self.section}]"

    def applies_to(self, command: str | None, model: str | None) -> bool:
        """Whether it counts for a run of `command` with `model` (owner/name, owner/name@revision or a folder)."""
        if self.pattern is None:
            return self.command in (None, command)
        names = () if model is None else (model, model.partition("@")[0])
        return any(name == self.pattern or fnmatchcase(name, self.pattern) for name in names)

    @property
    def rank(self) -> tuple[int, bool, int]:
        """Its place among the settings of one file: the more specific comes later and wins."""
        pattern = self.pattern or ""
        exact = not any(char in WILDCARDS for char in pattern)
        section = 2 if self.pattern is not None else 1 if self.command else 0
        return section, exact, sum(char not in WILDCARDS for char in pattern)


Layers = Sequence[Sequence[Setting]]


def user_file() -> Path:
    """Where the user's configuration is, or would be: $XDG_CONFIG_HOME/llmcli/config.toml on Linux."""
    import platformdirs

    return Path(platformdirs.user_config_dir("llmcli", appauthor=False)) / "config.toml"


def places() -> tuple[Path, ...]:
    """Where the configuration files are, or would be, the weakest first."""
    return user_file(), PROJECT_FILE


def read_layers() -> Layers:
    """The settings of every configuration file that there is, the weakest file first.

    Raises:
        UsageError: a file can not be read.
    """
    return [settings for path in places() if (settings := read_file(path))]


def in_force(layers: Layers, command: str | None, model: str | None) -> dict[str, Setting]:
    """The settings that count for a command and a model, by key, the weakest first."""
    found: dict[str, Setting] = {}
    for setting in chain.from_iterable(layers):
        if setting.applies_to(command, model):
            found.pop(setting.key, None)
            found[setting.key] = setting
    return found


def aliases_of(layers: Layers) -> dict[str, str]:
    """The model that each short name stands for; the layers have been checked."""
    return {
        setting.key: str(setting.value)
        for settings in layers
        for setting in settings
        if setting.command == ALIASES
    }


def read_file(path: Path) -> list[Setting]:
    """The settings of one file, the weakest first; none if there is no such file.

    Raises:
        UsageError: the file can not be read, is not TOML, or has a key twice.
    """
    try:
        if not path.is_file():
            return []
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _bad(path, f"can not be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise _bad(path, f"is larger than {MAX_BYTES:,} bytes")
    try:
        # With a newline an error in the last line has a line number, without one it is "at end of document".
        table = tomllib.loads(data.decode("utf-8-sig") + "\n")
    except UnicodeDecodeError as error:
        raise _bad(path, f"is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}") from None
    except (ValueError, RecursionError) as error:  # tomllib's own error is a ValueError with line and column
        fix = "llmcli config edit" if path == user_file() else ""
        raise _bad(path, f"is not TOML: {quote(str(error))}", fix=fix) from None
    settings = list(_settings(table, path))
    _refuse_doubles(settings)
    return sorted(settings, key=lambda setting: setting.rank)


def canonical(name: str) -> str:
    """The key that a name of an option stands for: `max_tokens`, `n-predict` -> `max-tokens`."""
    plain = name.strip().lstrip("-").replace("_", "-")
    for primary, aliases in HIDDEN_ALIASES.items():
        if f"--{plain}" in aliases and not primary.startswith("--no-"):
            return primary.removeprefix("--")
    return plain


def shown(path: Path) -> str:
    """A path as people write it: ~ for the home folder."""
    try:
        text = f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):  # elsewhere, or there is no home
        text = f"./{path}" if not path.is_absolute() else str(path)
    return quote(text, 1000)


def _settings(table: Mapping[str, object], path: Path) -> Iterator[Setting]:
    for name, value in table.items():
        if not isinstance(value, dict):
            yield Setting(canonical(name), value, path)
        elif name == MODELS:
            for pattern, section in value.items():
                if not isinstance(section, dict):
                    raise _bad(path, f"[{MODELS}] holds no values", fix=f'write [{MODELS}."owner/name"]')
                yield from (
                    Setting(canonical(key), item, path, None, pattern) for key, item in section.items()
                )
        elif name == ALIASES:
            yield from (Setting(key, item, path, ALIASES) for key, item in value.items())
        else:
            command = None if name == DEFAULTS else name
            yield from (Setting(canonical(key), item, path, command) for key, item in value.items())


def _refuse_doubles(settings: Sequence[Setting]) -> None:
    """The same option under two names, or above the sections and in [defaults]."""
    seen: set[tuple[str, str]] = set()
    for setting in settings:
        if (setting.section, setting.key) in seen:
            raise UsageError(
                f"{quote(setting.key)} is set twice in {setting.origin}", fix="leave one of them"
            )
        seen.add((setting.section, setting.key))


def _bad(path: Path, problem: str, fix: str = "") -> UsageError:
    return UsageError(f"the configuration file {shown(path)} {problem}", fix=fix)
