"""One block's value on its way into arrays: a piece at a time, written and verified while it is in the core's cache."""

from __future__ import annotations

import numpy as np

from memory_store.codec import BlockHeader, layer_bytes, quantized, verify_layers
from memory_store.quantize import QUANTIZERS, dequantize
from memory_store.records import Array

#: Stored bytes handled at a time: few enough to stay in a core's second-level cache between writing and verifying, many
#: enough that threads reading together seldom meet at the interpreter's lock. Less suits one thread, more suits two.
_PIECE_BYTES = 600 << 10


class StoredBlock:
    """A block's header and value: in the memory map, or in RAM when it is hot.

    Attributes:
        header: decoded from `value`.
        value: all of it; native or quantized.
    """

    def __init__(self, header: BlockHeader, value: memoryview, *, verified: bool = False) -> None:
        """Args: verified: every layer has been checked already, and is not again."""
        self.header = header
        self.value = value
        self._layers = layer_bytes(header, value)
        self._unverified = set() if verified else set(range(header.layout.num_layers))
        self._trusted = verified
        self._quantizer = QUANTIZERS.get(header.codec)

    @property
    def verified(self) -> bool:
        """Whether every layer has been checked."""
        return not self._unverified

    def read(self, layers: range, keys: Array, values: Array) -> None:
        """Write the keys and values of `layers`, every byte of which is verified.

        Args:
            keys, values: [len(layers), H, B, D] as unsigned integers as wide as the KV's dtype.

        Raises:
            CorruptRecord: what was written by then must not be used.
        """
        piece = max(1, _PIECE_BYTES // self._layers.shape[1])
        for first in range(layers.start, layers.stop, piece):
            part = slice(first, min(first + piece, layers.stop))
            here = slice(part.start - layers.start, part.stop - layers.start)
            if self._quantizer is None:
                self._copy(part, keys[here], values[here])
            else:
                self._dequantize(part, keys[here], values[here])

    def _copy(self, part: slice, keys: Array, values: Array) -> None:
        """Copied first and then verified: memory is read and written at once, and hashing costs next to nothing."""
        kv = self._layers[part].view(keys.dtype).reshape(-1, *self.header.layout.shape[1:])
        np.copyto(keys, kv[:, 0])
        np.copyto(values, kv[:, 1])
        self._verify(part)

    def _dequantize(self, part: slice, keys: Array, values: Array) -> None:
        """Verified first: arithmetic on damaged scales may overflow."""
        assert self._quantizer is not None, "native KV is copied"
        self._verify(part)
        layout = self.header.layout
        scales, codes = quantized(self._layers[part], layout)
        scratch = np.empty(layout.shape[1:], np.float32)
        for layer in range(len(codes)):
            outs = keys[layer].view(layout.dtype), values[layer].view(layout.dtype)
            dequantize(self._quantizer, codes[layer], scales[layer], outs, scratch)

    def _verify(self, part: slice) -> None:
        if self._trusted:
            return
        verify_layers(self.header, self._layers[part], part.start)
        self._unverified.difference_update(range(part.start, part.stop))
