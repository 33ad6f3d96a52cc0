"""The always-on script: the accordion of txt2img and img2img, and the callbacks around one generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from fam_ext.metadata.infotext import is_fam, readable_fields
from fam_ext.options.presets import BUILTIN, DEFAULT, PresetStore
from fam_ext.options.table import VERSION_KEY
from fam_ext.recipe import Source
from fam_ext.ui.accordion import NO_PRESET, TITLE, build_accordion
from fam_ext.ui.dials import dial_values, preset_of
from fam_ext.webui.answers import go_on, stopping
from fam_ext.webui.arguments import XYZ_ATTRIBUTE, read_arguments
from fam_ext.webui.generation import PRESET_KEY, before_sampling, begin
from fam_ext.webui.known import checkpoint
from fam_ext.webui.last import write_last
from fam_ext.webui.nested import is_nested
from fam_ext.webui.session import close, session_of

_MODEL_ATTRIBUTE = "_fam_model"
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


def preset_name(config: FamConfig, fam_args: Sequence[Any] = ()) -> str | None:
    """Return the name of the preset whose dials `config` is, of two equal ones that which was asked for; else None."""
    first = fam_args[0] if fam_args else None
    asked = first.get("preset") if isinstance(first, Mapping) else next(iter(fam_args[1:2]), None)
    presets = store()
    found = preset_of(dial_values(config), map(presets.get, sorted(presets.names(), key=lambda name: name != asked)))
    return None if found == NO_PRESET else found


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
        return components

    def before_process(self, p: Any, *fam_args: Any) -> None:  # noqa: ANN401
        # the WebUI drops a checkpoint that it has not by that very name, and takes its own instead
        model = p.override_settings.get("sd_model_checkpoint")
        setattr(p, _MODEL_ATTRIBUTE, getattr(model, "name", model))  # img2img's Batch gives the checkpoint itself

    def process(self, p: Any, *fam_args: Any) -> None:  # noqa: ANN401
        with stopping(p):
            close(p)
            if is_nested():  # an extension's face pass: what was asked is done around it
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
            if (model := getattr(p, _MODEL_ATTRIBUTE, None)) is not None:
                checkpoint(model, in_part=False)
            begin(p, asked.config, method=asked.method, preset=preset_name(asked.config, fam_args))

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
            write_last(p, processed)
        go_on(p, processed)


def session_done(p: Any) -> None:  # noqa: ANN401
    """Undo the hooks on p; the infotext's values stay, for grids and files are labelled later."""
    session = session_of(p)
    if session is not None:
        session.undo.close()
        session.record, session.source = NativeRecord(), Source()


def paste_fields(components: list[Any]) -> list[Any]:
    """Return the accordion's paste fields: FAM's keys set every dial, other infotext leaves them alone."""
    enabled, preset, *dials = components

    def config_of(params: dict[str, Any]) -> FamConfig | None:
        return readable_fields(params)[0] if is_fam(params) else None

    def enable(params: dict[str, Any]) -> bool:
        for problem in readable_fields(params)[1]:
            gr.Warning(f"FAM Hires: {problem}; the other values were set")
        return VERSION_KEY in params

    def chosen(params: dict[str, Any]) -> str | None:
        config = config_of(params)
        # the dials say what was meant: a preset of that name may be another's here, or be gone
        return None if config is None else preset_name(config, [True, params.get(PRESET_KEY)]) or NO_PRESET

    def dial(index: int) -> Any:  # noqa: ANN401
        def read(params: dict[str, Any]) -> Any:  # noqa: ANN401
            config = config_of(params)
            return None if config is None else dial_values(config)[index]

        return read

    return [
        PasteField(enabled, enable),
        PasteField(preset, chosen),
        *(PasteField(component, dial(index)) for index, component in enumerate(dials)),
    ]
