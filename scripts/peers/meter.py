"""How much CPU time other processes took while something was measured, so that a disturbed run can be seen.

Standard library only; the workers of all peers use it.
"""

import os
import time
from pathlib import Path

PROC_STAT = Path("/proc/stat")


class Meter:
    """Counts from its making to `stop`; the process's own children count once they have ended."""

    def __init__(self) -> None:
        self._wall, self._own, self._machine = time.perf_counter(), _own_seconds(), machine_seconds()

    def stop(self) -> dict[str, float | None]:
        """Seconds: wall, own CPU, others' CPU, stolen by the hypervisor; None where the system does not tell."""
        own = _own_seconds() - self._own
        figures: dict[str, float | None] = {
            "wall_s": round(time.perf_counter() - self._wall, 3),
            "own_cpu_s": round(own, 2),
            "other_cpu_s": None,
            "steal_s": None,
        }
        now = machine_seconds()
        if self._machine is not None and now is not None:
            figures["other_cpu_s"] = round(max(0.0, now[0] - self._machine[0] - own), 2)
            figures["steal_s"] = round(now[1] - self._machine[1], 2)
        return figures


def machine_seconds() -> tuple[float, float] | None:
    """CPU seconds that all processes had and that were stolen, since the machine started; None but on Linux.

    The fields of the first line are described in proc_stat(5).
    """
    try:
        user, nice, system, _idle, _wait, irq, soft_irq, steal = map(
            int, PROC_STAT.read_text().split("\n", 1)[0].split()[1:9]
        )
    except OSError:
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + soft_irq) / ticks, steal / ticks


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
