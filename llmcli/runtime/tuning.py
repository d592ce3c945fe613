"""Tunes the kernels for the GPU at hand: a model's shapes go in, rows of the user's tuning file come out.

Joins the search of `llmcli_kernels.tune` with what is known of the GPU and the model. Every case is on disk as
soon as it is done. Does not print; `cli/tune.py` shows what comes out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcli.errors import EngineError, OutputError, quote
from llmcli.gpu_facts import GpuFacts
from llmcli.model.spec import ModelSpec
from llmcli_kernels.tune.attention_data import AttentionShape
from llmcli_kernels.tune.cases import STANDARD_SHAPES, ModelShape, cases_for
from llmcli_kernels.tune.timing import graph_seconds
from llmcli_kernels.tune.tuner import Case, Timer, Tuned, tune
from llmcli_kernels.tune.user_table import add_row, read_user_table, write_user_table
from llmcli_kernels.tuning import TuningTable, TuningTableError, in_front, load_table


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedCase:
    """What became of one case, as plain values.

    Attributes:
        before_s, after_s: seconds of one call; None where the config is of no use.
        before, after: the configs.
        trials: how many configs were tried.
        wrong: how many of them were thrown out, by reason.
        problem: why the present config is of no use, or empty.
    """

    operation: str
    title: str
    before_s: float | None
    after_s: float | None
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    trials: int
    thrown_out: Mapping[str, int]
    problem: str


class Tuning:
    """Cases that are tuned on one GPU.

    Args:
        file: the user's tuning file; rows of other shapes stay in it.
        on_warning: told what the user should know, in one line.
        timer: seconds of one call.
    """

    def __init__(
        self,
        gpu: GpuFacts,
        file: Path,
        cases: Sequence[Case],
        *,
        on_warning: Callable[[str], None],
        timer: Timer = graph_seconds,
    ) -> None:
        self._gpu, self._file, self._timer = gpu, file, timer
        self._base = load_table(gpu.capability)
        self._user = self._read_file(on_warning)
        self.cases = cases

    def run(self, on_case: Callable[[str], None], on_trial: Callable[[], None]) -> Iterator[TunedCase]:
        """Tune case after case.

        Args:
            on_case: told the title of each case.
            on_trial: called after each config that was tried.

        Raises:
            EngineError: the GPU can not go on.
            OutputError: the file can not be written.
        """
        for case in self.cases:
            on_case(case.title)
            try:
                tuned = tune(case, in_front(self._user, self._base), self._timer, lambda trial: on_trial())
            except RuntimeError as error:
                raise EngineError(
                    f"tuning {case.title}: {quote(str(error).partition(chr(10))[0])}",
                    why="the GPU can not go on in this process; what was found so far is kept",
                    fix="run llmcli tune again",
                ) from None
            self._keep(tuned)
            yield _told(tuned)

    def _read_file(self, on_warning: Callable[[str], None]) -> TuningTable:
        try:
            return read_user_table(self._file, self._base)
        except TuningTableError as error:
            on_warning(f"{quote(str(self._file))} is not used and will be replaced: {quote(str(error))}")
            return TuningTable(self._file.name, {})

    def _keep(self, tuned: Tuned) -> None:
        if tuned.row is None:
            return
        self._user = add_row(self._user, tuned.case.operation, tuned.row)
        about = {
            "gpu": self._gpu.name,
            "triton": self._gpu.triton,
            "cuda": self._gpu.cuda,
            "driver": self._gpu.driver,
        }
        try:
            write_user_table(self._file, about, self._user)
        except OSError as error:
            raise OutputError(f"{quote(str(self._file))} can not be written: {error.strerror}") from None


def cases_of(spec: ModelSpec | None, device: str = "cuda") -> list[Case]:
    """What there is to tune for a model; None stands for widely used ones."""
    return cases_for(STANDARD_SHAPES if spec is None else (shape_of(spec),), device)


def shape_of(spec: ModelSpec) -> ModelShape:
    """The matrices and heads of a model; no matrices where its weights are not in 4 bits."""
    queries = spec.num_heads * spec.head_dim
    return ModelShape(
        linears=(
            (queries + 2 * spec.num_kv_heads * spec.head_dim, spec.hidden_size),
            (spec.hidden_size, queries),
            (2 * spec.intermediate_size, spec.hidden_size),
            (spec.hidden_size, spec.intermediate_size),
        )
        if spec.quantization
        else (),
        group_size=spec.quantization.group_size if spec.quantization else 0,
        attention=AttentionShape(
            num_heads=spec.num_heads, num_kv_heads=spec.num_kv_heads, head_size=spec.head_dim
        ),
    )


def _told(tuned: Tuned) -> TunedCase:
    reasons = [trial.reason.partition(":")[0] for trial in tuned.trials if trial.reason]
    return TunedCase(
        operation=tuned.case.operation,
        title=tuned.case.title,
        before_s=tuned.before.seconds,
        after_s=tuned.after.seconds,
        before=dict(tuned.before.config),
        after=dict(tuned.after.config),
        trials=len(tuned.trials),
        thrown_out={reason: reasons.count(reason) for reason in sorted(set(reasons))},
        problem=tuned.before.reason,
    )
