"""Which folders the page and the API may name: checked on the server, whatever the page shows."""

from __future__ import annotations

import os
from pathlib import Path

from modules import shared
from modules.paths_internal import data_path

from fam_ext.errors import UsageError
from fam_ext.options.job import Job
from fam_ext.options.resolve import pasted

_OUTPUT_OPTIONS = (
    "outdir_samples",
    "outdir_txt2img_samples",
    "outdir_img2img_samples",
    "outdir_extras_samples",
    "outdir_save",
)


def output_roots() -> list[Path]:
    """Return the WebUI's own output folders, with links resolved."""
    roots = [getattr(shared.opts, name, "") for name in _OUTPUT_OPTIONS]
    return [_real(root) for root in roots if root]


def fix_roots() -> None:
    """Remember the output folders as they are when the program starts.

    A client of the WebUI's API may change `outdir_*` while it runs, and reload its page: what it could choose is no
    limit.
    """
    _allowed.extend(output_roots() if not _allowed else [])


_allowed: list[Path] = []


def _real(place: str | Path) -> Path:
    """Return a path with its links resolved; a relative one stands on the data folder, as in the WebUI's settings."""
    return Path(os.path.realpath(Path(data_path) / place))  # resolve() raises where links lead in a circle


def folders_note() -> str:
    """Return why folders cannot be chosen freely, "" where they can."""
    if shared.cmd_opts.hide_ui_dir_config:
        return "This WebUI runs with --hide-ui-dir-config, so folders cannot be chosen here."
    if _is_remote():
        return (
            "This WebUI can be reached from other machines, so only its own output folders can be used; "
            "--enable-insecure-extension-access lifts this."
        )
    return ""


def check_places(options: Job) -> Job:
    """Return the job with its folders in full. Raises `UsageError` where this WebUI does not let its page or API name
    them."""
    if shared.cmd_opts.hide_ui_dir_config:
        raise UsageError("folders cannot be chosen, for this WebUI runs with --hide-ui-dir-config; use its gallery")
    places = [_real(place) for place in (*options.places.inputs, options.places.output)]
    for resolved in places if _is_remote() else []:
        if not any(root == resolved or root in resolved.parents for root in _allowed):
            name = "output" if resolved is places[-1] else "input"
            raise UsageError(
                f"{name} lies outside this WebUI's output folders, which remote use is limited to; choose a folder "
                "inside them, or start it with --enable-insecure-extension-access"
            )
    *inputs, output = map(str, places)
    # a link inside a folder must not lead out of what may be named
    allowed = tuple(map(str, _allowed)) if _is_remote() else ()
    return options.replace(inputs=tuple(inputs), output=output, allowed=allowed)


def default_output(source: str) -> str:
    """Return the output folder for an input folder by the settings page's rule; "" means beside the input."""
    name = Path(pasted(source)).name
    if getattr(shared.opts, "fam_output_rule", BESIDE) == BESIDE or not name:
        return ""
    roots = output_roots()
    return str(roots[0] / "fam-hires" / name) if roots else ""


BESIDE = "beside the input folder"
IN_OUTPUTS = "in the WebUI's output folder"


def _is_remote() -> bool:
    return bool(getattr(shared.cmd_opts, "disable_extension_access", False))
