#!/usr/bin/env python3
"""What each way of computing on a CPU costs in accuracy: perplexity and logits against the float32 reference.

    python -m scripts.measure_accuracy [MODEL ...] [--tokens N] [--text FILE] [--json FILE]

Runs a text through each model in each mode, every next token given, through the engine's weights, decoder and paged
cache. All modes of a model see the same weights, 4-bit ones included: what is measured is the arithmetic. Exits with
1 where a mode's perplexity is not within 0.5% of the exact mode's. A MODEL is a name below or a folder; without one
all of MODELS are measured. The reference's logits of a model are kept in memory: tokens · vocabulary · 4 bytes.
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from llmcli.hardware import cpu_name
from scripts.accuracy.measures import (
    EXACT_ERROR_BOUND,
    PERPLEXITY_BOUND,
    Measures,
    broken_bounds,
    compare,
    figures,
)
from scripts.accuracy.teacher_forcing import CHUNK, Mode, TeacherForcing, prompt_rows, read_windows
from scripts.accuracy.variants import FACTOR, NUM_OUTLIERS, Variant
from scripts.tiny_chat_corpus import proper_story, split_stories

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
SAMPLE = DATA / "corpora" / "tinystories_sample_4M.txt"
TINY_CHAT = ROOT / "llmcli" / "assets" / "tiny_chat"
TINY_STORIES = DATA / "models" / "TinyStories-656K"
STORIES = DATA / "models" / "stories260K"

REFERENCE = Mode("reference", "float32")  # the truth
EXACT = Mode("torch", "float32")  # what the others' perplexity is held to
MODES = (
    REFERENCE,
    EXACT,
    Mode("torch", "bfloat16"),
    Mode("cpu", "bfloat16"),
    Mode("cpu", "bfloat16", "int8"),
    Mode("cpu", "bfloat16", "fp8"),
    Mode("cpu", "bfloat16", lm_head="int8"),
    Mode("cpu", "bfloat16", "int8", lm_head="int8"),
    Mode("avx2", "bfloat16", lm_head="int8"),
)
MODELS = (
    Variant("tiny_chat", TINY_CHAT),
    Variant("TinyStories-656K", TINY_STORIES),
    Variant("TinyStories-656K awq", TINY_STORIES, awq=True),
    Variant("stories260K", STORIES),
    Variant("stories260K awq", STORIES, awq=True),
    Variant("tiny_chat outliers", TINY_CHAT, awq=True, outliers=True),
    Variant("TinyStories-656K outliers", TINY_STORIES, awq=True, outliers=True),
)
TOKENS = 10_240
PARTS = ("prompt", "one by one")


@dataclass(frozen=True)
class ModeResult:
    """One mode of one model: how its linear layers are stored, and the measures of each part of the text."""

    mode: Mode
    linear_formats: dict[str, int]
    parts: dict[str, Measures]

    @property
    def whole(self) -> Measures:
        return sum(self.parts.values(), Measures())


def measure_model(folder: Path, modes: Sequence[Mode], windows: Sequence[list[int]]) -> list[ModeResult]:
    """Every mode against the first one."""
    truth = TeacherForcing.load(folder, modes[0])
    reference = [truth.logits(window[:-1]) for window in windows]
    results = [ModeResult(modes[0], truth.linear_formats(), score(windows, reference, reference))]
    for mode in modes[1:]:
        say(f"  {mode.name}")
        model = TeacherForcing.load(folder, mode)
        logits = (model.logits(window[:-1]) for window in windows)
        results.append(ModeResult(mode, model.linear_formats(), score(windows, reference, logits)))
    return results


def score(
    windows: Iterable[list[int]], reference: Iterable[torch.Tensor], logits: Iterable[torch.Tensor]
) -> dict[str, Measures]:
    """The measures of PARTS, over all windows; logits are those of every window's inputs."""
    parts = dict.fromkeys(PARTS, Measures())
    for window, truth, found in zip(windows, reference, logits, strict=True):
        targets, prompt = torch.tensor(window[1:]), prompt_rows(len(window) - 1)
        for part, rows in zip(PARTS, (slice(0, prompt), slice(prompt, None)), strict=True):
            if len(targets[rows]):
                parts[part] += compare(truth[rows], found[rows], targets[rows])
    return parts


