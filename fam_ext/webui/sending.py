"""The buttons that send a result of the tab to the WebUI's own tabs.

A place in the gallery can get another picture while a folder runs, and the WebUI takes picture and infotext in two
events. So a press first asks once for both, from the one file that the page shows at that moment; they lie in
components that nothing else writes, and a hidden button, which the WebUI bound, sends them on.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules import infotext_utils, shared, ui_tempdir
from modules.infotext_utils import ParamBinding
from modules.ui_components import ToolButton
from PIL import Image

from fam_ext.metadata.loaded import infotext_of_image
from fam_ext.ui.host import TAB_ID

_TARGETS = {
    "txt2img": "\U0001f4dd",
    "img2img": "\U0001f5bc\ufe0f",
    "inpaint": "\U0001f3a8\ufe0f",
    "extras": "\U0001f4d0",
}
"""The WebUI's own tabs that take a picture, with its symbols."""


def send_buttons(gallery: Any, said: Any, png_info: Any | None) -> None:  # noqa: ANN401
    """Build the buttons for what `gallery` shows; `said` holds the infotext of pictures whose files have none, and
    `png_info` is the image of the tab PNG Info."""
    sent = gr.Gallery(visible=False)
    sent_text = gr.Textbox(visible=False)
    for tab, symbol in _TARGETS.items():
        button = ToolButton(symbol, elem_id=f"{TAB_ID}_send_to_{tab}", tooltip=f"Send the result to {tab}.")
        go = gr.Button(elem_id=f"{TAB_ID}_send_to_{tab}_go", elem_classes=["fam-hidden"])
        infotext_utils.register_paste_params_button(
            ParamBinding(go, tab, source_text_component=sent_text, source_image_component=sent)
        )
        button.click(
            _chosen,
            _js="fam_hires_chosen",
            inputs=[gallery, said],
            outputs=[sent, sent_text],
            show_progress=False,
            api_name=False,
        ).then(None, _js=f"(sent) => fam_hires_send_on(sent, 'send_to_{tab}_go')", inputs=[sent], outputs=[])
    if png_info is not None:
        button = ToolButton("\U00002139\ufe0f", elem_id=f"{TAB_ID}_send_to_pnginfo", tooltip="Send it to PNG Info.")
        button.click(
            _with_infotext,
            _js="fam_hires_to_png_info",
            inputs=[gallery, said],
            outputs=[png_info],
            show_progress=False,
            api_name=False,
        )


def _chosen(entry: dict[str, Any] | None, said: str) -> tuple[list[Image.Image], str]:
    """Return a gallery of the file of `entry` alone, and its infotext; nothing where it is gone."""
    name = (entry or {}).get("name", "")
    if not ui_tempdir.check_tmp_file(shared.demo, name):  # it comes from a client
        return [], ""
    path = name.rsplit("?", 1)[0]
    try:
        with Image.open(path) as image:
            text = infotext_of_image(image) or said
    except OSError:
        return [], ""
    kept = Image.new("RGB", (1, 1))
    # the WebUI shows and sends this file in the picture's place
    setattr(kept, "already_saved_as", path)  # noqa: B010
    return [kept], text


def _with_infotext(entry: dict[str, Any] | None, said: str) -> Image.Image | None:
    """Return the picture of a gallery's entry; it travels as PNG, so what another format has as EXIF goes along."""
    chosen, text = _chosen(entry, said)
    if not chosen:
        return None
    image = infotext_utils.image_from_url_text(entry)
    image.info = {"parameters": text} if text else {}
    return image
