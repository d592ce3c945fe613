"""The prompt file of a batch: opened, read in bounded memory, validated before a model is loaded.

The file is read twice, once to validate it and once to run it, so a pipe is first copied to a temporary file.
How a file is cut into lines is in `batch/sources.py`, what a line may be in `batch/requests.py`. Knows no
model; `cli/run.py` opens and validates, `batch.py` runs.
"""

import errno
import io
import json
import os
import shlex
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Protocol, Self

from llmcli import strict_json
from llmcli.errors import OutputError, RequestError, UsageError, quote
from llmcli.jobs.batch.keys import KeyMaker, LineKey
from llmcli.jobs.batch.requests import BatchRequest, LineRules, RequestId, find_id, is_openai, parse_request
from llmcli.jobs.batch.sources import Form, Piece, detect_form, pieces, refuse_other_kinds

MAX_REPORTED = 20
STDIN = "-"
_KINDS = {"text": "texts", "messages": "lists of messages", "token_ids": "lists of token ids"}


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that can not become a request, and why. Attributes as in BatchRequest.

    Attributes:
        unit: what the file consists of: lines, or the items of an array.
    """

    line: int
    index: int
    message: str
    id: RequestId | None = None
    param: str | None = None
    fix: str = ""
    openai: bool = False
    key: str = ""
    unit: Literal["line", "item"] = "line"

    def __str__(self) -> str:
        return f"{self.unit} {self.line}: {self.message}" + (f" ({self.fix})" if self.fix else "")


class Finished(Protocol):
    """What is needed of the lines that an earlier run has answered; see `batch/resume.py`."""

    def __contains__(self, name: str) -> bool: ...

    def meet(self, key: LineKey, place: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Validation:
    """What the first reading of the whole file found.

    Attributes:
        num_requests: lines that are not blank, bad ones included.
        num_bad: how many of them are bad.
        bad: the first bad ones, at most 20.
        num_texts: native lines whose prompt is a plain text.
        kinds: how many lines there are of each kind.
        model: the model that the lines name.
    """

    num_requests: int
    num_bad: int
    bad: tuple[BadLine, ...]
    num_texts: int
    kinds: Mapping[str, int] = field(default_factory=dict)
    model: str | None = None

    def check(self, name: str, max_bad: int = 0, *, fix: str = "correct them") -> None:
        """Raise a UsageError that lists the bad lines, if there are more than `max_bad`."""
        if self.num_bad <= max_bad:
            return
        shown = "" if self.num_bad <= MAX_REPORTED else f", the first {MAX_REPORTED}:"
        lines = f"{self.num_bad} bad {self.bad[0].unit}{'s' * (self.num_bad > 1)}"
        raise UsageError(
            f"{quote(name)} has {lines} of {self.num_requests}{shown}",
            why="\n".join(str(bad) for bad in self.bad),
            fix=fix,
        )

    def describe_mixture(self) -> str | None:
        """One line about a file that has more than one kind of lines, else None."""
        if len(self.kinds) < 2:
            return None
        return "the input mixes " + ", ".join(
            f"{kind} ({count})" for kind, count in sorted(self.kinds.items())
        )


class PromptFile:
    """An open prompt file that can be read from its start any number of times. Use as a context manager.

    Args:
        stream: can be sought in.
        name: for messages.
        form: how it is cut into lines.
        column: of a table, the one that holds the prompts.
    """

    def __init__(
        self, stream: BinaryIO, name: str, form: Form = "jsonl", *, column: str | None = None
    ) -> None:
        self.stream = stream
        self.name = name
        self.form = form
        self.status = file_status(stream)
        self._column = column

    @classmethod
    def open(cls, name: str, stdin: BinaryIO, *, form: Form | None = None, column: str | None = None) -> Self:
        """Open the file called `name`, or a copy of `stdin` for "-".

        Raises:
            UsageError: no such file, a folder, not a regular file, not readable, or of a kind that is not read.
        """
        if name == STDIN:
            copy = _copy(stdin)
            file = cls(copy, "standard input", detect_form(name, copy, form), column=column)
            file.status = file_status(stdin)
            return file
        try:
            _check_regular(name)
            refuse_other_kinds(name)
            stream = open(name, "rb")  # noqa: SIM115 - closed by __exit__
            return cls(stream, name, detect_form(name, stream, form), column=column)
        except (OSError, ValueError) as error:
            raise _not_readable(name, error) from None

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> Self:
        """Prompts that were given one by one."""
        return cls(io.BytesIO("\n".join(map(json.dumps, texts)).encode()), "--prompt")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()

    def requests(
        self, rules: LineRules, finished: Finished | None = None, *, limit: int | None = None
    ) -> Iterator[BatchRequest | BadLine]:
        """Every line in turn, but for the finished ones; a repeated id makes a line bad.

        Args:
            limit: of so many lines from the start, for somebody may be appending to the file.
        """
        keys = KeyMaker()
        for index, piece in enumerate(islice(self._pieces(), limit)):
            parsed = self._checked(self._parse(piece, index, rules), keys)
            key = _key(parsed, piece, keys)
            if finished is None or key.name not in finished:
                yield replace(parsed, key=key.text)

    def validate(self, rules: LineRules, finished: Finished | None = None) -> Validation:
        """Read the whole file once, and tell `finished` of every line.

        Where `rules` allow any model, the first one that a line names is the only one that others may name.
        """
        keys = KeyMaker()
        bad: list[BadLine] = []
        kinds: Counter[str] = Counter()
        num_requests = num_bad = num_texts = 0
        model: str | None = None
        for index, piece in enumerate(self._pieces()):
            num_requests += 1
            parsed = self._checked(self._parse(piece, index, rules), keys)
            if isinstance(parsed, BadLine):
                num_bad += 1
                if len(bad) < MAX_REPORTED:
                    bad.append(parsed)
            else:
                kinds[_kind(parsed)] += 1
                num_texts += parsed.kind == "text" and parsed.endpoint is None
                if parsed.model is not None and model is None:
                    model = parsed.model
                    rules = rules if rules.models else replace(rules, models=(model,))
            if finished is not None:
                finished.meet(_key(parsed, piece, keys), f"{self._unit} {piece.number}")
        return Validation(num_requests, num_bad, tuple(bad), num_texts, kinds, model)

    @property
    def _unit(self) -> Literal["line", "item"]:
        return "item" if self.form == "json" else "line"

    def _pieces(self) -> Iterator[Piece]:
        return pieces(self.stream, self.form, self._column)

    def _parse(self, piece: Piece, index: int, rules: LineRules) -> BatchRequest | BadLine:
        value: Any = None
        try:
            if piece.fault:
                raise RequestError(piece.fault)
            value = (
                {"prompt": _plain_text(piece.data)} if self.form == "txt" else strict_json.loads(piece.data)
            )
            return parse_request(value, line=piece.number, index=index, rules=rules)
        except ValueError as error:  # what strict_json raises, and RequestError is one too
            param, fix = (error.param, error.fix) if isinstance(error, RequestError) else (None, "")
            message = error.what if isinstance(error, RequestError) else quote(str(error))
            return BadLine(
                piece.number,
                index,
                message,
                find_id(value),
                param,
                fix,
                openai=isinstance(value, dict) and is_openai(value),
                unit=self._unit,
            )

    def _checked(self, parsed: BatchRequest | BadLine, keys: KeyMaker) -> BatchRequest | BadLine:
        """The line, or what is wrong with it among the others."""
        if isinstance(parsed, BadLine) or parsed.id is None:
            return parsed
        first = keys.first_line(parsed.id, parsed.line)
        if first == parsed.line:
            return parsed
        message = f"id '{quote(parsed.id, 80)}' is already that of {self._unit} {first}"
        openai = parsed.endpoint is not None
        return BadLine(parsed.line, parsed.index, message, parsed.id, "id", openai=openai, unit=self._unit)


def _key(parsed: BatchRequest | BadLine, piece: Piece, keys: KeyMaker) -> LineKey:
    """A bad line goes by its content alone: its id may be another line's too."""
    return keys.key(piece.data, parsed.id if isinstance(parsed, BatchRequest) else None)


