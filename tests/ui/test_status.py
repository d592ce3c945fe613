"""The line of numbers after an answer."""

from llmcli.outputs import RequestStats
from llmcli.ui.status import Totals, context_use, fold, nearly_full, stats_line, table


def test_the_stats_line_tells_speed_counts_cache_and_context() -> None:
    stats = RequestStats(1043, 980, 212, queue_s=0.0, ttft_s=0.21, total_s=0.21 + 211 / 48.3)
    assert stats_line(stats, 8192) == (
        "TTFT 0.21 s · 48.3 tok/s · 212 tok · prompt 1 043 (980 cached) · ctx 1 255/8 192 (15 %)"
    )


def test_a_single_token_has_no_rate_and_no_cache_is_not_mentioned() -> None:
    stats = RequestStats(5, 0, 1, queue_s=0.0, ttft_s=0.5, total_s=0.5)
    assert stats_line(stats, 100) == "TTFT 0.50 s · 1 tok · prompt 5 · ctx 6/100 (6 %)"


def test_the_context_is_nearly_full_from_eighty_percent() -> None:
    assert not nearly_full(79, 100)
    assert nearly_full(80, 100)
    assert context_use(80, 100) == "ctx 80/100 (80 %)"


def test_a_table_aligns_its_values() -> None:
    assert table([("a", "1"), ("long", "2")]) == "a     1\nlong  2"


def test_in_a_window_values_are_wrapped_and_long_labels_stand_above_them() -> None:
    rows = [("/undo [N]", "Take back the last N messages."), ("/export [FILE.md]", "Write."), ("", "")]
    assert table(rows, 36).split("\n") == [
        "/undo [N]     Take back the last N",
        "              messages.",
        "/export [FILE.md]",
        "              Write.",
        "",
    ]
    assert table(rows[:1], 200) == "/undo [N]  Take back the last N messages."


def test_a_context_whose_size_is_not_known_is_never_full() -> None:
    assert context_use(1255, None) == "ctx 1 255"
    assert not nearly_full(10**9, None)


def test_a_line_of_numbers_breaks_between_them() -> None:
    line = "TTFT 0.21 s · 48.3 tok/s · ctx 9/99 (9 %)"
    assert fold(line, 99) == line
    assert fold(line, 30) == "TTFT 0.21 s · 48.3 tok/s\nctx 9/99 (9 %)"
    assert fold(line, 5) == "TTFT 0.21 s\n48.3 tok/s\nctx 9/99 (9 %)"


def test_totals_add_up_and_tell_the_rate_of_decoding() -> None:
    totals = Totals()
    assert dict(totals.rows())["decoding"] == "not known yet"
    totals.add(RequestStats(100, 50, 11, queue_s=0.0, ttft_s=1.0, total_s=2.0))
    totals.add(RequestStats(300, 250, 31, queue_s=0.0, ttft_s=1.0, total_s=4.0))
    totals.add(None)
    assert totals.rows() == [
        ("answers", "3"),
        ("prompt tokens", "400 (75% cached)"),
        ("output tokens", "42"),
        ("time", "6.0 s"),
        ("decoding", "10.0 tok/s"),
    ]
