"""Coverage-guided fuzzing of what reads stored bytes: one target in a process of its own, `memory_store` instrumented.

    seeds --> mutate --> one time in two, mend the checksums --> check --> reached anything new? then a seed as well

Without mending, the checksums stop nearly everything at the door, which is to be tried too; with it, the fuzzer gets to
what lies behind. This module imports nothing of `memory_store`: only what is imported within `fuzz` is instrumented.
"""

from __future__ import annotations

import importlib
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Name -> module of this folder : function in it, which makes the target and is given an empty folder for its files.
TARGETS = {
    "block": "fuzz_blocks:block",
    "summary": "fuzz_blocks:summary",
    "small values": "fuzz_values:small_values",
    "library manifest": "fuzz_folders:library_manifest",
    "library files": "fuzz_folders:library_files",
    "folder manifest": "fuzz_folders:folder_manifest",
}

#: The same, with a fault in what is fuzzed.
PLANTED = {
    "small values, unguarded": "fuzz_values:unguarded",
    "block, a dtype too many": "fuzz_blocks:more_dtypes",
}

_LIMITS = ("-max_len=8192", "-timeout=20", "-rss_limit_mb=3072", "-use_value_profile=1", "-print_final_stats=1")
_COUNT_EVERY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something that reads bytes.

    Args:
        seeds: bytes it reads.
        check: whether it reads the bytes, and not refuses them with an error of the store; raises AssertionError when
            it reads anything but what they hold, and whatever else the reading raises.
        mend: the bytes with what the reader demands put right, as far as that goes.
    """

    seeds: Sequence[bytes]
    check: Callable[[bytes], bool]
    mend: Callable[[bytes, random.Random], bytes]


def made(target: str, files: Path) -> Target:
    """One of TARGETS or PLANTED."""
    module, function = (TARGETS | PLANTED)[target].split(":")
    found: Target = getattr(importlib.import_module(f"tests.memory_store.faults.{module}"), function)(files)
    return found


def fuzz(target: str, folder: str, files: str, seconds: int, seed: int) -> None:
    """Ends the process. What libFuzzer prints goes to standard output.

    Args:
        folder: gets the corpus, the inputs of findings, and in `num_read` how many inputs were read, by the hundred.
        files: empty, for the target.
    """
    import atheris

    os.dup2(1, 2)
    corpus = Path(folder, "corpus")
    corpus.mkdir()
    with atheris.instrument_imports(include=["memory_store"]):
        fuzzed = made(target, Path(files))
    for number, value in enumerate(fuzzed.seeds):
        (corpus / f"seed-{number}").write_bytes(value)
    num_read = 0

    def execute(value: bytes) -> None:
        nonlocal num_read
        if fuzzed.check(value):
            num_read += 1
            if num_read % _COUNT_EVERY == 0:  # nothing of ours runs at the end
                Path(folder, "num_read").write_text(str(num_read))

    def mutate(value: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        value = atheris.Mutate(value, max_size) if rng.random() < 0.7 else value
        return (fuzzed.mend(value, rng) if rng.random() < 0.5 else value)[:max_size]

    options = (*_LIMITS, f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={folder}/")
    atheris.Setup(["fuzz", *options, str(corpus)], execute, custom_mutator=mutate)
    atheris.Fuzz()
