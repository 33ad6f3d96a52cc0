"""The `fam-hires` command. Planning and help import no torch; a model is loaded when the first picture needs it."""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from fam_ext import __version__
from fam_ext.cli import compare, inspect, model, report, samplers, trial, upscale
from fam_ext.cli.bench import bench_app
from fam_ext.cli.presets import presets_app
from fam_ext.cli.progress import Interrupted, clock, handling, interrupted, silence, stopping_signals
from fam_ext.errors import FamError, OutputError, RenderError
from fam_ext.escapes import shown
from fam_ext.terminal import PlainFormatter, say

app = typer.Typer(
    name="fam-hires",
    help="Pictures at 2x to 4x a Stable Diffusion model's size, by FAM Diffusion (CVPR 2025).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command()(upscale.upscale)
app.command("try")(trial.try_presets)
app.command()(model.generate)
app.command()(compare.compare)
app.command()(inspect.inspect)
app.command()(samplers.samplers)
app.command()(report.report)
app.command("retry-failed")(report.retry)
app.add_typer(presets_app, name="presets")
app.add_typer(model.demo_app, name="demo")
app.add_typer(bench_app, name="bench")

USAGE_EXIT = 2
FAILED_EXIT = 1
INTERRUPTED_EXIT = 130


def _say_version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        # by a callback, which comes before typer wants a command
        typer.Option("--version", help="Print the version and exit.", callback=_say_version),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what the parts do.")] = False,
) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code. An error a user can answer is one line on stderr."""
    began = time.monotonic()
    if sys.stdout is None:  # closed by who started us
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a log file in Windows' code page lacks most names
            stream.reconfigure(errors="backslashreplace")
    try:
        with handling(interrupted):
            # handed over, since on Windows typer takes its own for patterns, also those of --exclude *_mask.png
            app(args=[_home(word) for word in (sys.argv[1:] if arguments is None else arguments)])
    except BrokenPipeError:
        silence(sys.stdout)
        sys.exit(FAILED_EXIT)
    except (OutputError, RenderError) as error:
        _exit_with(error, FAILED_EXIT)
    except sqlite3.Error as error:
        what = f"the journal is damaged ({error}); move the output's .fam-hires folder away, then existing outputs are"
        _exit_with(OutputError(f"{what} kept and the rest is made"), FAILED_EXIT)
    except FamError as error:
        _exit_with(error, USAGE_EXIT)
    except OSError as error:
        silence(sys.stdout)
        place = "the output" if error.filename is None else shown(error.filename)
        _exit_with(
            OutputError(f"{place} cannot be used ({error.strerror}); check its disk and permissions"), FAILED_EXIT
        )
    except (Interrupted, KeyboardInterrupt):
        say(f"interrupted after {clock(time.monotonic() - began)}; nothing is left half-written", err=True)
        sys.exit(INTERRUPTED_EXIT)


def _home(word: str) -> str:
    """Return a path in a home folder in full: the shells of Windows do not."""
    return os.path.expanduser(word) if word.startswith(("~/", "~\\")) else word


def program() -> None:
    """`main` as a process of its own. A signal that comes when all is said ends it with the code it has anyway: left to
    the system, SIGTERM or a closed terminal would call a finished batch killed, and Ctrl-C print a traceback."""
    code = INTERRUPTED_EXIT

    def leave(_number: int, _frame: object) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, RuntimeError):  # nobody reads, or the signal came while it was flushed
                stream.flush()
        os._exit(code)

    for number in stopping_signals():
        signal.signal(number, leave)
    atexit.register(_ignore_signals)  # behind it Python takes its handlers away, and the system's would kill
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else FAILED_EXIT if ended.code else 0
        raise


def _ignore_signals() -> None:
    for number in stopping_signals():
        signal.signal(number, signal.SIG_IGN)


def _exit_with(error: FamError, code: int) -> None:
    say(f"error: {' '.join(str(error).split())}", err=True)
    sys.exit(code)
