"""How a question is put to the model where its words are not all there is to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cacheflow_ray.models import Suffix, Turn
from cacheflow_ray.models.prompt import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """What blocks are looked up by, and how the answer begins.

    Args:
        looked_for: the words retrieval compares with the video, where the question carries others too (instructions,
            answer options: CacheFlow §3.3 leaves them out); "" takes the question as it is.
        opening: the answer begins with these words, and the model goes on from there; they are no part of its text.
            Blanks around them are left out.
    """

    looked_for: str = ""
    opening: str = ""

    def asked(self, prompt: Prompt, turns: Sequence[Turn]) -> Suffix:
        """The prompt after the video, the opening at its end. Raises EmptyQuestion."""
        suffix = prompt.suffix(turns)
        opening = _ids(prompt, self.opening) if self.opening else ()
        return Suffix(ids=suffix.ids + opening, question=suffix.question + (False,) * len(opening))

    def sought(self, prompt: Prompt, asked: Suffix) -> Suffix:
        """What retrieval goes by."""
        return prompt.suffix([Turn(question=self.looked_for)]) if self.looked_for else asked


def _ids(prompt: Prompt, words: str) -> tuple[int, ...]:
    """The words' own ids, as they stand in a prompt: control tokens are on both sides of them there as here."""
    suffix = prompt.suffix([Turn(question=words)])
    return tuple(token for token, own in zip(suffix.ids, suffix.question, strict=True) if own)
