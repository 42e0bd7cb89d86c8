"""The captions that a subject is trained on, and DreamBooth's prompts that it is tried with.

    a photo of sks dog          its photos
    a photo of a dog            the base's own pictures of the class
    a sks dog in the jungle     25 prompts for objects, 25 for live subjects

Source of the prompts: Ruiz et al. 2023, *DreamBooth* (arXiv 2208.12242), whose benchmark
(github.com/google/dreambooth, ``prompts_and_classes.txt``) lists them; of the captions: diffusers'
DreamBooth examples.
"""

from __future__ import annotations

from collections.abc import Sequence

TOKEN = "sks"
"""What stands for the subject, unless the user says otherwise: a token that says nothing."""
LIVE_CLASSES = ("cat", "dog")
"""The classes of the benchmark that get the prompts for live subjects."""

_PLACES = (
    "a {} in the jungle",
    "a {} in the snow",
    "a {} on the beach",
    "a {} on a cobblestone street",
    "a {} on top of pink fabric",
    "a {} on top of a wooden floor",
    "a {} with a city in the background",
    "a {} with a mountain in the background",
    "a {} with a blue house in the background",
    "a {} on top of a purple rug in a forest",
)
_OBJECTS = (
    "a {} with a wheat field in the background",
    "a {} with a tree and autumn leaves in the background",
    "a {} with the Eiffel Tower in the background",
    "a {} floating on top of water",
    "a {} floating in an ocean of milk",
    "a {} on top of green grass with sunflowers around it",
    "a {} on top of a mirror",
    "a {} on top of the sidewalk in a crowded street",
    "a {} on top of a dirt road",
    "a {} on top of a white rug",
)
_LIVING = (
    "a {} wearing a red hat",
    "a {} wearing a santa hat",
    "a {} wearing a rainbow scarf",
    "a {} wearing a black top hat and a monocle",
    "a {} in a chef outfit",
    "a {} in a firefighter outfit",
    "a {} in a police outfit",
    "a {} wearing pink glasses",
    "a {} wearing a yellow shirt",
    "a {} in a purple wizard outfit",
)
_LOOKS = ("a red {}", "a purple {}", "a shiny {}", "a wet {}", "a cube shaped {}")
OBJECT_PROMPTS = (*_PLACES, *_OBJECTS, *_LOOKS)
LIVE_PROMPTS = (*_PLACES, *_LIVING, *_LOOKS)


def photo_caption(token: str, kind: str) -> str:
    """The caption of the subject's photos."""
    return f"a photo of {token} {kind}"


def class_caption(kind: str) -> str:
    """The caption of the base's own pictures of the class."""
    return f"a photo of a {kind}"


def prompts(token: str, kind: str, live: bool) -> tuple[str, ...]:
    """The 25 prompts, with the subject in its place."""
    return tuple(prompt.format(f"{token} {kind}") for prompt in _templates(live))


def class_prompts(kind: str, live: bool) -> tuple[str, ...]:
    """The same without the token, which means nothing to a model that judges the pictures."""
    return tuple(prompt.format(kind) for prompt in _templates(live))


def _templates(live: bool) -> Sequence[str]:
    return LIVE_PROMPTS if live else OBJECT_PROMPTS
