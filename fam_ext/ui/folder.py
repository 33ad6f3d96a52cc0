"""The tab's Batch folder mode: what its parts ask for, the list of what would be done, the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from fam_ext.errors import FamError
from fam_ext.options import resolve
from fam_ext.options.job import Job
from fam_ext.options.renderer import WEBUI, RendererChoice
from fam_ext.ui.common import option_row, page_words
from fam_ext.ui.host import TAB_ID, TabHost, TabParts
from fam_ext.ui.plan import new_folder, plan_pages, question
from fam_ext.ui.running import Watch, bind_running
from fam_ext.ui.tables import error_html, sentence_html


def folder_inputs(host: TabHost) -> dict[str, Any]:
    """Build what the mode's first column has, and return the parts by name."""
    if host.folders_note:
        gr.HTML(sentence_html(host.folders_note, kind="error"))
    return option_row(host, ("input",))


@dataclass(frozen=True)
class Folder:
    """The mode as what starts a job sees it."""

    names: list[str]
    """The options that its parts say, in order."""
    inputs: list[Any]
    """Their components, and then the dials'."""
    dials: list[Any]
    options_of: Callable[[tuple[Any, ...]], Job]
    """Returns the job of the values of `inputs`. Raises a `FamError`."""
    watch: Watch
    outputs: list[Any]
    """The components that `watch` fills."""
    listing: Any
    """The event that lists the folder; a start ends it."""


def bind_folder(
    host: TabHost,
    folder: dict[str, Any],
    common: dict[str, Any],
    dials: list[Any],
    buttons: dict[str, Any],
    parts: TabParts,
) -> Folder:
    """Bind the mode's buttons; `folder` and `common` are the parts by their options' names."""
    names = [*folder, *common]

    def options_of(rest: tuple[Any, ...]) -> Job:
        values = dict(zip(names, rest[: len(names)], strict=True))
        words = page_words(values, rest[len(names) :])
        words["output"] = values["output"] or host.default_output(values["input"] or "")
        return host.check_places(resolve.job(words, preset_of=host.store.get, renderer=RendererChoice(WEBUI)))

    def listed(*rest: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401
        try:
            for page in plan_pages(options_of(rest)):
                yield page, ""
        except (FamError, OSError) as error:
            yield error_html(error), ""

    watch = Watch(host)

    def start(asked: str, *rest: Any, again: bool = False) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401
        given = repr((again, rest))
        try:
            options = options_of(rest)
            if again:
                options = host.check_places(options.replace(output=new_folder(options.places.output)))
            if asked != given and host.batches.active() is None:
                yield *watch.said(sentence_html("reading the folder")), ""
                if words := question(options):
                    yield *watch.said(sentence_html(words, kind="error")), given
                    return
            host.batches.start(options)
        except (FamError, OSError) as error:
            yield *watch.said(error_html(error)), asked
            return
        for values in watch(""):
            yield *values, given

    def start_again(asked: str, *rest: Any) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401
        """As `start`, into a new folder, which the page then names: the next Start goes on there."""
        for values in start(asked, *rest, again=True):
            batch = host.batches.active()
            yield *values, gr.update() if batch is None else gr.update(value=batch.options.places.output)

    inputs = [*folder.values(), *common.values(), *dials]
    outputs = bind_running(host, watch, buttons, parts)
    listing = buttons["list"].click(listed, inputs=inputs, outputs=outputs[:2], show_progress=False, api_name=False)
    asked = gr.State("")  # the values that a second press starts although files carry no prompt
    for name, act, more in (("start", start, []), ("again", start_again, [folder["output"]])):
        buttons[name].click(
            act,
            _js="fam_hires_quiet",
            inputs=[asked, *inputs],
            outputs=[*outputs, asked, *more],
            cancels=[listing],
            show_progress=False,
            api_name=False,
        )
    return Folder(names, inputs, dials, options_of, watch, outputs, listing)


def start_buttons() -> dict[str, Any]:
    """Build the folder's buttons and return them by name; style.css shows Stop and its row during a run alone."""
    parts: dict[str, Any] = {}
    with gr.Row(elem_classes=["fam-go", "fam-for-folder", "fam-idle"]):
        parts["start"] = gr.Button("Start", variant="primary", elem_id=f"{TAB_ID}_start")
        parts["try"] = gr.Button("Try on 3", elem_id=f"{TAB_ID}_try")
        parts["list"] = gr.Button("List (dry run)", elem_id=f"{TAB_ID}_list")
        parts["again"] = gr.Button("All again", elem_id=f"{TAB_ID}_again")
    with gr.Row(elem_classes=["fam-go", "fam-for-folder", "fam-run"]):
        parts["stop"] = gr.Button("Stop now", variant="stop", elem_id=f"{TAB_ID}_stop", size="sm")
        parts["stop_after"] = gr.Button("Stop after this file", elem_id=f"{TAB_ID}_stop_after", size="sm")
        parts["skip"] = gr.Button("Skip this file", elem_id=f"{TAB_ID}_skip", size="sm")
        parts["pause"] = gr.Button("Pause", elem_id=f"{TAB_ID}_pause", size="sm")
    parts["watch"] = gr.Button("Show the running job", elem_id=f"{TAB_ID}_watch", elem_classes="fam-hidden")
    return parts
