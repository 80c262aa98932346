"""What an encoder must remember of a stream between two frames, and its bytes in the store."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cacheflow_ray.core.packing import Tail
from cacheflow_ray.engine.about import Counters
from cacheflow_ray.media import Frame
from cacheflow_ray.models.positions import Grid
from cacheflow_ray.types import TOKEN_DTYPE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderState:
    """All of a stream that is not in blocks yet. Unchanged fields are shared between successive states.

    Args:
        tail: the open block.
        next_seq: the first frame not yet taken in.
        next_pos: where the next token stands on the stream's position axis.
        last_timestamp_s: of the last frame taken in.
        reference: [P, C] what the next frame is compared with; None before the first.
        grid: (rows, cols) of the last frame's tokens.
        gate_view: what the pixel gate compares with; None without a gate.
        pending: frames waiting for their partners where the model merges frames in time.
        thumbnail: JPEG of the frame that gave the open block most of its tokens, and how many.
        counters: totals.
        frames_per_unit: frames the model merges in time.
        complete: the source has ended.
        warning: why it ended early, if it did.
    """

    tail: Tail
    next_seq: int = 0
    next_pos: int = 0
    last_timestamp_s: float | None = None
    reference: Tensor | None = None
    grid: Grid = (0, 0)
    gate_view: Tensor | None = None
    pending: tuple[Frame, ...] = ()
    thumbnail: bytes = b""
    thumbnail_tokens: int = 0
    counters: Counters = field(default_factory=Counters)
    frames_per_unit: int = 1
    complete: bool = False
    warning: str | None = None

    def to_bytes(self) -> bytes:
        """A safetensors file: the tensors as they are, the rest as JSON."""
        tensors = {"tail": self.tail.inputs.cpu(), "tokens": _bytes_tensor(self.tail.tokens.tobytes())}
        optional = {"reference": self.reference, "gate_view": self.gate_view}
        tensors |= {name: tensor.cpu() for name, tensor in optional.items() if tensor is not None}
        tensors |= {f"pending{place}": torch.from_numpy(frame.image) for place, frame in enumerate(self.pending)}
        tensors["thumbnail"] = _bytes_tensor(self.thumbnail)
        tensors["about"] = _bytes_tensor(json.dumps(self._about()).encode())
        return save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()})

    @classmethod
    def from_bytes(cls, payload: bytes, device: torch.device) -> EncoderState:
        """The state `to_bytes` wrote, its tensors on `device`."""
        tensors = load_tensors(payload)
        about: dict[str, Any] = json.loads(_tensor_bytes(tensors["about"]))
        tokens = np.frombuffer(_tensor_bytes(tensors["tokens"]), dtype=TOKEN_DTYPE)
        pending = tuple(
            Frame(seq=seq, timestamp_s=time_s, image=tensors[f"pending{place}"].numpy())
            for place, (seq, time_s) in enumerate(about.pop("pending"))
        )
        reference = tensors.get("reference")
        return cls(
            tail=Tail(inputs=tensors["tail"].to(device), tokens=tokens),
            reference=None if reference is None else reference.to(device),
            gate_view=tensors.get("gate_view"),
            pending=pending,
            thumbnail=_tensor_bytes(tensors["thumbnail"]),
            counters=Counters(**about.pop("counters")),
            grid=(about["grid"][0], about.pop("grid")[1]),
            **about,
        )

    def _about(self) -> dict[str, Any]:
        names = ("next_seq", "next_pos", "last_timestamp_s", "grid", "thumbnail_tokens", "frames_per_unit")
        about = {name: getattr(self, name) for name in (*names, "complete", "warning")}
        counters = {name: getattr(self.counters, name) for name in Counters.__slots__}
        return about | {"counters": counters, "pending": [(frame.seq, frame.timestamp_s) for frame in self.pending]}


def _bytes_tensor(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())


def _tensor_bytes(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()
