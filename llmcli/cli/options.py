"""Every option that more than one command takes, declared once.

Two forms. An alias (`Model`, `Quiet`, ...) annotates one parameter of a command. A bundle (`EngineOptions`,
`SamplingOptions`, `ModelOptions`) annotates one parameter that stands for a group of options:

    def chat(model: ModelArgument = None, *, engine: EngineOptions, sampling: SamplingOptions) -> None:
        config = engine.config()
        overrides = sampling.overrides()

`cli/command.py` spreads a bundle into its options for Typer and gathers them again for the call. Environment
variables are `LLMCLI_` and the option's name, added there too. Knows no command; ranges are checked where the
values live (`EngineConfig`, `SamplingParams`), here only their form.
"""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from llmcli.cli.completion import complete_model
from llmcli.config import EngineConfig, parse_number
from llmcli.errors import RequestError, quote
from llmcli.sampling import SamplingParams

ENGINE = "Engine options"
SAMPLING = "Sampling options"
MODEL = "Model options"

# Words that people know from other tools. They work, and help does not show them.
HIDDEN_ALIASES: dict[str, tuple[str, ...]] = {
    "--max-model-len": ("--ctx-size", "--num-ctx", "--context-length"),
    "--gpu-memory-utilization": ("--gpu-memory",),
    "--prefix-caching": ("--enable-prefix-caching",),
    "--no-prefix-caching": ("--no-enable-prefix-caching",),
    "--max-tokens": ("--max-new-tokens", "--n-predict", "--num-predict"),
    "--temperature": ("--temp",),
    "--repetition-penalty": ("--repeat-penalty",),
    "--system": ("--system-prompt", "--sys", "-sys"),
    "--json-schema": ("--json-schema-file", "-jf"),
    "--grammar": ("--grammar-file",),
    "--kv-cache-dtype": ("--cache-type", "--kv-bits"),
    "--chat-template": ("--chat-template-file",),
    "--thinking-budget": ("--reasoning-budget",),
    "--column": ("--prompt-column", "--prompt-field", "--text-column"),
    # of llama-bench, batched-bench and vllm bench
    "--prompt-tokens": ("--n-prompt",),
    "--output-tokens": ("--n-gen",),
    "--depth": ("--n-depth",),
    "--repeats": ("--repetitions",),
    "--input-len": ("--random-input-len", "-npp"),
    "--output-len": ("--random-output-len", "-ntg"),
    "--batch-size": ("-npl",),
    "--random-prefix-len": ("--prefix-len",),
    "--save": ("--output-json",),
    "--output-format": ("--output",),
    "--backend": ("--endpoint-type",),
}

OPTIONAL_VALUE = "[ID]"
"""The metavar of an option whose value may be left out; it is then empty."""

# Forms of a listing, and the flags that are short for two of them.
LISTING_FORMS = ("auto", "human", "json", "jsonl", "quiet")
LISTING_METAVAR = "|".join(LISTING_FORMS)
SHORT_FORMS: dict[str, tuple[str, ...]] = {"json": ("--json",), "quiet": ("--quiet", "-q")}
# What other tools call the types of a KV cache: mlx its bits, llama.cpp its block format, vLLM the float8.
_CACHE_TYPES = {"8": "int8", "q8_0": "int8", "fp8_e4m3": "fp8"}

_ENGINE = EngineConfig()
_HUMAN_NUMBER = re.compile(r"\d[\d_,]*(\.\d+)?([kKmMgG]i?B?)?")


def human_number(text: str) -> int:
    """Parse 4096, 8k (8000), 8K (8192) or 1.5GiB, or raise a BadParameter with the value."""
    # Typer hands a default that is a number already through the parser too.
    try:
        if _HUMAN_NUMBER.fullmatch(str(text)) is None:
            raise ValueError
        return parse_number(str(text))
    except ValueError:
        raise typer.BadParameter(
            f"must be a whole number of at least 0, such as 4096, 8k (8000) or 8K (8192), got {quote(text)}"
        ) from None


def integer(text: str) -> int:
    """Parse an integer, or raise a BadParameter with the value."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"must be an integer, got {quote(text)}") from None


def number(text: str) -> float:
    """Parse a number, or raise a BadParameter with the value."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"must be a number, got {quote(text)}") from None


def cache_type(text: str) -> str:
    """The KV cache's type by the name that the user knows; `EngineConfig` refuses others."""
    return _CACHE_TYPES.get(text, text)


