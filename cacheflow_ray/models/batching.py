"""Answers that are generated at the same time share every step of the model (continuous batching).

A step for many questions reads the weights once, where a step for each would read them once for each. An answer joins
at the next step, with all that follows its video, and leaves when it has ended; the others do not wait for it.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cacheflow_ray.models.decoder import Decoder, Reading
from cacheflow_ray.models.generation import TokenSink

#: Threads that generate. One that is cut off within a step when the interpreter ends takes the process down with it.
_AT_WORK: set[threading.Thread] = set()
_IS_ENDING = threading.Event()


@atexit.register
def _await_last_steps() -> None:
    _IS_ENDING.set()
    for thread in list(_AT_WORK):
        thread.join()


@dataclass(slots=True, kw_only=True, eq=False)
class Growing:
    """An answer on its way.

    Args:
        reading: what the next step reads.
        ids: [1, n] the words after the video and the answer so far, on the CPU.
        processors, criteria: transformers' own for `generate()`: what becomes of logits, and whether an answer is over.
        sink: takes the answer's ids.
    """

    reading: Reading
    ids: Tensor
    processors: Any
    criteria: Any
    sink: TokenSink

    def take(self, logits: Tensor) -> bool:
        """Choose the next id by logits [V]; whether the answer goes on. What goes wrong is told to the sink."""
        try:
            scores = self.processors(self.ids.to(logits.device), logits[None]) if self.processors else logits
            token = int(scores.argmax())
            self.ids = torch.cat((self.ids, torch.tensor([[token]])), dim=1)
            self.sink.put(token)
            ends = bool(self.criteria(self.ids, None).all())
        except Exception as error:
            self.sink.fail(error)
            return False
        if ends:
            self.sink.end()
        return not ends


class Batcher:
    """Generates answers, in a thread that is there as long as there are any.

    Args:
        decoder: of the model.
        embed: ids -> [T, C] token inputs.

    Attributes:
        watch: told of every step for how many answers it is.
    """

    def __init__(self, decoder: Decoder, embed: Callable[[Sequence[int]], Tensor]) -> None:
        self._decoder, self._embed = decoder, embed
        self.watch: Callable[[int], None] = lambda answers: None
        self._lock = threading.Lock()
        self._joining: list[Growing] = []
        self._is_running = False

    def join(self, answer: Growing) -> None:
        """Generate this one, too, from the next step on."""
        with self._lock:
            self._joining.append(answer)
            if self._is_running:
                return
            self._is_running = True
        thread = threading.Thread(target=self._run, name="generate", daemon=True)
        _AT_WORK.add(thread)
        thread.start()

    def _run(self) -> None:
        try:
            self._generate()
        finally:
            _AT_WORK.discard(threading.current_thread())

    def _generate(self) -> None:
        answers: list[Growing] = []
        while answers := self._with_those_who_came(answers):
            try:
                self.watch(len(answers))
                answers = self._step(answers)
            except BaseException as error:  # raised again where the texts are read
                for answer in answers:
                    answer.sink.fail(error)
                answers = []

    def _with_those_who_came(self, answers: list[Growing]) -> list[Growing]:
        """Without those nobody reads any more."""
        with self._lock:
            wanted = [answer for answer in (*answers, *self._joining) if not answer.sink.is_stopped]
            self._joining.clear()
            if _IS_ENDING.is_set():
                wanted.clear()
            self._is_running = bool(wanted)
            return wanted

    def _step(self, answers: list[Growing]) -> list[Growing]:
        """One id more for each; returns those that go on."""
        try:
            logits = self._decoder.read([answer.reading for answer in answers])
        except Exception as error:
            if len(answers) > 1:  # it shows whose fault that is
                return [going for answer in answers for going in self._step([answer])]
            answers[0].sink.fail(error)
            return []
        going = [answer for answer, row in zip(answers, logits, strict=True) if answer.take(row)]
        for answer, inputs in zip(going, self._embed([int(answer.ids[0, -1]) for answer in going]), strict=True):
            reading = answer.reading
            reading.position += len(reading.inputs)
            reading.inputs = inputs[None]
        return going
