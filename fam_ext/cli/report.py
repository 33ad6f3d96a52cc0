"""`fam-hires report` and `retry-failed`: an output folder's journal, written out or tried again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fam_ext.cli.options import takes
from fam_ext.cli.progress import View, watched
from fam_ext.options.field import options_of
from fam_ext.options.parts import RunRule
from fam_ext.terminal import say


def report(output: Annotated[str, typer.Argument(help="Output folder of an earlier job.", metavar="OUT")]) -> None:
    """Write report.csv, report.json and report.html again from the journal, and print the counts."""
    from fam_ext.jobs import report as reports
    from fam_ext.jobs.journal import Journal
    from fam_ext.jobs.run import check_journal

    check_journal(output)
    with Journal(output) as journal:
        for path in reports.write_all(journal):
            say(str(path))
        say(", ".join(f"{number} {state}" for state, number in journal.counts(whole=True).items() if number))


@takes(spec for spec in options_of(RunRule) if spec.name in ("workers", "retries", "timeout"))
def retry(
    output: Annotated[str, typer.Argument(help="Output folder of an earlier job.", metavar="OUT")],
    progress: Annotated[View, typer.Option(help="auto: live in a terminal, else plain lines.")] = View.auto,
    *,
    said: dict[str, Any],
) -> None:
    """Try the failed files of a job again, with the settings in its journal."""
    from fam_ext.jobs.run import retry_failed

    run = RunRule(**said)
    with watched(progress) as (control, listen, finish):
        summary = retry_failed(output, run=run, control=control, on_event=listen)
        finish(summary, output)
    raise typer.Exit(summary.exit_code)