def _kind(request: BatchRequest) -> str:
    if request.endpoint is not None:
        return "OpenAI batch requests"
    return _KINDS[request.kind]


def _plain_text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8") from None


def file_status(stream: BinaryIO) -> os.stat_result | None:
    """What an open stream is, None for one that is no file of the system."""
    try:
        return os.fstat(stream.fileno())
    except (OSError, AttributeError):
        return None


def _copy(stdin: BinaryIO) -> BinaryIO:
    try:
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(stdin, copy)
    except OSError as error:
        raise OutputError(
            f"can not copy standard input to {tempfile.gettempdir()}: {error.strerror}",
            fix="write the prompts to a file first: llmcli run prompts.jsonl",
        ) from None
    return copy


def _check_regular(name: str) -> None:
    mode = os.stat(name).st_mode
    if stat.S_ISDIR(mode):
        is_model = os.path.exists(os.path.join(name, "config.json"))
        fix = _for_a_model(name) if is_model else "give a prompt file: llmcli run prompts.jsonl"
        raise UsageError(f"{quote(name)} is a folder", fix=fix)
    if not stat.S_ISREG(mode):
        raise UsageError(
            f"{quote(name)} is not a regular file",
            why="it is read twice",
            fix=f"llmcli run - < {quote(name)}",
        )


def _not_readable(name: str, error: OSError | ValueError) -> UsageError:
    if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return UsageError(f"can not read {quote(name)}: {error.strerror}")
    if looks_like_a_model(name):
        return UsageError(
            f"no such file: {quote(name)}",
            why="`run` takes a prompt file",
            fix=_for_a_model(name),
        )
    return UsageError(f"no such file: {quote(name)}", fix='give a file with lines like {"prompt": "Hello"}')


def _for_a_model(name: str) -> str:
    shown = quote(shlex.quote(name))
    return f"for a conversation: llmcli chat {shown}; to answer a file: llmcli run FILE -m {shown}"


def looks_like_a_model(name: str) -> bool:
    """`owner/name` or a bare name, and no path to a file that is not there."""
    path = Path(name)
    known = path.suffix.lower() in (".jsonl", ".ndjson", ".json", ".txt", ".csv", ".tsv", ".parquet", ".gz")
    rooted = name.startswith((".", "/", "~", "-")) or "\0" in name
    return (
        not known
        and not rooted
        and len(path.parts) <= 2
        and not (len(path.parts) == 2 and path.parent.is_dir())
    )
