"""The accordion's sentence before Generate: bound to the parts of the page that decide what FAM will do."""

from __future__ import annotations

from typing import Any

from modules import sd_models, sd_samplers, shared
from modules.processing import old_hires_fix_first_pass_dimensions

from fam_ext.core.config import FamConfig
from fam_ext.core.schedule import Size
from fam_ext.errors import FamError
from fam_ext.methods.catalog import FAM
from fam_ext.ui.foretell import BEFORE, Hires, foretold, hires_target
from fam_ext.ui.tables import sentence_html
from fam_ext.webui.known import check_method, check_model

_OURS = ("fam_hires-checkbox", "fam_hires_start", "fam_hires_upsample", "fam_hires_am")
_HIRES = ("hr-checkbox", "hr_upscaler", "hr_scale", "hr_resize_x", "hr_resize_y", "width", "height")
_SAMPLER = "sampling"
_HIRES_SAMPLER = "hr_sampler"
_LAST = "send_to_extras"
"""The component by which all of a tab's others are built."""
_seen: dict[str, Any] = {}


def remember(element_id: str, component: Any) -> None:  # noqa: ANN401
    """Take up a component of the page; called for each as it is built."""
    if element_id == _HIRES_SAMPLER or element_id.startswith(("txt2img_", "img2img_")):
        _seen[element_id] = component
    for tab in ("txt2img", "img2img"):
        if element_id == f"{tab}_{_LAST}":
            _bind(tab)


def _bind(tab: str) -> None:
    is_img2img = tab == "img2img"
    names = [f"{tab}_{name}" for name in (*_OURS, _SAMPLER, *(() if is_img2img else _HIRES))]
    if not is_img2img:
        names.append(_HIRES_SAMPLER)
    hint, button = (_seen.get(f"{tab}_fam_hires_{name}") for name in ("hint", "say"))
    if hint is None or button is None or any(name not in _seen for name in names):
        return  # another WebUI's page, or one that another extension has changed: the sentence of before stays

    def say(enabled: bool, start: float, upsample: str, am: bool, sampler: str, *hires: Any) -> str:  # noqa: ANN401
        if not enabled:
            return sentence_html(BEFORE[is_img2img])
        found = None
        if not is_img2img:
            on, upscaler, scale, x, y, width, height, hires_sampler = hires
            found = Hires(on, upscaler, *_sizes((int(height), int(width)), scale=scale, width=int(x), height=int(y)))
            sampler = hires_sampler if hires_sampler in sd_samplers.all_samplers_map else sampler
        problem = _problem(sampler, am=am)
        return foretold(found, start=start, own_upsampling=upsample != "auto", problem=problem)

    inputs = [_seen[name] for name in names]
    button.click(say, inputs=inputs, outputs=[hint], show_progress=False, api_name=False, queue=False)
    for component in inputs:  # a slider changes many times while it is drawn, and by a preset or a paste too
        component.change(None, _js=f"() => fam_hires_say_soon('{tab}')", inputs=[], outputs=[])


def _sizes(asked: Size, **hires: Any) -> tuple[Size, Size]:  # noqa: ANN401
    """Return the native and the target (height, width) where the page asks for `asked`, and Hires. fix as in
    `hires_target`: by the WebUI's old setting the page's size is the target."""
    if not shared.opts.use_old_hires_fix_width_height:
        return asked, hires_target(asked, **hires)
    width, height = old_hires_fix_first_pass_dimensions(asked[1], asked[0])
    return (height, width), asked


def _problem(sampler: str, *, am: bool) -> str:
    model = sd_models.model_data.sd_model  # not shared.sd_model, which would load one
    if model is None:
        return ""
    try:
        check_model(model, FamConfig(am=am))
        check_method(FAM, sampler, model)
    except FamError as error:
        return str(error)
    return ""
