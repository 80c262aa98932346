"""The judge of open answers: a language model behind an OpenAI-compatible address, asked for yes or no and 0 to 5.

The instruction is Video-ChatGPT's in sense, which ActivityNet-QA and RVS are scored by.
"""

from __future__ import annotations

import ast
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cacheflow_ray.errors import JudgeFailed, UsageError
from cacheflow_ray.eval.benchmark.scoring import Verdict

_SYSTEM = (
    "You judge answers to questions about videos. Compare the predicted answer with the correct one and decide whether "
    "they match in meaning; synonyms and paraphrases count as matches."
)
_REQUEST = (
    "Question: {question}\nCorrect answer: {wanted}\nPredicted answer: {answer}\n\n"
    'Reply with one JSON object and nothing else: {{"pred": "yes" or "no", "score": a whole number from 0 to 5}}, '
    "where 5 is the closest match in meaning."
)

#: Statuses that pass: timeouts, conflicts, too many requests, and whatever the server blames itself for.
_PASSING = frozenset({408, 409, 425, 429})

#: Longest wait a server may ask for, and longest between two tries, seconds.
_LONGEST_WAIT_S = 60.0

_MAX_REPLY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Where the judge is and how patiently it is asked.

    Args:
        url: base address ("http://host/v1") or the whole one ending in /chat/completions.
        model: its name there.
        key: sent as a bearer token; "" sends none. Never written anywhere.
        timeout_s: for one reply.
        tries: of one answer, at most.
        backoff_s: wait before the second try; doubled before each one after it.

    Raises:
        UsageError: an address that is not http or https, or no model.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout_s: float = 60.0
    tries: int = 5
    backoff_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if not re.match(r"^https?://[^/\s]+", self.url):
            raise UsageError(f"--judge: {self.url!r} is no address; give one like http://host:8000/v1")
        if not self.model:
            raise UsageError("--judge needs --judge-model: the model's name at that address")

    def verdict(self, question: str, wanted: str, answer: str) -> Verdict | None:
        """What the judge says of one answer; None where none of its replies could be read.

        Raises:
            JudgeFailed: it could not be reached in `tries` tries, or refused.
        """
        request = self._request(_REQUEST.format(question=question, wanted=wanted, answer=answer or "(no answer)"))
        wait_s, told = self.backoff_s, ""
        for left in reversed(range(self.tries)):
            try:
                found = read_verdict(_content(request, self.timeout_s))
                if found is not None:
                    return found
                told = ""
            except _Passing as error:
                told, wait_s = str(error), max(wait_s, error.wait_s)
            if left:
                self.sleep(min(wait_s, _LONGEST_WAIT_S))
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        if told:
            raise JudgeFailed(
                f"the judge at {self.url} failed {self.tries} times ({told}): what was answered and judged is kept, "
                "the same command goes on",
                url=self.url,
            )
        return None

    def _request(self, text: str) -> urllib.request.Request:
        body = {
            "model": self.model,
            "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": 300,
        }
        address = self.url.rstrip("/")
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        return urllib.request.Request(
            address if address.endswith("/chat/completions") else f"{address}/chat/completions",
            data=json.dumps(body).encode(), headers=headers, method="POST",
        )  # fmt: skip


class _Passing(Exception):
    """What another try may mend. `wait_s`: as long as the server asks for."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


def _content(request: urllib.request.Request, timeout_s: float) -> str:
    """The words of a reply; "" where there are none. Raises _Passing or JudgeFailed."""
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            raw = reply.read(_MAX_REPLY_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _PASSING or error.code >= 500:
                raise _Passing(f"HTTP {error.code}", _asked_wait_s(error.headers.get("Retry-After"))) from error
            said = " ".join(error.read(300).decode(errors="replace").split())
        raise JudgeFailed(
            f"the judge at {request.full_url} refuses (HTTP {error.code}: {said}): check --judge, --judge-model and "
            "CACHEFLOW_JUDGE_KEY",
            url=request.full_url,
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Passing(str(getattr(error, "reason", error)) or type(error).__name__) from error
    try:
        content = json.loads(raw)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return ""
    return content if isinstance(content, str) else ""


def _asked_wait_s(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0


def read_verdict(text: str) -> Verdict | None:
    """The verdict in a reply: the first object, of JSON or of Python, with pred yes or no and score 0 to 5; else None.

    Words around it are passed over: {"pred": "yes", "score": 4} and {'pred': 'no', 'score': 1.0} are both read.
    """
    for found in re.finditer(r"\{[^{}]*\}", text):
        value = _parsed(found[0])
        if not isinstance(value, dict):
            continue
        said, score = value.get("pred"), value.get("score")
        said = said.strip().lower() if isinstance(said, str) else None
        if said in ("yes", "no") and isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 5:
            return Verdict(correct=said == "yes", score=float(score))
    return None


def _parsed(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    return None
