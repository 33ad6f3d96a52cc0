"""Ends the next guided pass at a step: by an error in the network, or as the WebUI's Interrupt does. For the tests."""

from modules import script_callbacks, sd_samplers_cfg_denoiser, shared
from modules.processing import StableDiffusionProcessingImg2Img

wanted = []


def ended(forward):
    def ending(self, *args, **kwargs):
        large = isinstance(self.p, StableDiffusionProcessingImg2Img) or self.p.is_hr_pass
        if wanted and large and self.step >= 1:
            if wanted.pop() == "error":
                raise RuntimeError("the probe ends this pass")
            shared.state.interrupt()
        return forward(self, *args, **kwargs)

    return ending


def end_next(how: str):
    wanted[:] = [how]


sd_samplers_cfg_denoiser.CFGDenoiser.forward = ended(sd_samplers_cfg_denoiser.CFGDenoiser.forward)
script_callbacks.on_app_started(lambda demo, app: app.add_api_route("/probe/end", end_next, methods=["GET"]))
