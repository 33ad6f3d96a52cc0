"""What the page says of itself: the folds' titles, the size line, the preset's sentence, what would become of the
picture. Asked anew by javascript/fam_hires.js shortly after anything has changed."""

from __future__ import annotations

from typing import Any

import gradio as gr

from fam_ext.core.config import FamConfig
from fam_ext.errors import FamError
from fam_ext.metadata.infotext import parse
from fam_ext.ui.common import LOADED_MODEL, page_words
from fam_ext.ui.dials import read_dials
from fam_ext.ui.host import TAB_ID, TabHost, TabParts
from fam_ext.ui.outlook import folder_size, picture_outlook
from fam_ext.ui.pace import Pace
from fam_ext.ui.preset_box import about_preset
from fam_ext.ui.tables import sentence_html
from fam_ext.ui.titles import fold_titles, method_title, more_dials_title
from fam_ext.ui.trial import trial_title


def bind_look(
    host: TabHost,
    values: dict[str, Any],
    dials: list[Any],
    folds: dict[str, Any],
    parts: TabParts,
    about: Any,  # noqa: ANN401
    pace: Pace,
) -> None:
    """Keep the page's own words true. `values` are its parts by their options' names, with `infotext`, `native` (a
    state: height, width), `preset` and `trial` (the presets to try); `folds` has "method" and "more" beside the titled
    ones."""
    mode = gr.Textbox(visible=False, value="", elem_id=f"{TAB_ID}_mode_now")
    mode.do_not_save_to_config = True
    button = gr.Button("Look", elem_id=f"{TAB_ID}_look", elem_classes="fam-hidden")
    names = list(values)

    def look(mode: str, *rest: Any) -> list[Any]:  # noqa: ANN401
        given = dict(zip(names, rest[: len(names)], strict=True))
        native, infotext, preset, tried = (given.pop(name) for name in ("native", "infotext", "preset", "trial"))
        infotext = infotext or ""
        folder = mode == "folder"
        config = read_dials(rest[len(names) :])
        titles = fold_titles(given, folder=folder, prompt=parse(infotext).prompt, loaded_model=LOADED_MODEL)
        titles |= {"method": method_title(config), "trial": trial_title(tried)}
        try:
            titles["more"] = more_dials_title(FamConfig.from_dict(config))
            said = sentence_html(about_preset(host.store, preset))
        except FamError as error:
            said = sentence_html(str(error), kind="error")
        panel = gr.update()
        if folder:
            line = folder_size(given)
        else:
            # as the picture mode asks: what only a folder has stays out
            words = page_words({name: given[name] for name in picture_names}, rest[len(names) :])
            outlook = picture_outlook(native, infotext, words, store=host.store, pace=pace, memory=host.memory())
            line, panel = outlook.size, outlook.panel
        updates = [gr.update(label=titles[name]) if name in titles else gr.update() for name in folds]
        return [sentence_html(line), panel, said, *updates]

    picture_names = [name for name in parts.picture_names if name in names]
    inputs = [*values.values(), *dials]
    button.click(
        look,
        _js="fam_hires_with_mode",
        inputs=[mode, *inputs],
        outputs=[parts.size, parts.outlook, about, *folds.values()],
        show_progress=False,
        api_name=False,
        queue=False,
    )
    for component in inputs:
        if hasattr(component, "change") and not isinstance(component, gr.State):
            component.change(None, _js="fam_hires_look_soon", inputs=[], outputs=[])
