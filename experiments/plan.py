"""Which trials have to run, and which of them side by side.

    [Trial] -> equal cells collapse -> finished ids drop out -> packs of up to L lanes

Two trials are *equal* if they train the same function on the same data: a rank above the cap, a
knob that no layer can show, a knob that the method does not read. The first one listed runs and
stands for the others, whatever is finished, so that the choice is the same on every machine.

All of it is arithmetic over shapes: no model is built and nothing is trained.

Legend: a·b outputs and c·d inputs of a layer, w1 (a, c), w2 (b, d, *kernel);  r rank;  L lanes.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from experiments.trial import ADAPTER_KNOBS, KNOBS_READ, Trial, spell

# Methods whose trainable tensors have a lane axis, and methods whose adapter is made of factors.
LANED = ("lokr", "head")
FACTORED = ("lokr", "lokr-peft")
# What lanes of one pack may differ in.
MAY_VARY = (
    "r",
    "alpha",
    "init_weights",
    "rank_dropout",
    "module_dropout",
    "learning_rate",
    "weight_decay",
    "clip",
    "seed",
)
# The widest pack worth planning. A CPU is busy with one lane: more only wait for each other. On a
# GPU the base's products fill the device long before 1,024 rows of a step (32 lanes of 32), and
# from there a lane costs the same in any company, while all lanes are padded to the longest row of
# any, a failure takes more with it, and fewer packs even out worse over the devices.
USEFUL_LANES: dict[str, int] = {"cpu": 8, "cuda": 32}
# Knobs that reach a factored adapter only through which tensors it has and their scale.
SHAPE_KNOBS = (
    "r",
    "alpha",
    "decompose_factor",
    "decompose_both",
    "use_effective_conv2d",
    "target_modules",
)
_DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(Trial)}


class Layer(Protocol):
    """One adapted layer, as ``lokr.count`` describes it."""

    @property
    def name(self) -> str: ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    @property
    def scale(self) -> float: ...

    @property
    def parameters(self) -> int: ...

    @property
    def structure(self) -> Hashable: ...


LayersOf = Callable[[Trial], Sequence[Layer]]
Shard = tuple[int, int]


@dataclass(frozen=True)
class Key:
    """What trials must have in common to share a pack: equal keys may.

    Args:
        shared: a trial of the pack, all that may vary at its default.
        structure: name and factors of each adapted layer, rank and scale aside.
        alone: id of a trial that must run alone, else None.
    """

    shared: Trial
    structure: Hashable
    alone: str | None = None

    @property
    def kin(self) -> Hashable:
        """Equal for packs that differ only in how the same layers' factors are split."""
        splits = [knob for knob in SHAPE_KNOBS if knob != "target_modules"]
        return _reset(self.shared, splits)


@dataclass(frozen=True)
class Pack:
    """Trials that train side by side on one frozen base, one lane each.

    Args:
        trials: the lanes.
        key: all that its trials have in common.
        steps: optimizer steps of each lane.
    """

    trials: tuple[Trial, ...]
    key: Key
    steps: int

    @property
    def lanes(self) -> int:
        return len(self.trials)

    @property
    def row_passes(self) -> int:
        """Rows that go through the base, forward and backward."""
        return self.lanes * self.steps * self.trials[0].batch_size

    def isolated(self) -> list[Pack]:
        """Every trial in a pack of its own that nothing will join."""
        return [
            replace(self, trials=(trial,), key=replace(self.key, alone=trial.id))
            for trial in self.trials
        ]


