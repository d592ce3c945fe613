"""The prompt file of a batch: opened, read in bounded memory, validated before a model is loaded.

Lines end at \\n and nowhere else; a line is at most 8 MiB. The file is read twice, once to validate it and
once to run it, so a pipe is first copied to a temporary file. Knows no model; `cli/run.py` opens and
validates, `batch.py` runs.
"""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

from llmcli import strict_json
from llmcli.errors import OutputError, RequestError, UsageError, quote
from llmcli.jobs.batch_requests import BatchRequest, LineRules, RequestId, find_id, is_openai, parse_request

MAX_LINE_BYTES = 8 << 20
MAX_REPORTED = 20
STDIN = "-"
_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
_SKIP_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that can not become a request, and why. Attributes as in BatchRequest."""

    line: int
    index: int
    message: str
    id: RequestId | None = None
    param: str | None = None
    fix: str = ""
    openai: bool = False

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" + (f" ({self.fix})" if self.fix else "")


@dataclass(frozen=True, slots=True)
class Validation:
    """What the first reading of the whole file found.

    Attributes:
        num_requests: lines that are not blank, bad ones included.
        num_bad: how many of them are bad.
        bad: the first bad ones, at most 20.
        duplicates: line number of a repeated id -> the line that had it first.
        num_texts: native lines whose prompt is a plain text.
    """

    num_requests: int
    num_bad: int
    bad: tuple[BadLine, ...]
    duplicates: Mapping[int, int]
    num_texts: int

    def check(self, name: str) -> None:
        """Raise a UsageError that lists the bad lines, if there are any."""
        if not self.num_bad:
            return
        shown = "" if self.num_bad <= MAX_REPORTED else f", the first {MAX_REPORTED}:"
        lines = f"{self.num_bad} bad line{'s' * (self.num_bad > 1)}"
        raise UsageError(
            f"{quote(name)} has {lines} of {self.num_requests}{shown}",
            why="\n".join(str(bad) for bad in self.bad),
            fix="correct them, or run the others with --skip-invalid",
        )


class PromptFile:
    """An open prompt file that can be read from its start any number of times. Use as a context manager."""

    def __init__(self, stream: BinaryIO, name: str, form: Literal["jsonl", "txt"] = "jsonl") -> None:
        self.stream = stream
        self.name = name
        self.form = form
        self.status = file_status(stream)

    @classmethod
    def open(cls, name: str, stdin: BinaryIO) -> Self:
        """Open the file called `name`, or a copy of `stdin` for "-".

        Raises:
            UsageError: no such file, a folder, not a regular file, or not readable.
        """
        if name == STDIN:
            copy = cls(_copy(stdin), "standard input")
            copy.status = file_status(stdin)
            return copy
        try:
            _check_regular(name)
            return cls(open(name, "rb"), name, "txt" if name.lower().endswith(".txt") else "jsonl")
        except (OSError, ValueError) as error:
            raise _not_readable(name, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()

    def lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Each line that is not blank, with its number from 1; None stands for one that is too long."""
        self.stream.seek(0)
        number = 0
        while data := self.stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            too_long = len(data) > MAX_LINE_BYTES and not data.endswith(b"\n")
            if too_long:
                while (rest := self.stream.readline(_SKIP_BYTES)) and not rest.endswith(b"\n"):
                    pass
            elif number == 1 and data.startswith(_BOM):
                data = data[len(_BOM) :]
            if data.strip(_BLANK):
                yield number, None if too_long else data

    def requests(
        self, rules: LineRules, duplicates: Mapping[int, int] | None = None
    ) -> Iterator[BatchRequest | BadLine]:
        """Parse every line in turn; `duplicates` (from `validate`) makes BadLines of repeated ids."""
        for index, (number, data) in enumerate(self.lines()):
            parsed = _parse(data, number, index, rules, self.form)
            first = duplicates.get(number) if duplicates and isinstance(parsed, BatchRequest) else None
            yield (
                _duplicate(parsed, first)
                if first is not None and isinstance(parsed, BatchRequest)
                else parsed
            )

    def validate(self, rules: LineRules) -> Validation:
        """Read the whole file once. Memory grows with the ids alone, and is free again before the run."""
        seen: dict[RequestId, int] = {}
        duplicates: dict[int, int] = {}
        bad: list[BadLine] = []
        num_requests = num_bad = num_texts = 0
        for parsed in self.requests(rules):
            num_requests += 1
            if isinstance(parsed, BatchRequest) and parsed.id is not None:
                first = seen.setdefault(parsed.id, parsed.line)
                if first != parsed.line:
                    duplicates[parsed.line] = first
                    parsed = _duplicate(parsed, first)
            if isinstance(parsed, BadLine):
                num_bad += 1
                if len(bad) < MAX_REPORTED:
                    bad.append(parsed)
            elif parsed.kind == "text" and parsed.endpoint is None:
                num_texts += 1
        return Validation(num_requests, num_bad, tuple(bad), duplicates, num_texts)


def _parse(
    data: bytes | None, line: int, index: int, rules: LineRules, form: Literal["jsonl", "txt"]
) -> BatchRequest | BadLine:
    value: Any = None
    try:
        if data is None:
            raise RequestError(f"longer than {MAX_LINE_BYTES >> 20} MiB, the limit for one line")
        value = {"prompt": _plain_text(data)} if form == "txt" else strict_json.loads(data.rstrip(_BLANK))
        return parse_request(value, line=line, index=index, rules=rules)
    except ValueError as error:  # what strict_json raises, and RequestError is one too
        param, fix = (error.param, error.fix) if isinstance(error, RequestError) else (None, "")
        message = error.what if isinstance(error, RequestError) else quote(str(error))
        openai = isinstance(value, dict) and is_openai(value)
        return BadLine(line, index, message, find_id(value), param, fix, openai)


def _plain_text(data: bytes) -> str:
    try:
        return data.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8") from None


def _duplicate(request: BatchRequest, first: int) -> BadLine:
    message = f"id '{quote(request.id, 80)}' is already that of line {first}"
    return BadLine(
        request.line, request.index, message, request.id, "id", openai=request.endpoint is not None
    )


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
        raise UsageError(f"{quote(name)} is a folder", fix="give a prompt file: llmcli run prompts.jsonl")
    if not stat.S_ISREG(mode):
        raise UsageError(
            f"{quote(name)} is not a regular file",
            why="it is read twice",
            fix=f"llmcli run - < {quote(name)}",
        )


def _not_readable(name: str, error: OSError | ValueError) -> UsageError:
    if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return UsageError(f"can not read {quote(name)}: {error.strerror}")
    if _looks_like_a_model(name):
        return UsageError(
            f"no such file: {quote(name)}",
            why="`run` takes a prompt file",
            fix=f"for a conversation: llmcli chat {quote(name)}",
        )
    return UsageError(f"no such file: {quote(name)}", fix='give a file with lines like {"prompt": "Hello"}')


def _looks_like_a_model(name: str) -> bool:
    """`owner/name` or a bare name, and no path to a file that is not there."""
    path = Path(name)
    known = path.suffix.lower() in (".jsonl", ".json", ".txt", ".csv", ".parquet", ".gz")
    rooted = name.startswith((".", "/", "~", "-")) or "\0" in name
    return (
        not known
        and not rooted
        and len(path.parts) <= 2
        and not (len(path.parts) == 2 and path.parent.is_dir())
    )
