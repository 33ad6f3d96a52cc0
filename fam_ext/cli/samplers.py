"""`fam-hires samplers`: which samplers and schedules there are."""

from __future__ import annotations

from fam_ext.samplers.names import OFFERED, OFFERED_SCHEDULES, OWN_SCHEDULES, REFUSED
from fam_ext.terminal import say


def samplers() -> None:
    """List the samplers, each with its schedules and the one that Automatic means, and those that are refused."""
    for name, automatic in OFFERED.items():
        say(f"{name}: {', '.join(OWN_SCHEDULES.get(name, ('all schedules',)))}; Automatic is {automatic}")
    say(f"schedules: {', '.join(OFFERED_SCHEDULES)}")
    for name, why in REFUSED.items():
        say(f"{name} is refused: {why}")
