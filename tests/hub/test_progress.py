"""How far a download is, as a person sees it. Bars on a terminal are seen by the tests of `pull`."""

from llmcli.hub.progress import LINE_EVERY_S, DownloadProgress

MIB = 1 << 20


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines_of(steps: list[tuple[float, int]], *, total: int = 100 * MIB, have: int = 0, shown: bool = True):
    """What is said when so many bytes come after so many seconds."""
    clock, said = Clock(), []
    progress = DownloadProgress("ada/model", total, have, said.append, shown=shown, clock=clock)
    with progress, progress.file("model.safetensors", total, have) as on_bytes:
        for seconds, count in steps:
            clock.now += seconds
            on_bytes(count)
    return said


def test_a_pipe_gets_a_line_now_and_then_with_share_speed_and_time_left():
    lines = lines_of([(LINE_EVERY_S, 20 * MIB), (1, 10 * MIB), (LINE_EVERY_S, 70 * MIB)])
    assert lines[0] == "ada/model: 20.0 MiB of 100 MiB (20%), 2.0 MiB/s, 40 s left"
    assert lines[-1] == "fetched 100 MiB in 21 s (4.8 MiB/s)"
    assert len(lines) == 3


def test_what_was_here_before_counts_for_the_share_and_not_for_the_speed():
    lines = lines_of([(LINE_EVERY_S, 10 * MIB), (5, 40 * MIB)], have=50 * MIB)
    assert lines[0] == "ada/model: 60.0 MiB of 100 MiB (60%), 1.0 MiB/s, 40 s left"
    assert lines[-1].startswith("fetched 50.0 MiB in 15 s")


def test_bytes_that_come_again_are_taken_back():
    lines = lines_of([(1, 50 * MIB), (1, -50 * MIB), (1, 100 * MIB)])
    assert lines == ["fetched 100 MiB in 3 s (33.3 MiB/s)"]


def test_long_downloads_are_told_in_minutes_and_hours():
    assert "16:40 left" in lines_of([(LINE_EVERY_S, MIB)], total=101 * MIB)[0]
    assert "2:46:40 left" in lines_of([(LINE_EVERY_S, MIB)], total=1001 * MIB)[0]


def test_a_small_download_and_a_quiet_one_say_nothing():
    assert lines_of([(99, 1000)], total=1000) == []
    assert lines_of([(99, 50 * MIB)], shown=False) == []
