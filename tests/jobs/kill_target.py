"""The batch in processes to kill: `python -m tests.jobs.kill_target` forks one for each line "IN<tab>OUT[<tab>NAME]".

It prints the child's number, then its exit code. A child runs the job; with a NAME it dies right after that step of
a save, or whenever it would draw or read a poison picture.
Forking from a process that has imported everything leaves the time to the job itself.
"""

import os
import signal
import sys
from pathlib import Path

from PIL import Image

from fam_ext.jobs import make
from fam_ext.jobs.contract import Progress, Rendered
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.run import run_job
from fam_ext.options.request import HiresRequest
from tests.jobs.fakes import Fast, options


def die_after(name: str) -> None:
    """Let the process die right after the first call of one of a save's steps."""
    place = {"_write_synced": make, "saving": Journal, "replace": os}[name]
    function = getattr(place, name)

    def call(*arguments, **named):
        function(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(place, name, call)


class Poison(Fast):
    """Its process dies with a picture whose prompt says so."""

    def render(self, image: Image.Image, request: HiresRequest, progress: Progress) -> Rendered:
        if "poison" in request.prompt:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().render(image, request, progress)


def poison_reading() -> None:
    """Let the process die while it decodes a picture whose prompt says "poison"."""
    load = make.load

    def call(item: Item, *more):
        if item.request is not None and "poison" in item.request.prompt:
            os.kill(os.getpid(), signal.SIGKILL)
        return load(item, *more)

    make.load = call


def job(source: str, output: str, name: str = "") -> int:
    renderer = Poison if name == "draw" else lambda: Fast(seconds=0.004)
    if name == "read":
        poison_reading()
    elif name not in ("", "draw"):
        die_after(name)
    return run_job(options(Path(source), Path(output), recursive=True), renderer).exit_code


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = job(*line.rstrip("\n").split("\t"))
            finally:
                os._exit(code)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
