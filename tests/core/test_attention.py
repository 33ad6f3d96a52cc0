"""Attention Modulation (Eq. 7) against the slow version that builds the maps."""

import itertools

import pytest
import torch
from torch.nn.functional import interpolate, scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from fam_ext.core import attention as core_attention
from fam_ext.core.attention import WITH_FUSED, attention, modulated_attention
from fam_ext.core.frequency import high_pass_mask, modulate
from fam_ext.core.resize import key_matrix, matrices_on, resize_matrix
from fam_ext.errors import ConfigError
from tests.fake_device import DEVICE, FakeDevice

RATIOS = [
    ((8, 8), (16, 16)),  # 2x
    ((4, 4), (12, 12)),  # 3x
    ((4, 4), (16, 16)),  # 4x
    ((6, 4), (12, 16)),  # 2x by 4x
    ((8, 6), (12, 9)),  # 1.5x
    ((8, 4), (14, 7)),  # 1.75x
    ((5, 7), (5, 7)),  # 1x
]


def resized(values, native, target, interp):
    """interpolate each of the h*w columns of `values` (h*w, n), seen as pictures on the native grid."""
    mode = {"bilinear": {"mode": "bilinear", "align_corners": False}, "nearest": {"mode": "nearest-exact"}}[interp]
    pictures = values.T.reshape(1, -1, *native)
    return interpolate(pictures, size=target, **mode).reshape(values.shape[1], -1).T


def oracle(q, k, v, native_q, native_k, *, size, native_size, strength, interp, scale=None):
    """Eq. 7 with every matrix built: U on the query grid, U on the key grid, rows normalised key by key."""
    tokens = native_size[0] * native_size[1]
    query = resized(torch.eye(tokens, dtype=torch.float64), native_size, size, interp)  # A (HW, hw)
    scale = scale or q.shape[-1] ** -0.5
    native_map = torch.softmax(native_q.double() @ native_k.double().mT * scale, -1)
    target_map = torch.softmax(q.double() @ k.double().mT * scale, -1)
    upsampled = query @ native_map @ (query / query.sum(0)).T
    assert torch.allclose(upsampled.sum(-1), torch.ones((), dtype=torch.float64))
    return ((strength * upsampled + (1 - strength) * target_map) @ v.double()).to(q.dtype)


def tensors(native_size, size, *, heads=3, depth=8, rows=2, dtype=torch.float32):
    stream = torch.Generator().manual_seed(3)
    shapes = [size, size, size, native_size, native_size]
    return [torch.randn(rows, heads, h * w, depth, generator=stream).to(dtype) * 1.5 for h, w in shapes]


@pytest.mark.parametrize(("ratio", "interp"), list(itertools.product(RATIOS, ["bilinear", "nearest"])))
@pytest.mark.parametrize("strength", [0.0, 0.7, 1.0])
def test_agrees_with_the_version_that_builds_the_maps(ratio, interp, strength):
    native_size, size = ratio
    given = tensors(native_size, size)
    sizes = {"size": size, "native_size": native_size, "strength": strength, "interp": interp}
    for sizes["scale"] in (None, 0.2):
        assert torch.allclose(modulated_attention(*given, **sizes), oracle(*given, **sizes), atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 4e-2)])
def test_half_precision(dtype, tolerance):
    given = tensors((4, 4), (8, 8), dtype=dtype)
    sizes = {"size": (8, 8), "native_size": (4, 4), "strength": 0.7, "interp": "bilinear"}
    result = modulated_attention(*given, **sizes)
    assert result.dtype == dtype
    assert torch.allclose(result.float(), oracle(*(x.float() for x in given), **sizes), atol=tolerance)


def test_strength_zero_is_plain_attention_bit_for_bit():
    q, k, v, native_q, native_k = tensors((4, 4), (8, 8))
    result = modulated_attention(q, k, v, native_q, native_k, size=(8, 8), native_size=(4, 4), strength=0)
    assert torch.equal(result, scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_equal_native_and_target_give_plain_attention(strength):
    q, k, v, *_ = tensors((6, 6), (6, 6))
    result = modulated_attention(q, k, v, q, k, size=(6, 6), native_size=(6, 6), strength=strength)
    assert torch.allclose(result, scaled_dot_product_attention(q, k, v), atol=1e-6)


def test_grouped_heads_and_strided_tensors():
    native_size, size = (4, 4), (8, 8)
    q, _, _, native_q, _ = tensors(native_size, size, heads=6)
    _, k, v, _, native_k = tensors(native_size, size, heads=2)
    sizes = {"size": size, "native_size": native_size, "strength": 0.7, "interp": "bilinear"}
    expected = oracle(
        q, *(x.repeat_interleave(3, 1) for x in (k, v)), native_q, native_k.repeat_interleave(3, 1), **sizes
    )
    assert torch.allclose(modulated_attention(q, k, v, native_q, native_k, **sizes), expected, atol=1e-5)
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, native_q, native_k)]
    assert torch.allclose(modulated_attention(*strided, **sizes), expected, atol=1e-5)


