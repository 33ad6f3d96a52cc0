"""The tab's Picture mode: one picture in, one request, one result; settings taken from its infotext."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr
from PIL import Image

from fam_ext.errors import FamError, UsageError
from fam_ext.jobs.make import enlarged
from fam_ext.metadata.infotext import (
    Infotext,
    format_infotext,
    is_fam,
    parse,
    readable_fields,
    request_value,
)
from fam_ext.metadata.loaded import infotext_of_image
from fam_ext.options.resolve import SAMPLING
from fam_ext.ui.common import choices_of, page_words
from fam_ext.ui.compare import compare_html
from fam_ext.ui.dials import dial_values
from fam_ext.ui.host import TAB_ID, TabHost, TabParts
from fam_ext.ui.outlook import picture_request
from fam_ext.ui.pace import Pace
from fam_ext.ui.tables import sentence_html
from fam_ext.ui.thumbnails import upright

logger = logging.getLogger(__name__)


def picture_inputs() -> dict[str, Any]:
    """Build what the mode's first column has, and return the parts by name."""
    parts: dict[str, Any] = {}
    parts["task"] = gr.Textbox(visible=False, value="", elem_id=f"{TAB_ID}_task")
    parts["image"] = gr.Image(
        label="Picture", type="pil", elem_id=f"{TAB_ID}_image", interactive=True, height=240, image_mode="RGBA"
    )
    parts["note"] = gr.HTML(elem_id=f"{TAB_ID}_picture_note")
    for part in ("task", "image"):
        parts[part].do_not_save_to_config = True
    return parts


def word_inputs() -> dict[str, Any]:
    """Build the picture's words, into the open fold, and return the parts by name."""
    parts: dict[str, Any] = {}
    parts["infotext"] = gr.Textbox(
        label="Infotext of the picture (its prompts are used)",
        lines=4,
        placeholder="prompt\nNegative prompt: ...",
        elem_id=f"{TAB_ID}_infotext",
    )
    parts["infotext"].do_not_save_to_config = True
    parts["apply"] = gr.Button("Take settings from infotext", elem_id=f"{TAB_ID}_apply_infotext", size="sm")
    return parts


def bind_picture(
    host: TabHost,
    picture: dict[str, Any],
    common: dict[str, Any],
    dials: list[Any],
    parts: TabParts,
    shown_infotext: Any,  # noqa: ANN401
    compare: Any,  # noqa: ANN401
    log: Any,  # noqa: ANN401
    words_fold: Any,  # noqa: ANN401
    pace: Pace,
) -> Any:  # noqa: ANN401
    """Bind the mode's parts; return the state that holds the picture's (height, width). `picture` gets "taken": the
    events that set the dials from an infotext."""
    names = ["own_model", *common]
    native = gr.State(None)

    def generate(task: str, image: Image.Image | None, infotext: str, *rest: Any) -> tuple[Any, ...]:  # noqa: ANN401
        try:
            return generated(image, infotext, rest)
        except FamError as error:
            # answered here: the host would print a traceback and name the class
            logger.warning("%s", error)
            return None, "", "", "", sentence_html(str(error), kind="error")

    def generated(image: Image.Image | None, infotext: str, rest: tuple[Any, ...]) -> tuple[Any, ...]:
        if image is None:
            raise UsageError("there is no picture; drop one in, or send one from another tab")
        values = dict(zip(names, rest[: len(names)], strict=True))
        image, shown = upright(image), infotext or ""
        words = page_words(values, rest[len(names) :])
        request = picture_request((image.height, image.width), shown, words, host.store)
        image, notes = enlarged(image)
        began = time.monotonic()
        made = host.generate(image, request, values["upscaler"])
        taken = time.monotonic() - began
        pace.note(request.size, steps=request.steps * request.config.start, seconds=taken, peak=made.peak_memory)
        slider = compare_html(image, made.images[0]) if made.images else ""
        said = made.infotext.replace("&", "&amp;").replace("<", "&lt;").replace("\n", "<br>\n")
        return (
            made.images,
            made.infotext,
            f"<p>{said}</p>",
            slider,
            sentence_html("; ".join(filter(None, (*notes, made.comments)))),
        )

    outputs = [parts.gallery, parts.said, shown_infotext, compare, log]
    picture["generate"].click(
        host.gpu_call(generate, [None, "", "", ""]),
        _js="fam_hires_submit",
        inputs=[
            *(picture[name] for name in ("task", "image", "infotext", "own_model")),
            *common.values(),
            *dials,
        ],
        outputs=outputs,
        show_progress=False,
        api_name=False,
    )

    def stop() -> Any:  # noqa: ANN401
        said = host.interrupt()
        return sentence_html(said, kind="error") if said else gr.update()

    picture["interrupt"].click(stop, inputs=[], outputs=[log], show_progress=False, api_name=False, queue=False)

    fields = _infotext_outputs(common, dials)

    def take(infotext: str) -> list[Any]:
        return [sentence_html(_describe(infotext, common)), *_values_from(infotext, common, dials)]

    brought = gr.State("")  # the infotext that the last picture with one has brought

    def loaded(image: Image.Image | None, infotext: str, before: str) -> list[Any]:
        if image is None:
            return [None, gr.update(), gr.update(), before, "", *(gr.update() for _ in fields)]
        size, text = (image.height, image.width), infotext_of_image(image)
        if text:
            return [size, gr.update(), text, text, *take(text)]
        # another picture's words are not this one's, however the host has sent them; what was written here may be
        kept = "" if _words(infotext) == _words(before) else infotext
        note = f"{image.width} x {image.height} px; it carries no infotext, "
        note += "the words that were written are kept" if kept else "write a prompt"
        opened = gr.update() if kept else gr.update(open=True)
        return [size, opened, kept, before, sentence_html(note), *(gr.update() for _ in fields)]

    loading = picture["image"].change(
        loaded,
        inputs=[picture["image"], picture["infotext"], brought],
        outputs=[native, words_fold, picture["infotext"], brought, picture["note"], *fields],
        show_progress=False,
        api_name=False,
    )
    # a picture without an infotext changes no part
    loading.then(None, _js="fam_hires_look_soon", inputs=[], outputs=[])
    taken = picture["apply"].click(
        take, inputs=[picture["infotext"]], outputs=[picture["note"], *fields], show_progress=False, api_name=False
    )
    picture["taken"] = (loading, taken)
    return native


