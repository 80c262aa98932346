"""Where `deploy/` and the runbook call `cacheflow`, and whether the real command line takes the call."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import yaml

from cacheflow_ray.cli.app import make_app

ROOT = Path(__file__).resolve().parents[2]
DEPLOY, RUNBOOK = ROOT / "deploy", ROOT / "docs" / "runbook.md"


def calls() -> Iterator[tuple[str, list[str]]]:
    """Every call and where it stands: in lists of arguments, in text that is a command, in comments and the runbook."""
    for path in sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")]):
        text = path.read_text()
        for document in yaml.safe_load_all(text):
            yield from ((path.name, line) for line in _in_values(document))
        yield from ((path.name, line) for line in _in_comments(text))
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    for listed in re.findall(r"CMD (\[.*\])", dockerfile):
        yield "Dockerfile", yaml.safe_load(listed)[1:]
    runbook = RUNBOOK.read_text()
    for line in re.findall(r"^\$ (.*)", runbook, flags=re.MULTILINE):
        yield from (("runbook.md", own) for own in _in_words(shlex.split(line)))
    for quoted in re.findall(r"`(cacheflow [^`]+)`", runbook):
        yield "runbook.md", shlex.split(quoted)[1:]


def parse(line: list[str]) -> dict[str, Any]:
    """Have the real command line parse it: the command exists, so do its options, and their values convert.

    Returns its parameters by name.

    Raises:
        TyperException: it would not.
    """
    command: Any = typer.main.get_command(make_app())
    name, args = "cacheflow", list(line)
    while True:
        with command.make_context(name, args) as context:
            if not hasattr(command, "commands"):
                return dict(context.params)
            name, command, args = command.resolve_command(context, [*context._protected_args, *context.args])


def _in_values(value: Any) -> Iterator[list[str]]:
    """Lists of words, and text, that begin with the program."""
    if isinstance(value, dict):
        for one in value.values():
            yield from _in_values(one)
    elif isinstance(value, list):
        words = [one for one in value if isinstance(one, str)]
        if "cacheflow" in words[:2] and len(words) == len(value) > 1:
            yield _plain(words[words.index("cacheflow") + 1 :])
        else:
            for one in value:
                yield from _in_values(one)
    elif isinstance(value, str) and value.startswith("cacheflow "):
        yield shlex.split(value)[1:]


def _in_comments(text: str) -> Iterator[list[str]]:
    for quoted in re.findall(r"`(cacheflow [^`]+)`", text):
        yield shlex.split(quoted)[1:]


def _in_words(words: list[str]) -> Iterator[list[str]]:
    """`cacheflow ...`, alone or as what another program runs."""
    at = [place for place, word in enumerate(words) if word == "cacheflow" and (not place or _runs(words, place))]
    if at:
        yield words[at[0] + 1 :]


def _runs(words: list[str], place: int) -> bool:
    """Whether the word is a program, and not a name in the arguments of another."""
    if words[0] == "kubectl":
        return words[place - 1] == "--"
    return words[:2] == ["docker", "compose"] and words[place - 2 : place] == ["exec", "cacheflow"]


def _plain(words: list[str]) -> list[str]:
    """Compose's ${NAME:-default} as its default."""
    return [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in words]
