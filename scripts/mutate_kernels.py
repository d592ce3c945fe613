#!/usr/bin/env python3
"""Break the Triton kernels in known ways, one at a time, and demand that the tests notice.

    python scripts/mutate_kernels.py                    all of kernel_mutations.py, with a table
    python scripts/mutate_kernels.py --only "page"      those with a text in their name

Exits with 1 if one survives. Works on a copy of the tree. The tests of a mutation must pass there before it is made,
and fail afterwards; tests that can not run at all prove nothing and count as survival.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from kernel_mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("kernels", "llmcli", "tests", "pyproject.toml")
PASSED, FAILED = 0, 1  # pytest's exit codes; others mean that tests could not run
WORDS = {PASSED: "SURVIVED", FAILED: "found"}


class Copies:
    """Copies of the tree, one for each job that runs at a time."""

    def __init__(self, folder: Path, count: int) -> None:
        self._free: SimpleQueue[Path] = SimpleQueue()
        for number in range(count):
            copy = folder / str(number)
            copy.mkdir()
            for name in COPIED:
                _copy(ROOT / name, copy / name)
            self._free.put(copy)

    @contextmanager
    def one(self) -> Iterator[Path]:
        copy = self._free.get()
        try:
            yield copy
        finally:
            self._free.put(copy)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    else:
        shutil.copy2(source, target)


def run_tests(tree: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """pytest's exit code and last line, in a copy."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *tests]
    paths = os.pathsep.join(str(path) for path in (tree, tree / "kernels"))
    # Without bytecode, which is told from its source by size and second only: too coarse here.
    env = os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode, lines[-1] if lines else ""


def try_mutation(copies: Copies, mutation: Mutation) -> tuple[int, str, float]:
    """Exit code and last line of the tests with the mutation in, and their seconds."""
    started = time.monotonic()
    with copies.one() as tree:
        path = tree / mutation.file
        whole = path.read_text("utf-8")
        path.write_text(mutation.applied_to(whole), "utf-8")
        try:
            code, line = run_tests(tree, mutation.tests)
        finally:
            path.write_text(whole, "utf-8")
    return code, line, time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="TEXT", default="", help="only mutations with TEXT in their name")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many run at a time")
    options = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if options.only in mutation.name]
    for mutation in chosen:
        mutation.applied_to((ROOT / mutation.file).read_text("utf-8"))  # raises here, before anything runs

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies = Copies(Path(folder), options.jobs)
        if not _untouched_tests_pass(copies, pool, sorted({mutation.tests for mutation in chosen})):
            return 1
        survivors = 0
        for mutation, (code, line, seconds) in zip(
            chosen, pool.map(lambda mutation: try_mutation(copies, mutation), chosen), strict=True
        ):
            survivors += code != FAILED
            print(
                f"{WORDS.get(code, 'NO TESTS RAN'):12} {seconds:5.1f} s  {mutation.name:60} {line}",
                flush=True,
            )
    print(f"{len(chosen)} mutations, {len(chosen) - survivors} found, {survivors} not")
    return 1 if survivors or not chosen else 0


def _untouched_tests_pass(
    copies: Copies, pool: ThreadPoolExecutor, selections: list[tuple[str, ...]]
) -> bool:
    def run(tests: tuple[str, ...]) -> tuple[int, str]:
        with copies.one() as tree:
            return run_tests(tree, tests)

    passed = True
    for tests, (code, line) in zip(selections, pool.map(run, selections), strict=True):
        print(
            f"{'passes' if code == PASSED else 'FAILS':12}          untouched: {' '.join(tests)}: {line}",
            flush=True,
        )
        passed = passed and code == PASSED
    return passed


if __name__ == "__main__":
    sys.exit(main())
