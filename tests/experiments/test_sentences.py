# ruff: noqa: E501 (a table: one case a line)
"""The generator of sentences: rows, splits, labels, and that no word gives the label away."""

from __future__ import annotations

from experiments.tasks.sentences import KINDS, SENTENCES

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
