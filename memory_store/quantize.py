"""KV at rest in one byte a number: a code, and a float32 scale for each channel of a block.

A channel is one (layer, K or V, kv-head, place in head_dim) over the block's tokens: keys have a few channels far
larger than the rest, and a scale of their own keeps those from costing the others their precision.

    codec   code of x              scale                  largest error of x (before rounding to the stream's dtype)
    fp8     e4m3fn of x / scale    max |x| / 448          |x| / 16; below scale / 64, scale / 1024
    int8    round(x / scale)       max |x| / 127          scale / 2

A channel of zeros has scale 1.

Measured: a bfloat16 block of [24, 2, 2, 196, 64] takes 51 % of its native bytes. The keys and values of the bundled
model are off by 2.2 % (fp8) and 0.4 % (int8) of their root mean square. Once in memory, such a block takes one core
1.25 ms (int8) or 1.45 ms (fp8) to read, a native one 0.35 ms: the codecs save disk, and they save time as well where
the disk gives less than about 1 GB/s. Of the two, int8 is the faster and the closer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from memory_store.errors import InvalidRecord
from memory_store.records import Array, JsonValue

_FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantizer:
    """One way of writing a number as a byte.

    Args:
        tag: names it in a block's header; above 0.
        top: magnitude of the largest code.
        to_codes: uint8 codes of float32 numbers within -top..top.
        from_codes: writes the float32 numbers that uint8 codes stand for into its second argument.
    """

    tag: int
    top: float
    to_codes: Callable[[Array], Array]
    from_codes: Callable[[Array, Array], None]


def channel_scales(values: Array, quantizer: Quantizer) -> Array:
    """float32 [2, H, 1, D] for a layer's `values`, float32 [2, H, B, D]; NaN or infinity where those are not finite."""
    peaks: Array = np.abs(values).max(axis=-2, keepdims=True)
    # Between these, neither a scale nor a code times its scale leaves float32's normal range.
    low, high = _FLOAT32.tiny, np.nextafter(np.float32(_FLOAT32.max / quantizer.top), np.float32(0))
    scales = np.clip(peaks / np.float32(quantizer.top), low, high)
    return np.where(np.isfinite(peaks), np.where(peaks > 0, scales, np.float32(1)), peaks)


def dequantize(quantizer: Quantizer, codes: Array, scales: Array, outs: tuple[Array, Array], scratch: Array) -> None:
    """Write the keys and values of a layer, which `codes`, uint8 [2, H, B, D], stand for under float32 [2, H, 1, D].

    Args:
        outs: keys and values, [H, B, D] of the stream's dtype, any strides but the last axis contiguous.
        scratch: float32 [2, H, B, D], overwritten; not used when the dtype is float32.
    """
    if outs[0].dtype == np.float32:
        for number, out in enumerate(outs):
            _decode(quantizer, codes[number], scales[number], out)
        return
    _decode(quantizer, codes, scales, scratch)
    for numbers, out in zip(scratch, outs, strict=True):
        np.copyto(out, numbers)


def _decode(quantizer: Quantizer, codes: Array, scales: Array, out: Array) -> None:
    quantizer.from_codes(codes, out)
    np.multiply(out, scales, out=out)


def _to_int8(values: Array) -> Array:
    return np.rint(values).astype(np.int8).view(np.uint8)


def _from_int8(codes: Array, out: Array) -> None:
    np.copyto(out, codes.view(np.int8))


def _to_float8(values: Array) -> Array:
    return values.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)


def _from_float8(codes: Array, out: Array) -> None:
    """By moving sign, exponent and mantissa to their places in a float32, whose exponent is biased by 120 more."""
    bits = out.view(np.int32)
    np.copyto(bits, codes.view(np.int8))
    np.left_shift(bits, 20, out=bits)
    np.bitwise_and(bits, ~0x78000000, out=bits)  # copies of the sign bit
    np.multiply(out, np.float32(2.0**120), out=out)


#: By name, as a stream's setting gives it.
QUANTIZERS = {
    "fp8": Quantizer(tag=1, top=448.0, to_codes=_to_float8, from_codes=_from_float8),
    "int8": Quantizer(tag=2, top=127.0, to_codes=_to_int8, from_codes=_from_int8),
}

#: KV bit for bit, as it came.
NATIVE = "native"

CODECS = (NATIVE, *QUANTIZERS)


def codec_of(settings: Mapping[str, JsonValue]) -> str:
    """The codec of a stream with these settings: `kv_codec`, native where there is none.

    Raises:
        InvalidRecord: no such codec.
    """
    codec = settings.get("kv_codec", NATIVE)
    if codec not in CODECS:
        raise InvalidRecord(f"kv_codec: {codec!r} is not allowed; allowed: {', '.join(CODECS)}")
    return str(codec)
