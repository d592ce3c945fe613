"""4-bit layers with int8 activations: error, one result for every batch and thread count, odd input, the torch path."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from llmcli_kernels import Int4Weight, KernelSet, select
from llmcli_kernels.int4_linear.integer import IntegerInt4Linear
from llmcli_kernels.int4_linear.integer.records import PackedRecords
from tests.kernels.bounds import assert_close

ROWS = (1, 2, 3, 4, 5, 8, 16, 17, 33, 64, 65, 200, 512)
BF16 = torch.bfloat16


def make_weight(n: int, k: int, group_size: int) -> Int4Weight:
    return Int4Weight(
        q=torch.randint(0, 256, (n, k // 2), dtype=torch.uint8),
        zeros=torch.randint(0, 16, (n, k // group_size), dtype=torch.uint8),
        scales=(torch.rand(n, k // group_size) * 0.02 + 0.001).half(),
        group_size=group_size,
    )


def exact_product(x: Tensor, weight: Int4Weight, bias: Tensor | None = None) -> Tensor:
    product = x.double() @ weight.dequantize(torch.float64).T
    return (product if bias is None else product + bias.double()).to(x.dtype)


def make_linear(folder: Path | None = None, machine: str | None = None) -> IntegerInt4Linear:
    torch_set = select("cpu", "torch")
    return IntegerInt4Linear(
        torch_set.pack_int4, torch_set.int4_linear, cache_folder=folder, machine_name=machine
    )


@pytest.fixture(scope="session")
def code_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    folder.chmod(0o700)
    return folder


@pytest.fixture(params=["avx512vnni", "avx2"])
def linear(request: pytest.FixtureRequest, code_folder: Path) -> IntegerInt4Linear:
    """The compiled kernel for each kind of processor that this one can stand in for."""
    linear = make_linear(code_folder, request.param)
    packed = linear.pack_int4(make_weight(8, 128, 128), BF16)
    if not isinstance(packed, PackedRecords):
        pytest.skip(f"{request.param}: {linear.unavailable}")
    return linear


@pytest.fixture
def compiled(code_folder: Path) -> None:
    """For tests of what surrounds the best kernel of this processor: skips where there is none."""
    linear = make_linear(code_folder)
    if not isinstance(linear.pack_int4(make_weight(8, 128, 128), BF16), PackedRecords):
        pytest.skip(f"no compiled kernel: {linear.unavailable}")


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize(("n", "k"), [(8, 128), (24, 384), (64, 2048), (72, 5632), (2560, 2048)])
def test_product_is_close_and_a_row_is_the_same_bits_in_any_batch(
    linear: IntegerInt4Linear, n: int, k: int, group_size: int
):
    weight, x, bias = make_weight(n, k, group_size), torch.randn(512, k).to(BF16), torch.randn(n).to(BF16)
    packed = linear.pack_int4(weight, BF16)
    assert isinstance(packed, PackedRecords)
    together = linear(x, packed, None)
    assert_close("int4_linear_int8", together, exact_product(x, weight))
    assert_close("int4_linear_int8", linear(x, packed, bias), exact_product(x, weight, bias))
    for rows in ROWS:
        assert torch.equal(linear(x[:rows], packed, None), together[:rows])
        assert torch.equal(linear(x[-rows:], packed, None), together[-rows:])


@pytest.mark.parametrize("zero", [0, 15])
def test_zero_points_at_the_ends_are_exact(linear: IntegerInt4Linear, zero: int):
    """Activations that int8 holds exactly: what is left is the rounding of the output."""
    weight = make_weight(72, 256, 64)
    weight = Int4Weight(weight.q, torch.full_like(weight.zeros, zero), weight.scales, 64)
    x = torch.randint(-127, 128, (5, 256)).to(BF16)
    x[:, ::32] = 127
    product = linear(x, linear.pack_int4(weight, BF16), None)
    assert_close("int4_linear_int8_exact", product, exact_product(x, weight))


def test_zero_points_cancel_exactly(linear: IntegerInt4Linear):
    weight = make_weight(64, 256, 128)
    weight = Int4Weight(torch.full_like(weight.q, 0x77), torch.full_like(weight.zeros, 7), weight.scales, 128)
    product = linear(torch.randn(9, 256).to(BF16), linear.pack_int4(weight, BF16), None)
    assert torch.equal(product, torch.zeros(9, 64, dtype=BF16))


def test_a_group_that_spans_the_whole_row_is_split(linear: IntegerInt4Linear):
    weight, x = make_weight(64, 512, 512), torch.randn(3, 512).to(BF16)
    packed = linear.pack_int4(weight, BF16)
    assert isinstance(packed, PackedRecords)
    assert_close("int4_linear_int8", linear(x, packed, None), exact_product(x, weight))


def test_a_few_activations_a_hundred_times_the_others(linear: IntegerInt4Linear):
    weight, x = make_weight(256, 2048, 128), torch.randn(17, 2048)
    x[:, [5, 700, 1500]] *= 100
    product = linear(x.to(BF16), linear.pack_int4(weight, BF16), None)
    assert_close("int4_linear_int8_outliers", product, exact_product(x.to(BF16), weight))


def test_rows_of_zeros_give_the_bias(linear: IntegerInt4Linear):
    x, bias = torch.zeros(3, 128, dtype=BF16), torch.randn(24).to(BF16)
    packed = linear.pack_int4(make_weight(24, 128, 128), BF16)
    assert torch.equal(linear(x, packed, None), torch.zeros(3, 24, dtype=BF16))
    assert torch.equal(linear(x, packed, bias), bias.expand(3, 24))


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e30])
def test_tiny_and_huge_activations(linear: IntegerInt4Linear, size: float):
    weight, x = make_weight(64, 256, 64), (torch.randn(4, 256) * size).to(BF16)
    product = linear(x, linear.pack_int4(weight, BF16), None)
    if size > 2**-100:
        assert_close("int4_linear_int8", product, exact_product(x, weight))
    assert product.isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("rows", [1, 5, 20, 70])
def test_a_row_that_is_not_finite_spoils_all_of_itself_and_nothing_else(
    linear: IntegerInt4Linear, rows: int, bad: float
):
    weight, x = make_weight(136, 256, 64), torch.randn(rows, 256).to(BF16)
    weight.scales[3] = 0
    packed = linear.pack_int4(weight, BF16)
    expected = linear(x, packed, None)
    x[rows // 2, 77] = bad
    product = linear(x, packed, None)
    assert not product[rows // 2].isfinite().any()
    others = torch.arange(rows) != rows // 2
    assert torch.equal(product[others], expected[others])


def test_the_number_of_threads_changes_no_bit(linear: IntegerInt4Linear):
    packed, x, before = (
        linear.pack_int4(make_weight(1000, 1024, 128), BF16),
        torch.randn(40, 1024).to(BF16),
        torch.get_num_threads(),
    )
    results = []
    try:
        for threads in (1, 2, 3, 4, 9, 2):
            torch.set_num_threads(threads)
            results += [linear(x, packed, None) for _ in range(3)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


def test_several_threads_may_call_at_once(linear: IntegerInt4Linear):
    packed = linear.pack_int4(make_weight(640, 1024, 128), BF16)
    inputs = [torch.randn(rows, 1024).to(BF16) for rows in (1, 3, 40, 7) * 5]
    expected = [linear(x, packed, None) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda x: linear(x, packed, None), inputs))
    assert all(torch.equal(result, one) for result, one in zip(results, expected, strict=True))


@pytest.mark.parametrize(("n", "k", "group_size"), [(64, 96, 32), (64, 192, 96), (64, 320, 64)])
def test_sizes_that_do_not_fit_go_to_torch(linear: IntegerInt4Linear, n: int, k: int, group_size: int):
    weight, x = make_weight(n, k, group_size), torch.randn(5, k).to(BF16)
    packed = linear.pack_int4(weight, BF16)
    assert not isinstance(packed, PackedRecords)
    assert_close("int4_linear", linear(x, packed, None), exact_product(x, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_activations_than_bfloat16_are_never_rounded_to_int8(cpu: KernelSet, dtype: torch.dtype):
    weight, x = make_weight(64, 256, 128), torch.randn(5, 256).to(dtype)
    assert_close(
        "int4_linear", cpu.int4_linear(x, cpu.pack_int4(weight, dtype), None), exact_product(x, weight)
    )


def test_weights_packed_for_bfloat16_take_nothing_else(linear: IntegerInt4Linear):
    packed = linear.pack_int4(make_weight(64, 128, 128), BF16)
    with pytest.raises(ValueError, match=r"packed for torch.bfloat16, x is torch.float32"):
        linear(torch.ones(1, 128), packed, None)


def product_by(linear: IntegerInt4Linear, seed: int = 3) -> Tensor:
    torch.manual_seed(seed)
    packed = linear.pack_int4(make_weight(64, 256, 128), BF16)
    assert isinstance(packed, PackedRecords) == (linear.unavailable is None)
    return linear(torch.randn(5, 256).to(BF16), packed, None)


@pytest.mark.usefixtures("compiled")
def test_code_comes_from_disk_the_second_time(tmp_path: Path):
    folder = tmp_path / "deep" / "folder"
    expected = product_by(make_linear(folder))
    (file,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    written = file.stat().st_mtime_ns
    assert torch.equal(product_by(make_linear(folder)), expected)
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize("damage", [b"", b"x" * 10, b"\0" * 5000])
@pytest.mark.usefixtures("compiled")
def test_a_damaged_file_is_ignored_and_written_anew(tmp_path: Path, damage: bytes):
    folder = tmp_path / "code"
    expected = product_by(make_linear(folder))
    (file,) = folder.iterdir()
    good = file.read_bytes()
    file.write_bytes(damage or good[:-1])
    assert torch.equal(product_by(make_linear(folder)), expected)
    assert file.read_bytes() == good
    assert list(folder.iterdir()) == [file]


@pytest.mark.usefixtures("compiled")
def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path):
    tmp_path.chmod(0o777)
    product_by(make_linear(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("compiled")
def test_without_a_usable_folder_it_compiles_in_memory(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    expected = product_by(make_linear(None))
    assert torch.equal(product_by(make_linear(tmp_path / "file" / "folder")), expected)


def test_an_unknown_processor_goes_to_torch_and_says_why():
    linear = make_linear(machine="altivec")
    weight, x = make_weight(64, 256, 128), torch.randn(5, 256).to(BF16)
    product = linear(x, linear.pack_int4(weight, BF16), None)
    assert_close("int4_linear", product, exact_product(x, weight))
    assert "altivec" in (linear.unavailable or "")


def run(program: str) -> str:
    """Standard output of a fresh interpreter that ends well."""
    start = """
