"""Deterministic fast renderers and picture folders. Importable by worker processes."""

import hashlib
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, PngImagePlugin

from fam_ext.errors import Cancelled, OutOfMemoryError, Skipped, UnsupportedSamplerError, UnsupportedScheduleError
from fam_ext.jobs.contract import Progress, Ran, Rendered, Renderer
from fam_ext.jobs.renderers import RendererSpec
from fam_ext.options import resolve
from fam_ext.options.job import Job
from fam_ext.options.presets import PresetStore
from fam_ext.options.renderer import WEBUI, RendererChoice
from fam_ext.options.request import HiresRequest


@dataclass(frozen=True)
class FakeSpec(RendererSpec):
    """A renderer of this module by its class's name; other processes find it here."""

    name: str = "Fast"

    def build(self) -> Renderer:
        return globals()[self.name](**self.arguments)


SPEC = FakeSpec()


class Fast:
    """Resize plus noise drawn from the seed; a few steps; equal requests give equal pictures."""

    name = "fast"
    can_give_up = ("tile", "low_memory", "am")

    def __init__(self, seconds: float = 0.0, steps: int = 2) -> None:
        self.seconds = seconds
        self.steps = steps
        self.seen: list[HiresRequest] = []

    def render(self, image: Image.Image, request: HiresRequest, progress: Progress) -> Rendered:
        self.seen.append(request)
        for step in range(self.steps):
            if progress.cancelled():
                raise Cancelled("cancelled")
            if self.seconds:
                time.sleep(self.seconds / self.steps)
            progress.step(step + 1, self.steps)
        height, width = request.size
        large = image.resize((width, height), Image.Resampling.BICUBIC)
        mark = hashlib.sha256(f"{request.seed}{request.prompt}{request.steps}".encode()).digest()
        large.putpixel((0, 0), tuple(mark[:3]))
        ran = Ran(config=request.config if request.method == "fam" else None, method=request.method)
        return Rendered(large, ran)


class Odd(Fast):
    """Does something particular for prompts that name it."""

    def render(self, image: Image.Image, request: HiresRequest, progress: Progress) -> Rendered:
        if "raise" in request.prompt:
            raise ValueError("the renderer\nfell over")
        if "skip" in request.prompt:
            raise Skipped("left out")
        if "oom" in request.prompt and request.config.am:
            raise OutOfMemoryError("out of memory")
        if "hopeless" in request.prompt:
            raise OutOfMemoryError("out of memory; use a smaller size")
        if "hang" in request.prompt:
            time.sleep(3600)
        if "slow" in request.prompt:
            time.sleep(0.3)
        if "die" in request.prompt:
            marker = Path(os.environ["FAM_TEST_MARKER"])
            if "always" in request.prompt or not marker.exists():
                marker.write_text("died")
                os._exit(9)
        if request.sampler == "LMS":
            raise UnsupportedSamplerError("sampler LMS is not offered; choose DDIM")
        if request.schedule == "Beta":
            raise UnsupportedScheduleError("schedule Beta is not offered; choose Karras")
        return super().render(image, request, progress)


class DiesLoading(Fast):
    """Its process ends while the model is loaded."""

    def load(self) -> None:
        os._exit(9)


def infotext(prompt: str, seed: int, **more: str) -> str:
    extra = "".join(f", {key.replace('_', ' ')}: {value}" for key, value in more.items())
    return f"{prompt}\nNegative prompt: dark\nSteps: 20, Sampler: Euler a, CFG scale: 6.5, Seed: {seed}{extra}"


def make_picture(
    path: Path, prompt: str = "a cat", seed: int = 1, size: tuple[int, int] = (48, 32), **more: str
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = random.Random(seed).randbytes(size[0] * size[1] * 3)
    image = Image.frombytes("RGB", size, noise)
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", infotext(prompt, seed, **more))
    image.save(path, pnginfo=info)


def make_folder(folder: Path, count: int) -> Path:
    for number in range(count):
        make_picture(folder / f"picture {number}.png", f"picture {number}", number)
    return folder


def page_job(words: dict[str, object]) -> Job:
    """Return the job that words of the page or the API mean."""
    return resolve.job(words, preset_of=PresetStore().get, renderer=RendererChoice(WEBUI))


def options(source: Path, output: Path, **more) -> Job:
    return Job.of(inputs=(str(source),), output=str(output), **more)


def outputs(folder: Path) -> dict[str, bytes]:
    """Return every picture below an output folder; the reports and the journal's folder are left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".fam-hires" not in path.parts and "report" not in path.name
    }


def strays(folder: Path) -> list[str]:
    """Return what a finished job must not leave: temporary files and dead owners' locks."""
    state = folder / ".fam-hires"
    found = [path.relative_to(state) for path in state.rglob("*")]
    return [str(path) for path in found if path.name.startswith("owner-") or "tmp" in path.parts]
