"""The "FAM Hires" tab: one picture, or a folder, with before and after. No torch and no host: see `TabHost`."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from fam_ext.core.config import FamConfig
from fam_ext.errors import FamError, UsageError
from fam_ext.jobs.make import enlarged
from fam_ext.jobs.settings import request_for
from fam_ext.jobs.size import check_native, target_size
from fam_ext.metadata.infotext import (
    Infotext,
    format_infotext,
    is_fam,
    parse,
    readable_fields,
    request_value,
    to_preset,
)
from fam_ext.metadata.loaded import infotext_of_image
from fam_ext.options import resolve
from fam_ext.options.field import PAGE, options_of
from fam_ext.options.job import WEBUI, Job, RendererChoice
from fam_ext.options.presets import BUILTIN, CUSTOM, DEFAULT, Preset, PresetStore, read, write
from fam_ext.options.request import HiresRequest
from fam_ext.options.resolve import SAMPLING, options_at
from fam_ext.ui.compare import compare_html, sentence_html, status_html, upright
from fam_ext.ui.dials import bind_preset_box, build_dials, dial_values, preset_of, read_dials
from fam_ext.ui.folder import plan_pages, question
from fam_ext.ui.parts import build_part

logger = logging.getLogger(__name__)

TAB_ID = "fam_hires"
NO_PRESET = CUSTOM
LOADED_MODEL = "the one that is loaded"
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
COMMON_ROWS: tuple[tuple[str, ...], ...] = (
    ("scale", "width", "height"),
    ("upscaler", "sampler", "schedule"),
    ("steps", "cfg_scale", "seed"),
    ("model",),
)
"""Where the options stand that both modes use; one that has no place stands below the folder's."""
PAGE_VALUES: Mapping[str, Any] = {**BUILTIN[DEFAULT].settings, "negative_rule": "take", "own_settings": True}
"""What the page shows first where the option has no default of its own."""
_PLACEHOLDERS = {
    "output": {"placeholder": "empty: beside the input folder"},
    "pattern": {"placeholder": "*.png, *.jpg"},
}
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Made:
    """A picture from the tab's Picture mode: the images, their infotext, the host's comments."""

    images: list[Any]
    infotext: str
    comments: str = ""


def _pass_through(function: Callable[..., Any], extra_outputs: list[Any]) -> Callable[..., Any]:
    return function


@dataclass(frozen=True)
class TabHost:
    """What the tab asks of the program around it."""

    store: PresetStore
    batches: Any
    """`fam_ext.jobs.batches.Batches` or its like."""
    generate: Callable[[Image.Image, HiresRequest, str], Made]
    """(native picture, request, upscaler) -> the finished pictures. Raises `FamError`s."""
    samplers: Callable[[], list[str]]
    schedules: Callable[[], list[str]]
    upscalers: Callable[[], list[str]]
    models: Callable[[], list[str]]
    config: FamConfig = field(default_factory=FamConfig)
    check_places: Callable[[Job], Job] = lambda options: options
    """Returns the job with its folders in full; raises a `FamError` where the server does not let the page run it."""
    folders_note: str = ""
    """Why folders cannot be chosen freely; empty where they can."""
    default_output: Callable[[str], str] = lambda source: ""
    interrupt: Callable[[], None] = lambda: None
    skip: Callable[[], None] = lambda: None
    gpu_call: Callable[[Callable[..., Any], list[Any]], Callable[..., Any]] = _pass_through
    """Wraps a function of (task id, ...) that renders; on an error it returns the extra outputs and the sentence."""
    send_buttons: Callable[[Any, Any, Any], None] = lambda gallery, infotext, image: None
    """Builds the buttons that send a result elsewhere."""
    paste_fields: Callable[[Any, list[tuple[Any, Callable[[Mapping[str, Any]], Any]]]], None] = lambda image, fields: (
        None
    )


@dataclass
class TabParts:
    """The tab's components that the program around it binds to."""

    image: Any
    infotext: Any
    gallery: Any
    texts: Any
    """The infotexts of the gallery's pictures, kept on the server."""
    result_infotext: Any
    """That of the picture which the buttons send."""


