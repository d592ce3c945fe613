"""AWQ by autoawq 0.2.9, for whoever wants its very numbers: an optional package, archived by its authors.

It loads the whole model, shows its own progress and can not be resumed. Knows nothing of our own search; called by
`jobs/quantize/job.py`.
"""

from pathlib import Path

import torch
from torch import Tensor

from llmcli.errors import EngineError, MissingExtraError, UsageError, quote
from llmcli.quantize.shape import Recipe

AT_A_TIME = 16


def require_autoawq(recipe: Recipe) -> None:
    """Refuse what autoawq can not do.

    Raises:
        MissingExtraError: it is not installed, or does not work with what is.
        UsageError: no zero points, or another dtype than float16: it writes nothing else.
    """
    if recipe.dtype != "float16":
        raise UsageError(
            f"--method autoawq writes float16, not {recipe.dtype}",
            fix="leave out --dtype, or use --method awq",
        )
    if not recipe.grid.zero_point:
        raise UsageError("--method autoawq has no --sym", fix="leave out --sym, or use --method awq")
    try:
        import awq  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "--method autoawq needs the package autoawq",
            why=quote(str(error)),
            fix='install it: pip install "llmcli[quantize]", or use --method awq, which needs nothing more',
        ) from None


def quantize_with_autoawq(folder: Path, out: Path, texts: Tensor, recipe: Recipe) -> None:
    """Write the safetensors files of a model, quantized by autoawq, into `out`.

    Args:
        texts: [texts, tokens] int64 to calibrate on.

    Raises:
        EngineError: autoawq failed.
    """
    from awq import AutoAWQForCausalLM

    settings = {
        "zero_point": True,
        "q_group_size": recipe.grid.group_size,
        "w_bit": 4,
        "version": "GEMM",
        "modules_to_not_convert": list(recipe.skip),
    }
    try:
        model = AutoAWQForCausalLM.from_pretrained(
            str(folder), device_map="cpu", torch_dtype=torch.float32, trust_remote_code=False
        )
        model.quantize(
            None,
            quant_config=settings,
            calib_data=texts.tolist(),
            max_calib_samples=len(texts),
            max_calib_seq_len=texts.shape[1],
            n_parallel_calib_samples=AT_A_TIME,
        )
        model.model.half()
        model.save_quantized(str(out))
    except Exception as error:  # of many kinds: it is another program
        raise EngineError(
            f"autoawq failed: {type(error).__name__}: {quote(str(error))}", fix="use --method awq"
        ) from error
