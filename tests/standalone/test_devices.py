"""Devices that are not there, and memory that ran out."""

from types import SimpleNamespace

import pytest
import torch

from fam_ext import standalone
from fam_ext.errors import OutOfMemoryError, UsageError, is_out_of_memory
from fam_ext.hosts.diffusers import host
from fam_ext.hosts.diffusers.load import pick_device

RAN_OUT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 8.00 GiB total capacity)"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.9 GB, other allocations: 2 GB, max allowed: 9.07 GB)."),
    RuntimeError("Invalid buffer size: 32.00 GB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
    RuntimeError("[Errno 12] Cannot allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."),
    RuntimeError("Could not allocate tensor with 8 bytes. There is not enough GPU video memory available!"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"),
    MemoryError(),
    OutOfMemoryError("the memory ran out"),
]
OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
    ValueError("out of memory"),
    OSError("no space left on device"),
    KeyError("memory"),
]


@pytest.mark.parametrize("error", RAN_OUT, ids=str)
def test_out_of_memory_is_recognised_and_becomes_ours(error):
    def run():
        raise error

    assert is_out_of_memory(error)
    with pytest.raises(OutOfMemoryError, match="ran out"):
        standalone._guarded(run)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_not(error):
    def run():
        raise error

    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught:
        standalone._guarded(run)
    assert caught.value is error


@pytest.mark.slow  # imports diffusers
def test_out_of_memory_while_loading_is_ours_too(monkeypatch):
    def full(*args, **more):
        raise RAN_OUT[0]

    monkeypatch.setattr(standalone, "read_pipeline", full)
    with pytest.raises(OutOfMemoryError, match="ran out"):
        standalone.load_pipeline(device="cpu")


@pytest.mark.slow  # imports diffusers
def test_a_part_that_memory_ran_out_for_is_not_called_lacking(monkeypatch):
    import diffusers

    def full(*args, **more):
        raise RAN_OUT[0]

    monkeypatch.setattr(diffusers.AutoencoderKL, "from_pretrained", full)
    with pytest.raises(OutOfMemoryError, match="ran out"):
        standalone.load_pipeline(device="cpu")


@pytest.mark.parametrize(("worker", "gpus", "taken"), [("3", 2, "cuda:1"), ("3", 1, None), (None, 2, None)])
def test_a_worker_takes_a_gpu_of_its_own(monkeypatch, worker, gpus, taken):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("FAM_HIRES_WORKER", raising=False)
    if worker is not None:
        monkeypatch.setenv("FAM_HIRES_WORKER", worker)
    given = (None, "cuda", "cuda:0", "cpu")
    devices = [standalone.DiffusersRenderer(device=device)._device for device in given]
    assert devices == [taken, taken or "cuda", "cuda:0", "cpu"]


@pytest.mark.slow  # imports diffusers
@pytest.mark.parametrize(
    ("cuda", "hip", "why"),
    [
        (None, None, "is built without CUDA"),
        ("12.4", None, "finds no GPU; look at the dr"),
        (None, "6", "finds no GPU"),
    ],
)
def test_a_model_that_lands_on_the_cpu_says_why(monkeypatch, caplog, tmp_path, cuda, hip, why):
    found = ["cuda", *4 * ["cpu"]]
    monkeypatch.setattr(standalone, "pick_device", lambda name: torch.device(found.pop(0)))
    monkeypatch.setattr(standalone, "read_pipeline", lambda *_, **__: SimpleNamespace(to=lambda device: None))
    monkeypatch.setattr(standalone, "DiffusersHost", lambda *_, **__: "host")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    standalone.load_pipeline(tmp_path)
    standalone.load_pipeline(tmp_path, device="cpu")
    standalone.load_pipeline()
    with monkeypatch.context() as second:
        second.setenv("FAM_HIRES_WORKER", "1")
        standalone.load_pipeline(tmp_path)
    assert not caplog.records
    standalone.load_pipeline(tmp_path)
    assert len(caplog.records) == 1 and why in caplog.text and "is drawn on the CPU" in caplog.text


def test_a_device_is_checked_for_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda:1")
    assert pick_device("cuda") == torch.device("cuda")
    with pytest.raises(UsageError, match=r"'cuda:9'.*cuda:0, cuda:1$"):
        standalone.load_pipeline(device="cuda:9")
    for name in ("cuda:x", "cuda:-1", "cpu:3"):
        with pytest.raises(UsageError, match="device is"):
            pick_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="this machine has: cpu"):
        pick_device("cuda:0")


@pytest.mark.slow  # imports accelerate
def test_a_card_without_a_number_is_offloaded_to_by_its_number(monkeypatch):
    accelerate = pytest.importorskip("accelerate")
    given = []

    def hooked(network, device, *, prev_module_hook):
        given.append(device)
        return network, SimpleNamespace(hook=SimpleNamespace(prev_module_hook=prev_module_hook))

    monkeypatch.setattr(accelerate, "cpu_offload_with_hook", hooked)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    pipe = SimpleNamespace(model_cpu_offload_seq="unet->vae", unet=object(), vae=object())
    for name in ("cuda", "cuda:1", "cpu"):
        host._offload(pipe, torch.device(name), "model")
    assert given == [torch.device(name) for name in ("cuda:2", "cuda:2", "cuda:1", "cuda:1", "cpu", "cpu")]


def test_an_unknown_offload_is_named():
    with pytest.raises(UsageError, match="choose one of none, model, sequential"):
        standalone.load_pipeline(device="cpu", offload="all")


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloaded_a_model_makes_the_same_picture(offload):
    pytest.importorskip("accelerate")
    import numpy as np

    from fam_ext import hires
    from fam_ext.hosts.diffusers.host import DiffusersHost
    from tests.hosts import toys

    pictures = []
    for how in ("none", offload):
        host = DiffusersHost(
            toys.sd_pipeline(), name="toy", device=torch.device("cpu"), dtype=torch.float32, offload=how
        )
        sampling = hires.Sampling(prompt="a cat", seed=3, steps=2)
        native = hires.generate_native(host, size=(64, 64), sampling=sampling)
        pictures.append(np.asarray(hires.upscale(host, native, size=(96, 96), sampling=sampling).image))
    assert np.array_equal(*pictures)
    assert pictures[0].std() > 0


def test_each_offloaded_network_makes_room_for_the_next():
    """Text encoders, UNet, VAE: in no other order does the UNet leave a small card before the VAE decodes."""
    pytest.importorskip("accelerate")
    from fam_ext.hosts.diffusers.host import DiffusersHost
    from tests.hosts import toys

    for pipe in (toys.sd_pipeline(), toys.sdxl_pipeline()):
        DiffusersHost(pipe, name="toy", device=torch.device("cpu"), dtype=torch.float32, offload="model")
        networks = [getattr(pipe, name, None) for name in ("text_encoder", "text_encoder_2", "unet", "vae")]
        there = [network for network in networks if network is not None]
        for before, network in zip([there[-1], *there], there, strict=False):
            assert network._hf_hook.prev_module_hook.model is before
