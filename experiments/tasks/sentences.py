"""Acceptability, entailment and paraphrase, made by a small English grammar: no data file.

    draw two noun kinds -> draw words -> a meaning -> keep it or change it once -> sentences, label

The grammar has nouns with number, determiners and quantifiers, transitive and intransitive verbs,
adjectives, active and passive voice, negation, conjunction, and attractors: a second noun, in a
prepositional phrase or a relative clause, that stands near the verb and is not its subject. The
label is decided first, and says whether the one change is made, so it is right by construction.

``acceptability`` (columns of CoLA; 1 acceptable): a sentence, or the same with one fault in
    agreement across an attractor, number of the determiner, verb form after an auxiliary,
    antecedent of an anaphor, number of arguments, or the scope that licenses *ever*.
``entailment`` (columns of RTE; 0 entailment): the two sentences differ in one word or phrase, and
    whether the second follows depends on where it stands: below *some*, *every*, *no* or *not*.
``paraphrase`` (columns of MRPC; 1 equivalent): one meaning said in two ways, or two meanings that
    use nearly the same words: roles, clauses, order in time, polarity, quantifier, verb.

No word tells the label: under either label each word is as frequent, in either sentence of a pair,
so a linear model on bags of words has nothing to learn. The label is in how words are combined.

Held out: every sentence has nouns of exactly two kinds (a dog kind and a writer kind, say). A fifth
of the 45 pairs of kinds is seen in validation only, the rest in training only (`_split_of`).
So no sentence is in both, and every validation sentence joins nouns never seen together, though all
its words are seen in training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

from experiments.errors import BenchError
from experiments.tasks import text
from experiments.trial import Trial

# The most rows that one split gives. The grammar makes more, but the rarer forms run out.
LARGEST_SIZE = 20_000
TRAIN_ROWS = 2000
DEV_ROWS = 400
"""Rows of a task where the trial does not say how many."""
SPLITS = ("train", "validation")

# The lexicon. Inflection is regular throughout (`_plural`, `_third`, `_past`, `_gerund`), and most
# words are one token of BERT's vocabulary, so that rows are short.

# kind, which is also the hypernym, -> nouns
KINDS = {
    "animal": ("cat", "lion", "tiger", "horse", "rabbit", "goat"),
    "bird": ("owl", "hawk", "eagle", "swan", "duck", "pigeon"),
    "musician": ("singer", "guitarist", "composer", "drummer"),
    "writer": ("poet", "journalist", "reporter", "novelist"),
    "athlete": ("boxer", "runner", "wrestler", "swimmer", "cyclist"),
    "scientist": ("astronomer", "psychologist", "biologist", "chemist"),
    "artist": ("painter", "sculptor", "photographer", "designer"),
    "official": ("mayor", "senator", "governor", "ambassador"),
    "officer": ("captain", "general", "major", "commander"),
    "worker": ("farmer", "miner", "mechanic", "builder"),
}
NOT_HUMAN = ("animal", "bird")
# Pairs of synonyms. None can lose its object ("the owl greeted near the poet").
VERBS = (
    ("scare", "frighten"),
    ("chase", "pursue"),
    ("rescue", "save"),
    ("greet", "welcome"),
    ("protect", "defend"),
    ("annoy", "bother"),
    ("admire", "respect"),
    ("surprise", "amaze"),
    ("trick", "fool"),
    ("praise", "commend"),
    ("capture", "seize"),
)
# None can take an object ("the owl arrived the poet").
ACTIONS = (
    "arrive",
    "wait",
    "vanish",
    "stumble",
    "disappear",
    "tremble",
    "hesitate",
    "shiver",
    "yawn",
    "cough",
)
# Intersective: a tired owl is an owl, and tired.
ADJECTIVES = ("hungry", "tired", "nervous", "angry", "lonely", "injured", "happy", "sick")
PLACES = ("near", "beside")
DETERMINERS = {False: ("this", "that", "every", "one"), True: ("these", "those", "many", "two")}


def _plural(noun: str, plural: bool = True) -> str:
    return noun + "s" if plural else noun


def _third(verb: str) -> str:
    return verb + ("es" if verb.endswith("sh") else "s")


def _past(verb: str) -> str:
    return verb + ("d" if verb.endswith("e") else "ed")


def _gerund(verb: str) -> str:
    return verb.removesuffix("e") + "ing"


@dataclass(frozen=True)
class Event:
    """Who did what to whom: the meaning of a clause."""

    agent: str
    verb: str
    patient: str
    negated: bool = False

    def active(self) -> str:
        verb = f"did not {self.verb}" if self.negated else _past(self.verb)
        return f"{self.agent} {verb} {self.patient}"

    def passive(self) -> str:
        be = "was not" if self.negated else "was"
        return f"{self.patient} {be} {_past(self.verb)} by {self.agent}"

    def swapped(self) -> Event:
        return replace(self, agent=self.patient, patient=self.agent)


class Words:
    """The words of one row. Its two nouns come from the two kinds that decide the split."""

    def __init__(self, rng: random.Random, kinds: tuple[str, str]) -> None:
        self.rng = rng
        self.kind, self.other_kind = kinds
        self.noun, self.other = (rng.choice(KINDS[kind]) for kind in kinds)
        self.verbs = tuple(rng.sample(rng.choice(VERBS), 2))
        self.verb = self.verbs[0]
        self.action = rng.choice(ACTIONS)
        self.adjective = rng.choice(ADJECTIVES)

    def coin(self) -> bool:
        return self.rng.random() < 0.5

    def either_number(self, noun: str) -> str:
        return _plural(noun, self.coin())

    def event(self) -> Event:
        return Event(f"the {self.noun}", self.verb, f"the {self.other}")


Phenomenon = Callable[[Words, bool], tuple[str, ...]]

# Acceptability: `holds` says whether the sentence is acceptable.


def agreement(words: Words, holds: bool) -> tuple[str, ...]:
    """*The owls near the poet are tired*, against *... is tired*."""
    plural = words.coin()
    be = words.rng.choice(("are", "were") if plural == holds else ("is", "was"))
    subject, other = _plural(words.noun, plural), words.either_number(words.other)
    place = f"{words.rng.choice(PLACES)} the {other}"
    state = f"{be} {words.adjective}"
    return (
        words.rng.choice(
            (
                f"the {subject} {state} {place}",
                f"the {subject} {place} {state}",
                f"the {subject} that the {other} {_past(words.verb)} {state}",
            )
        ),
    )


def determiner(words: Words, holds: bool) -> tuple[str, ...]:
    """*The poet greeted those owls*, against *... those owl*."""
    plural = words.coin()
    chosen = words.rng.choice(DETERMINERS[plural == holds])
    marked, other = f"{chosen} {_plural(words.noun, plural)}", words.either_number(words.other)
    event = Event(marked, words.verb, f"the {other}")
    return ((event if words.coin() else event.swapped()).active(),)


def verb_form(words: Words, holds: bool) -> tuple[str, ...]:
    """*The owl has chased the poets*, against *... has chase ...*."""
    forms = {"will": words.verb, "has": _past(words.verb), "is": _gerund(words.verb)}
    auxiliary = words.rng.choice(tuple(forms))
    right = forms.pop(auxiliary)
    form = right if holds else words.rng.choice(tuple(forms.values()))
    return (f"the {words.noun} {auxiliary} {form} the {words.either_number(words.other)}",)


def anaphor(words: Words, holds: bool) -> tuple[str, ...]:
    """*The owls near the poet scared each other*, against *the owl near the poets ...*."""
    # Reflexives are singular only: "themselves" is good English for one person too.
    one = "itself" if words.kind in NOT_HUMAN else words.rng.choice(("himself", "herself"))
    plural = words.coin()
    found = "each other" if plural == holds else one
    subject, act = f"the {_plural(words.noun, plural)}", f"{_past(words.verb)} {found}"
    place = f"{words.rng.choice(PLACES)} the {_plural(words.other, not plural)}"
    return (f"{subject} {place} {act}" if words.coin() else f"{subject} {act} {place}",)


def arguments(words: Words, holds: bool) -> tuple[str, ...]:
    """*The owl waited near the poet*, against *the owl waited the poet*."""
    transitive = words.coin()
    verb = _past(words.verb if transitive else words.action)
    link = "" if transitive == holds else words.rng.choice(PLACES) + " "
    subject, other = words.either_number(words.noun), words.either_number(words.other)
    return (f"the {subject} {verb} {link}the {other}",)


def licensing(words: Words, holds: bool) -> tuple[str, ...]:
    """*No owl that the poet chased has ever yawned*, against *the owl that no poet ...*."""
    outer, inner = ("no", "the") if holds else ("the", "no")
    other, verb = f"{inner} {words.other}", _past(words.verb)
    clause = f"{other} {verb}" if words.coin() else f"{verb} {other}"
    return (f"{outer} {words.noun} that {clause} has ever {_past(words.action)}",)


# Entailment: `holds` says whether the second sentence follows from the first.


def _directed(narrow: str, wide: str, up: bool, holds: bool) -> tuple[str, ...]:
    """Below *some* the narrow says more; below *every*, *no* and *not* the wide does."""
    return (narrow, wide) if up == holds else (wide, narrow)


def restriction(words: Words, holds: bool) -> tuple[str, ...]:
    """*Every owl chased the poet* entails *every tired owl ...*; *some owl ...* does not."""
    up = words.coin()
    quantifier = "some" if up else words.rng.choice(("every", "no"))
    rest = f"{words.noun} {_past(words.verb)} the {words.other}"
    return _directed(f"{quantifier} {words.adjective} {rest}", f"{quantifier} {rest}", up, holds)


def hypernym(words: Words, holds: bool) -> tuple[str, ...]:
    """*The poet chased some owls* entails *... some birds*; with *not*, the reverse."""
    up = words.coin()
    start = f"the {words.other} " + (
        f"{_past(words.verb)} some" if up else f"did not {words.verb} any"
    )
    return _directed(f"{start} {words.noun}s", f"{start} {words.kind}s", up, holds)


def conjunction(words: Words, holds: bool) -> tuple[str, ...]:
    """*The poet chased the owl and the hawk* entails *... the owl*; with *or*, the reverse."""
    # The third noun is of the first one's kind: the kinds of the row decide its split.
    third = words.rng.choice([noun for noun in KINDS[words.kind] if noun != words.noun])
    listed = words.rng.sample((words.noun, third), 2)
    negated, joined = words.coin(), words.coin()
    between = ("both", "and") if joined else ("either", "or")
    many = f"{between[0]} the {listed[0]} {between[1]} the {listed[1]}"
    one = Event(f"the {words.other}", words.verb, f"the {words.noun}", negated)
    full = replace(one, patient=many)
    narrow, wide = (full, one) if joined else (one, full)
    return _directed(narrow.active(), wide.active(), not negated, holds)


def quantity(words: Words, holds: bool) -> tuple[str, ...]:
    """*All owls chased the poet* entails *some owls ...*; *no owls ...* does not."""
    strong, weak = words.rng.choice((("all", "some"), ("no", "not all")))
    if not holds:
        weak = {"some": "not all", "not all": "some"}[weak]
    rest = f"{words.noun}s {_past(words.verb)} the {words.other}"
    return (f"{strong} {rest}", f"{weak} {rest}")


def voice(words: Words, holds: bool) -> tuple[str, ...]:
    """*The owl chased the poet*, and *the poet was chased by the owl*, or the reverse."""
    first = replace(words.event(), negated=words.coin())
    second = first if holds else first.swapped()
    if words.coin():
        return (first.active(), second.passive())
    return (first.passive(), second.active())


# Paraphrase: `holds` says whether the two sentences mean the same. `voice` serves here too.


def clauses(words: Words, holds: bool) -> tuple[str, ...]:
    """*The owl yawned and the poet waited*, and the clauses, or only the verbs, exchanged."""
    one, two = (_past(action) for action in words.rng.sample(ACTIONS, 2))
    noun, other = f"the {words.noun}", f"the {words.other}"
    if not holds:
        return (f"{noun} {one} and {other} {two}", f"{noun} {two} and {other} {one}")
    return (f"{noun} {one} and {other} {two}", f"{other} {two} and {noun} {one}")


def time(words: Words, holds: bool) -> tuple[str, ...]:
    """*The owl yawned before the poet waited*: the same, or the other, order in time."""
    actions = words.rng.sample(ACTIONS, 2)
    nouns = (words.noun, words.other)
    events = [f"the {noun} {_past(a)}" for noun, a in zip(nouns, actions, strict=True)]
    ways = ("{0} before {1}", "{1} after {0}", "before {1}, {0}", "after {0}, {1}")
    one, two = words.rng.sample(ways, 2)
    return (one.format(*events), two.format(*(events if holds else reversed(events))))


def polarity(words: Words, holds: bool) -> tuple[str, ...]:
    """*The owl did not chase the poet*, and *... failed to ...*, or *... managed to ...*."""
    verb = words.verb
    ways = ((_past(verb), f"managed to {verb}"), (f"did not {verb}", f"failed to {verb}"))
    same, opposite = (words.rng.sample(forms, 2) for forms in words.rng.sample(ways, 2))
    forms = (same[0], same[1] if holds else opposite[0])
    return tuple(f"the {words.noun} {form} the {words.other}" for form in forms)


def quantifier(words: Words, holds: bool) -> tuple[str, ...]:
    """*Every owl chased the poet*, and *each owl ...*, or *at least one owl ...*."""
    ways = (("every", "each"), ("no", "not one"), ("some", "at least one"))
    same, different = (words.rng.sample(forms, 2) for forms in words.rng.sample(ways, 2))
    rest = f"{words.noun} {_past(words.verb)} the {words.other}"
    return (f"{same[0]} {rest}", f"{same[1] if holds else different[0]} {rest}")


def synonym(words: Words, holds: bool) -> tuple[str, ...]:
    """*The owl chased the poet*, and *... pursued ...*, or *... greeted ...*."""
    different = words.rng.choice([pair for pair in VERBS if words.verb not in pair])
    verbs = (words.verb, words.verbs[1] if holds else words.rng.choice(different))
    return tuple(replace(words.event(), verb=verb).active() for verb in verbs)


@dataclass(frozen=True)
class SentenceTask:
    """A task: what it asks, its columns and label names in GLUE's order, and its phenomena."""

    description: str
    columns: tuple[str, ...]
    labels: tuple[str, str]
    phenomena: tuple[Phenomenon, ...]
    label_if_holds: int


