"""Answers questions the plain way: parses the text and looks through every event of the whole stream."""

from __future__ import annotations

import re

from cacheflow_ray.world import COLOURS, DIGITS, SHAPES, Script
from cacheflow_ray.world.script import Event


def answers(script: Script, text: str) -> set[str]:
    """Every answer the stream gives: a question with one right answer gives one."""
    if found := re.fullmatch(r"what color was the (\S+) with number (\S+)", text):
        return {e.thing.colour for e in script.events if (e.thing.shape, e.thing.number) == found.groups()}
    if found := re.fullmatch(r"what shape was the (\S+) thing with number (\S+)", text):
        return {e.thing.shape for e in script.events if (e.thing.colour, e.thing.number) == found.groups()}
    if found := re.fullmatch(r"what number was on the (\S+) (\S+)", text):
        return {e.thing.number for e in script.events if e.thing.pair == found.groups()}
    if found := re.fullmatch(r"where was the (\S+) (\S+)", text):
        return {place(e) for e in script.events if e.thing.pair == found.groups()}
    if found := re.fullmatch(r"did the (\S+) (\S+) appear", text):
        return {"yes" if any(e.thing.pair == found.groups() for e in script.events) else "no"}
    if found := re.fullmatch(r"which came first the (\S+) (\S+) or the (\S+) (\S+)", text):
        one, other = appearances(script, *found.groups()[:2]), appearances(script, *found.groups()[2:])
        seen = {found.group(1)} if max(one)[1] <= min(other)[0] else set()
        return seen | ({found.group(3)} if max(other)[1] <= min(one)[0] else set())
    if found := re.fullmatch(r"how many times did the (\S+) (\S+) appear", text):
        return {DIGITS[len(appearances(script, *found.groups()))]}
    raise AssertionError(f"not a question of the world: {text}")


def appearances(script: Script, colour: str, shape: str) -> list[tuple[int, int]]:
    """(start, stop) of each appearance; two that touch or overlap are one."""
    assert colour in COLOURS and shape in SHAPES
    spans: list[tuple[int, int]] = []
    for start, stop in sorted((e.start, e.stop) for e in script.events if e.thing.pair == (colour, shape)):
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(stop, spans[-1][1])
        else:
            spans.append((start, stop))
    return spans


def place(event: Event) -> str:
    """Which ninth of the frame the thing stays in, or 'moving'."""
    assert event.path.start == event.path.end or event.place is None
    if event.path.start != event.path.end:
        return "moving"
    x, y = event.path.start
    rows = (("top-left", "top", "top-right"), ("left", "center", "right"), ("bottom-left", "bottom", "bottom-right"))
    return rows[int(3 * y)][int(3 * x)]
