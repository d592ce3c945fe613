"""Native kernels and their surroundings: the cache of code, threads, forks, systems where none of it runs."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from llmcli_kernels import select
from tests.kernels.bounds import assert_close

pytest.importorskip("llvmlite")

from llvmlite import binding

from llmcli_kernels.decoder import no_fusion
from llmcli_kernels.int4_linear import native as int4_native
from llmcli_kernels.int4_linear.native.records import PackedRecords
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.machine import MACHINES
from tests.kernels.test_int4_linear_native import BF16, exact_product, make_linear, make_weight

HERE = "from tests.kernels.test_native_host import *"


@pytest.fixture(autouse=True)
def _native(code_folder: Path) -> None:
    """All of this needs a processor that native kernels run on."""
    try:
        Host(code_folder)
    except RuntimeError as error:
        pytest.skip(str(error))


def product_by(host: Host, seed: int = 3) -> Tensor:
    torch.manual_seed(seed)
    linear = make_linear(host)
    packed = linear.pack_int4(make_weight(64, 256, 128), BF16)
    assert isinstance(packed, PackedRecords)
    return linear(torch.randn(5, 256).to(BF16), packed, None)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_code_comes_from_disk_the_second_time(tmp_path: Path):
    folder = tmp_path / "deep" / "folder"
    expected = product_by(Host(folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    written = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert written
    assert torch.equal(product_by(Host(folder)), expected)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == written


@pytest.mark.parametrize("damage", [b"", b"x" * 10, b"\0" * 5000])
def test_a_damaged_file_is_ignored_and_written_anew(tmp_path: Path, damage: bytes):
    folder = tmp_path / "code"
    expected = product_by(Host(folder))
    good = contents(folder)
    for name, code in good.items():
        (folder / name).write_bytes(damage or code[:-1])
    assert torch.equal(product_by(Host(folder)), expected)
    assert contents(folder) == good


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path):
    tmp_path.chmod(0o777)
    product_by(Host(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_without_a_usable_folder_it_compiles_in_memory(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    expected = product_by(Host(None))
    assert torch.equal(product_by(Host(tmp_path / "file" / "folder")), expected)


def test_avx2_machines_have_no_products_of_bfloat16_pairs():
    assert not MACHINES["avx2"].bfloat16_pairs


def test_an_unknown_processor_is_refused_by_name():
    with pytest.raises(RuntimeError, match="no altivec here"):
        Host(None, "altivec")


def run(program: str) -> str:
    """Standard output of a fresh interpreter that ends well."""
    done = subprocess.run(
        [sys.executable, "-c", f"{HERE}\n{program}"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_llvmlite_the_set_has_torchs_kernels_and_says_why():
    printed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['llvmlite'] = None\n"
            "from llmcli_kernels import select\n"
            "kernels = select('cpu'); print(kernels.name, kernels.trouble())",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    assert printed == "cpu llvmlite is not installed\n"


def test_a_broken_llvmlite_is_told_in_its_own_words(monkeypatch):
    def broken(*_: object) -> None:
        raise OSError("libllvm: invalid ELF header")

    monkeypatch.setattr(binding, "create_mcjit_compiler", broken)
    assert select("cpu").trouble() == "llvmlite does not work here, libllvm: invalid ELF header"


@pytest.mark.parametrize(("system", "processor"), [("Darwin", "arm64"), ("Linux", "aarch64")])
@pytest.mark.parametrize("name", ["cpu", "avx2"])
def test_where_there_are_no_native_kernels_torchs_are_no_trouble(monkeypatch, name, system, processor):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: processor)
    kernels = select("cpu", name)
    assert (kernels.name, kernels.trouble(), kernels.fuse_decoder) == (name, None, no_fusion)


def test_a_processor_without_avx2_is_no_trouble(monkeypatch):
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: {"sse2": True})
    kernels = select("cpu")
    assert (kernels.trouble(), kernels.fuse_decoder) == (None, no_fusion)


def test_kernels_that_fail_their_own_test_are_trouble_in_words(monkeypatch):
    monkeypatch.setattr(int4_native, "SELF_TEST_ERROR", 0.0)
    kernels = select("cpu")
    kernels.pack_int4(make_weight(64, 256, 128), BF16)
    trouble = kernels.trouble()
    assert trouble.startswith("compiled kernels do not work here, the compiled kernel is wrong here: ")


def test_the_torch_set_has_no_native_kernels():
    weight, x = make_weight(64, 256, 128), torch.randn(5, 256).to(BF16)
    torch_set = select("cpu", "torch")
    packed = torch_set.pack_int4(weight, BF16)
    assert not isinstance(packed, PackedRecords)
    assert_close("int4_linear", torch_set.int4_linear(x, packed, None), exact_product(x, weight))


def test_a_fork_computes_the_same():
    printed = run(
        "import os, warnings\n"
        "warnings.simplefilter('ignore')\n"  # newer Pythons warn of every fork with threads
        "torch.set_num_threads(2)\n"
        "linear = make_linear(Host(None))\n"
        "packed = linear.pack_int4(make_weight(640, 256, 128), BF16)\n"
        "x = torch.ones(5, 256, dtype=BF16)\n"
        "expected = linear(x, packed, None)\n"
        "if (child := os.fork()) == 0:\n"
        "    same = all(torch.equal(linear(x, packed, None), expected) for _ in range(20))\n"
        "    os._exit(0 if same else 9)\n"
        "print(os.waitpid(child, 0)[1], torch.equal(linear(x, packed, None), expected))"
    )
    assert printed == "0 True\n"


def test_idle_threads_use_no_time_and_let_the_interpreter_end():
    printed = run(
        "import time\n"
        "torch.set_num_threads(4)\n"
        "product_by(Host(None))\n"
        "time.sleep(0.05)\n"
        "used = time.process_time()\n"
        "time.sleep(0.3)\n"
        "print(time.process_time() - used < 0.05)"
    )
    assert printed == "True\n"
