"""The tab's Batch folder mode: its parts, its job's start, watch and stop, the last results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from fam_ext.core.config import FamConfig
from fam_ext.errors import FamError
from fam_ext.metadata.loaded import infotext_of_image
from fam_ext.options import resolve
from fam_ext.options.field import PAGE, options_of
from fam_ext.options.job import Job
from fam_ext.options.renderer import WEBUI, RendererChoice
from fam_ext.options.resolve import options_at
from fam_ext.ui.common import COMMON_ROWS, PAGE_VALUES, page_words
from fam_ext.ui.compare import compare_html, sentence_html, status_html, upright
from fam_ext.ui.host import TAB_ID, TabHost, TabParts
from fam_ext.ui.parts import build_part
from fam_ext.ui.plan import plan_pages, question

FOLDER_ROWS: tuple[tuple[str, ...], ...] = (
    ("input",),
    ("output",),
    ("pattern", "recursive", "first"),
    ("prompt_rule", "prompt"),
    ("negative_rule", "negative_prompt"),
    ("own_settings", "own_model"),
    ("max_side", "max_megapixels"),
    ("format", "name", "overwrite"),
)
_PLACEHOLDERS = {
    "output": {"placeholder": "empty: beside the input folder"},
    "pattern": {"placeholder": "*.png, *.jpg"},
}
_POLL_SECONDS = 0.5


def folder_inputs(host: TabHost) -> dict[str, Any]:
    """Build the mode's parts and return them by name."""
    free = not host.folders_note
    parts: dict[str, Any] = {}
    if host.folders_note:
        gr.HTML(sentence_html(host.folders_note, kind="error"))

    def name(part: str) -> dict[str, Any]:
        return {"elem_id": f"{TAB_ID}_folder_{part}"}

    known = {spec.name: spec for spec in options_at(PAGE) if spec not in options_of(FamConfig)}
    rest = [name for name in known if name not in sum((*FOLDER_ROWS, *COMMON_ROWS), ()) and name != "preset"]
    for row in (*FOLDER_ROWS, *((name,) for name in rest)):
        with gr.Row():
            for part in row:
                hidden = {"visible": free} if part in ("input", "output") else {}
                more = {**hidden, **_PLACEHOLDERS.get(part, {}), **name(part)}
                parts[part] = build_part(known[part], value=PAGE_VALUES.get(part), **more)
    with gr.Row():
        parts["list"] = gr.Button("List (dry run)", elem_id=f"{TAB_ID}_list")
        parts["start"] = gr.Button("Start", variant="primary", elem_id=f"{TAB_ID}_start")
    with gr.Row():
        parts["pause"] = gr.Button("Pause / resume", elem_id=f"{TAB_ID}_pause")
        parts["skip"] = gr.Button("Skip this file", elem_id=f"{TAB_ID}_skip")
        parts["stop_after"] = gr.Button("Stop after this file", elem_id=f"{TAB_ID}_stop_after")
        parts["stop"] = gr.Button("Stop now", variant="stop", elem_id=f"{TAB_ID}_stop")
    parts["watch"] = gr.Button("Show the running job", elem_id=f"{TAB_ID}_watch")
    for part in ("input", "output", "prompt", "negative_prompt", "first"):
        parts[part].do_not_save_to_config = True
    return parts