def build_tab(host: TabHost) -> TabParts:
    """Build the tab inside the open Blocks."""
    with gr.Row(elem_id=f"{TAB_ID}_row", equal_height=False):
        with gr.Column(scale=5, variant="panel", elem_id=f"{TAB_ID}_settings"):
            with gr.Tabs(elem_id=f"{TAB_ID}_mode"):
                with gr.TabItem("Picture", id="picture", elem_id=f"{TAB_ID}_mode_picture"):
                    picture = _picture_inputs()
                with gr.TabItem("Batch folder", id="folder", elem_id=f"{TAB_ID}_mode_folder"):
                    folder = _folder_inputs(host)
            common = _common_inputs(host)
            presets = _preset_inputs(host)
            with gr.Group(elem_id=f"{TAB_ID}_dials"):
                dials = build_dials(host.config, elem_id=lambda part: f"{TAB_ID}_{part}")
        with gr.Column(scale=6, variant="panel", elem_id=f"{TAB_ID}_results"):
            with gr.Group(elem_id=f"{TAB_ID}_gallery_container"):
                gallery = gr.Gallery(label="Results", elem_id=f"{TAB_ID}_gallery", columns=4, preview=True, height=400)
            log = gr.HTML(elem_id=f"html_log_{TAB_ID}", elem_classes="html-log")
            with gr.Row(elem_id=f"image_buttons_{TAB_ID}", elem_classes="image-buttons"):
                result_infotext = gr.Textbox(visible=False, elem_id=f"generation_info_{TAB_ID}")
                host.send_buttons(gallery, result_infotext, picture["image"])
            shown_infotext = gr.HTML(elem_id=f"html_info_{TAB_ID}", elem_classes="infotext")
            compare = gr.HTML(elem_id=f"{TAB_ID}_compare")
            status = gr.HTML(elem_id=f"{TAB_ID}_status")
            texts = gr.State([])
    parts = TabParts(picture["image"], picture["infotext"], gallery, texts, result_infotext)
    gallery.select(_selected_text, inputs=[texts], outputs=[result_infotext], show_progress=False, api_name=False)
    _bind_picture(host, picture, common, dials, parts, shown_infotext, compare, log)
    _bind_folder(host, folder, common, dials, parts, compare, status)
    _bind_presets(host, presets, dials, {**common, "own_settings": folder["own_settings"]}, picture)
    host.paste_fields(picture["image"], _paste_fields(picture, common, dials))
    return parts


# --- components


def _picture_inputs() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    parts["task"] = gr.Textbox(visible=False, value="", elem_id=f"{TAB_ID}_task")
    parts["image"] = gr.Image(
        label="Native picture", type="pil", elem_id=f"{TAB_ID}_image", interactive=True, height=320, image_mode="RGBA"
    )
    parts["infotext"] = gr.Textbox(
        label="Infotext of the picture (its prompts are used)",
        lines=4,
        placeholder="prompt\nNegative prompt: ...",
        elem_id=f"{TAB_ID}_infotext",
    )
    parts["note"] = gr.HTML(elem_id=f"{TAB_ID}_picture_note")
    parts["own_model"] = gr.Checkbox(
        label="Take the checkpoint and VAE from the infotext", value=False, elem_id=f"{TAB_ID}_own_model"
    )
    with gr.Row():
        parts["generate"] = gr.Button("Generate", variant="primary", elem_id=f"{TAB_ID}_generate")
        parts["interrupt"] = gr.Button("Interrupt", elem_id=f"{TAB_ID}_interrupt")
        parts["apply"] = gr.Button("Take settings from infotext", elem_id=f"{TAB_ID}_apply_infotext")
    for part in ("task", "image", "infotext"):
        parts[part].do_not_save_to_config = True
    return parts


def _folder_inputs(host: TabHost) -> dict[str, Any]:
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


def _common_inputs(host: TabHost) -> dict[str, Any]:
    parts: dict[str, Any] = {}

    def name(part: str) -> dict[str, Any]:
        return {"elem_id": f"{TAB_ID}_{part}"}

    known = {spec.name: spec for spec in options_at(PAGE)}
    lists = {
        "upscaler": host.upscalers(),
        "sampler": host.samplers(),
        "schedule": host.schedules(),
        "model": [LOADED_MODEL, *host.models()],
    }
    for row in COMMON_ROWS:
        with gr.Row():
            for part in row:
                wanted = PAGE_VALUES.get(part) or known[part].default or known[part].off
                more: dict[str, Any] = {"maximum": 4} if part == "scale" else {}
                if part in lists:
                    choices = lists[part]
                    wanted = wanted if wanted in choices else (choices[0] if choices else None)
                    more = {"choices": choices}
                parts[part] = build_part(known[part], value=wanted, **more, **name(part))
    parts["model"].do_not_save_to_config = True
    return parts


def _presets(host: TabHost) -> list[Preset]:
    return [host.store.get(name) for name in host.store.names()]


