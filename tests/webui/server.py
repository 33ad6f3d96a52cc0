"""A real WebUI with the extension linked in: start, ask, stop. Its own data folder; the WebUI's stays untouched."""

import base64
import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).parents[2]
SETTINGS = {"live_previews_enable": False, "show_progress_every_n_steps": -1, "samples_save": True, "grid_save": False}
TITLE = "FAM Hires"
BROKEN = "broken-model"
"""An upscaler that the WebUI lists and cannot load."""


def find_webui():
    """Return (the WebUI's folder, its Python), or a reason why there is none."""
    folder = Path(os.environ.get("FAM_WEBUI_DIR", Path.home() / "stable-diffusion-webui"))
    if not (folder / "launch.py").is_file():
        return f"no WebUI in {folder}; set FAM_WEBUI_DIR"
    for place in ("venv", ".venv"):
        python = folder / place / "bin" / "python"
        if python.exists():
            return folder, python
    return f"the WebUI in {folder} has no virtual environment of its own (venv); start it once"


class Server:
    """One running WebUI."""

    def __init__(self, webui, python, data, checkpoints, *arguments, log, extension=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = data
        self.log_path = log
        self.authorization = None
        (data / "extensions").mkdir(parents=True, exist_ok=True)
        link = data / "extensions" / "fam-hires"
        if not link.exists():
            link.symlink_to(REPOSITORY)
        if extension is not None:
            (data / "extensions" / extension.name).symlink_to(extension)
        (data / "models" / "ESRGAN").mkdir(parents=True, exist_ok=True)
        (data / "models" / "ESRGAN" / f"{BROKEN}.pth").write_bytes(b"no weights")
        (data / "config.json").write_text(json.dumps(SETTINGS))
        flags = "--skip-prepare-environment --skip-torch-cuda-test --use-cpu all --no-half --api --skip-version-check"
        flags += " --no-download-sd-model --disable-console-progressbars --loglevel INFO"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        environment.update(GRADIO_ANALYTICS_ENABLED="False", COMMANDLINE_ARGS="")
        command = [str(python), "launch.py", *flags.split(), "--port", str(self.port), "--data-dir", str(data)]
        command += ["--ckpt-dir", str(checkpoints), "--ckpt", str(checkpoints / "fluent-tiny.safetensors"), *arguments]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=webui, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._wait()

    def _wait(self):
        # by its log: a request that comes before the WebUI has added its middleware makes its start fail
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the WebUI ended at its start:\n{self.log()[-3000:]}")
            if "Startup time:" in self.log():
                return
            time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"the WebUI did not start:\n{self.log()[-3000:]}")

    def stop(self):
        """End the WebUI and what it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)

    def log(self):
        """Return what the WebUI has printed."""
        return self.log_path.read_text(errors="replace")

    def last_pass(self):
        """Return (steps, FM calls, AM calls, AM sites) of the last guided pass, from its line in the log."""
        pattern = r"FAM \d+ x \d+ to \d+ x \d+: (\d+) steps, FM in (\d+) calls, AM in (\d+) calls of (\d+) sites"
        return tuple(int(number) for number in re.findall(pattern, self.log())[-1])

    def ask(self, path, body=None, *, raw=False, content_type="application/json"):
        """Return (status, JSON) of a request: GET, or POST with a body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type}
        if self.authorization:
            headers["Authorization"] = "Basic " + base64.b64encode(self.authorization.encode()).decode()
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                text = answer.read()
                return answer.status, text if raw else json.loads(text or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def generate(self, fam=None, *, tab="txt2img", others=None, **fields):
        """Return the `Answer` of a small generation: hires fix to twice the size where the tab is txt2img.

        `others` are the arguments of other extensions' scripts.
        """
        body = {
            "prompt": "a red apple",
            "seed": 1,
            "steps": 4,
            "width": 64,
            "height": 64,
            "cfg_scale": 5,
            "sampler_name": "DPM++ 2M",
            "scheduler": "Karras",
        }
        if tab == "txt2img":
            body |= {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}
        body |= fields
        body["alwayson_scripts"] = dict(others or {})
        if fam is not None:
            body["alwayson_scripts"][TITLE] = {"args": [fam]}
        return Answer(*self.ask(f"/sdapi/v1/{tab}", body))


class Answer:
    """A generation's answer."""

    def __init__(self, status, answer):
        self.status = status
        self.error = str(answer.get("errors") or answer.get("detail") or "") if status != 200 else ""
        self.images, self.infotexts = [], []
        if status == 200:
            self.images = [Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB") for text in answer["images"]]
            self.infotexts = json.loads(answer["info"])["infotexts"]

    @property
    def pixels(self):
        """Hashes of the decoded pixels; the files' bytes hold the infotext."""
        assert self.status == 200, self.error
        return [hashlib.sha256(image.tobytes()).hexdigest() for image in self.images]

    @property
    def fam(self):
        """The FAM keys of the first infotext."""
        assert self.status == 200, self.error
        return dict(re.findall(r"(FAM [\w \-/]+): ([^,]*)", self.infotexts[0]))


def encoded(image):
    """Return a PIL image as the API takes it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
