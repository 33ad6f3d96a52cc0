"""The always-on script: the accordion of txt2img and img2img, and the callbacks around one generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from modules import scripts, shared
from modules.infotext_utils import PasteField
from modules.paths_internal import data_path
from modules.ui_components import InputAccordion

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import NativeRecord
from fam_ext.errors import FamError, UsageError
from fam_ext.metadata.infotext import is_fam, readable_fields, to_fields
from fam_ext.options.presets import BUILTIN, DEFAULT, PresetStore
from fam_ext.options.table import VERSION_KEY
from fam_ext.ui.accordion import NO_PRESET, TITLE, build_accordion
from fam_ext.ui.dials import PARTS, dial_values
from fam_ext.webui.arguments import XYZ_ATTRIBUTE, read_arguments
from fam_ext.webui.session import before_sampling, begin, close, session_of, stopping

PRESETS_FOLDER = Path(data_path) / "fam-hires" / "presets"


def store() -> PresetStore:
    """Return the presets: those that ship, and the user's in the WebUI's data folder."""
    return PresetStore(PRESETS_FOLDER)


def default_config() -> FamConfig:
    """Return the page's first values: the default preset of the settings page, as every other door takes it."""
    try:
        return store().get(getattr(shared.opts, "fam_default_preset", DEFAULT)).config
    except FamError:
        return BUILTIN[DEFAULT].config


class FamHiresScript(scripts.Script):
    """FAM in the WebUI's own generations. Its callbacks keep their errors and let them out where the WebUI samples."""

    section = "accordions"
    create_group = False

    def title(self) -> str:
        return TITLE

    def show(self, is_img2img: bool) -> Any:  # noqa: ANN401
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        tab = "img2img" if is_img2img else "txt2img"
        elem_id = f"{tab}_fam_hires"
        with InputAccordion(False, label=TITLE, elem_id=elem_id) as enabled:
            components = build_accordion(
                enabled,
                default_config(),
                is_img2img=is_img2img,
                preset_names=lambda: store().names(),
                get_preset=lambda name: store().get(name),
                elem_id=lambda part: f"{elem_id}_{part}",
            )
        self.infotext_fields = paste_fields(components)
        self.paste_field_names = list(to_fields(FamConfig())) + [field.key for field, part in PARTS if not part]
        return components

    def process(self, p: Any, *fam_args: Any) -> None:  # noqa: ANN401
        with stopping(p):
            close(p)
            if getattr(p, "_ad_inner", False):  # ADetailer's face passes
                return
            asked = read_arguments(fam_args, getattr(p, XYZ_ATTRIBUTE, {}), store=store(), page=default_config())
            if not asked.enabled:
                return
            if not self.is_img2img and not p.enable_hr:
                message = "FAM Hires is on but Hires. fix is off, so nothing was enlarged; switch Hires. fix on"
                if asked.by_name:
                    raise UsageError(f"{message} (enable_hr)")
                p.comment(message)
                return
            begin(p, asked.config)

    def process_before_every_sampling(self, p: Any, *fam_args: Any, **sampling: Any) -> None:  # noqa: ANN401
        with stopping(p, sampling=True):
            before_sampling(p)

    def postprocess_batch_list(self, p: Any, pp: Any, *fam_args: Any, **batch: Any) -> None:  # noqa: ANN401
        session = session_of(p)
        if session is not None and session.error is not None:
            pp.images = []

    def postprocess(self, p: Any, processed: Any, *fam_args: Any) -> None:  # noqa: ANN401
        with stopping(p):
            session_done(p)


def session_done(p: Any) -> None:  # noqa: ANN401
    """Undo the hooks on p; the infotext's values stay, for grids and files are labelled later."""
    session = session_of(p)
    if session is not None:
        session.undo.close()
        session.record = NativeRecord()
        session.native = None


def paste_fields(components: list[Any]) -> list[Any]:
    """Return the accordion's paste fields: FAM's keys set every dial, other infotext leaves them alone."""
    enabled, preset, *dials = components

    def config_of(params: dict[str, Any]) -> FamConfig | None:
        return readable_fields(params)[0] if is_fam(params) else None

    def enable(params: dict[str, Any]) -> bool:
        for problem in readable_fields(params)[1]:
            gr.Warning(f"FAM Hires: {problem}; the other values were set")
        return VERSION_KEY in params

    def dial(index: int) -> Any:  # noqa: ANN401
        def read(params: dict[str, Any]) -> Any:  # noqa: ANN401
            config = config_of(params)
            return None if config is None else dial_values(config)[index]

        return read

    return [
        PasteField(enabled, enable),
        PasteField(preset, lambda params: NO_PRESET if is_fam(params) else None),
        *(PasteField(component, dial(index)) for index, component in enumerate(dials)),
    ]
