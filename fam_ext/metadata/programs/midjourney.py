"""Midjourney: `words --ar 3:2 --v 5 Job ID: ...` in one text. It says nothing of a sampler."""

from __future__ import annotations

import re

from fam_ext.metadata.containers import Texts
from fam_ext.metadata.programs.base import Settings, text

_JOB = re.compile(r"Job ID: ?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f\-]{8,30}\s*$", re.IGNORECASE)


def read(texts: Texts) -> Settings | None:
    """Return the words of a Midjourney picture, without its options; None when the file is not its."""
    for key in ("Description", "ImageDescription", "dc:description", "UserComment"):
        value = texts.get(key) or ""
        job = _JOB.search(value[-200:])
        if job is None:
            continue
        words, _, options = value[: len(value) - len(job.group())].partition(" --")
        notes = (f"Midjourney's options are not used: --{options.strip()[:120]}",) if options else ()
        return Settings("Midjourney", text(words), notes=notes, place=key)
    return None
