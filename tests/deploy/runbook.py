"""The runbook's blocks: what kind each is of, its commands, and what they print."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from tests.deploy.lines import RUNBOOK

TEXT = RUNBOOK.read_text()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One line after a prompt, in a block of a kind, and what the runbook says it prints."""

    kind: str
    words: list[str]
    prints: str


def commands() -> list[Command]:
    return [
        Command(kind=kind, words=shlex.split(line), prints=printed)
        for kind, text in re.findall(r"^```([^\n`]+)\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
        for line, printed in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, flags=re.MULTILINE)
    ]


COMMANDS = commands()
RUN = [own for own in COMMANDS if own.kind == "console"]
KUBERNETES = [own for own in COMMANDS if own.kind == "console kubernetes"]
DOCKER = [own for own in COMMANDS if own.kind == "console docker"]