def _option(*names: str, help: str, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def _human_number(*names: str, help: str, panel: str | None = None, metavar: str = "N") -> Any:
    return _option(*names, help=help, panel=panel, parser=human_number, metavar=metavar)


def _integer(*names: str, help: str, panel: str | None = None, metavar: str = "N") -> Any:
    return _option(*names, help=help, panel=panel, parser=integer, metavar=metavar)


def _number(*names: str, help: str, panel: str | None = None, metavar: str = "X") -> Any:
    return _option(*names, help=help, panel=panel, parser=number, metavar=metavar)


# Which model
ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        envvar="LLMCLI_MODEL",
        show_envvar=False,
        autocompletion=complete_model,
        help="A Hugging Face id (owner/name, owner/name@revision) or a folder; else your default model.",
    ),
]
ModelOption = Annotated[
    str | None,
    _option(
        "--model",
        "-m",
        metavar="MODEL",
        autocompletion=complete_model,
        help="A Hugging Face id or a folder; else your default model, or the bundled one.",
        panel=MODEL,
    ),
]
Revision = Annotated[
    str | None,
    _option("--revision", metavar="REV", help="Branch, tag or commit of the repository.", panel=MODEL),
]
Offline = Annotated[
    bool,
    _option(
        "--offline",
        envvar=["LLMCLI_OFFLINE", "HF_HUB_OFFLINE"],
        help="Use only what is on this machine.",
        panel=MODEL,
    ),
]

# How the engine runs
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    _option("--dtype", help="Type of activations and dense weights.", panel=ENGINE),
]
Device = Annotated[
    str,
    _option(
        "--device",
        metavar="[auto|cuda|cpu]",
        help="Where the model runs; auto is an NVIDIA GPU that it fits on, else the CPU.",
        panel=ENGINE,
    ),
]
Kernels = Annotated[
    str,
    _option(
        "--kernels",
        metavar="NAME",
        help="Kernel set: auto, triton (GPU), cpu, avx2, torch or reference.",
        panel=ENGINE,
    ),
]
MaxModelLen = Annotated[
    int | None,
    _human_number(
        "--max-model-len",
        help="Most tokens of one sequence, prompt and answer; else what fits.",
        panel=ENGINE,
    ),
]
MaxNumSeqs = Annotated[
    int, _human_number("--max-num-seqs", help="Most sequences that run at once.", panel=ENGINE)
]
MaxNumBatchedTokens = Annotated[
    int, _human_number("--max-num-batched-tokens", help="Token budget of one engine step.", panel=ENGINE)
]
BlockSize = Annotated[
    int, _human_number("--block-size", help="Tokens per block of the KV cache.", panel=ENGINE)
]
KVCacheMemory = Annotated[
    int | None,
    _human_number(
        "--kv-cache-memory", metavar="BYTES", help="Size of the KV cache, such as 2GiB.", panel=ENGINE
    ),
]
KVCacheDtype = Annotated[
    str,
    _option(
        "--kv-cache-dtype",
        parser=cache_type,
        metavar="[auto|int8|fp8]",
        help="Type of the KV cache; auto is that of the activations, 8 bits hold about twice the tokens.",
        panel=ENGINE,
    ),
]
LMHead = Annotated[
    Literal["auto", "int8", "full"],
    _option(
        "--lm-head",
        help="Weights of the output head: int8 is half the bytes; auto is int8 beside 4-bit layers on a fast CPU.",
        panel=ENGINE,
    ),
]
GpuMemoryUtilization = Annotated[
    float,
    _number(
        "--gpu-memory-utilization",
        metavar="SHARE",
        help="Share of the device's memory to take at most.",
        panel=ENGINE,
    ),
]
PrefixCaching = Annotated[
    bool,
    _option(
        "--prefix-caching/--no-prefix-caching",
        help="Keep and reuse the blocks of finished prompts.",
        panel=ENGINE,
    ),
]
EnforceEager = Annotated[
    bool,
    _option(
        "--enforce-eager/--no-enforce-eager",
        help="On a GPU, run without CUDA graphs: slower, less memory.",
        panel=ENGINE,
    ),
]
AsyncScheduling = Annotated[
    bool,
    _option(
        "--async-scheduling/--no-async-scheduling",
        help="On a GPU, prepare the next step while the present one runs.",
        panel=ENGINE,
    ),
]
Threads = Annotated[
    int | None,
    _human_number("--threads", help="CPU threads; else one per core that the process may use.", panel=ENGINE),
]

