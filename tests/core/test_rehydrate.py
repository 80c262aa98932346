"""The rotation of stored keys: in place and in pieces it is the plain one to the bit, and the plain one is RoPE."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheflow_ray.core import rehydrate
from cacheflow_ray.core.rehydrate import rotate, rotate_

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def angles(num_tokens: int, half: int, start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """cos, sin float32 [T, R/2] of positions from `start` on."""
    frequencies = 1e4 ** (-torch.arange(half, dtype=torch.float64) / half)
    turned = torch.arange(start, start + num_tokens, dtype=torch.float64)[:, None] * frequencies
    return turned.cos().float(), turned.sin().float()


@settings(max_examples=60, deadline=None)
@given(
    leading=st.sampled_from([(), (1,), (3,), (2, 2)]),
    num_tokens=st.integers(0, 70),
    half=st.integers(1, 9),
    passing=st.integers(0, 5),
    dtype=st.sampled_from(DTYPES),
    piece=st.sampled_from([1, 64, 1 << 17]),
    seed=st.integers(0, 2**31),
)
def test_in_place_rotation_equals_the_plain_one_to_the_bit(
    leading: tuple[int, ...], num_tokens: int, half: int, passing: int, dtype: torch.dtype, piece: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn((*leading, num_tokens + 7, 2 * half + passing), generator=generator).mul_(30).to(dtype)
    keys = wide[..., 3 : 3 + num_tokens, :]  # columns of a longer context: not contiguous
    around = wide.clone()
    cos, sin = angles(num_tokens, half, start=seed % 60_000)
    expected = rotate(keys, cos, sin)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehydrate, "PIECE_ELEMENTS", piece)
        rotate_(keys, cos, sin)

    assert torch.equal(keys, expected)
    around[..., 3 : 3 + num_tokens, :] = expected
    assert torch.equal(wide, around), "nothing beside the keys was touched"


def test_the_rotation_is_the_complex_product_of_channel_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn((2, 5, 8), generator=generator)
    cos, sin = angles(5, 4)

    turned = torch.complex(keys[..., :4], keys[..., 4:]) * torch.complex(cos, sin)

    torch.testing.assert_close(rotate(keys, cos, sin), torch.cat((turned.real, turned.imag), dim=-1))
