"""`llmcli quantize`: a dense model in, a 4-bit AWQ model out."""

import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import typer

from llmcli.cli.completion import complete_model
from llmcli.cli.options import Device, Json, ModelOptions, Quiet, Threads, human_number, integer
from llmcli.config import human_bytes
from llmcli.errors import UsageError, quote

if TYPE_CHECKING:
    from llmcli.hub.download import BeforeFetch
    from llmcli.hub.remote import RemoteSnapshot
    from llmcli.hub.settings import HubSettings
    from llmcli.jobs.quantize.job import LayerDone, QuantizeResult
    from llmcli.jobs.quantize.plan import QuantizePlan


_RESUMED_OPTIONS = (
    *("method", "group_size", "calib_dataset", "calib_samples", "calib_seqlen", "eval_dataset"),
    *("seed", "dtype", "device", "threads"),
)


def quantize(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            autocompletion=complete_model,
            help="A dense model: a Hugging Face id (owner/name, owner/name@revision) or a folder.",
        ),
    ],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for the 4-bit model; appears when it is whole."
        ),
    ],
    method: Annotated[
        Literal["awq", "rtn", "autoawq"],
        typer.Option(
            "--method",
            help="awq: scales from calibration text; rtn: rounding only, fast; autoawq: awq by that package.",
        ),
    ] = "awq",
    bits: Annotated[
        int, typer.Option("--bits", parser=integer, metavar="N", help="Bits of a weight: 4.")
    ] = 4,
    group_size: Annotated[
        int,
        typer.Option(
            "--group-size",
            "-g",
            parser=integer,
            metavar="[32|64|128]",
            help="Weights that share a scale; fewer are more exact and take more room.",
        ),
    ] = 128,
    zero_point: Annotated[
        bool,
        typer.Option("--zero-point/--sym", help="A zero point for each group, or zero in the middle of all."),
    ] = True,
    calib_dataset: Annotated[
        str,
        typer.Option(
            "--calib-dataset",
            metavar="default|FILE",
            help="Text to calibrate on: built in, or a .txt or .jsonl file (text, prompt or messages).",
        ),
    ] = "default",
    calib_samples: Annotated[
        int,
        typer.Option("--calib-samples", parser=human_number, metavar="N", help="Texts to calibrate on."),
    ] = 128,
    calib_seqlen: Annotated[
        int,
        typer.Option("--calib-seqlen", parser=human_number, metavar="N", help="Tokens of each of them."),
    ] = 512,
    skip: Annotated[
        str,
        typer.Option(
            "--skip", metavar="NAMES", help="Parts of names of matrices that stay dense, with commas between."
        ),
    ] = "lm_head",
    evaluate: Annotated[
        bool, typer.Option("--eval/--no-eval", help="Measure perplexity before and after.")
    ] = True,
    eval_dataset: Annotated[
        str,
        typer.Option(
            "--eval-dataset",
            metavar="default|FILE",
            help="Text to measure on, which nothing is calibrated on.",
        ),
    ] = "default",
    seed: Annotated[
        int,
        typer.Option(
            "--seed", parser=integer, metavar="N", help="Chooses texts from a dataset that has more of them."
        ),
    ] = 0,
    dtype: Annotated[
        Literal["auto", "float16", "bfloat16", "float32"],
        typer.Option(
            "--dtype", help="Type of what stays dense; auto is float16, which all AWQ loaders take."
        ),
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run was stopped.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin again, and replace DIR when the new model is whole.")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    source: ModelOptions,
) -> None:
    """Turn a dense model into a 4-bit AWQ model.

    One that llmcli, vLLM and transformers load. Works layer by layer: memory for one layer and the texts is enough, on
    a CPU or a GPU. Ctrl-C keeps all layers that are done, for --resume.

    Examples:
        llmcli quantize Qwen/Qwen2.5-0.5B-Instruct -o qwen-awq
        llmcli quantize ./my-model -o my-model-4bit --method rtn --group-size 64
        llmcli quantize ./my-model -o my-model-4bit --calib-dataset chats.jsonl
    """
    from llmcli.jobs.quantize.plan import QuantizePlan

    plan = QuantizePlan(
        out=output,
        method=method,
        bits=bits,
        group_size=group_size,
        zero_point=zero_point,
        calib_dataset=calib_dataset,
        calib_samples=calib_samples,
        calib_seqlen=calib_seqlen,
        eval_dataset=eval_dataset,
        evaluate=evaluate,
        skip=tuple(part.strip() for part in skip.split(",") if part.strip()),
        seed=seed,
        dtype=dtype,
        device=device,
        threads=threads,
        resume=resume,
        overwrite=overwrite,
    )
    _check_before_download(model, plan)

    from llmcli.hub.models import resolve_model

    say = _silent if quiet else _say
    found = resolve_model(
        model,
        revision=source.revision,
        offline=source.offline,
        on_notice=say,
        before_fetch=_check_outline(plan, say),
    )
    result = _run(found, plan, quiet, _resume_command(model, plan, source))
    if as_json:
        print(json.dumps(_as_json(found.name, plan, result)), flush=True)
    else:
        _print_result(result)
    if not quiet:
        folder = shlex.quote(str(output))
        _say(f"chat with it: llmcli chat {folder}; measure its speed: llmcli bench {folder}")