import sys, torch
from tests.kernels.test_int4_integer_kernel import BF16, PackedRecords, make_linear, make_weight, product_by
"""
    done = subprocess.run(
        [sys.executable, "-c", start + program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_llvmlite_everything_goes_to_torch():
    printed = run(
        "sys.modules['llvmlite'] = None\n"
        "linear = make_linear()\n"
        "print(product_by(linear).shape[1], linear.unavailable)"
    )
    assert printed.startswith("64 ModuleNotFoundError")


def test_importing_the_kernel_set_does_not_import_llvmlite():
    assert (
        run("from llmcli_kernels import select; select('cpu'); print('llvmlite' in sys.modules)") == "False\n"
    )


@pytest.mark.usefixtures("compiled")
def test_a_fork_computes_the_same():
    printed = run(
        "import os, warnings\n"
        "warnings.simplefilter('ignore')\n"  # newer Pythons warn of every fork with threads
        "torch.set_num_threads(2)\n"
        "linear = make_linear()\n"
        "packed = linear.pack_int4(make_weight(640, 256, 128), BF16)\n"
        "x = torch.ones(5, 256, dtype=BF16)\n"
        "expected = linear(x, packed, None)\n"
        "if (child := os.fork()) == 0:\n"
        "    same = all(torch.equal(linear(x, packed, None), expected) for _ in range(20))\n"
        "    os._exit(0 if same else 9)\n"
        "print(os.waitpid(child, 0)[1], torch.equal(linear(x, packed, None), expected))"
    )
    assert printed == "0 True\n"


@pytest.mark.usefixtures("compiled")
def test_idle_threads_use_no_time_and_let_the_interpreter_end():
    printed = run(
        "import time\n"
        "torch.set_num_threads(4)\n"
        "linear = make_linear()\n"
        "product_by(linear)\n"
        "time.sleep(0.05)\n"
        "used = time.process_time()\n"
        "time.sleep(0.3)\n"
        "print(time.process_time() - used < 0.05)"
    )
    assert printed == "True\n"
