"""`scripts/bench_peers`: how fast is llmcli beside other systems on this machine?

    scripts/bench_peers --setup [--models M,..] [--peers P,..]
    scripts/bench_peers [--models M,..] [--peers P,..] [--tests T,..] [--rounds N] [--out FILE] [--quick]

Owns the arguments and ties the parts together. Exit code: 0; 1 when nothing could be measured, or a step of the setup
failed; 2 wrong usage; 130 interrupted, with what was measured until then printed and written.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from llmcli.hardware import read_hardware_facts
from scripts.peers.peers import PEERS
from scripts.peers.place import ROOT, Place, SetupError, say
from scripts.peers.result import Result, usual_path
from scripts.peers.rounds import Outcome, Worker, run_round
from scripts.peers.tables import lines
from scripts.peers.worker_process import WorkerProcess
from scripts.peers.workload import MODELS, TESTS, BenchTest, Kind, Model

DEFAULT_WORK = Path("~/.cache/llmcli-peers")
# Variables of the user that would change how a peer runs; workers do not get them.
TUNING = ("LLMCLI_", "VLLM_", "OMP_", "KMP_", "GOMP_", "MKL_")


def main() -> int:
    options = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the peers' processes are ended in any case
    place = Place(options.work.expanduser().resolve())
    models = [MODELS[name] for name in options.models]
    if options.setup:
        return set_up(place, models, options.peers, options.threads)
    tests = [TESTS[name].quick() if options.quick else TESTS[name] for name in options.tests]
    path = None if options.quick and options.out is None else options.out or usual_path()
    kept = {"rounds": options.rounds, "threads": options.threads, "quick": options.quick}
    result = Result(path, place, kept, tests)
    interrupted = False
    try:
        for model in models:
            measure_model(model, place, options, tests, result)
    except KeyboardInterrupt:
        say("interrupted; what was measured so far:")
        interrupted = True
    else:
        result.finish()
    document = result.document()
    print("\n".join(lines(document)))
    if path is not None:
        say(f"written to {path}")
    measured = any("value" in row for model in document["models"].values() for row in model["measurements"])
    return 130 if interrupted else int(not measured)


def set_up(place: Place, models: Sequence[Model], peers: Sequence[str], jobs: int) -> int:
    """Everything that is missing; where something fails that is told, and the other peers are set up all the same."""
    (place.folder / "models").mkdir(parents=True, exist_ok=True)
    failed = []
    for name in peers:
        say(f"setting up {PEERS[name].title}")
        try:
            PEERS[name].prepare(place, jobs)
            for model in models:
                if name in model.peers:
                    PEERS[name].prepare_model(place, model)
        except (SetupError, OSError) as error:
            say(f"failed: {error}")
            failed.append(PEERS[name].title)
    say(f"not set up: {', '.join(failed)}" if failed else f"all is in {place.folder}")
    return int(bool(failed))


def measure_model(
    model: Model, place: Place, options: argparse.Namespace, tests: Sequence[BenchTest], result: Result
) -> None:
    """All rounds of one model."""
    result.add_model(model)
    peers: dict[str, Sequence[Kind]] = {}
    for name in options.peers:
        reason = PEERS[name].missing(place, model) if name in model.peers else "not measured with this model"
        if reason:
            say(f"{model.name}: {PEERS[name].title} is left out: {reason}")
            result.leave_out(model, name, reason)
        else:
            peers[name] = [kind for kind in PEERS[name].kinds if kind in model.kinds]
    for number in range(1, options.rounds + 1 if peers else 1):
        result.add_bandwidth(model, number, read_bandwidth(options.threads))
        start = _starter(model, place, options.threads)
        with closing(run_round(number, tests, peers, start)) as outcomes:
            for outcome in outcomes:
                result.add(model, outcome)
                say(f"{model.name}, round {number} of {options.rounds}: {_told(outcome)}")


def read_bandwidth(threads: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "scripts.peers.bandwidth", str(threads)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def _starter(model: Model, place: Place, threads: int) -> Callable[[str], tuple[Worker, dict[str, Any]]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(TUNING)}

    def start(name: str) -> tuple[Worker, dict[str, Any]]:
        peer = PEERS[name]
        variables = peer.variables(place, model, threads) | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        command = [str(peer.python(place)), "-m", "scripts.peers.worker", name, model.name]
        command += ["--work", str(place.folder), "--threads", str(threads)]
        started = time.monotonic()
        worker = WorkerProcess(command, inherited | variables, place.log(f"{name} {model.name}"))
        return worker, {"seconds": round(time.monotonic() - started, 2), "versions": worker.versions}

    return start


def _told(outcome: Outcome) -> str:
    answer = outcome.answer
    if "error" in answer:
        return f"{PEERS[outcome.peer].title}, {outcome.test}: failed: {answer['error']}"
    if outcome.test == "start":
        return f"{PEERS[outcome.peer].title} ready after {answer['seconds']:.1f} s"
    unit = TESTS[outcome.test].unit
    return f"{PEERS[outcome.peer].title}, {outcome.test}: {answer['value']:.2f} {unit}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench_peers", description="Measure llmcli beside other systems on this machine."
    )
    parser.add_argument("--setup", action="store_true", help="build, install and make what is missing")
    for option, known in (("models", MODELS), ("peers", PEERS), ("tests", TESTS)):
        parser.add_argument(
            f"--{option}", type=_some_of(known), default=list(known), help=f"some of {','.join(known)} (all)"
        )
    parser.add_argument("--rounds", type=_count, default=3, metavar="N", help="of all tests (3)")
    parser.add_argument(
        "--threads",
        type=_count,
        default=read_hardware_facts().num_cores,
        metavar="N",
        help="of each peer (all cores)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=DEFAULT_WORK,
        metavar="DIR",
        help=f"for all that is heavy ({DEFAULT_WORK})",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the JSON result (benchmarks/cpu-peers-DATE.json; none with --quick)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few tokens only: does it run? Figures mean nothing"
    )
    return parser.parse_args()


def _some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return [name for name in known if name in names]

    return parse


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"must be a number in 1..1024, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
