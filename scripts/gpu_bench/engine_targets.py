"""What whole models are meant to reach on an H200, as data; see `targets.py` for how they are judged.

Roofline at batch 1, 4.156 bits a weight and the output head in 16: 0.97 ms a token for Llama-3-8B (1,030 a second),
0.76 ms for Llama-2-7B (1,310 a second). The best published int4 engine on an H100 reaches 42% of it.
"""

from scripts.gpu_bench.targets import Target, at_least, exactly

TOKENS_PER_S = "tokens/s"
VS_FLOAT16_ENGINE = "x our float16"
VS_TRANSFORMERS = "x transformers"
VS_ONE_AT_A_TIME = "x with graphs and one ahead"
CACHED_FIRST_TOKEN = "of a cold first token"
IDLE_US = "µs idle between steps"

_ONE = {"batch": exactly(1), "context": exactly(512)}


def _decode_targets(name: str, floor: float, aim: float) -> tuple[Target, ...]:
    decode = f"{name} int4 decode"
    return (
        Target(decode, TOKENS_PER_S, floor, "batch 1", "half of the roofline", _ONE),
        Target(decode, TOKENS_PER_S, aim, "batch 1, the aim", "63% of the roofline", _ONE),
        Target(decode, VS_FLOAT16_ENGINE, 2.1, "batch 1", "3.85 ideal for the layers alone", _ONE),
        Target(decode, VS_TRANSFORMERS, 8.0, "batch 1", "it is bound by launches", _ONE),
        Target(
            f"{name} int4 prompt",
            VS_FLOAT16_ENGINE,
            0.8,
            "prompts of 2048 tokens and more",
            "dequantising costs 215/M",
            {"tokens": at_least(2048)},
        ),
        Target(
            f"{name} int4 cached prefix",
            CACHED_FIRST_TOKEN,
            0.15,
            "all but the last 8 tokens are cached",
            "16 tokens are computed, not 4096",
            at_most=True,
        ),
        Target(f"{name} int4 idle", IDLE_US, 50.0, "batch 1", "one copy and one launch", at_most=True),
    )


ENGINE_TARGETS: tuple[Target, ...] = (
    *_decode_targets("llama-3-8b", 500.0, 650.0),
    Target(
        "llama-3-8b int4 decode",
        TOKENS_PER_S,
        12_000.0,
        "batch 64, context of 1k",
        "2.77 ms a step are ideal",
        {"batch": exactly(64), "context": exactly(1024)},
    ),
    *_decode_targets("llama-2-7b", 640.0, 830.0),
)