# How tokens are chosen
MaxTokens = Annotated[
    int | None,
    _human_number(
        "--max-tokens",
        "-n",
        help="Most tokens of an answer; else the room left in the context.",
        panel=SAMPLING,
    ),
]
MinTokens = Annotated[
    int | None, _human_number("--min-tokens", help="Least tokens of an answer.", panel=SAMPLING)
]
Temperature = Annotated[
    float | None, _number("--temperature", "-t", metavar="T", help="0 is greedy; up to 2.", panel=SAMPLING)
]
TopP = Annotated[
    float | None,
    _number(
        "--top-p", metavar="P", help="Sample from the smallest set with this probability.", panel=SAMPLING
    ),
]
TopK = Annotated[
    int | None,
    _integer("--top-k", metavar="K", help="Sample from the K most likely; 0 is all.", panel=SAMPLING),
]
MinP = Annotated[
    float | None,
    _number("--min-p", metavar="P", help="Drop what is less likely than P times the best.", panel=SAMPLING),
]
RepetitionPenalty = Annotated[
    float | None,
    _number(
        "--repetition-penalty", metavar="X", help="Above 1 makes seen tokens less likely.", panel=SAMPLING
    ),
]
PresencePenalty = Annotated[
    float | None,
    _number(
        "--presence-penalty",
        metavar="X",
        help="Taken once from tokens of the answer; -2 to 2.",
        panel=SAMPLING,
    ),
]
FrequencyPenalty = Annotated[
    float | None,
    _number(
        "--frequency-penalty",
        metavar="X",
        help="Taken per occurrence in the answer; -2 to 2.",
        panel=SAMPLING,
    ),
]
Seed = Annotated[
    int | None, _integer("--seed", metavar="N", help="The same seed gives the same answer.", panel=SAMPLING)
]
Stop = Annotated[
    list[str] | None,
    _option(
        "--stop", metavar="TEXT", help="End the answer before this text; may be repeated.", panel=SAMPLING
    ),
]
IgnoreEos = Annotated[
    bool, _option("--ignore-eos", help="Go on after the end-of-sequence token.", panel=SAMPLING)
]
Logprobs = Annotated[
    int | None,
    _integer(
        "--logprobs",
        metavar="N",
        help="Report the N most likely tokens at each position; 0 to 20.",
        panel=SAMPLING,
    ),
]

# What is said and shown
System = Annotated[
    str | None, _option("--system", "-s", metavar="TEXT", help="System prompt.", panel=SAMPLING)
]
Json = Annotated[bool, _option("--json", help="Print JSON on stdout, for programs.")]
# For listings, in place of Json and Quiet: `--json` and `-q` are short for two of its values.
ListingFormat = Annotated[
    Literal["auto", "human", "json", "jsonl", "quiet"],
    _option(
        "--format",
        metavar=LISTING_METAVAR,
        help="How the list is printed: auto is human on a terminal, and has tabs between columns elsewhere;"
        " quiet is names only. Short: --json, and -q or --quiet.",
    ),
]
Quiet = Annotated[bool, _option("--quiet", "-q", help="Only results and errors.")]
OutputPath = Annotated[
    Path | None, _option("--output", "-o", metavar="FILE", help="Where results are written.")
]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a model's name is resolved; fields are arguments of `hub.models.resolve_model`."""

    revision: Revision = None
    offline: Offline = False


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The options of `EngineConfig`."""

    dtype: Dtype = "auto"
    device: Device = "auto"
    kernels: Kernels = "auto"
    max_model_len: MaxModelLen = None
    max_num_seqs: MaxNumSeqs = _ENGINE.max_num_seqs
    max_num_batched_tokens: MaxNumBatchedTokens = _ENGINE.max_num_batched_tokens
    block_size: BlockSize = _ENGINE.block_size
    kv_cache_memory: KVCacheMemory = None
    kv_cache_dtype: KVCacheDtype = "auto"
    lm_head: LMHead = "auto"
    gpu_memory_utilization: GpuMemoryUtilization = _ENGINE.gpu_memory_utilization
    prefix_caching: PrefixCaching = True
    enforce_eager: EnforceEager = False
    async_scheduling: AsyncScheduling = True
    threads: Threads = None

    def config(self) -> EngineConfig:
        """The engine configuration asked for.

        Raises:
            UsageError: a value is out of range.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["enable_prefix_caching"] = values.pop("prefix_caching")
        values["num_threads"] = values.pop("threads")
        return EngineConfig(**values)


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """The options of `SamplingParams`; None leaves a value to the line, the model or the built-in default."""

    max_tokens: MaxTokens = None
    min_tokens: MinTokens = None
    temperature: Temperature = None
    top_p: TopP = None
    top_k: TopK = None
    min_p: MinP = None
    repetition_penalty: RepetitionPenalty = None
    presence_penalty: PresencePenalty = None
    frequency_penalty: FrequencyPenalty = None
    seed: Seed = None
    stop: Stop = None
    ignore_eos: IgnoreEos = False
    logprobs: Logprobs = None

    def overrides(self) -> dict[str, Any]:
        """The sampling fields that were given, checked before a model is read.

        Raises:
            RequestError: a value is out of range.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        given = {name: value for name, value in values.items() if value is not None and value is not False}
        if not given.get("stop", True):
            del given["stop"]
        if "stop" in given:
            given["stop"] = tuple(given["stop"])
        try:
            SamplingParams(**given)
        except RequestError as error:
            what = _name_flags(error.what, given)
            raise RequestError(what, why=error.why, fix=error.fix, param=error.param) from None
        return given


def _name_flags(message: str, fields: Iterable[str]) -> str:
    """A message with the flags in place of the fields, but for the value that it quotes at its end."""
    says, got, value = message.partition(", got ")
    for field in fields:
        says = re.sub(rf"\b{field}\b", "--" + field.replace("_", "-"), says)
    return says + got + value
