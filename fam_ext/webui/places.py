"""Which folders the page and the API may name: checked on the server, whatever the page shows."""

from __future__ import annotations

from pathlib import Path

from modules import shared
from modules.paths_internal import data_path

from fam_ext.errors import UsageError
from fam_ext.jobs.plan import PlanOptions

_OUTPUT_OPTIONS = (
    "outdir_samples",
    "outdir_txt2img_samples",
    "outdir_img2img_samples",
    "outdir_extras_samples",
    "outdir_save",
)


def output_roots() -> list[Path]:
    """Return the WebUI's own output folders."""
    roots = [getattr(shared.opts, name, "") for name in _OUTPUT_OPTIONS]
    return [(Path(data_path) / root).resolve() for root in roots if root]


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


def check_places(options: PlanOptions) -> None:
    """Raise `UsageError` where this WebUI does not let its page or API name these folders."""
    if shared.cmd_opts.hide_ui_dir_config:
        raise UsageError("folders cannot be chosen, for this WebUI runs with --hide-ui-dir-config; use its gallery")
    if not _is_remote():
        return
    roots = output_roots()
    for place in (*options.inputs, options.output):
        resolved = Path(place).resolve()
        if not any(root == resolved or root in resolved.parents for root in roots):
            raise UsageError(
                "the folder lies outside this WebUI's output folders, which remote use is limited to; "
                "choose one inside them, or start it with --enable-insecure-extension-access"
            )


def default_output(source: str) -> str:
    """Return the output folder for an input folder by the settings page's rule; "" means beside the input."""
    name = Path(source.strip()).name
    if getattr(shared.opts, "fam_output_rule", BESIDE) == BESIDE or not name:
        return ""
    roots = output_roots()
    return str(roots[0] / "fam-hires" / name) if roots else ""


BESIDE = "beside the input folder"
IN_OUTPUTS = "in the WebUI's output folder"


def _is_remote() -> bool:
    return bool(getattr(shared.cmd_opts, "disable_extension_access", False))
