"""`llmcli bench`: how fast a model runs here."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from llmcli.cli.options import EngineOptions, Json, ModelArgument, ModelOptions, Quiet, human_number
from llmcli.errors import OutputError, UsageError, quote


def _batches(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in str(text).strip("()").split(",") if part.strip())
    except ValueError:
        raise typer.BadParameter(f"must be sizes such as 1,4,8, got {quote(text)}") from None


def bench(
    model: ModelArgument = None,
    *,
    prompt_tokens: Annotated[
        int,
        typer.Option(
            "--prompt-tokens", "-p", parser=human_number, metavar="N", help="Length of the timed prompt."
        ),
    ] = 512,
    output_tokens: Annotated[
        int,
        typer.Option(
            "--output-tokens", "-n", parser=human_number, metavar="N", help="Tokens each sequence generates."
        ),
    ] = 128,
    context: Annotated[
        int,
        typer.Option(
            "--context", "-d", parser=human_number, metavar="N", help="Prompt tokens generation starts from."
        ),
    ] = 128,
    batch: Annotated[
        Any,
        typer.Option(
            "--batch", "-b", parser=_batches, metavar="SIZES", help="Sequences at once, such as 1,4,8,16."
        ),
    ] = "1,4,8,16",
    repeats: Annotated[
        int, typer.Option("--repeats", "-r", parser=human_number, metavar="N", help="Runs of each test.")
    ] = 5,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE", help="Also write the result as JSON to this file."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    source: ModelOptions,
    engine: EngineOptions,
) -> None:
    """Measure prompt processing and generation in tokens per second, against the memory's roofline.

    Examples:

        llmcli bench

        llmcli bench TheBloke/Llama-2-7b-Chat-AWQ -b 1,4,16 --json
    """
    from llmcli.jobs.bench import BenchPlan

    plan = BenchPlan(
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        context_tokens=context,
        batches=batch,
        repeats=repeats,
    )
    config = engine.config()
    if save is not None:
        _check_save(save)

    from llmcli.cli.verdict import before_download
    from llmcli.engine.build import build_engine
    from llmcli.hub.models import resolve_model

    notice = _silent if quiet else _notice
    found = resolve_model(
        model,
        revision=source.revision,
        offline=source.offline,
        on_notice=notice,
        before_fetch=before_download(config, notice),
    )
    built = build_engine(found, config, on_phase=notice, on_warning=_notice)
    result, finished = _measure(built, plan, notice)
    if as_json:
        print(json.dumps(result), flush=True)
    else:
        _print_table(result)
    if save is not None:
        _write(save, result)
    if not finished:
        raise KeyboardInterrupt


def _check_save(save: Path) -> None:
    """Refuse now what would fail after minutes of measuring."""
    folder = save.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"--save {quote(str(save))}: the folder {quote(str(folder))} does not exist")
    if save.is_dir():
        raise UsageError(f"--save {quote(str(save))} is a folder", fix="name a file in it")


def _write(save: Path, result: dict[str, Any]) -> None:
    try:
        save.write_text(json.dumps(result, indent=1) + "\n")
    except OSError as error:
        raise OutputError(f"--save {quote(str(save))} can not be written: {error.strerror}") from None


def _measure(engine: Any, plan: Any, notice: Any) -> tuple[dict[str, Any], bool]:
    """The result so far as JSON, and whether all of the plan was measured (Ctrl-C keeps what is done)."""
    import dataclasses

    from llmcli.jobs.bench import (
        Measurement,
        bytes_per_step,
        peak_gpu_memory,
        peak_memory,
        read_bandwidth,
        run_bench,
    )
    from llmcli.jobs.environment import environment

    measured: list[Measurement] = []
    finished = True
    try:
        for test in run_bench(engine, plan, notice):
            measured.append(test)
    except KeyboardInterrupt:
        if not measured:
            raise
        notice("stopped: the table has what was measured so far")
        finished = False
    # taken now: what follows needs memory that the model does not
    peak, gpu_peak = peak_memory(), peak_gpu_memory(engine)
    notice("measuring the memory's read bandwidth")
    bandwidth = read_bandwidth(engine.config.num_threads, engine.config.device)
    tests = []
    for test in measured:
        share = None if test.weight_bytes_per_s is None else test.weight_bytes_per_s / bandwidth
        tests.append(
            dataclasses.asdict(test)
            | {"name": test.name, "median": test.median, "stdev": test.stdev, "roofline_share": share}
        )
    result = {
        "environment": environment(engine),
        "plan": dataclasses.asdict(plan),
        "read_bandwidth_bytes_per_s": bandwidth,
        "weight_bytes_per_step": bytes_per_step(engine),
        "peak_memory_bytes": peak,
        "peak_gpu_memory_bytes": gpu_peak,
        "finished": finished,
        "tests": tests,
    }
    return result, finished


def _print_table(result: dict[str, Any]) -> None:
    from rich.table import Table

    from llmcli.config import human_bytes
    from llmcli.ui.console import stdout_console

    env = result["environment"]
    table = Table(box=None, pad_edge=False)
    for name in ("test", "batch", "tok/s", "±", "min", "max", "weights", "roofline"):
        table.add_column(name, justify="left" if name == "test" else "right", no_wrap=True)
    for test in result["tests"]:
        rate, share = test["weight_bytes_per_s"], test["roofline_share"]
        table.add_row(
            test["name"],
            str(test["batch"]),
            f"{test['median']:.1f}",
            f"{test['stdev']:.1f}",
            f"{min(test['rates']):.1f}",
            f"{max(test['rates']):.1f}",
            "" if rate is None else f"{rate / 1e9:.1f} GB/s",
            "" if share is None else f"{share:.0%}",
        )
    console = stdout_console()
    console.print(
        f"{quote(env['model'])}: {env['architecture']}, {env['quantization'] or 'dense'}, {env['dtype']},"
        f" {human_bytes(env['weight_bytes'])} of weights",
        soft_wrap=True,
    )
    console.print(_machine_line(env), soft_wrap=True)
    console.print(table)
    on_gpu = result["peak_gpu_memory_bytes"]
    console.print(
        f"read bandwidth {result['read_bandwidth_bytes_per_s'] / 1e9:.1f} GB/s,"
        f" peak memory {human_bytes(result['peak_memory_bytes'])}"
        + ("" if on_gpu is None else f", on the GPU {human_bytes(on_gpu)}"),
        soft_wrap=True,
    )


def _machine_line(env: dict[str, Any]) -> str:
    gpu = env["gpu"]
    if gpu is None:
        return f"{env['cpu']}, {env['threads']} threads, torch {env['torch']}"
    driver = f", driver {gpu['driver']}" if gpu["driver"] else ""
    return f"{gpu['name']}{driver}, CUDA {gpu['cuda']}, Triton {gpu['triton']}, torch {env['torch']}"


def _notice(line: str) -> None:
    from llmcli.ui.console import stderr_console
    from llmcli.ui.notes import Notes

    Notes(stderr_console()).say(line)


def _silent(_: str) -> None:
    pass