def _check_before_download(model: str, plan: "QuantizePlan") -> None:
    """Refuse now what would fail after a long download."""
    from llmcli.jobs.quantize.folder import check_out, check_place

    parent = plan.out.absolute().parent
    if not parent.is_dir():
        raise UsageError(
            f"-o {quote(str(plan.out))}: the folder {quote(str(parent))} does not exist",
            fix=f"make it first: mkdir -p {shlex.quote(str(parent))}",
        )
    if os.path.isdir(model):
        check_place(plan.out, Path(model))
    check_out(plan.out, resume=plan.resume, overwrite=plan.overwrite)
    if plan.method == "autoawq":
        from llmcli.quantize.autoawq import require_autoawq

        require_autoawq(plan.recipe())


def _check_outline(plan: "QuantizePlan", say: Callable[[str], None]) -> "BeforeFetch":
    """For `resolve_model`: refuse what can not be quantized before its weights are fetched."""
    from llmcli.hub.download import bytes_to_fetch
    from llmcli.hub.outline import outline
    from llmcli.jobs.quantize.job import check_model

    def check(remote: "RemoteSnapshot", settings: "HubSettings") -> None:
        with outline(remote, settings) as folder:
            check_model(str(remote.hub_id), folder, plan)
        say(f"{remote.hub_id} can be quantized; {human_bytes(bytes_to_fetch(remote, settings))} to fetch")

    return check


def _run(found: Any, plan: "QuantizePlan", quiet: bool, again: str) -> "QuantizeResult":
    from llmcli.jobs.quantize.folder import partial_path
    from llmcli.jobs.quantize.job import quantize as run

    with _Display(quiet) as display:
        try:
            return run(found, plan, display.say, display.show_layer)
        except (KeyboardInterrupt, SystemExit):
            if plan.method != "autoawq" and partial_path(plan.out).exists():
                _say(f"stopped; the layers that are done are kept. To go on:\n  {again}")
            raise


def _resume_command(model: str, plan: "QuantizePlan", source: ModelOptions) -> str:
    """The command line that goes on with this plan."""
    from llmcli.jobs.quantize.plan import QuantizePlan

    default = QuantizePlan(out=plan.out)
    words = ["llmcli", "quantize", model, "-o", str(plan.out)]
    for option in _RESUMED_OPTIONS:
        value = getattr(plan, option)
        if value != getattr(default, option):
            words += ["--" + option.replace("_", "-"), str(value)]
    words += ["--skip", ",".join(plan.skip)] if plan.skip != default.skip else []
    words += [] if plan.zero_point else ["--sym"]
    words += [] if plan.evaluate else ["--no-eval"]
    words += ["--revision", source.revision] if source.revision else []
    words += ["--offline"] if source.offline else []
    return shlex.join([*words, "--resume"])


class _Display:
    """How far it is: a bar on a terminal, and a line for each layer; nothing if `quiet`."""

    def __init__(self, quiet: bool) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        from llmcli.ui.console import stderr_console

        console = stderr_console()
        columns = (BarColumn(20), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        bar = not quiet and console.is_terminal
        self._quiet = quiet
        self._bar = Progress(*columns, console=console, transient=True, disable=not bar)
        self._task = self._bar.add_task("starting", total=None)
        self._layers_s: list[float] = []
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        if not self._quiet:
            _say_on(self._bar.console, line)

    def show_layer(self, done: "LayerDone") -> None:
        if self._quiet:
            return
        self._layers_s.append(done.seconds)
        left = sum(self._layers_s) / len(self._layers_s) * (done.total - done.number)
        ahead = f", {_duration(left)} left" if done.number < done.total else ""
        line = f"layer {done.number} of {done.total}: error {done.error:.2%}, {done.seconds:.1f} s{ahead}"
        _say_on(self._bar.console, line)
        following = "last parts" if done.number == done.total else f"layer {done.number + 1} of {done.total}"
        self._bar.update(self._task, completed=done.number, total=done.total, description=following)


def _as_json(name: str, plan: "QuantizePlan", result: "QuantizeResult") -> dict[str, Any]:
    return {
        "model": name,
        "output": str(result.out),
        "method": plan.method,
        "bits": plan.bits,
        "group_size": plan.group_size,
        "zero_point": plan.zero_point,
        "bytes_before": result.bytes_before,
        "bytes_after": result.bytes_after,
        "perplexity_before": result.perplexity_before,
        "perplexity_after": result.perplexity_after,
        "layer_errors": list(result.errors),
        "seconds": round(result.seconds, 3),
    }


def _print_result(result: "QuantizeResult") -> None:
    from rich.table import Table

    from llmcli.ui.console import stdout_console

    table = Table(box=None, pad_edge=False)
    for name in ("", "before", "after", "change"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    before, after = result.bytes_before, result.bytes_after
    table.add_row("weights", human_bytes(before), human_bytes(after), f"{after / before - 1:+.1%}")
    if result.perplexity_before is not None and result.perplexity_after is not None:
        rise = result.perplexity_after / result.perplexity_before - 1
        table.add_row(
            "perplexity", f"{result.perplexity_before:.3f}", f"{result.perplexity_after:.3f}", f"{rise:+.1%}"
        )
    console = stdout_console()
    console.print(table)
    if result.errors:
        worst = max(range(len(result.errors)), key=result.errors.__getitem__)
        console.print(f"largest error: {result.errors[worst]:.2%}, in layer {worst + 1}", soft_wrap=True)
    console.print(f"{quote(str(result.out), 1000)} in {_duration(result.seconds)}", soft_wrap=True)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _say(line: str) -> None:
    from llmcli.ui.console import stderr_console

    _say_on(stderr_console(), line)


def _say_on(console: Any, line: str) -> None:
    from llmcli.ui.notes import Notes

    Notes(console).say(line)


def _silent(_: str) -> None:
    pass
