# ruff: noqa: E501 (a table: one case a line)
"""The generator of sentences: rows, splits, labels, and that no word gives the label away."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from experiments.tasks.sentences import KINDS, LARGEST_SIZE, SENTENCES, SPLITS, generate

TASKS = tuple(SENTENCES)
ACCEPTABLE, ENTAILMENT, EQUIVALENT = 1, 0, 1
KIND_OF = {form: kind for kind, nouns in KINDS.items() for noun in (kind, *nouns)
           for form in (noun, noun + "s")}  # fmt: skip

# Sentences by hand, with the content words left open, and their labels. Pairs are joined by " | ".
N, V, ED = r"[a-z]+", r"[a-z]+", r"[a-z]+d"
BY_HAND = [
    ("acceptability", rf"The {N}s near the {N} are {N}\.", ACCEPTABLE),
    ("acceptability", rf"The {N}s near the {N} is {N}\.", 0),
    ("acceptability", rf"The {N}[^s] that the {N}s {ED} was {N}\.", ACCEPTABLE),
    ("acceptability", rf"The {N}[^s] that the {N}s {ED} were {N}\.", 0),
    ("acceptability", rf"(These|Those|Many|Two) {N}s {ED} the {N}\.", ACCEPTABLE),
    ("acceptability", rf"The {N} {ED} (this|that|every|one) {N}s\.", 0),
    ("acceptability", rf"The {N} will {V}[^dg] the {N}\.", ACCEPTABLE),
    ("acceptability", rf"The {N} has {V}ing the {N}\.", 0),
    ("acceptability", rf"The {N} is {V}ed the {N}\.", 0),
    ("acceptability", rf"The {N}s beside the {N} {ED} each other\.", ACCEPTABLE),
    ("acceptability", rf"The {N}[^s] beside the {N}s {ED} each other\.", 0),
    ("acceptability", rf"The {N}[^s] {ED} (him|her|it)self near the {N}s\.", ACCEPTABLE),
    ("acceptability", rf"The {N}s near the {N} {ED} (him|her|it)self\.", 0),
    ("acceptability", rf"The {N} (waited|arrived|yawned) near the {N}\.", ACCEPTABLE),
    ("acceptability", rf"The {N} (waited|arrived|yawned) the {N}\.", 0),
    ("acceptability", rf"The {N} (chased|greeted|praised) near the {N}\.", 0),
    ("acceptability", rf"No {N} that the {N} {ED} has ever {ED}\.", ACCEPTABLE),
    ("acceptability", rf"The {N} that no {N} {ED} has ever {ED}\.", 0),
    ("entailment", rf"Some {N} ({N} {ED}) the ({N})\. \| Some \1 the \2\.", ENTAILMENT),
    ("entailment", rf"Some ({N} {ED}) the ({N})\. \| Some {N} \1 the \2\.", 1),
    ("entailment", rf"Every ({N} {ED}) the ({N})\. \| Every {N} \1 the \2\.", ENTAILMENT),
    ("entailment", rf"No {N} ({N} {ED}) the ({N})\. \| No \1 the \2\.", 1),
    ("entailment", rf"The ({N} {ED}) some owls\. \| The \1 some birds\.", ENTAILMENT),
    ("entailment", rf"The ({N} {ED}) some birds\. \| The \1 some owls\.", 1),
    ("entailment", rf"The ({N}) did not ({V}) any birds\. \| The \1 did not \2 any owls\.", ENTAILMENT),
    ("entailment", rf"The ({N} {ED}) both the ({N}) and the {N}\. \| The \1 the \2\.", ENTAILMENT),
    ("entailment", rf"The ({N} {ED}) either the {N} or the ({N})\. \| The \1 the \2\.", 1),
    ("entailment", rf"The ({N} did not {V}) either the ({N}) or the {N}\. \| The \1 the \2\.", ENTAILMENT),
    ("entailment", rf"The ({N} did not {V}) both the ({N}) and the {N}\. \| The \1 the \2\.", 1),
    ("entailment", rf"All ({N} {ED} the {N})\. \| Some \1\.", ENTAILMENT),
    ("entailment", rf"No ({N} {ED} the {N})\. \| Some \1\.", 1),
    ("entailment", rf"The ({N}) ({ED}) the ({N})\. \| The \3 was \2 by the \1\.", ENTAILMENT),
    ("entailment", rf"The ({N}) ({ED}) the ({N})\. \| The \1 was \2 by the \3\.", 1),
    ("paraphrase", rf"The ({N}) was not ({ED}) by the ({N})\. \| The \3 did not {V} the \1\.", EQUIVALENT),
    ("paraphrase", rf"The ({N}) was not ({ED}) by the ({N})\. \| The \1 did not {V} the \3\.", 0),
    ("paraphrase", rf"The ({N} {ED}) and the ({N} {ED})\. \| The \2 and the \1\.", EQUIVALENT),
    ("paraphrase", rf"The ({N}) ({ED}) and the ({N}) ({ED})\. \| The \1 \4 and the \3 \2\.", 0),
    ("paraphrase", rf"The ({N} {ED}) before the ({N} {ED})\. \| The \2 after the \1\.", EQUIVALENT),
    ("paraphrase", rf"The ({N} {ED}) before the ({N} {ED})\. \| After the \1, the \2\.", EQUIVALENT),
    ("paraphrase", rf"The ({N} {ED}) before the ({N} {ED})\. \| The \1 after the \2\.", 0),
    ("paraphrase", rf"The ({N}) did not ({V}) the ({N})\. \| The \1 failed to \2 the \3\.", EQUIVALENT),
    ("paraphrase", rf"The ({N}) managed to ({V}) the ({N})\. \| The \1 did not \2 the \3\.", 0),
    ("paraphrase", rf"No ({N} {ED} the {N})\. \| Not one \1\.", EQUIVALENT),
    ("paraphrase", rf"Every ({N} {ED} the {N})\. \| At least one \1\.", 0),
    ("paraphrase", rf"The ({N}) chased the ({N})\. \| The \1 pursued the \2\.", EQUIVALENT),
    ("paraphrase", rf"The ({N}) chased the ({N})\. \| The \1 greeted the \2\.", 0),
]  # fmt: skip


def rows_of(task: str, split: str = "train", size: int = 600, seed: int = 0) -> list[dict]:
    return generate(task, split, size, seed)


def texts_of(task: str, row: dict) -> tuple[str, ...]:
    return tuple(row[column] for column in SENTENCES[task].columns)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def kinds_of(text: str) -> frozenset[str]:
    return frozenset(KIND_OF[word] for word in words_of(text) if word in KIND_OF)


@pytest.fixture(scope="module")
def many() -> dict[str, list[dict]]:
    """Enough rows of each task for every case by hand to occur."""
    return {task: rows_of(task, size=12_000) for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_the_columns_are_glues(task: str) -> None:
    texts = {"acceptability": ("sentence",)}.get(task, ("sentence1", "sentence2"))
    row = rows_of(task, size=1)[0]
    assert tuple(row) == (*texts, "label", "idx")
    assert SENTENCES[task].columns == texts


def test_label_names_are_in_glues_order() -> None:
    assert SENTENCES["acceptability"].labels[ACCEPTABLE] == "acceptable"
    assert SENTENCES["entailment"].labels[ENTAILMENT] == "entailment"
    assert SENTENCES["paraphrase"].labels[EQUIVALENT] == "equivalent"


@pytest.mark.parametrize(("task", "pattern", "label"), BY_HAND)
def test_labels_of_sentences_by_hand(
    many: dict[str, list[dict]], task: str, pattern: str, label: int
) -> None:
    found = [row for row in many[task] if re.fullmatch(pattern, " | ".join(texts_of(task, row)))]
    assert found, "the grammar makes no such row"
    assert {row["label"] for row in found} == {label}, found[:3]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 150), seed=st.integers(0, 2**32))
def test_laws_of_every_sample(task: str, split: str, size: int, seed: int) -> None:
    rows = rows_of(task, split, size, seed)
    assert [row["idx"] for row in rows] == list(range(size))
    assert len({texts_of(task, row) for row in rows}) == size
    labels = Counter(row["label"] for row in rows)
    assert abs(labels[0] - labels[1]) == size % 2
    for text in (text for row in rows for text in texts_of(task, row)):
        assert re.fullmatch(r"[A-Z][a-z]*( [a-z]+,?)+\.", text)
        assert 5 <= len(words_of(text)) <= 12
        assert len(kinds_of(text)) == 2


def test_the_same_seed_gives_the_same_rows_on_every_machine() -> None:
    assert rows_of("paraphrase", seed=1) == rows_of("paraphrase", seed=1)
    assert rows_of("paraphrase", seed=1) != rows_of("paraphrase", seed=2)
    assert [row["sentence"] for row in rows_of("acceptability", size=2)] == [
        "The tigers that the sculptor respected was lonely.",
        "The chemists fooled the commander.",
    ]


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    random.seed(1)
    before, first = random.getstate(), rows_of("entailment")
    assert random.getstate() == before
    random.seed(2)
    assert rows_of("entailment") == first


@pytest.mark.parametrize("task", TASKS)
def test_a_smaller_sample_is_the_start_of_a_larger(task: str) -> None:
    assert rows_of(task, size=101) == rows_of(task, size=200)[:101]


@pytest.mark.parametrize("task", TASKS)
def test_validation_joins_kinds_that_training_never_joins(task: str) -> None:
    train, validation = (
        {text for seed in (0, 1) for row in rows_of(task, split, 2000, seed)
         for text in texts_of(task, row)}
        for split in SPLITS
    )  # fmt: skip
    assert not train & validation
    seen, unseen = ({kinds_of(text) for text in texts} for texts in (train, validation))
    assert not seen & unseen
    assert len(seen | unseen) == 45
    assert len(unseen) == 9
    assert frozenset().union(*seen) == frozenset().union(*unseen) == frozenset(KINDS)
    # The words themselves are all known from training.
    assert {w for t in validation for w in words_of(t)} <= {w for t in train for w in words_of(t)}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("sided", [False, True])
def test_bags_of_words_do_not_tell_the_label(task: str, sided: bool) -> None:
    """Also when a word counts as another in the first sentence than in the second."""

    def bag(row: dict) -> str:
        texts = enumerate(texts_of(task, row))
        return " ".join(f"{w}{side * sided}" for side, text in texts for w in words_of(text))

    train, validation = rows_of(task, size=4000), rows_of(task, "validation", 2000)
    model = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=500))
    model.fit([bag(row) for row in train], [row["label"] for row in train])
    score = model.score([bag(row) for row in validation], [row["label"] for row in validation])
    assert 0.4 < score < 0.6


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_the_largest_size_can_be_made(task: str, split: str) -> None:
    assert len(rows_of(task, split, LARGEST_SIZE)) == LARGEST_SIZE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("grammar", "train", 10), r"task='grammar': allowed are acceptability, entailment, par"),
        (("entailment", "test", 10), r"split='test': allowed are train, validation"),
        (("entailment", "train", 0), r"size=0: allowed are whole numbers from 1 to 20000"),
        (("entailment", "train", 20_001), r"size=20001: allowed are whole numbers from 1 to"),
        (("entailment", "train", True), r"size=True: allowed are whole numbers"),
        (("entailment", "train", 1.5), r"size=1\.5: allowed are whole numbers"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(*arguments)
