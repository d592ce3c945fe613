#!/usr/bin/env python3
"""Does continuous batching pay? 64 requests of mixed lengths together, the same one after the other, and transformers.

    python scripts/make_random_model.py tinyllama-1.1b --awq --out models/tinyllama-awq
    python scripts/make_random_model.py tinyllama-1.1b --out models/tinyllama
    python scripts/bench_batching.py models/tinyllama-awq --dense models/tinyllama

Prompts are 32 to 256 tokens, answers 64 to 128, from a fixed seed. Rates are output tokens over wall time, prompt
processing included; the decode rates of a single sequence leave it out. Everything runs in one process, one after
the other, so that the ratios hold where the machine's speed drifts. The last line on stdout is JSON.
"""

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from llmcli import LLM, SamplingParams
from llmcli.jobs.environment import environment

Workload = list[tuple[list[int], SamplingParams]]
DECODE_PROMPT, DECODE_TOKENS = 128, 64


def mixed_requests(count: int, vocab: int, seed: int) -> Workload:
    source = random.Random(seed)
    requests = []
    for _ in range(count):
        prompt = [source.randrange(3, vocab) for _ in range(source.randint(32, 256))]
        requests.append(
            (prompt, SamplingParams(temperature=0, max_tokens=source.randint(64, 128), ignore_eos=True))
        )
    return requests


def output_rate(llm: LLM, requests: Workload, together: bool) -> float:
    """Output tokens per second of the whole workload."""
    llm.engine.reset_prefix_cache()
    batches = [requests] if together else [[request] for request in requests]
    started = time.perf_counter()
    for number, batch in enumerate(batches, 1):
        llm.generate([prompt for prompt, _ in batch], [params for _, params in batch], use_tqdm=False)
        if not together and number % 8 == 0:
            say(f"one after the other: {number} of {len(batches)}")
    return sum(params.max_tokens or 0 for _, params in requests) / (time.perf_counter() - started)


def decode_rate(llm: LLM, repeats: int) -> list[float]:
    """Tokens per second after the first one, a single sequence."""
    params = SamplingParams(temperature=0, max_tokens=DECODE_TOKENS + 1, ignore_eos=True)
    rates = []
    for repeat in range(repeats):
        (output,) = llm.generate(
            [list(range(100 + repeat, 100 + repeat + DECODE_PROMPT))], params, use_tqdm=False
        )
        stats = output.outputs[0].stats
        assert stats is not None
        rates.append(stats.tokens_per_s)
    return rates


def transformers_decode_rate(folder: Path, repeats: int, threads: int) -> list[float]:
    """The same with transformers' generate on the dense model in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0

    def seconds(prompt: Any, tokens: int) -> float:
        started = time.perf_counter()
        model.generate(prompt, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        return time.perf_counter() - started

    rates = []
    with torch.inference_mode():
        for repeat in range(repeats):
            prompt = torch.arange(100 + repeat, 100 + repeat + DECODE_PROMPT).unsqueeze(0)
            first = seconds(prompt, 1)
            rates.append(DECODE_TOKENS / (seconds(prompt, DECODE_TOKENS + 1) - first))
    return rates


def say(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what continuous batching gains.")
    parser.add_argument("model", type=Path, help="folder of the AWQ model")
    parser.add_argument("--dense", type=Path, help="folder of the same model in bfloat16, for transformers")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3, help="runs of the decode tests and of the batch")
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()

    llm = LLM(args.model)
    requests = mixed_requests(args.requests, llm.engine.spec.vocab_size, args.seed)
    llm.generate([[5] * 64], SamplingParams(temperature=0, max_tokens=4), use_tqdm=False)

    say("decode, one sequence")
    decode = decode_rate(llm, args.repeats)
    together = []
    for repeat in range(args.repeats):
        say(f"{args.requests} requests together, run {repeat + 1} of {args.repeats}")
        together.append(output_rate(llm, requests, together=True))
    alone = output_rate(llm, requests, together=False)
    result: dict[str, Any] = {
        "environment": environment(llm.engine),
        "requests": args.requests,
        "prompt_tokens": sum(len(prompt) for prompt, _ in requests),
        "output_tokens": sum(params.max_tokens or 0 for _, params in requests),
        "together_tok_s": together,
        "one_after_the_other_tok_s": alone,
        "decode_tok_s": decode,
    }
    median = statistics.median
    print(
        f"together            {median(together):7.1f} tok/s   runs: {', '.join(f'{r:.1f}' for r in together)}"
    )
    print(f"one after the other {alone:7.1f} tok/s   ratio {median(together) / alone:.2f}")
    print(f"decode, batch 1     {median(decode):7.1f} tok/s   runs: {', '.join(f'{r:.1f}' for r in decode)}")
    if args.dense:
        say("transformers, dense bfloat16")
        threads = llm.engine.config.num_threads
        theirs = transformers_decode_rate(args.dense, args.repeats, threads)
        result["transformers_decode_tok_s"] = theirs
        runs = ", ".join(f"{r:.1f}" for r in theirs)
        print(f"transformers, bf16  {median(theirs):7.1f} tok/s   runs: {runs}")
        print(f"decode against transformers: {median(decode) / median(theirs):.2f}")
        print(f"together against transformers: {median(together) / median(theirs):.2f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