SENTENCES = {
    "acceptability": SentenceTask(
        "Is the sentence good English?",
        ("sentence",),
        ("unacceptable", "acceptable"),
        (agreement, determiner, verb_form, anaphor, arguments, licensing),
        label_if_holds=1,
    ),
    "entailment": SentenceTask(
        "Does the second sentence follow from the first?",
        ("sentence1", "sentence2"),
        ("entailment", "not_entailment"),
        (restriction, hypernym, conjunction, quantity, voice),
        label_if_holds=0,
    ),
    "paraphrase": SentenceTask(
        "Do the two sentences mean the same?",
        ("sentence1", "sentence2"),
        ("not_equivalent", "equivalent"),
        (voice, clauses, time, polarity, quantifier, synonym),
        label_if_holds=1,
    ),
}


def generate(task: str, split: str, size: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return ``size`` rows of a task, in GLUE's columns.

    Labels are balanced, to one row. A smaller size with the same seed gives the first of the rows
    that a larger one gives.

    Args:
        task: a key of ``SENTENCES``.
        split: ``"train"`` or ``"validation"``.
        size: number of rows, at most ``LARGEST_SIZE``.
        seed: another seed, other rows; the pairs of kinds in a split stay the same.

    Raises:
        ValueError: an argument is out of range; names it, its value and what is allowed.
    """
    _check(task, split, size)
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    rng = random.Random(f"{task} {split} {seed}")
    for label in _balanced_labels(rng, size):
        texts = _texts(rng, task, split, label)
        while texts in rows:
            texts = _texts(rng, task, split, label)
        columns = zip(SENTENCES[task].columns, texts, strict=True)
        rows[texts] = {**dict(columns), "label": label, "idx": len(rows)}
    return list(rows.values())


def _check(task: str, split: str, size: int) -> None:
    if task not in SENTENCES:
        raise ValueError(f"task={task!r}: allowed are {', '.join(SENTENCES)}")
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: allowed are {', '.join(SPLITS)}")
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= LARGEST_SIZE:
        raise ValueError(f"size={size!r}: allowed are whole numbers from 1 to {LARGEST_SIZE}")


def _balanced_labels(rng: random.Random, size: int) -> Iterator[int]:
    """Both labels, in an order of their own, for every two rows."""
    for start in range(0, size, 2):
        yield from rng.sample((0, 1), 2)[: size - start]


def _texts(rng: random.Random, task: str, split: str, label: int) -> tuple[str, ...]:
    definition = SENTENCES[task]
    phenomenon = rng.choice(definition.phenomena)
    words = Words(rng, rng.choice(KIND_PAIRS[split]))
    texts = phenomenon(words, label == definition.label_if_holds)
    return tuple(f"{text[0].upper()}{text[1:]}." for text in texts)


def _split_of(kinds: tuple[str, str]) -> str:
    """A fifth of the unordered pairs, so spread that every kind is in one or two of them."""
    order = list(KINDS)
    return "train" if sum(map(order.index, kinds)) % 5 else "validation"


KIND_PAIRS = {
    split: [kinds for kinds in permutations(KINDS, 2) if _split_of(kinds) == split]
    for split in SPLITS
}


def _data(trial: Trial, folder: str | None) -> text.TextData:
    """Any number of rows can be had, so None is TRAIN_ROWS; the folder is not for us."""
    name = trial.task.partition("/")[2]
    try:
        train = generate(name, "train", trial.train_size or TRAIN_ROWS)
    except ValueError as error:
        raise BenchError(f"sentences: {error}") from None
    return text.TextData(
        train=train,
        dev=generate(name, "validation", DEV_ROWS),
        columns=SENTENCES[name].columns,
        metrics=("accuracy",),
        labels=2,
        source="experiments/tasks/sentences.py",
    )


FAMILY = text.family(_data, lambda name: 2)
