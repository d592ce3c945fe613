"""The options of `llmcli run` that no other command has, and what of them contradicts each other.

Imports nothing heavy and knows no job; `cli/run.py` and `cli/run_job.py` read them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmcli.cli.options import OutputPath, System
from llmcli.errors import UsageError

if TYPE_CHECKING:
    from llmcli.jobs.batch.input import Validation
    from llmcli.jobs.batch.output import Mode

Input = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help="Prompts: a .jsonl, .json (array), .txt (one per line) or .csv file, or - for standard input.",
    ),
]
Prompt = Annotated[
    list[str] | None,
    typer.Option("--prompt", metavar="TEXT", help="A prompt, in place of INPUT; may be repeated."),
]
Column = Annotated[
    str | None,
    typer.Option(
        "--column",
        metavar="NAME",
        show_default=False,
        help="Column of a table, or field of JSON lines, that holds the prompts; else prompt, text, question, ...",
    ),
]
InputFormat = Annotated[
    Literal["auto", "jsonl", "json", "txt", "csv"],
    typer.Option("--input-format", help="Form of INPUT; auto goes by the name, else by the first character."),
]
Raw = Annotated[
    bool | None,
    typer.Option(
        "--raw/--chat",
        show_default=False,
        help="Send text prompts as they are, or through the model's chat template; else as the model allows.",
    ),
]
SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Write error records for bad lines and run the others.")
]
MaxErrors = Annotated[
    int | None,
    typer.Option(
        "--max-errors",
        metavar="N",
        min=0,
        show_default=False,
        help="Stop when more than N lines are bad or fail; else bad lines stop at once, failures never.",
    ),
]
OutputFormat = Annotated[
    Literal["auto", "native", "openai", "text"],
    typer.Option(
        "--format",
        help="Form of the results; auto answers OpenAI batch lines in OpenAI's form, text keeps the order.",
    ),
]
Null = Annotated[
    bool,
    typer.Option("--null", "-0", help="With --format text: end each answer with NUL instead of a newline."),
]
MaxInflight = Annotated[
    int | None,
    typer.Option(
        "--max-inflight",
        metavar="N",
        min=1,
        show_default=False,
        help="Most requests in the engine, waiting ones included; else 4 times --max-num-seqs.",
    ),
]
Ordered = Annotated[bool, typer.Option("--ordered", help="Write results in the order of the input.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the output file where an earlier run stopped.")
]
RetryErrors = Annotated[
    bool, typer.Option("--retry-errors", help="Like --resume, and run the requests that failed again.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Resume even if the model, the settings or finished lines differ.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it exists.")]
ReturnTokenIds = Annotated[
    bool, typer.Option("--return-token-ids", help="Add the token ids of each answer to its record.")
]
Progress = Annotated[
    Literal["auto", "plain", "json"],
    typer.Option("--progress", help="A bar on a terminal, plain lines, or JSON lines; all on stderr."),
]


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """What is written, and how."""

    output: OutputPath = None
    format: OutputFormat = "auto"
    null: Null = False
    ordered: Ordered = False
    resume: Resume = False
    retry_errors: RetryErrors = False
    force: Force = False
    overwrite: Overwrite = False
    return_token_ids: ReturnTokenIds = False

    @property
    def path(self) -> str:
        return "-" if self.output is None else str(self.output)

    @property
    def mode(self) -> "Mode":
        return "resume" if self.resume or self.retry_errors else "overwrite" if self.overwrite else "new"

    @property
    def keeps_order(self) -> bool:
        return self.ordered or self.format == "text"

    def check(self) -> None:
        """Raise a UsageError for options that contradict each other."""
        if self.null and self.format != "text":
            raise UsageError("--null goes with --format text")
        if self.mode == "resume" and self.overwrite:
            raise UsageError(
                "--resume keeps the results that are there, --overwrite does not", fix="give one"
            )
        if self.mode == "resume" and self.format == "text":
            raise UsageError(
                "--format text does not tell which line an answer belongs to, so it can not be resumed"
            )
        if self.retry_errors and self.ordered:
            raise UsageError(
                "--retry-errors writes its results behind the others, so --ordered can not be kept",
                fix="leave --ordered out",
            )
        if self.force and self.mode != "resume":
            raise UsageError("--force goes with --resume")


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """Where prompts are, and how they are taken."""

    prompt: Prompt = None
    column: Column = None
    input_format: InputFormat = "auto"
    raw: Raw = None
    system: System = None
    skip_invalid: SkipInvalid = False
    max_errors: MaxErrors = None

    def check(self, template_option: str | None = None) -> None:
        """Raise a UsageError for options that contradict each other.

        Args:
            template_option: another option that is given and needs the chat template.
        """
        needs_template = "--system" if self.system else template_option
        if self.raw and needs_template:
            raise UsageError(
                f"{needs_template} needs the chat template, and --raw goes without it",
                fix="give one of the two",
            )

    def check_lines(self, name: str, found: "Validation") -> None:
        """Raise a UsageError if the file called `name` has more bad lines than the run may begin with."""
        allowed, way = found.num_requests if self.skip_invalid else 0, "--skip-invalid"
        if self.max_errors is not None:
            allowed, way = self.max_errors, f"--max-errors {found.num_bad}"
        found.check(name, allowed, fix=f"correct them, or run the others with {way}")