def _words(infotext: str) -> tuple[str, str]:
    found = parse(infotext)
    return found.prompt, found.negative_prompt


def _offered(component: Any, value: Any) -> bool:  # noqa: ANN401
    choices = choices_of(component)
    return choices is None or value in choices


def _describe(infotext: str, common: dict[str, Any]) -> str:
    found = parse(infotext)
    if not found.params:
        return "the infotext holds prompts only; sampler, steps and the dials stay as they are"
    kind = "made by FAM: its dials are set" if is_fam(found.params) else "not made by FAM: the dials stay as they are"
    said = f"sampler, steps, CFG and seed are set from the infotext; {kind}"
    problems = [
        f"{name} is {value!r}, which is not offered here"
        for name in SAMPLING
        if (value := request_value(found.params, name)) is not None and not _offered(common[name], value)
    ]
    problems += readable_fields(found.params)[1] if is_fam(found.params) else []
    return "; ".join([said, *(f"not set: {problem}" for problem in problems)])


def _infotext_outputs(common: dict[str, Any], dials: list[Any]) -> list[Any]:
    return [common[name] for name in SAMPLING] + dials


def _values_from(infotext: str, common: dict[str, Any], dials: list[Any]) -> list[Any]:
    """Return updates for `_infotext_outputs`: what the infotext says, and nothing where it is silent."""
    params = parse(infotext).params
    updates: list[Any] = []
    for name in SAMPLING:
        value = request_value(params, name)
        fits = value is not None and _offered(common[name], value)
        updates.append(gr.update(value=value) if fits else gr.update())
    config = readable_fields(params)[0] if is_fam(params) else None
    if config is None:
        return [*updates, *(gr.update() for _ in dials)]
    return [*updates, *(gr.update(value=value) for value in dial_values(config))]


def paste_fields(
    picture: dict[str, Any], common: dict[str, Any], dials: list[Any]
) -> list[tuple[Any, Callable[[Mapping[str, Any]], Any]]]:
    """Return (component, function of the infotext's parameters) for the host's "send to" buttons."""

    def text_of(params: Mapping[str, Any]) -> str:
        rest = {
            key: str(value)
            for key, value in params.items()
            if key not in ("Prompt", "Negative prompt") and isinstance(value, str | int | float)
        }
        return format_infotext(Infotext(params.get("Prompt", ""), params.get("Negative prompt", ""), rest))

    def common_value(name: str) -> Callable[[Mapping[str, Any]], Any]:
        def read_value(params: Mapping[str, Any]) -> Any:  # noqa: ANN401
            value = request_value({key: str(value) for key, value in params.items()}, name)
            return value if _offered(common[name], value) else None

        return read_value

    def dial(index: int) -> Callable[[Mapping[str, Any]], Any]:
        def read_value(params: Mapping[str, Any]) -> Any:  # noqa: ANN401
            return dial_values(readable_fields(params)[0])[index] if is_fam(params) else None

        return read_value

    return [
        (picture["infotext"], text_of),
        *((common[name], common_value(name)) for name in SAMPLING),
        *((component, dial(index)) for index, component in enumerate(dials)),
    ]
