"""The batch as a process of its own: `python -m tests.jobs.kill_target IN OUT [die-after NAME]`."""

import os
import signal
import sys
from pathlib import Path

from fam_ext.jobs import make
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.run import run_job
from tests.jobs.fakes import Fast, options


def die_after(name: str) -> None:
    """Let the process die right after the first call of one of a save's steps."""
    place = {"_write_synced": make, "saving": Journal, "replace": os}[name]
    function = getattr(place, name)

    def call(*arguments, **named):
        function(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(place, name, call)


if __name__ == "__main__":
    if "die-after" in sys.argv:
        die_after(sys.argv[-1])
    print("ready", flush=True)
    summary = run_job(options(Path(sys.argv[1]), Path(sys.argv[2]), recursive=True), lambda: Fast(seconds=0.004))
    print(f"done {summary.done} {summary.done_before} {summary.failed}", flush=True)
    sys.exit(summary.exit_code)
