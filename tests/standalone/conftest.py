"""Toy pipelines as hosts, made once."""

import pytest
import torch

from fam_ext.hosts.diffusers.host import DiffusersHost
from tests.hosts import toys


def as_host(pipe, **more):
    return DiffusersHost(pipe, name="toy", device=torch.device("cpu"), dtype=torch.float32, **more)


@pytest.fixture(scope="session")
def sd_host():
    return as_host(toys.sd_pipeline())


@pytest.fixture(scope="session")
def v_host():
    return as_host(toys.sd_pipeline(prediction_type="v_prediction"))


@pytest.fixture(scope="session")
def sdxl_host():
    return as_host(toys.sdxl_pipeline())