@pytest.mark.parametrize("interp", ["bilinear", "nearest"])
@pytest.mark.parametrize(("source", "target"), [(4, 8), (5, 15), (8, 14), (6, 9), (7, 7), (3, 4)])
def test_resize_matrices_are_torchs_own_and_row_stochastic(source, target, interp):
    matrix = resize_matrix(source, target, interp)
    expected = resized(torch.eye(source, dtype=torch.float64), (source, 1), (target, 1), interp)
    assert torch.allclose(matrix, expected, atol=1e-12)
    assert torch.allclose(matrix.sum(1), torch.ones(target, dtype=torch.float64))
    keys = key_matrix(source, target, interp)
    assert torch.allclose(keys.sum(1), torch.ones(source, dtype=torch.float64))
    assert (keys >= 0).all()


def test_bad_sizes_are_named():
    given = tensors((4, 4), (8, 8))
    with pytest.raises(ConfigError, match="64 tokens"):
        modulated_attention(*given, size=(8, 9), native_size=(4, 4), strength=0.7)
    with pytest.raises(ConfigError, match="at least the native grid"):
        modulated_attention(*tensors((8, 8), (4, 16)), size=(4, 16), native_size=(8, 8), strength=0.7)
    with pytest.raises(ConfigError, match=r"strength is 1\.2"):
        modulated_attention(*given, size=(8, 8), native_size=(4, 4), strength=1.2)
    with pytest.raises(ConfigError, match="same order"):
        modulated_attention(*given[:3], given[3][:1], given[4][:1], size=(8, 8), native_size=(4, 4), strength=0.5)


def test_matrices_that_are_first_made_in_inference_mode_serve_autograd_later():
    with torch.inference_mode():
        spread, pool = matrices_on((3, 5), (9, 11), "bilinear", device=torch.device("cpu"), dtype=torch.float32)
        high_pass_mask((27, 29), (4, 4), 0.5)
    assert not any(matrix.is_inference() for matrix in (*spread, *pool))
    z = torch.zeros(1, 1, 27, 29, requires_grad=True)
    modulate(z, torch.ones(1, 1, 27, 29), high_pass_mask((27, 29), (4, 4), 0.5)).sum().backward()
    assert z.grad is not None


class Operations(TorchDispatchMode):
    """Counts what computes or copies. Pure views (their result aliases an argument that stays unwritten) are free."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        returns = function._schema.returns
        if not any(value.alias_info is not None and not value.alias_info.is_write for value in returns):
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.slow  # what counts operations takes seconds to import
@pytest.mark.parametrize("ratio", RATIOS[:2], ids=["2x", "3x"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("heads", [1, 8])
def test_a_call_takes_at_most_14_operations(ratio, dtype, heads):
    native_size, size = ratio
    # a host's heads are views of one tensor (B, tokens, heads * d)
    given = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors(*ratio, heads=heads, dtype=dtype)]
    sizes = {"size": size, "native_size": native_size, "strength": 0.7}
    modulated_attention(*given, **sizes)  # the matrices are made once
    with Operations() as seen:
        modulated_attention(*given, **sizes)
    assert 3 <= len(seen.names) <= 14, seen.names


@pytest.mark.parametrize("interp", ["bilinear", "nearest"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("ratio", RATIOS)
def test_rows_of_the_matrices_in_use_sum_to_one(ratio, dtype, interp):
    spread, pool = matrices_on(*ratio, interp, device=torch.device("cpu"), dtype=dtype)
    for matrix in (*spread, *pool):
        assert (matrix.double().sum(1) - 1).abs().max() < 1e-6  # thirds in bfloat16: 2e-3


def test_a_device_that_makes_the_whole_matrix_is_given_the_queries_in_equal_parts(monkeypatch):
    q, (k, v) = torch.randn(2, 4, 50, 8), torch.randn(2, 2, 4, 40, 8)
    asked = []

    def noting(part, *others, **more):
        asked.append(part.shape[-2])
        return scaled_dot_product_attention(part, *others, **more)

    monkeypatch.setattr(core_attention, "scaled_dot_product_attention", noting)
    monkeypatch.setattr(core_attention, "MOST_SCORES", 2 * 4 * 40 * 15)
    expected = attention(q, k, v)
    with FakeDevice():
        out = attention(q.to(DEVICE), k.to(DEVICE), v.to(DEVICE)).cpu()
        monkeypatch.setattr(core_attention, "MOST_SCORES", 1)
        each = attention(q.to(DEVICE), k.to(DEVICE), v.to(DEVICE)).cpu()
    assert asked == [50, 13, 13, 12, 12] + [1] * 50 and set(WITH_FUSED) == {"cuda", "cpu"}
    assert torch.allclose(out, expected, atol=1e-6) and torch.allclose(each, expected, atol=1e-6)


def test_torch_2_0_is_not_told_the_usual_scale(monkeypatch):
    q, k, v = torch.randn(3, 1, 2, 16, 8).unbind()
    small = torch.randn(1, 2, 4, 8)
    more = {"size": (4, 4), "native_size": (2, 2), "strength": 0.7}
    expected = modulated_attention(q, k, v, small, small, **more)
    monkeypatch.setattr(
        core_attention, "scaled_dot_product_attention", lambda q, k, v: scaled_dot_product_attention(q, k, v)
    )
    assert torch.equal(modulated_attention(q, k, v, small, small, scale=8**-0.5, **more), expected)
