"""A real WebUI for these tests, or a reason to skip them."""

import subprocess

import pytest

from fam_ext.demo.export import export_checkpoint
from tests.webui.browsing import Browsed, chromium
from tests.webui.server import Server, encoded, find_webui


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    found = find_webui()
    for item in items:
        if "tests/webui/" in str(item.path).replace("\\", "/"):
            item.add_marker(pytest.mark.webui)
            item.add_marker(pytest.mark.slow)
            # each worker starts its own servers, so what needs a browser is one group and the rest another
            item.add_marker(pytest.mark.xdist_group("webui page" if "page" in item.fixturenames else "webui"))
            if isinstance(found, str):
                item.add_marker(pytest.mark.skip(reason=found))


@pytest.fixture(scope="session")
def webui():
    return find_webui()


@pytest.fixture(scope="session")
def checkpoints(webui, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    export_checkpoint(folder)
    export_checkpoint(folder, layout="sdxl")
    script = str(__file__).replace("conftest.py", "tiny_checkpoints.py")
    command = [str(webui[1]), script, str(webui[0]), str(folder / "fluent-tiny-text"), str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def start(webui, checkpoints, tmp_path_factory):
    """Start a WebUI with further arguments; all are stopped in the end."""
    servers = []

    def begin(*arguments, extension=None):
        data = tmp_path_factory.mktemp("webui")
        server = Server(*webui, data, checkpoints, *arguments, log=data / "log.txt", extension=extension)
        servers.append(server)
        return server

    yield begin
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def native_picture():
    from PIL import Image

    return Image.radial_gradient("L").convert("RGB").resize((64, 64))


PLAIN = {
    "latent": {},
    "pixel": {"hr_upscaler": "Lanczos"},
    "ddim": {"sampler_name": "DDIM", "scheduler": "Automatic"},
    "ancestral batch": {"sampler_name": "Euler a", "batch_size": 2},
    "sdxl layout": {"override_settings": {"sd_model_checkpoint": "tiny-sdxl.safetensors"}},
    "sd15 layout": {"override_settings": {"sd_model_checkpoint": "tiny-sd15.safetensors"}},
}


def img2img(server, picture):
    """Return the pixels and FAM keys of an img2img generation with FAM off.

    The WebUI's VAE draws from torch's global random state, which only the request before it has seeded: without one of
    our own, two WebUIs without any extension differ in their first img2img picture.
    """
    server.generate(**PLAIN["latent"])
    made = server.generate(tab="img2img", init_images=[encoded(picture)], width=128)
    return made.pixels, made.fam


@pytest.fixture(scope="session")
def plain_pictures(start, native_picture):
    """Pixels from a WebUI without the extension."""
    server = start("--disable-extra-extensions")
    pixels = {name: server.generate(**fields).pixels for name, fields in PLAIN.items()}
    pixels["img2img"], _ = img2img(server, native_picture)
    server.stop()
    return pixels


@pytest.fixture(scope="session")
def server(start):
    return start()


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser, server):
    """The WebUI's page; each test has it anew."""
    page = Browsed(browser, server)
    yield page
    page.close()