def bind_folder(
    host: TabHost,
    folder: dict[str, Any],
    common: dict[str, Any],
    dials: list[Any],
    parts: TabParts,
    compare: Any,  # noqa: ANN401
    status: Any,  # noqa: ANN401
) -> None:
    own = [name for name, part in folder.items() if not isinstance(part, gr.Button)]
    names = [*own, *common]

    def options_of(rest: tuple[Any, ...]) -> Job:
        values = dict(zip(names, rest[: len(names)], strict=True))
        words = page_words(values, rest[len(names) :])
        words["output"] = values["output"] or host.default_output(values["input"] or "")
        return host.check_places(resolve.job(words, preset_of=host.store.get, renderer=RendererChoice(WEBUI)))

    def listed(*rest: Any) -> Iterator[str]:  # noqa: ANN401
        try:
            yield from plan_pages(options_of(rest))
        except FamError as error:
            yield sentence_html(str(error), kind="error")

    def watch() -> Iterator[tuple[Any, ...]]:
        batch = host.batches.latest()
        if batch is None:
            yield sentence_html("no job has been started since the program began"), *unchanged
            return
        shown = -1
        while True:
            over = batch.over
            job = batch.to_json()
            done = [row for row in job["rows"] if row["state"] == "done"]
            if len(done) > shown:  # at first too: another job's pictures go
                shown = len(done)
                yield status_html(job), *_latest_results(batch.options, done)
            else:
                yield status_html(job), *unchanged
            if over:
                return
            time.sleep(_POLL_SECONDS)

    def start(asked: str, *rest: Any) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401
        given = repr(rest)
        try:
            options = options_of(rest)
            if asked != given and host.batches.active() is None:
                yield sentence_html("reading the folder"), *unchanged, ""
                if words := question(options):
                    yield sentence_html(words, kind="error"), *unchanged, given
                    return
            host.batches.start(options)
        except FamError as error:
            yield sentence_html(str(error), kind="error"), *unchanged, asked
            return
        for values in watch():
            yield *values, given

    unchanged = (gr.update(),) * 4
    inputs = [*(folder[name] for name in own), *common.values(), *dials]
    outputs = [status, parts.gallery, parts.texts, parts.result_infotext, compare]
    folder["list"].click(listed, inputs=inputs, outputs=[status], api_name=False)
    asked = gr.State("")  # the values that a second press starts although files carry no prompt
    folder["start"].click(
        start, inputs=[asked, *inputs], outputs=[*outputs, asked], show_progress=False, api_name=False
    )
    folder["watch"].click(watch, inputs=[], outputs=outputs, show_progress=False, api_name=False)

    def say(action: Callable[[Any], None]) -> Callable[[], None]:
        def act() -> None:
            batch = host.batches.active()
            if batch is not None:
                action(batch)

        return act

    def pause(batch: Any) -> None:  # noqa: ANN401
        if batch.control.paused:
            batch.control.resume()
        else:
            batch.control.pause()

    for name, action in (
        ("pause", pause),
        ("skip", lambda batch: host.skip()),
        ("stop_after", lambda batch: batch.control.stop_after_this()),
        ("stop", lambda batch: batch.control.cancel()),
    ):
        folder[name].click(say(action), inputs=[], outputs=[], show_progress=False, api_name=False, queue=False)


def _latest_results(options: Job, done: list[dict[str, Any]]) -> tuple[Any, ...]:
    """Return the gallery of the last finished pictures, their infotexts, the first one's, and the slider of the very
    last picture."""
    shown: list[Image.Image] = []
    texts: list[str] = []
    for row in reversed(done[-12:]):
        path = Path(options.places.output) / row["output"]
        try:
            with Image.open(path) as image:
                text = infotext_of_image(image)
                image.draft("RGB", (512, 512))
                thumbnail = upright(image)
        except OSError:
            continue
        thumbnail.thumbnail((512, 512))
        # the WebUI shows and sends this file in place of the thumbnail
        setattr(thumbnail, "already_saved_as", str(path))  # noqa: B010
        shown.append(thumbnail)
        texts.append(text)
    slider: Any = ""
    if done:
        source = Path(options.places.inputs[0])
        before = source / done[-1]["key"] if source.is_dir() else source
        try:
            with Image.open(before) as native, Image.open(Path(options.places.output) / done[-1]["output"]) as result:
                slider = compare_html(native, result)
        except OSError:
            slider = gr.update()
    return shown, texts, texts[0] if texts else "", slider
