"""What can go wrong in the service and engine, as one tree (the store has its own: `memory_store.errors`).

    CacheFlowError
    ├── UsageError              the caller asked for something that makes no sense; exit code 2
    │   ├── EmptyQuestion
    │   ├── QuestionTooLong     question and context exceed what the model was trained on
    │   ├── SettingsMismatch    an immutable setting of the stream (or evaluation) differs from the one asked for
    │   ├── InvalidConfig       an unknown key or a bad value
    │   └── BadAnnotations      a benchmark's file is missing, or a record of it is not as its format says
    ├── MediaError              a source that cannot be (fully) decoded
    │   ├── SourceNotFound
    │   ├── UnsupportedMedia    not a video, no video stream, or a codec this build cannot decode
    │   └── BrokenMedia         decoding stopped before the end
    ├── ModelError
    │   ├── UnsupportedModel    a family without an adapter, or one that lacks what the method needs
    │   └── ModelLoadError      weights, tokenizer or processor could not be loaded
    ├── JudgeFailed             the judge of open answers cannot be reached, or refuses
    ├── InvalidFeatures         NaN or infinity where the model's output should be
    ├── ServiceError            of the service between client and engine
    │   ├── Unauthenticated     no key, or one nobody has
    │   ├── PermissionDenied    the key's tenant may not do this
    │   ├── LimitExceeded       more than the service takes: streams, bytes, pixels, questions in flight
    │   ├── JobNotFound         no such index job
    │   ├── DeadlinePassed      the caller has stopped waiting
    │   ├── EncoderLost         the process that encoded the stream died: open the stream anew
    │   └── ClusterUnavailable  an actor, its node or the server is away for now
    └── NothingToAnswer         the stream (or the time range asked for) holds no video

Every message is one line that names the thing and the mend; the ids it speaks of are attributes too.
"""

from __future__ import annotations


class CacheFlowError(Exception):
    """Base of every error this package raises on purpose; `ids` holds what it is about."""

    def __init__(self, message: str, **ids: object) -> None:
        super().__init__(message)
        self.ids = ids

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), str(self), self.ids))


def _rebuild(cls: type[CacheFlowError], message: str, ids: dict[str, object]) -> CacheFlowError:
    return cls(message, **ids)


class UsageError(CacheFlowError):
    """The caller asked for something that makes no sense."""


class EmptyQuestion(UsageError):
    """A question without words."""


class QuestionTooLong(UsageError):
    """The question (with its context) does not fit the model."""


class SettingsMismatch(UsageError):
    """An immutable setting of the stream, or of an evaluation already begun, differs from the one asked for."""


class InvalidConfig(UsageError):
    """An unknown configuration key or a bad value."""


class BadAnnotations(UsageError):
    """A benchmark's file is missing, or a record in it is not as its format says."""


class MediaError(CacheFlowError):
    """A source that cannot be decoded."""


class SourceNotFound(MediaError):
    """No such file, folder or address."""


class UnsupportedMedia(MediaError):
    """Not a video, or not one this build can decode."""


class BrokenMedia(MediaError):
    """Decoding stopped before the end of the source."""


class ModelError(CacheFlowError):
    """The model cannot be used."""


class UnsupportedModel(ModelError):
    """No adapter for this kind of model."""


class ModelLoadError(ModelError):
    """Weights, tokenizer or processor could not be loaded."""


class JudgeFailed(CacheFlowError):
    """The judge of open answers cannot be reached, or refuses."""


class InvalidFeatures(CacheFlowError):
    """The vision tower gave NaN or infinity."""


class NothingToAnswer(CacheFlowError):
    """No video where the question looks."""


class ServiceError(CacheFlowError):
    """Something between client and engine."""


class Unauthenticated(ServiceError):
    """No key, or one nobody has."""


class PermissionDenied(ServiceError):
    """The key's tenant may not do this."""


class LimitExceeded(ServiceError):
    """More than the service takes; `ids` holds the limit's name and value."""


class JobNotFound(ServiceError):
    """No such index job of this tenant."""


class DeadlinePassed(ServiceError):
    """The caller has stopped waiting."""


class EncoderLost(ServiceError):
    """The process that encoded the stream died: open the stream anew and go on from its position."""


class ClusterUnavailable(ServiceError):
    """An actor, its node or the server is away for now: try again."""