@dataclass(frozen=True)
class Collapsed:
    """A trial that need not run, the equal one that stands for it, and why they are equal."""

    trial: Trial
    representative: Trial
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    packs: tuple[Pack, ...]
    collapsed: tuple[Collapsed, ...]
    finished: tuple[Trial, ...]

    @property
    def remaining(self) -> tuple[Trial, ...]:
        return tuple(trial for pack in self.packs for trial in pack.trials)

    @property
    def steps(self) -> int:
        return sum(pack.steps for pack in self.packs)

    @property
    def row_passes(self) -> int:
        return sum(pack.row_passes for pack in self.packs)

    @property
    def widths(self) -> dict[int, int]:
        """Lanes -> how many packs have so many, the widest first."""
        counts = Counter(pack.lanes for pack in self.packs)
        return dict(sorted(counts.items(), reverse=True))


def plan(
    trials: Sequence[Trial],
    finished: Collection[str],
    lanes: int,
    *,
    layers_of: LayersOf,
    rows_of: Callable[[Trial], int],
    shard: Shard = (1, 1),
) -> Plan:
    """Collapse equal trials, take this shard's, leave out finished ones, pack the rest.

    Args:
        trials: in the order of the study.
        finished: ids whose result is on disk.
        lanes: largest pack, >= 1.
        layers_of: the adapted layers of a factored trial, from shapes alone.
        rows_of: how many training rows a trial uses.
        shard: (i, n) for the i-th of n runs that divide the study among them: i in 1 … n.

    Raises:
        ValueError: lanes < 1.
    """
    if lanes < 1:
        raise ValueError(f"lanes={lanes!r}: expected an integer >= 1")
    distinct, collapsed = collapse(trials, layers_of)
    distinct = _share(distinct, shard, layers_of)
    remaining = [trial for trial in distinct if trial.id not in finished]
    packs = _pack(remaining, lanes, layers_of, rows_of)
    done = tuple(trial for trial in distinct if trial.id in finished)
    return Plan(packs=tuple(packs), collapsed=collapsed, finished=done)


