"""How much processor time other processes have used."""

import contextlib
import os
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Processor time used so far by a process and those under it (proc_pid_stat(5))."""
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # A process may end while it is looked at.
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            each = int(stat.parent.name)
            parents[each], ticks[each] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = {pid}
    while more := {each for each, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks.get(each, 0) for each in family) / os.sysconf("SC_CLK_TCK")
