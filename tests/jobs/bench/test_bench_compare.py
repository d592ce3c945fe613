"""Comparing two results: what pairs, what is noise, what is refused, and the plot of it."""

from pathlib import Path
from typing import Any

import pytest

from llmcli.errors import UsageError
from llmcli.jobs.bench.compare import Comparison, compare
from llmcli.jobs.bench.plot import check_plot, plot_comparison, plot_sweep
from llmcli.jobs.bench.result import Header, Row, document

ENVIRONMENT: dict[str, Any] = {
    "model": "org/m",
    "revision": "abc",
    "architecture": "LlamaForCausalLM",
    "quantization": "awq",
    "dtype": "bfloat16",
    "cpu": "A CPU",
    "cores": 2,
    "memory_bytes": 8 << 30,
    "device": "cpu",
    "gpu": None,
    "threads": 2,
    "llmcli": "1.0",
}
FAST, SLOW = (100.0, 101.0, 99.0), (80.0, 81.0, 79.0)


def result(*rows: Row, **environment: Any) -> dict[str, Any]:
    header = Header(kind="quick", plan={}, environment=ENVIRONMENT | environment)
    return document(header, rows, finished=True)


def rate(samples: tuple[float, ...], test: str = "tg128", batch: int | None = 1) -> Row:
    return Row(test=test, batch=batch, unit="tok/s", samples=samples)


def verdict(before: Row, after: Row) -> str:
    [pair] = compare(result(before), result(after)).pairs
    return pair.verdict


def test_a_faster_rate_and_a_shorter_time_are_both_faster() -> None:
    assert verdict(rate(SLOW), rate(FAST)) == "faster"
    assert verdict(rate(FAST), rate(SLOW)) == "slower"
    slow, fast = (Row(test="latency", unit="s", samples=times) for times in ((2.0, 2.1), (1.0, 1.1)))
    assert verdict(slow, fast) == "faster"
    [pair] = compare(result(slow), result(fast)).pairs
    assert pair.speed is not None
    assert 1.5 < pair.speed.value < 2.5


def test_what_the_runs_can_not_tell_apart_is_within_the_noise() -> None:
    assert verdict(rate((100.0, 90.0, 110.0)), rate((101.0, 92.0, 111.0))) == "within the noise"


def test_one_run_has_no_interval_and_no_run_no_ratio() -> None:
    assert verdict(rate((100.0,)), rate(FAST)) == "one run"
    assert verdict(rate(()), rate(FAST)) == "no runs"


def test_rows_pair_by_test_and_batch_in_the_order_of_the_first() -> None:
    before = result(rate(FAST, "a"), rate(FAST, "b", 1), rate(FAST, "b", 8))
    after = result(rate(FAST, "b", 8), rate(FAST, "c"), rate(FAST, "a"))
    found = compare(before, after)
    assert [pair.before.key for pair in found.pairs] == [("a", 1), ("b", 8)]
    assert (found.only_before, found.only_after) == (("b at batch 1",), ("c at batch 1",))


def test_results_without_a_common_test_are_refused_with_their_tests() -> None:
    with pytest.raises(UsageError, match="have no test in common") as caught:
        compare(result(rate(FAST, "a")), result(rate(FAST, "b")))
    assert caught.value.why == "a at batch 1; b at batch 1"


@pytest.mark.parametrize(
    ("change", "force", "told"),
    [
        ({"model": "org/other"}, "model", "model: org/m and org/other"),
        ({"revision": "def"}, "model", "revision: abc and def"),
        ({"quantization": None}, "model", "quantization: awq and none"),
        ({"dtype": "float32"}, "dtype", "dtype: bfloat16 and float32"),
        ({"cpu": "B"}, "machine", "cpu: A CPU and B"),
        ({"memory_bytes": 16 << 30}, "machine", "memory_bytes: 8589934592 and 17179869184"),
        ({"gpu": {"name": "H200"}, "device": "cuda"}, "machine", "device: cpu and cuda; gpu: none and H200"),
    ],
)
def test_what_must_be_the_same_is_refused_unless_its_name_is_given(
    change: dict[str, Any], force: str, told: str
) -> None:
    before, after = result(rate(FAST)), result(rate(FAST), **change)
    with pytest.raises(UsageError, match=f"before and after differ in {force}") as caught:
        compare(before, after)
    assert caught.value.why == told
    assert caught.value.fix.endswith(f"--force {force}")
    forced = compare(before, after, force=[force])
    assert "; ".join(forced.differences) == told


