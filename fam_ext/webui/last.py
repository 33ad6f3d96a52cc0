"""What the page's ↙ pastes where the prompt is empty: the last generation, from a file of the WebUI's."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from modules import shared
from modules.paths_internal import data_path

from fam_ext.placing import write_whole
from fam_ext.webui.session import session_of

logger = logging.getLogger(__name__)

NAME = "params.txt"


def write_last(p: Any, processed: Any) -> None:  # noqa: ANN401
    """Write the first picture's infotext anew where FAM ran on it: the WebUI wrote it before it sampled, when FAM had
    nothing to say."""
    session = session_of(p)
    if session is None or not session.ran_in(0) or shared.cmd_opts.no_prompt_history:
        return
    path = Path(data_path) / NAME
    try:
        write_whole(path, processed.infotext(p, 0).encode())
    except OSError as error:
        logger.warning("%s was not written anew (%s): it says nothing of FAM", path, error.strerror)
