"""A synthetic video world: a measuring instrument, not reality.

Coloured shapes and cards with digits on them stand or move before textured walls, at known times and places, among
look-alikes. Who asks what was to be seen knows the answer and when it was to be seen, at any length of stream; and
nothing can be known without having watched. What it measures is whether a memory finds and keeps what a question needs.
It says nothing about how well a model understands real video.

    make_script(seed, num_frames, difficulty) -> Script -> frame, frames, film     pictures
                                                        -> make_questions          questions, answers, times
                                                        -> labels                  what a frame shows

Everything is a function of its arguments: the same seed gives the same bytes in any order and any process.
"""

from cacheflow_ray.world.difficulty import Difficulty
from cacheflow_ray.world.direct import make_script
from cacheflow_ray.world.labels import COVERED, GRID, Labels, Present, labels, random_room, train_frame
from cacheflow_ray.world.questions import KINDS, Kind, Question, follow_up, make_questions, name
from cacheflow_ray.world.render import film, frame, frames
from cacheflow_ray.world.scenes import Look, Scene
from cacheflow_ray.world.script import Event, Needle, Path, Script
from cacheflow_ray.world.textures import FAMILIES, Room
from cacheflow_ray.world.things import COLOURS, DIGITS, PLACES, SHAPES, Canvas, Thing
from cacheflow_ray.world.words import vocabulary

__all__ = [
    "COLOURS",
    "COVERED",
    "DIGITS",
    "FAMILIES",
    "GRID",
    "KINDS",
    "PLACES",
    "SHAPES",
    "Canvas",
    "Difficulty",
    "Event",
    "Kind",
    "Labels",
    "Look",
    "Needle",
    "Path",
    "Present",
    "Question",
    "Room",
    "Scene",
    "Script",
    "Thing",
    "film",
    "follow_up",
    "frame",
    "frames",
    "labels",
    "make_questions",
    "make_script",
    "name",
    "random_room",
    "train_frame",
    "vocabulary",
]