def _preset_inputs(host: TabHost) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Row(elem_id=f"{TAB_ID}_preset_row"):
        parts["preset"] = gr.Dropdown(
            label="Preset",
            choices=[NO_PRESET, *host.store.names()],
            value=preset_of(dial_values(host.config), _presets(host)),
            elem_id=f"{TAB_ID}_preset",
        )
        parts["preset"].do_not_save_to_config = True
        parts["refresh"] = gr.Button("Refresh presets", elem_id=f"{TAB_ID}_preset_refresh")
        parts["load"] = gr.Button("Use", elem_id=f"{TAB_ID}_preset_load")
    with gr.Accordion("Save, share and import presets", open=False, elem_id=f"{TAB_ID}_presets"):
        with gr.Row():
            parts["name"] = gr.Textbox(label="Preset name", elem_id=f"{TAB_ID}_preset_name")
            parts["name"].do_not_save_to_config = True
            parts["save"] = gr.Button("Save these dials", elem_id=f"{TAB_ID}_preset_save")
            parts["delete"] = gr.Button("Delete", elem_id=f"{TAB_ID}_preset_delete")
        with gr.Row():
            parts["from_image"] = gr.Button("Save from the picture's infotext", elem_id=f"{TAB_ID}_preset_from_image")
            parts["export"] = gr.Button("Export", elem_id=f"{TAB_ID}_preset_export")
            parts["import"] = gr.UploadButton(
                "Import", file_types=[".json"], elem_id=f"{TAB_ID}_preset_import", type="file"
            )
        parts["file"] = gr.File(label="Exported preset", visible=False, elem_id=f"{TAB_ID}_preset_file")
    parts["note"] = gr.HTML(elem_id=f"{TAB_ID}_preset_note")
    return parts


# --- Picture


def infotext_of(image: Image.Image | None) -> str:
    """Return the infotext that a picture carries, what another program wrote as infotext, "" where there is none."""
    return "" if image is None else infotext_of_image(image)


def page_words(values: Mapping[str, Any], dials: Sequence[Any]) -> dict[str, Any]:
    """Return the words of a job that the page's parts say: by name, the dials by their places."""
    words = {**values, **read_dials(dials)}
    if words.get("model") == LOADED_MODEL:
        words["model"] = None
    return words


def picture_request(image: Image.Image, infotext: str, words: Mapping[str, Any], store: PresetStore) -> HiresRequest:
    """Return the request for one picture. Raises `ConfigError`, `UsageError` or `PictureError`, one sentence."""
    native = (image.height, image.width)
    # as a folder's file, but for the settings, which are the page's: what the picture has was taken into them
    options = resolve.job({**words, "input": "picture", "own_settings": False}, preset_of=store.get)
    target, reason = target_size(native, options.size)
    check_native(native, target)
    if reason is not None:
        raise UsageError(f"{reason}; choose a larger scale or target")
    return request_for(parse(infotext), target, options.picture)[0]


