"""What is trained, for how long: the shipped recipe, and one of seconds that tests run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cacheflow_ray.config import AskOptions, Recommended, StreamSettings
from cacheflow_ray.models.word_llava import Sizes
from cacheflow_ray.training.bank import BankPlan
from cacheflow_ray.training.lessons import Shape
from cacheflow_ray.training.loop import Schedule
from cacheflow_ray.training.reader import ReaderPlan, Stage

#: Thresholds the language model meets in training: what is dropped differs from stream to stream.
TAU = (0.3, 0.9)

#: First seeds. What is evaluated has seeds below all of them.
TRAIN_SEED, EXAM_SEED = 1_000_000, 2_000_000


#: What the model is used with where the user says nothing else. Blocks and window are those it is trained with;
#: summary, layer and threshold are those that `cacheflow eval index` and `cacheflow eval dropping` found best.
RECOMMENDED = Recommended(
    stream=StreamSettings(tau=0.3, block_size=16, window_blocks=4, summary="recurrent8"),
    ask=AskOptions(top_k=8, merge="first", max_new_tokens=8),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything but the folder.

    Args:
        pictures: frames the tower is trained on.
        tower, tower_batch: its schedule and frames per step.
        bank, exam_bank: streams the language model is trained and examined on.
        free: the language model without any loss on keys, queries or attention.
        taught: goes on from `free` with those losses; the shipped one.
        seed: of weights and pictures.
        recommended: written beside both checkpoints.
    """

    sizes: Sizes = field(default_factory=Sizes)
    pictures: int
    tower: Schedule
    tower_batch: int
    bank: BankPlan
    exam_bank: BankPlan
    free: ReaderPlan
    taught: ReaderPlan
    seed: int = 0
    recommended: Recommended = RECOMMENDED


#: From one event to read, over few to tell apart, to many: matching a question with its event is learned where there
#: are two or three, within minutes, and not at all where there are forty.
_ONE = (Shape(clips=64, blocks=1, context=1, questions=4),)
_TWO = (Shape(clips=64, blocks=2, context=2, questions=6),)
_FEW = (Shape(clips=48, blocks=4, context=4, questions=8), Shape(clips=48, blocks=3, context=3, questions=8))
_SOME = (
    Shape(clips=32, blocks=6, context=6, questions=8),
    Shape(clips=24, blocks=10, context=10, questions=10),
    Shape(clips=24, blocks=16, context=8, questions=8),
)
_MANY = (
    Shape(clips=20, blocks=16, context=16, questions=12),
    Shape(clips=16, blocks=24, context=12, questions=12),
    Shape(clips=12, blocks=32, context=32, questions=14),
)
_LONG = (
    Shape(clips=16, blocks=20, context=8, questions=10),
    Shape(clips=12, blocks=48, context=14, questions=12),
    Shape(clips=12, blocks=32, context=20, questions=12),
    Shape(clips=10, blocks=32, context=32, questions=16),
    Shape(clips=6, blocks=64, context=64, questions=16),
    Shape(clips=3, blocks=128, context=128, questions=20),
    Shape(clips=8, blocks=4, context=4, questions=14, block_size=196, window=1),
)

_LONG_OR_SPARSE = (*_LONG, Shape(clips=20, blocks=24, context=3, questions=10))

#: More of what is learned late, and then of what is learned last: of several events, not one.
_LATE = {"color": 0.5, "shape": 1.1, "number": 1.3, "where": 1.3, "yesno": 1.3, "order": 1.6, "count": 1.6}
_LAST = {"color": 0.5, "shape": 0.8, "number": 1.1, "where": 0.7, "yesno": 0.8, "order": 2.2, "count": 2.2}

FULL = Recipe(
    pictures=98_304,
    tower=Schedule(steps=5000, rate=2e-3),
    tower_batch=128,
    bank=BankPlan(seed=TRAIN_SEED, streams=480, frames=192, tau=TAU, side=112),
    exam_bank=BankPlan(seed=EXAM_SEED, streams=40, frames=192, tau=TAU, side=112),
    free=ReaderPlan(
        schedule=Schedule(steps=3200, rate=1.5e-3, warm_up=50, evaluate_every=100),
        curriculum=(
            Stage(share=0.1, shapes=_ONE),
            Stage(share=0.11, shapes=_TWO),
            Stage(share=0.14, shapes=_FEW),
            Stage(share=0.2, shapes=_SOME),
            Stage(share=0.2, shapes=_MANY),
            Stage(share=0.25, shapes=_LONG),
        ),
        key_weight=0.0,
        mass_weight=0.0,
        seed=2,
    ),
    taught=ReaderPlan(
        schedule=Schedule(steps=2400, rate=1.5e-3, warm_up=50, evaluate_every=100),
        curriculum=(
            Stage(share=0.15, shapes=(*_TWO, *_FEW), kind_weights=_LATE),
            Stage(share=0.25, shapes=_SOME, kind_weights=_LATE),
            Stage(share=0.25, shapes=_MANY, kind_weights=_LATE),
            Stage(share=0.35, shapes=_LONG_OR_SPARSE, kind_weights=_LAST),
        ),
        key_weight=0.3,
        mass_weight=0.5,
        seed=3,
    ),
)

_TINY = (Shape(clips=4, blocks=2, context=2, questions=4),)

_GLIMPSE = ReaderPlan(
    schedule=Schedule(steps=3, rate=1e-3, evaluate_every=3),
    curriculum=(Stage(share=1.0, shapes=_TINY),),
    key_weight=0.0,
    mass_weight=0.0,
    seed=2,
)

#: Every stage, in seconds: for seeing that it runs.
QUICK = Recipe(
    pictures=640,
    tower=Schedule(steps=4, rate=2e-3, evaluate_every=4),
    tower_batch=16,
    bank=BankPlan(seed=TRAIN_SEED, streams=8, frames=96, tau=TAU, side=112),
    exam_bank=BankPlan(seed=EXAM_SEED, streams=4, frames=96, tau=TAU, side=112),
    free=_GLIMPSE,
    taught=replace(_GLIMPSE, key_weight=0.3, mass_weight=0.3),
)