def read_passages(path: Path | None) -> list[str]:
    """The lines of a file, or the stories of the sample with their capitals restored, as the models were trained."""
    if path is not None:
        return [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    return [proper_story(story) for story in split_stories(SAMPLE.read_text("utf-8"))]


def broken(results: Sequence[ModeResult]) -> list[str]:
    return broken_bounds({result.mode.name: result.whole for result in results}, EXACT.name)


def table(name: str, results: Sequence[ModeResult]) -> Iterable[str]:
    exact = next(result for result in results if result.mode == EXACT).whole
    yield f"{name}: {exact.tokens:,} tokens"
    heads = ("perplexity", "change", "rel. error", "max error", "top-1", "mean KL", "max KL")
    yield "  ".join([f"{'mode':28}", *(f"{head:>10}" for head in heads), "linear layers"])
    for result in results:
        all_of_it = result.whole
        cells = (
            f"{all_of_it.perplexity:.4f}",
            f"{all_of_it.perplexity / exact.perplexity - 1:+.3%}",
            f"{all_of_it.relative_error:.2e}",
            f"{all_of_it.largest_error:.2e}",
            f"{all_of_it.top1_agreement:.2%}",
            f"{all_of_it.mean_kl:.2e}",
            f"{all_of_it.largest_kl:.2e}",
        )
        formats = ", ".join(f"{count} {form}" for form, count in sorted(result.linear_formats.items()))
        yield "  ".join([f"{result.mode.name:28}", *(f"{cell:>10}" for cell in cells), formats])


def record(name: str, results: Sequence[ModeResult]) -> dict[str, Any]:
    """A model's results, JSON-ready."""
    exact = next(result for result in results if result.mode == EXACT).whole
    modes = [
        {"mode": asdict(result.mode), "linear_formats": result.linear_formats} | figures(result.parts, exact)
        for result in results
    ]
    return {"model": name, "modes": modes, "broken": broken(results)}


def environment(text: Path, tokens: int) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() or None,
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "text": text.name,
        "tokens": tokens,
        "chunk": CHUNK,
        "outliers": {"channels": NUM_OUTLIERS, "factor": FACTOR},
        "bounds": {"perplexity": PERPLEXITY_BOUND, "exact_relative_error": EXACT_ERROR_BOUND},
    }


def chosen(names: Sequence[str]) -> list[Variant]:
    """The variants named, by MODELS or by folder."""
    known = {variant.name: variant for variant in MODELS}
    for name in names:
        if name not in known and not Path(name, "config.json").is_file():
            raise ValueError(f"no model {name!r}: a folder with a config.json, or one of {', '.join(known)}")
    return [known.get(name) or Variant(name, Path(name)) for name in names] or list(MODELS)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the accuracy of the CPU modes.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="name or folder")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of text, for each model")
    parser.add_argument("--text", type=Path, help="instead of the stories of the data folder")
    parser.add_argument("--json", type=Path, help="file for the result")
    args = parser.parse_args(arguments)

    try:
        variants, passages = chosen(args.models), read_passages(args.text)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    records = []
    with tempfile.TemporaryDirectory() as scratch:
        for variant in variants:
            say(variant.name)
            folder = variant.prepare(Path(scratch))
            results = measure_model(folder, MODES, read_windows(folder, passages, args.tokens))
            records.append(record(variant.name, results))
            print(*table(variant.name, results), *broken(results), "", sep="\n", flush=True)
    if args.json:
        result = {"environment": environment(args.text or SAMPLE, args.tokens), "models": records}
        args.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 1 if any(entry["broken"] for entry in records) else 0


if __name__ == "__main__":
    sys.exit(main())
