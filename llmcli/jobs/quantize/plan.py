"""What was asked of `quantize`, checked before a model is looked for.

Knows no torch and no model; `cli/quantize.py` makes it, `jobs/quantize/job.py` does it.
"""

from dataclasses import dataclass
from pathlib import Path

from llmcli.errors import UsageError
from llmcli.jobs.quantize.text import DEFAULT, check_dataset
from llmcli.quantize.shape import GROUP_SIZES, OUTPUT_HEAD, SHARD_BYTES, Grid, Method, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizePlan:
    """What was asked for.

    Attributes:
        calib_samples, calib_seqlen: texts to calibrate on, and tokens of each.
        seed: chooses among texts where there are more.
        dtype: of what stays dense; "auto" is float16, as in the checkpoints of AutoAWQ.
        threads: None is one for each core that the process may use.
        shard_bytes: data of one safetensors file at most.
    """

    out: Path
    method: Method = "awq"
    bits: int = 4
    group_size: int = 128
    zero_point: bool = True
    calib_dataset: str = DEFAULT
    calib_samples: int = 128
    calib_seqlen: int = 512
    eval_dataset: str = DEFAULT
    evaluate: bool = True
    skip: tuple[str, ...] = (OUTPUT_HEAD,)
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    resume: bool = False
    overwrite: bool = False
    shard_bytes: int = SHARD_BYTES

    def __post_init__(self) -> None:
        if self.bits != 4:
            raise UsageError(f"--bits {self.bits} is not supported", fix="supported: 4")
        if self.group_size not in GROUP_SIZES:
            raise UsageError(
                f"--group-size {self.group_size} is not supported",
                fix=f"supported: {', '.join(map(str, GROUP_SIZES))}",
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"--device {self.device} is not known", fix="give auto, cuda or cpu")
        for option, value, least in (
            ("--calib-samples", self.calib_samples, 1),
            ("--calib-seqlen", self.calib_seqlen, 16),
            ("--threads", self.threads, 1),
        ):
            if value is not None and value < least:
                raise UsageError(f"{option} must be at least {least}, got {value}")
        if self.resume and self.overwrite:
            raise UsageError("--resume goes on, --overwrite begins again", fix="give one of them")
        if self.resume and self.method == "autoawq":
            raise UsageError("--method autoawq can not be resumed", fix="begin again with --overwrite")
        check_dataset("--calib-dataset", self.calib_dataset)
        check_dataset("--eval-dataset", self.eval_dataset)

    def recipe(self) -> Recipe:
        dtype = "float16" if self.dtype == "auto" else self.dtype
        skip = tuple(dict.fromkeys([*self.skip, OUTPUT_HEAD]))  # no loader knows a 4-bit head of this form
        return Recipe(self.method, Grid(self.group_size, self.zero_point), skip, dtype)