def _share(trials: Sequence[Trial], shard: Shard, layers_of: LayersOf) -> tuple[Trial, ...]:
    """The i-th of n equal shares of each kind of pack, whatever is finished: packs stay wide."""
    number, count = shard
    groups: dict[Key, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(_key(trial, _layers(trial, layers_of)), []).append(trial)
    taken: set[Trial] = set()
    # What does not divide goes to another shard in each kind, so that none gets all of it.
    for place, group in enumerate(groups.values()):
        taken.update(_balanced(group, count)[(number - 1 + place) % count])
    return tuple(trial for trial in trials if trial in taken)


def steps_of(trial: Trial, rows: int) -> int:
    """Optimizer steps of a trial on ``rows`` training rows; the last batch may be short."""
    return trial.epochs * -(-rows // trial.batch_size)


def collapse(
    trials: Sequence[Trial], layers_of: LayersOf
) -> tuple[tuple[Trial, ...], tuple[Collapsed, ...]]:
    """The trials that stand for themselves, and those that equal one of them."""
    first: dict[Hashable, Trial] = {}
    collapsed: list[Collapsed] = []
    for trial in dict.fromkeys(trials):
        layers = _layers(trial, layers_of)
        representative = first.setdefault(_signature(trial, layers), trial)
        if representative != trial:
            reason = _reason(trial, representative, layers)
            collapsed.append(Collapsed(trial, representative, reason))
    return tuple(first.values()), tuple(collapsed)


def _layers(trial: Trial, layers_of: LayersOf) -> Sequence[Layer]:
    return layers_of(trial) if trial.method in FACTORED else ()


def _signature(trial: Trial, layers: Sequence[Layer]) -> Hashable:
    """Equal for two trials exactly if they are the same function with the same training."""
    inert = [*_unread(trial), *(SHAPE_KNOBS if trial.method in FACTORED else ())]
    if trial.rank_dropout == 0:
        inert.append("rank_dropout_scale")
    return _reset(trial, inert), tuple((x.name, tuple(x.shapes.items()), x.scale) for x in layers)


def _reset(trial: Trial, knobs: Sequence[str]) -> Trial:
    return replace(trial, **{knob: _DEFAULTS[knob] for knob in knobs})


def _unread(trial: Trial) -> list[str]:
    """Knobs that the trial's method does not read."""
    return [knob for knob in ADAPTER_KNOBS if knob not in KNOBS_READ[trial.method]]


def _reason(trial: Trial, representative: Trial, layers: Sequence[Layer]) -> str:
    """Why the two are equal, naming every knob in which they differ."""
    names = [f.name for f in fields(Trial)]
    differ = [n for n in names if getattr(trial, n) != getattr(representative, n)]
    clauses = []
    if unread := [knob for knob in differ if knob in _unread(trial)]:
        clauses.append(f"{trial.method} does not read {', '.join(unread)}")
    read = [knob for knob in differ if knob not in unread]
    if shaping := [knob for knob in read if knob in SHAPE_KNOBS]:
        clauses.append(_same_factors(trial, representative, shaping, layers))
    if "rank_dropout_scale" in read:
        clauses.append("rank_dropout_scale has no mask to scale while rank_dropout is 0")
    return "; ".join(clauses)


def _same_factors(
    trial: Trial, representative: Trial, knobs: Sequence[str], layers: Sequence[Layer]
) -> str:
    why = {
        "alpha": "alpha/r is the same",
        "decompose_factor": "every dimension splits alike",
        "decompose_both": f"w1 is full in every layer at r={trial.r}",
        "use_effective_conv2d": "no layer has a low-rank w2 over a kernel",
        "target_modules": "the same layers are selected",
    }
    if "r" in knobs:
        why["r"] = f"w2 is full in every layer from r={_cap(layers, 'lokr_w2')}"
        if trial.decompose_both or representative.decompose_both:
            why["r"] += f" and w1 from r={_cap(layers, 'lokr_w1')}"
    ours, theirs = (
        ", ".join(f"{knob}={spell(getattr(t, knob))}" for knob in knobs)
        for t in (trial, representative)
    )
    return f"{ours} and {theirs} give the same factors: {', '.join(why[knob] for knob in knobs)}"


def _cap(layers: Sequence[Layer], factor: str) -> int:
    """The smallest rank at which ``factor`` is full in every layer, see ``lokr.factors``."""
    return max(-(-max(layer.shapes[factor][:2]) // 2) for layer in layers)


def _pack(
    trials: Sequence[Trial],
    lanes: int,
    layers_of: LayersOf,
    rows_of: Callable[[Trial], int],
) -> list[Pack]:
    groups: dict[Key, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(_key(trial, _layers(trial, layers_of)), []).append(trial)
    packs: list[Pack] = []
    for key, group in groups.items():
        width = lanes if group[0].method in LANED else 1
        packs += cut(group, key, steps_of(group[0], rows_of(group[0])), width)
    # By rows, until seconds are known: see ``experiments.schedule``.
    return sorted(packs, key=lambda pack: -pack.row_passes)


def cut(trials: Sequence[Trial], key: Key, steps: int, lanes: int) -> list[Pack]:
    """Trials of one key in as few packs of at most ``lanes`` as can be, nearly equal in size."""
    # Ranks are padded to the largest of the pack: neighbors waste least.
    by_rank = sorted(trials, key=lambda trial: trial.r)
    parts = _balanced(by_rank, -(-len(by_rank) // lanes))
    return [Pack(part, key, steps) for part in parts]


def _key(trial: Trial, layers: Sequence[Layer]) -> Key:
    shared = _reset(trial, (*_unread(trial), *MAY_VARY))
    return Key(shared, tuple((layer.name, layer.structure) for layer in layers))


def _balanced(trials: Sequence[Trial], parts: int) -> list[tuple[Trial, ...]]:
    """Ten trials in two parts are 5 + 5, not 8 + 2."""
    bounds = [len(trials) * i // parts for i in range(parts + 1)]
    return [tuple(trials[i:j]) for i, j in itertools.pairwise(bounds)]
