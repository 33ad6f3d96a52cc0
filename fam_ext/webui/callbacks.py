"""Registers everything with the WebUI; called once by each load of the script."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules import script_callbacks, shared

from fam_ext.options.presets import DEFAULT
from fam_ext.ui.accordion import TITLE
from fam_ext.webui import tab, xyz
from fam_ext.webui.api import add_routes
from fam_ext.webui.places import BESIDE, IN_OUTPUTS, default_output, fix_roots
from fam_ext.webui.script import store

SECTION = ("fam_hires", TITLE)


def register() -> None:
    """Register FAM Hires' callbacks. The WebUI drops them all before it loads the scripts again."""
    script_callbacks.on_ui_settings(on_ui_settings)
    script_callbacks.on_before_ui(on_before_ui)
    script_callbacks.on_after_component(tab.on_after_component)
    script_callbacks.on_ui_tabs(tab.on_ui_tabs)
    script_callbacks.on_app_started(on_app_started)
    script_callbacks.on_before_reload(tab.end_before_reload)


def on_ui_settings() -> None:
    """Add the settings page."""
    options = {
        "fam_default_preset": shared.OptionInfo(
            DEFAULT,
            "Preset whose dials the page starts with",
            gr.Dropdown,
            lambda: {"choices": store().names()},
            refresh=lambda: None,  # the list is read anew by each look
        )
        .info("the dials are not kept among the page defaults (Settings, Defaults); save a preset and choose it here")
        .needs_reload_ui(),
        "fam_output_rule": shared.OptionInfo(
            BESIDE,
            "Where a folder job writes when no output folder is given",
            gr.Radio,
            {"choices": [BESIDE, IN_OUTPUTS]},
        ),
    }
    for name, option in options.items():
        option.section = SECTION
        shared.opts.add_option(name, option)


def on_before_ui() -> None:
    """Add the axes of the X/Y/Z plot; the scripts are loaded by now."""
    xyz.add_axes(lambda: store().names())


def on_app_started(demo: Any, app: Any) -> None:  # noqa: ANN401
    """Add the API's routes, where the WebUI has its own API on."""
    fix_roots()
    if not (shared.cmd_opts.api or shared.cmd_opts.nowebui):
        return
    add_routes(
        app,
        store=store,
        batches=tab.batches,
        check=tab.check,
        default_output=default_output,
        credentials=shared.cmd_opts.api_auth,
    )
    app.openapi_schema = None  # built anew with our routes in it