def _bind_picture(
    host: TabHost,
    picture: dict[str, Any],
    common: dict[str, Any],
    dials: list[Any],
    parts: TabParts,
    shown_infotext: Any,  # noqa: ANN401
    compare: Any,  # noqa: ANN401
    log: Any,  # noqa: ANN401
) -> None:
    names = ["own_model", *common]

    def generate(task: str, image: Image.Image | None, infotext: str, *rest: Any) -> tuple[Any, ...]:  # noqa: ANN401
        try:
            return generated(image, infotext, rest)
        except FamError as error:
            # answered here: the host would print a traceback and name the class
            logger.warning("%s", error)
            return None, [], "", "", "", sentence_html(str(error), kind="error")

    def generated(image: Image.Image | None, infotext: str, rest: tuple[Any, ...]) -> tuple[Any, ...]:
        if image is None:
            raise UsageError("there is no picture; drop one in, or send one from another tab")
        values = dict(zip(names, rest[: len(names)], strict=True))
        image, shown = upright(image), infotext or ""
        request = picture_request(image, shown, page_words(values, rest[len(names) :]), host.store)
        image, notes = enlarged(image)
        made = host.generate(image, request, values["upscaler"])
        slider = compare_html(image, made.images[0]) if made.images else ""
        words = made.infotext.replace("&", "&amp;").replace("<", "&lt;").replace("\n", "<br>\n")
        texts = [made.infotext] * len(made.images)
        return (
            made.images,
            texts,
            made.infotext,
            f"<p>{words}</p>",
            slider,
            sentence_html("; ".join(filter(None, (*notes, made.comments)))),
        )

    outputs = [parts.gallery, parts.texts, parts.result_infotext, shown_infotext, compare, log]
    picture["generate"].click(
        host.gpu_call(generate, [None, [], "", "", ""]),
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
    picture["interrupt"].click(lambda: host.interrupt(), inputs=[], outputs=[], api_name=False, queue=False)

    fields = _infotext_outputs(common, dials)

    def take(infotext: str) -> list[Any]:
        return [sentence_html(_describe(infotext)), *_values_from(infotext, common, dials)]

    def loaded(image: Image.Image | None, infotext: str) -> list[Any]:
        text = infotext_of(image)
        if not text:
            note = "" if image is None else f"{image.width} x {image.height} px; it carries no infotext, write a prompt"
            return [gr.update(), sentence_html(note), *(gr.update() for _ in fields)]
        return [text, *take(text)]

    picture["image"].change(
        loaded,
        inputs=[picture["image"], picture["infotext"]],
        outputs=[picture["infotext"], picture["note"], *fields],
        show_progress=False,
        api_name=False,
    )
    picture["apply"].click(
        take, inputs=[picture["infotext"]], outputs=[picture["note"], *fields], show_progress=False, api_name=False
    )


def _describe(infotext: str) -> str:
    found = parse(infotext)
    if not found.params:
        return "the infotext holds prompts only; sampler, steps and the dials stay as they are"
    kind = "made by FAM: its dials are set" if is_fam(found.params) else "not made by FAM: the dials stay as they are"
    said = f"sampler, steps, CFG and seed are set from the infotext; {kind}"
    problems = readable_fields(found.params)[1] if is_fam(found.params) else []
    return "; ".join([said, *(f"not set: {problem}" for problem in problems)])


def _infotext_outputs(common: dict[str, Any], dials: list[Any]) -> list[Any]:
    return [common[name] for name in SAMPLING] + dials


def _values_from(infotext: str, common: dict[str, Any], dials: list[Any]) -> list[Any]:
    """Return updates for `_infotext_outputs`: what the infotext says, and nothing where it is silent."""
    params = parse(infotext).params
    updates: list[Any] = []
    for name in SAMPLING:
        value = request_value(params, name)
        choices = _choices(common[name])
        fits = value is not None and (choices is None or value in choices)
        updates.append(gr.update(value=value) if fits else gr.update())
    config = readable_fields(params)[0] if is_fam(params) else None
    if config is None:
        return [*updates, *(gr.update() for _ in dials)]
    return [*updates, *(gr.update(value=value) for value in dial_values(config))]


def _choices(component: Any) -> list[Any] | None:  # noqa: ANN401
    """Return a dropdown's values: plain in gradio 3, (label, value) pairs since."""
    choices = getattr(component, "choices", None)
    if choices is None:
        return None
    return [entry[1] if isinstance(entry, tuple | list) else entry for entry in choices]


def _paste_fields(
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
            choices = _choices(common[name])
            return value if choices is None or value in choices else None

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


# --- Batch folder


def _bind_folder(
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
                text = infotext_of(image)
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


def _selected_text(texts: list[str], event: gr.SelectData) -> str:
    """Return the infotext of the picture that was chosen in the gallery."""
    return texts[event.index] if isinstance(event.index, int) and event.index < len(texts) else ""


# --- presets


def _bind_presets(
    host: TabHost, presets: dict[str, Any], dials: list[Any], common: dict[str, Any], picture: dict[str, Any]
) -> None:
    note, listing = presets["note"], presets["preset"]
    setting_names = ("sampler", "schedule", "steps", "cfg_scale")
    own_settings = common["own_settings"]

    def choices(value: str) -> Any:  # noqa: ANN401
        return gr.update(choices=[NO_PRESET, *host.store.names()], value=value)

    def answered(action: Callable[[], tuple[str, str]], silent: int = 0) -> list[Any]:
        try:
            name, text = action()
        except FamError as error:
            return [gr.update(), sentence_html(str(error), kind="error"), *(gr.update() for _ in range(silent))]
        return [choices(name), sentence_html(text, kind="good"), *(gr.update() for _ in range(silent))]

    def use(name: str) -> list[Any]:
        targets = [*dials, *(common[key] for key in setting_names)]
        if name == NO_PRESET:
            return [gr.update() for _ in [note, own_settings, *targets]]
        try:
            preset = host.store.get(name)
        except FamError as error:
            return [sentence_html(str(error), kind="error"), *(gr.update() for _ in [own_settings, *targets])]
        updates = [gr.update(value=value) for value in dial_values(preset.config)]
        for key in setting_names:
            value = preset.settings.get(key)
            known = _choices(common[key])
            updates.append(gr.update(value=value) if value and (known is None or value in known) else gr.update())
        # as at every door: an overriding preset's settings are for every file
        return [sentence_html(preset.description), gr.update(value=not preset.overrides), *updates]

    def settings(values: tuple[Any, ...]) -> dict[str, Any]:
        found: dict[str, Any] = dict(zip(setting_names, values, strict=True))
        found["steps"] = int(found["steps"])
        return found

    def stored(make: Callable[[], Preset], asked: str) -> list[Any]:
        """Save the preset; return the answer and the name that is asked about: over one that exists only when asked."""
        waiting = ""

        def action() -> tuple[str, str]:
            nonlocal waiting
            preset = make()
            if preset.name != asked and host.store.taken(preset.name) == preset.name:
                waiting = preset.name
                raise UsageError(f"there is a preset {preset.name} already; press once more to replace it")
            host.store.save(preset, replace=True)
            return preset.name, f"saved {preset.name}"

        return [*answered(action), waiting]

    def save(asked: str, name: str, *values: Any) -> list[Any]:  # noqa: ANN401
        def make() -> Preset:
            config = FamConfig.from_dict(read_dials(values[: len(dials)]))
            return Preset(name.strip(), "", config, settings(values[len(dials) :]))

        return stored(make, asked)

    def delete(name: str) -> list[Any]:
        def action() -> tuple[str, str]:
            host.store.delete(name)
            return NO_PRESET, f"deleted {name}"

        return answered(action)

    def from_image(asked: str, name: str, infotext: str) -> list[Any]:
        return stored(lambda: to_preset(infotext, name.strip() or "from picture"), asked)

    def export(name: str) -> list[Any]:
        try:
            preset = host.store.get(name)  # only what is in the list: the name is never a path
            path = Path(tempfile.mkdtemp(prefix="fam-preset-")) / f"{preset.name}.json"
            write(preset, path)
        except FamError as error:
            return [gr.update(), sentence_html(str(error), kind="error")]
        return [gr.update(value=str(path), visible=True), sentence_html(f"{name}.json is ready below")]

    def take_file(file: Any) -> list[Any]:  # noqa: ANN401
        def action() -> tuple[str, str]:
            preset = read(_uploaded(file))
            host.store.save(preset)
            return preset.name, f"imported {preset.name}"

        return answered(action)

    values = [*dials, *(common[key] for key in setting_names)]
    asked = gr.State("")  # the preset that a second press replaces
    bind_preset_box(listing, dials, lambda: _presets(host), refresh=presets["refresh"])
    listing.input(use, inputs=[listing], outputs=[note, own_settings, *values], show_progress=False, api_name=False)
    presets["load"].click(
        use, inputs=[listing], outputs=[note, own_settings, *values], show_progress=False, api_name=False
    )
    presets["save"].click(
        save,
        inputs=[asked, presets["name"], *values],
        outputs=[listing, note, asked],
        show_progress=False,
        api_name=False,
    )
    presets["delete"].click(delete, inputs=[listing], outputs=[listing, note], show_progress=False, api_name=False)
    presets["from_image"].click(
        from_image,
        inputs=[asked, presets["name"], picture["infotext"]],
        outputs=[listing, note, asked],
        show_progress=False,
        api_name=False,
    )
    presets["export"].click(
        export, inputs=[listing], outputs=[presets["file"], note], show_progress=False, api_name=False
    )
    presets["import"].upload(
        take_file, inputs=[presets["import"]], outputs=[listing, note], show_progress=False, api_name=False
    )


def _uploaded(file: Any) -> Path:  # noqa: ANN401
    """Return an uploaded file's path. Raises `UsageError` where a client names any other file of the server."""
    path = Path(getattr(file, "name", file)).resolve()
    uploads = (Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio")).resolve()
    if uploads not in path.parents:
        raise UsageError("the file was not uploaded; choose one with the Import button")
    return path


def labels_and_ids(root: Any) -> str:  # noqa: ANN401
    """Return all labels and elem_ids of the built components as JSON, for the snapshot test."""
    found = []
    for block in root.blocks.values():
        element_id, label = (
            getattr(block, "elem_id", None),
            getattr(block, "label", None) or getattr(block, "value", None),
        )
        if element_id and element_id.startswith(TAB_ID):
            found.append([element_id, label if isinstance(label, str) and len(label) < 120 else None])
    return json.dumps(sorted(found), indent=1)
