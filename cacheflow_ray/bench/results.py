"""What a measurement comes to: ratios, the least that must happen beside what did, and everything else by name."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field

from memory_store.records import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """What this machine can do at most, measured in the same run.

    Args:
        bytes_per_s: a plain copy by every thread, bytes read and written.
        flops_per_s: a large matrix product in the model's dtype.
    """

    bytes_per_s: float
    flops_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """The least that must happen, and the time it took.

    Args:
        what: one line.
        num_bytes: bytes that must be read or written.
        num_flops: floating-point operations that must be done; 0 where they do not matter.
        seconds: measured.
    """

    what: str
    num_bytes: float
    num_flops: float
    seconds: float

    def as_json(self, ceiling: Ceiling) -> dict[str, JsonValue]:
        """With what was reached; `of_roofline` is the least time this machine could take over the time it took."""
        floor_s = max(self.num_bytes / ceiling.bytes_per_s, self.num_flops / ceiling.flops_per_s)
        return {
            "what": self.what,
            "bytes": self.num_bytes,
            "flops": self.num_flops,
            "seconds": self.seconds,
            "reached_gb_per_s": self.num_bytes / self.seconds / 1e9,
            "reached_gflop_per_s": self.num_flops / self.seconds / 1e9,
            "floor_s": floor_s,
            "of_roofline": floor_s / self.seconds,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One measurement's outcome. `rooflines`: by the ratio (or detail) they stand beside."""

    ratios: Mapping[str, float] = field(default_factory=dict)
    rooflines: Mapping[str, Roofline] = field(default_factory=dict)
    details: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound a ratio should keep: `sign` is <=, >= or =."""

    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}"

    def is_met(self, value: float) -> bool:
        """An equality holds to a thousandth."""
        if self.sign == "=":
            return abs(value - self.bound) <= 1e-3
        return bool({"<=": operator.le, ">=": operator.ge}[self.sign](value, self.bound))


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioReport:
    """Everything one run measured, as ratios with what they were made of.

    Args:
        kind: what was measured, in a word.
        model: that was measured with.
        machine: what on.
        parts: by name, in the order they ran.
        targets: by ratio.
        seconds: of the whole run.
    """

    kind: str
    model: str
    machine: Mapping[str, JsonValue]
    parts: Mapping[str, Part]
    targets: Mapping[str, Target]
    seconds: float

    @property
    def title(self) -> str:
        """One line: what was measured."""
        return f"{self.kind}, {self.model} on {self.machine['cores']} cores of {self.machine['cpu']}"

    @property
    def ratios(self) -> dict[str, float]:
        return {name: value for part in self.parts.values() for name, value in part.ratios.items()}

    @property
    def details(self) -> dict[str, Mapping[str, JsonValue]]:
        """By ratio, the numbers it was made of."""
        return {name: part.details for part in self.parts.values() for name in part.ratios}

    def as_json(self) -> dict[str, JsonValue]:
        missed = missed_targets(self.ratios, self.targets)
        return {
            "model": self.model,
            "machine": dict(self.machine),
            "ratios": dict(self.ratios),
            "targets": {name: str(target) for name, target in self.targets.items() if name in self.ratios},
            "met": {name: name not in missed for name in self.ratios},
            "missed": list(missed),
            "details": {name: dict(details) for name, details in self.details.items()},
            "seconds": self.seconds,
        }


def missed_targets(ratios: Mapping[str, float], targets: Mapping[str, Target]) -> list[str]:
    """Names of the ratios that miss their target."""
    return [name for name, target in targets.items() if name in ratios and not target.is_met(ratios[name])]


TARGETS = {
    "non_model_share": Target(sign="<=", bound=0.15),
    "question_wall_10h_over_10min": Target(sign="<=", bound=1.2),
    "question_bytes_10h_over_10min": Target(sign="=", bound=1.0),
    "fetch_over_memcpy": Target(sign=">=", bound=0.8),
    "fetch_over_memcpy_one_thread": Target(sign=">=", bound=0.45),
    "ragged8_over_sequential": Target(sign=">=", bound=1.0),
    "answers8_over_sequential": Target(sign=">=", bound=1.0),
    "rss_growth_10x": Target(sign="<=", bound=1.05),
}

#: At toy dimensions a call's overhead is most of its time: sharing it is worth more, and a share of it means nothing.
TARGETS_TINY = {
    "question_bytes_10h_over_10min": TARGETS["question_bytes_10h_over_10min"],
    "ragged8_over_sequential": Target(sign=">=", bound=2.5),
    "answers8_over_sequential": Target(sign=">=", bound=2.5),
    "rss_growth_10x": TARGETS["rss_growth_10x"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything one run measured.

    Args:
        preset, model, device, dtype: what was measured.
        machine: what on.
        parts: by name, in the order they ran.
        skipped: part -> why it did not run.
        seconds: of the whole run.
    """

    preset: str
    model: str
    device: str
    dtype: str
    machine: Mapping[str, JsonValue]
    ceiling: Ceiling
    parts: Mapping[str, Part]
    skipped: Mapping[str, str]
    published: JsonValue
    seconds: float

    @property
    def title(self) -> str:
        """One line: what was measured."""
        return f"{self.preset}, {self.dtype} on {self.device}"

    @property
    def ratios(self) -> dict[str, float]:
        """All ratios by name."""
        return {name: value for part in self.parts.values() for name, value in part.ratios.items()}

    @property
    def targets(self) -> dict[str, Target]:
        """The bounds of this preset."""
        return TARGETS_TINY if self.preset == "tiny" else TARGETS

    def as_json(self) -> dict[str, JsonValue]:
        """One JSON object."""
        rooflines = {name: line for part in self.parts.values() for name, line in part.rooflines.items()}
        return {
            "preset": self.preset,
            "model": self.model,
            "device": self.device,
            "dtype": self.dtype,
            "machine": dict(self.machine)
            | {"copy_gb_per_s": self.ceiling.bytes_per_s / 1e9, "matmul_gflop_per_s": self.ceiling.flops_per_s / 1e9},
            "ratios": dict(self.ratios),
            "targets": {name: str(target) for name, target in self.targets.items() if name in self.ratios},
            "missed": missed_targets(self.ratios, self.targets),
            "roofline": {name: line.as_json(self.ceiling) for name, line in rooflines.items()},
            "details": {name: dict(part.details) for name, part in self.parts.items()},
            "skipped": dict(self.skipped),
            "published": self.published,
            "seconds": self.seconds,
        }
