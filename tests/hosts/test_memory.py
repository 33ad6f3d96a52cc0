"""How much memory a device gave, where it can be told."""

import pytest
import torch

from fam_ext.hosts.memory import free_memory, peak_memory, watch_memory


def test_a_device_that_cannot_tell_says_nothing() -> None:
    for name in ("cpu", "mps", "meta"):
        watch_memory(torch.device(name))
        assert peak_memory(torch.device(name)) is free_memory(torch.device(name)) is None


@pytest.mark.parametrize(("name", "available"), [("cuda", False), ("cpu", True)])
def test_only_a_cuda_card_that_is_there_is_asked(monkeypatch, name: str, available: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: pytest.fail("asked"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: pytest.fail("asked"))
    assert peak_memory(torch.device(name)) is free_memory(torch.device(name)) is None


def test_cuda_is_asked_from_the_watch_on(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append(device))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 if device in asked else 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 8))
    first, second = torch.device("cuda:0"), torch.device("cuda:1")
    watch_memory(second)
    assert (peak_memory(first), peak_memory(second)) == (0, 5)
    assert free_memory(first) == (3, 8)
