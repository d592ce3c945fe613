#!/usr/bin/env python3
"""Compile every Triton kernel for GPUs that need not be here, and count the instructions of its inner loop.

    python scripts/count_instructions.py                            all architectures, against the checked-in table
    python scripts/count_instructions.py --arch sm_90 --only skinny --opcodes
    python scripts/count_instructions.py --write                    makes the checked-in table anew

A memory-bound kernel may spend only so many instructions on each weight or byte before issuing them, not the
memory, sets its speed; this counts them without a GPU. What is compiled: the `aot_variants` of every module of
kernels, with the checked-in tuning tables. It fails where a variant does not compile, spills registers, wants
more shared memory than a block has, or needs more thread-instructions per unit than the table says; figures are
comparable within one version of Triton only, so with another one than the table's they are shown, not compared.
"""

import argparse
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sass
from instruction_table import SHARED_MEMORY, Figures, Recorded, Result, complaints, read_table, write_table

if TYPE_CHECKING:
    from llmcli_kernels.aot import AotVariant

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "instructions.json"
WARP = 32


def find_variants(arch: str) -> "list[AotVariant]":
    """What all modules of kernels want compiled for an architecture; one that is there twice, once.

    Raises:
        ValueError: different variants have the same name.
    """
    from llmcli_kernels import tuning

    number = arch.removeprefix("sm_")
    capability = (int(number[:-1]), int(number[-1]))
    table = tuning.load_table(capability)
    found: dict[str, AotVariant] = {}
    for module in kernel_modules():
        for variant in module.aot_variants(capability, table):
            if found.setdefault(variant.name, variant) != variant:
                raise ValueError(f"{arch}: two different variants are called {variant.name!r}")
    return list(found.values())


def kernel_modules() -> Iterator[Any]:
    """Every module of llmcli_kernels that has `aot_variants`."""
    import llmcli_kernels

    for found in pkgutil.walk_packages(llmcli_kernels.__path__, "llmcli_kernels."):
        if found.name.rpartition(".")[2].startswith("triton_"):
            module = importlib.import_module(found.name)
            if hasattr(module, "aot_variants"):
                yield module


def measure(arch: str, variant: "AotVariant") -> Result:
    """Compile one variant; look at its machine code where a figure is kept."""
    loop: Counter[str] = Counter()
    per_unit, spilling = None, 0
    try:
        compiled = compile_variant(arch, variant)
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(compiled.asm["cubin"])
            file.flush()
            usage = sass.resources(run_tool("cuobjdump", "-res-usage", file.name))
            if variant.unit is not None:
                lines = run_tool("nvdisasm", "-c", file.name).splitlines()
                loop, spilling = sass.inner_loop(lines), sass.num_spills(lines)
                per_unit = round(loop.total() * variant.num_warps * WARP / variant.work, 2)
    except Exception as error:  # whatever the compiler raises is the result
        return Result(arch, variant.name, None, failure=_last_line(error))
    figures = Figures(
        unit=variant.unit,
        per_unit=per_unit,
        registers=usage["REG"],
        shared_memory=compiled.metadata.shared,
        spills=usage["STACK"] + usage["LOCAL"] + spilling,
    )
    return Result(arch, variant.name, figures, loop)


def compile_variant(arch: str, variant: "AotVariant") -> Any:
    """Pointers and integers are multiples of 16, as at run time, but those that the variant or the kernel excepts."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = variant.kernel.arg_names
    given = [*variant.signature, *variant.constants]
    if sorted(given) != sorted(names):
        wrong = sorted(name for name in {*given, *names} if given.count(name) != names.count(name))
        raise ValueError(
            f"each argument is to have a type or a value, and these have not: {', '.join(wrong)}"
        )
    signature = {name: variant.signature.get(name, "constexpr") for name in names}
    general = {*variant.not_divisible, *(arg.name for arg in variant.kernel.params if arg.do_not_specialize)}
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, (name, kind) in enumerate(signature.items())
        if name not in general and re.fullmatch(r"\*.*|[iu]\d+", kind)
    }
    source = ASTSource(
        fn=variant.kernel, signature=signature, constexprs=dict(variant.constants), attrs=attributes
    )
    options = {
        "num_warps": variant.num_warps,
        "num_stages": variant.num_stages,
        "enable_fp_fusion": True,  # as at run time; some versions warn where nobody says
    }
    target = GPUTarget("cuda", int(arch.removeprefix("sm_")), WARP)
    return triton.compile(source, target=target, options=options)


def run_tool(name: str, *args: str) -> str:
    """What a tool inside the triton wheel prints."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([tool, *args], capture_output=True, text=True, check=True).stdout


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:200] if lines else ''}"


