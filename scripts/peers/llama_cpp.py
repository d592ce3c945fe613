"""llama.cpp on the same model in Q4_0, by its own tools, built here from the source package of llama-cpp-python.

One sequence is measured by llama-bench, several by llama-batched-bench. Neither of them chooses tokens from the
logits.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from scripts.peers.checkpoints import make_checkpoint
from scripts.peers.measure import PROMPTS, Measured
from scripts.peers.place import ROOT, Place, SetupError
from scripts.peers.workload import BenchTest, Kind, Model

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
TOOLS = ("llama-bench", "llama-batched-bench", "llama-quantize")
CMAKE_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "GGML_NATIVE": "ON",
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
}


class LlamaCpp:
    title = "llama.cpp Q4_0"
    kinds: tuple[Kind, ...] = ("prompt", "decode")

    def prepare(self, place: Place, jobs: int) -> None:
        if all(_tool(place, name).exists() for name in TOOLS):
            return
        if shutil.which("cmake") is None:
            raise SetupError("cmake is not there: pip install cmake, and a C++ compiler")
        _unpack(place)
        build = _source(place) / "build"
        options = [f"-D{name}={value}" for name, value in CMAKE_OPTIONS.items()]
        place.run("llama.cpp configure", ["cmake", "-S", _source(place), "-B", build, *options])
        place.run("llama.cpp build", ["cmake", "--build", build, f"-j{jobs}", "--target", *TOOLS])

    def prepare_model(self, place: Place, model: Model) -> None:
        _make_gguf(place, model)

    def missing(self, place: Place, model: Model) -> str:
        if not all(_tool(place, name).exists() for name in TOOLS):
            return "llama.cpp is not built: --setup does it"
        path = place.gguf(model)
        return "" if path.exists() else f"no model at {place.portable(str(path))}: --setup makes it"

    def python(self, place: Place) -> Path:
        return Path(sys.executable)

    def variables(self, place: Place, model: Model, threads: int) -> dict[str, str]:
        return {}

    def load(self, place: Place, model: Model, threads: int) -> "_Loaded":
        return _Loaded(place, model, threads)


class _Loaded:
    """Nothing is loaded: every test is a process of one of the tools, which loads the model by itself."""

    def __init__(self, place: Place, model: Model, threads: int) -> None:
        self._place = place
        self._model = ["-m", str(place.gguf(model)), "-t", str(threads)]
        self.versions = {PACKAGE: VERSION, "file_bytes": place.gguf(model).stat().st_size}

    def measure(self, test: BenchTest) -> Measured:
        if test.batch > 1:
            return parse_batched_bench(self._run("llama-batched-bench", _batched_bench_options(test)))
        return parse_bench(self._run("llama-bench", _bench_options(test)))

    def _run(self, tool: str, options: Sequence[str]) -> str:
        """What the tool writes on stdout; its stderr goes to the worker's log."""
        command = [str(_tool(self._place, tool)), *self._model, *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return str(done.stdout)


def _bench_options(test: BenchTest) -> list[str]:
    if test.kind == "prompt":
        return [*_options(p=test.prompt_tokens, n=0, r=PROMPTS), "-o", "json"]
    return [*_options(p=0, n=test.output_tokens, d=test.prompt_tokens, r=1), "-o", "json"]


def _batched_bench_options(test: BenchTest) -> list[str]:
    context = test.batch * (test.prompt_tokens + test.output_tokens)
    sizes = _options(npp=test.prompt_tokens, ntg=test.output_tokens, npl=test.batch, c=context)
    return [*sizes, "--output-format", "jsonl"]


def _options(**values: int) -> list[str]:
    return [word for name, value in values.items() for word in (f"-{name}", str(value))]


def parse_bench(text: str) -> Measured:
    """Tokens/s out of llama-bench's JSON: one test, all of its repetitions together."""
    (row,) = json.loads(text)
    seconds = [nanoseconds / 1e9 for nanoseconds in row["samples_ns"]]
    tokens = row["n_prompt"] + row["n_gen"]
    more = {"runs_s": seconds, "model_type": row["model_type"], "build": row["build_number"]}
    return Measured(tokens * len(seconds) / sum(seconds), more)


def parse_batched_bench(text: str) -> Measured:
    """Tokens/s of generation out of the one line of JSON that llama-batched-bench writes among others."""
    (row,) = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return Measured(row["pl"] * row["tg"] / row["t_tg"], {"first_s": row["t_pp"], "decode_s": row["t_tg"]})


def _source(place: Place) -> Path:
    return place.folder / "llama.cpp"


def _tool(place: Place, name: str) -> Path:
    return _source(place) / "build" / "bin" / name


def _unpack(place: Place) -> None:
    """The folder vendor/llama.cpp of the source package, in one piece or not at all."""
    if _source(place).exists():
        return
    downloads = place.folder / "downloads"
    options: list[str | Path] = [
        "--no-deps",
        f"--no-binary={PACKAGE}",
        "--progress-bar=off",
        "--dest",
        downloads,
    ]
    place.run(
        "llama.cpp source", [sys.executable, "-m", "pip", "download", *options, f"{PACKAGE}=={VERSION}"]
    )
    unpacked = downloads / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    package = f"{PACKAGE.replace('-', '_')}-{VERSION}"
    with tarfile.open(downloads / f"{package}.tar.gz") as archive:
        archive.extractall(unpacked, filter="data")
    (unpacked / package / "vendor" / "llama.cpp").rename(_source(place))
    shutil.rmtree(unpacked)


def _make_gguf(place: Place, model: Model) -> None:
    """Dense model -> bf16 GGUF -> Q4_0; a large one is made with a single layer, which is then repeated."""
    out = place.gguf(model)
    if out.exists():
        return
    dense = place.dense(model)
    if model.repeat_layer:
        dense = dense.with_name(f"{dense.name}-one-layer")
    make_checkpoint(place, model, dense, layers=1 if model.repeat_layer else None)
    converted, quantized = out.with_suffix(".bf16"), out.with_suffix(".quantized")
    convert, repeat = ROOT / "scripts/peers/convert_gguf.py", ROOT / "scripts/peers/repeat_gguf_layer.py"
    steps: list[list[str | Path]] = [
        [sys.executable, convert, _source(place), dense, "--outtype", "bf16", "--outfile", converted],
        [_tool(place, "llama-quantize"), converted, quantized, "Q4_0", str(os.cpu_count() or 1)],
    ]
    result = quantized
    if model.repeat_layer:
        result = out.with_suffix(".repeated")
        steps.append([sys.executable, repeat, _source(place), quantized, result, str(model.repeat_layer)])
    for step in steps:
        place.run(f"model {out.name}", step)
    result.rename(out)
    for path in (converted, quantized):
        path.unlink(missing_ok=True)
    if model.repeat_layer:
        shutil.rmtree(dense)