def test_every_kind_of_difference_has_to_be_named() -> None:
    before, after = result(rate(FAST)), result(rate(FAST), model="x", dtype="y")
    with pytest.raises(UsageError, match="differ in dtype") as caught:
        compare(before, after, force=["model"])
    assert caught.value.fix.endswith("--force model,dtype")
    assert len(compare(before, after, force=["model", "dtype"]).pairs) == 1
    with pytest.raises(UsageError, match="--force takes model, dtype, machine, got all"):
        compare(before, after, force=["all"])


def test_what_people_compare_for_is_told_and_not_refused() -> None:
    found = compare(result(rate(FAST)), result(rate(FAST), llmcli="1.1", threads=4))
    assert found.differences == ("llmcli: 1.0 and 1.1", "threads: 2 and 4")


def test_another_plan_is_told() -> None:
    before, after = ({**result(rate(FAST)), "plan": {"seed": seed, "repeats": 5}} for seed in (0, 1))
    assert compare(before, after).differences == ("seed: 0 and 1",)


def test_a_little_more_memory_is_the_same_machine() -> None:
    compare(result(rate(FAST)), result(rate(FAST), memory_bytes=(8 << 30) + (20 << 20)))


@pytest.mark.parametrize(
    ("before", "after", "tolerance", "slower"),
    [
        (FAST, SLOW, 0.05, True),
        (FAST, SLOW, 0.25, False),  # 20 % slower, and 25 % are allowed
        (SLOW, FAST, 0.0, False),
        ((100.0, 50.0, 150.0), (90.0, 40.0, 140.0), 0.05, False),  # noise
        ((100.0,), (80.0,), 0.05, True),  # one run: by the ratio alone
        ((100.0,), (97.0,), 0.05, False),
    ],
)
def test_slower_is_what_is_beyond_the_tolerance_and_not_noise(
    before: tuple[float, ...], after: tuple[float, ...], tolerance: float, slower: bool
) -> None:
    [pair] = compare(result(rate(before)), result(rate(after))).pairs
    assert pair.is_slower(tolerance) is slower


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def comparison() -> Comparison:
    before = result(rate(FAST, "pp$512$"), rate(FAST, "tg128", 8), rate((1.0,), "tg128", 32), rate((), "x"))
    after = result(rate(SLOW, "pp$512$"), rate(FAST, "tg128", 8), rate((2.0,), "tg128", 32), rate((), "x"))
    return compare(before, after)


def test_a_comparison_is_drawn_with_a_row_for_each_test(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_comparison(comparison(), ("a.json", "b.json"), tmp_path / "few.png")
    many = result(*(rate(FAST, f"test{i}") for i in range(20)))
    plot_comparison(compare(many, many), ("a.json", "b.json"), tmp_path / "many.png")
    (width, few), (same, more) = png_size(tmp_path / "few.png"), png_size(tmp_path / "many.png")
    assert width == same
    assert more > 2 * few


def test_a_sweep_is_drawn_also_with_a_single_point_or_none(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    point = {"test": "pp8+tg4", "B": 1, "S_TG": 5.0}
    for tests in ([point], [point, point | {"B": 8, "S_TG": 9.0}], [point | {"S_TG": None}]):
        plot_sweep(tests, "a model", tmp_path / "sweep.png")
        assert png_size(tmp_path / "sweep.png")[0] > 500


def test_a_plot_that_can_not_be_is_refused_early(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must name a \.png file"):
        check_plot(tmp_path / "x.svg")
    with pytest.raises(UsageError, match="its folder does not exist"):
        check_plot(tmp_path / "none" / "x.png")