def run_all(jobs: "list[tuple[str, AotVariant]]", num_processes: int) -> Iterator[Result]:
    """Results in order. A compiler that dies takes its process with it, so those are tried again alone."""
    with _pool(jobs, num_processes) as pool:
        waiting = [pool.submit(_measure_job, index) for index in range(len(jobs))]
        for index, future in enumerate(waiting):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield _measure_alone(jobs, index)


def _measure_alone(jobs: "list[tuple[str, AotVariant]]", index: int) -> Result:
    arch, variant = jobs[index]
    try:
        with _pool(jobs, 1) as pool:
            return pool.submit(_measure_job, index).result()
    except BrokenProcessPool:
        return Result(arch, variant.name, None, failure="the compiler died")


def _pool(jobs: "list[tuple[str, AotVariant]]", num_processes: int) -> ProcessPoolExecutor:
    """Kernels can not be sent to another process, so the processes are forks that have them already."""
    return ProcessPoolExecutor(num_processes, get_context("fork"), _Jobs.remember, (jobs,))


class _Jobs:
    """What a worker process works on."""

    jobs: "tuple[tuple[str, AotVariant], ...]" = ()

    @classmethod
    def remember(cls, jobs: "list[tuple[str, AotVariant]]") -> None:
        cls.jobs = tuple(jobs)


def _measure_job(index: int) -> Result:
    return measure(*_Jobs.jobs[index])


def print_line(result: Result, width: int, with_opcodes: bool) -> None:
    """One line of the table; names are `width` wide."""
    figures = result.figures
    if figures is None:
        print(f"{result.arch:6} {result.name:{width}} {result.failure}", flush=True)
        return
    per_unit = "" if figures.per_unit is None else f"{figures.per_unit:6.2f} per {figures.unit}"
    spills = f"  SPILLS {figures.spills}" if figures.spills else ""
    print(
        f"{result.arch:6} {result.name:{width}} {per_unit:19} {figures.registers:4} registers"
        f" {figures.shared_memory / 1024:6.1f} KiB shared{spills}",
        flush=True,
    )
    if with_opcodes:
        counts = (f"{name} {count}" for name, count in result.opcodes.most_common(14))
        print(f"       {result.opcodes.total()} in the loop: {', '.join(counts)}", flush=True)


def recorded_figures(path: Path, version: str) -> Recorded | None:
    """The table's figures, or None (with a word why) where they are of another Triton."""
    of_version, figures = read_table(path)
    if of_version == version:
        return figures
    print(
        f"{path.name} is of Triton {of_version} and this is {version}: figures are not compared; that all"
        " compiles, spills nothing and fits into shared memory is checked"
    )
    return None


def parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--arch", action="append", choices=list(SHARED_MEMORY), help="may be repeated; default: all"
    )
    parser.add_argument("--only", metavar="TEXT", help="only variants with TEXT in their name")
    parser.add_argument("--opcodes", action="store_true", help="show what the inner loops consist of")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--table", type=Path, default=TABLE, help="checked-in figures, default: %(default)s")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="compare with the table (the default)")
    what.add_argument("--write", action="store_true", help="write the table")
    chosen = parser.parse_args(args)
    if chosen.write and chosen.only:
        parser.error("--write needs all variants of an architecture, so it goes without --only")
    return chosen


def main(args: list[str] | None = None) -> int:
    options = parse(args)
    os.environ.pop("TRITON_INTERPRET", None)  # what is imported under it can not be compiled
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        import triton

        archs = options.arch or list(SHARED_MEMORY)
        jobs = [(arch, variant) for arch in archs for variant in find_variants(arch)]
        jobs = [job for job in jobs if not options.only or options.only in job[1].name]
        width = max((len(variant.name) for _, variant in jobs), default=0)
        results = []
        for result in run_all(jobs, options.jobs):
            print_line(result, width, options.opcodes)
            results.append(result)
    recorded = None
    if options.write:
        write_table(options.table, triton.__version__, results)
    else:
        recorded = recorded_figures(options.table, triton.__version__)
    wrong = complaints(results, recorded, complete=not options.only)
    for sentence in wrong:
        print(f"error: {sentence}", file=sys.stderr)
    print(f"{len(results)} variants with Triton {triton.__version__}, {len(wrong)} complaints")
    return 1 if wrong or not results else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "kernels"))
    sys.exit(main())
