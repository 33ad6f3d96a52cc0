"""The batch as a process of its own, for the fault test: `python -m tests.jobs.kill_target IN OUT [overwrite]`."""

import sys
from pathlib import Path

from fam_ext.jobs.run import run_job
from tests.jobs.fakes import Fast, options

if __name__ == "__main__":
    print("ready", flush=True)
    summary = run_job(
        options(Path(sys.argv[1]), Path(sys.argv[2]), recursive=True, overwrite="overwrite" in sys.argv),
        lambda: Fast(seconds=0.004),
    )
    print(f"done {summary.done} {summary.done_before} {summary.failed}", flush=True)
    sys.exit(summary.exit_code)
