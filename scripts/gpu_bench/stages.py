"""Which stages a check has, in which order, and how much of the time each may take. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Stage:
    """One kind of measurement, in a process of its own.

    Attributes:
        name: "tests:silu_mul" is of the family "tests", which is what `--only` takes.
        module: the module whose `run(session, *arguments)` does it.
        budget_s: seconds of a ten-minute check that it may take.
        silence_s: seconds without a finished case after which it counts as hanging.
        timed: its figures are times, so nothing else may run beside it.
    """

    name: str
    module: str
    budget_s: float
    silence_s: float = 90.0
    timed: bool = True
    arguments: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        return self.name.partition(":")[0]


CORRECTNESS_S = 170.0  # for all stages that are not timed, beside each other
ENGINES = ("llama-3-8b", "llama-2-7b")
ENVIRONMENT = Stage("environment", "scripts.gpu_bench.environment", budget_s=120)


def kernel_stages(dry: bool) -> list[Stage]:
    """The stages of `gpu_check kernels`: first whether everything is right, then how fast it is."""
    return [
        Stage("self_tests", "scripts.gpu_bench.self_tests", budget_s=20),
        Stage("shapes", "scripts.gpu_bench.real_shapes", CORRECTNESS_S, timed=False),
        *_greedy_stages(dry),
        *_test_stages(dry),
        Stage("int4_linear", "scripts.gpu_bench.bench_linear", budget_s=130),
        Stage("attention", "scripts.gpu_bench.bench_attention", budget_s=80),
        Stage("sampling", "scripts.gpu_bench.bench_sampling", budget_s=30),
        Stage("small", "scripts.gpu_bench.bench_small", budget_s=30),
        Stage("repack", "scripts.gpu_bench.bench_repack", budget_s=20),
        Stage(
            "other_int4", "scripts.gpu_bench.bench_linear", budget_s=80, silence_s=180, arguments=("others",)
        ),
    ]


def engine_stages(dry: bool) -> list[Stage]:
    """The stages of `gpu_check engine`: whether all loops say the same, then how fast they are."""
    kinds = ("int4",) if dry else ("bundled", "int4", "float")
    engines = ENGINES[:1] if dry else ENGINES
    loops = "scripts.gpu_bench.engine_loops"
    bench = "scripts.gpu_bench.bench_engine"
    return [
        *(
            Stage(f"loops:{kind}", loops, CORRECTNESS_S, silence_s=180, timed=False, arguments=(kind,))
            for kind in kinds
        ),
        *(Stage(f"engine:{name}", bench, budget_s=150, silence_s=180, arguments=(name,)) for name in engines),
        Stage("load", "scripts.gpu_bench.bench_load", budget_s=90, silence_s=120, arguments=engines[:1]),
    ]


def _greedy_stages(dry: bool) -> list[Stage]:
    """One for each kind of model: most of their time goes into compiling, which takes one core each."""
    kinds = ("bundled", "int4") if dry else ("bundled", "int4", "float", "trained")
    module = "scripts.gpu_bench.greedy_ids"
    return [Stage(f"greedy:{kind}", module, CORRECTNESS_S, timed=False, arguments=(kind,)) for kind in kinds]


def _test_stages(dry: bool) -> list[Stage]:
    """One for each file of tests that runs Triton's kernels; in a dry run a few tests, for pytest's sake."""
    paths = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py"))
    chosen = {path: "triton" for path in paths if "triton" in path.stem or path.stem.endswith("_kernel")}
    if dry:
        chosen = {Path("tests/kernels/test_silu_mul_kernel.py"): "triton and not float64"}
    return [
        Stage(
            f"tests:{path.stem.removeprefix('test_').removesuffix('_kernel')}",
            "scripts.gpu_bench.kernel_tests",
            CORRECTNESS_S,
            timed=False,
            arguments=(path.as_posix(), which),
        )
        for path, which in chosen.items()
    ]
