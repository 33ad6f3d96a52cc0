"""What ran as text: the keys of a file's infotext, and the dials as a report says them."""

from __future__ import annotations

from fam_ext.core.config import FamConfig
from fam_ext.jobs.contract import Ran
from fam_ext.metadata.infotext import format_value, to_fields
from fam_ext.options.field import options_of

_OF_FM = ("cutoff", "cutoff_reference", "fm_window", "fm_boundary", "fm_edge", "reference", "step_invariant")
_OF_AM = ("attention", "am_window", "am_sites", "am_interp", "am_source")


def fields(ran: Ran) -> dict[str, str]:
    """Return the infotext's keys and values: FAM's version and dials only where FAM acted, then what else is known."""
    dials = {} if ran.config is None else to_fields(ran.config)
    values = {spec: getattr(ran, spec.name) for spec in options_of(Ran) if spec.key}
    return dials | {spec.key: format_value(spec, value) for spec, value in values.items() if value is not None}


def dials(config: FamConfig | None) -> str:
    """Return the dials on one line, those of a part that is off left out; "" where FAM did not act."""
    if config is None:
        return ""
    idle = (*(() if config.fm else _OF_FM), *(() if config.am else _OF_AM))
    acted = config.replace(**{name: getattr(FamConfig(), name) for name in idle})
    return ", ".join(f"{key}: {value}" for key, value in to_fields(acted).items())
