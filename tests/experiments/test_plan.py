"""The plan: every trial runs once, or equals one that does; packs share what they must."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.plan import LANED, MAY_VARY, collapse, plan, steps_of
from experiments.trial import ADAPTER_KNOBS, KNOBS_READ, Trial
from tests.experiments.fakes import convolutions_of, layers_of, rows_of

# Few values of each knob, so that equal cells and shared packs are common.
TRIALS = st.builds(
    Trial,
    task=st.just("glue/rte"),
    method=st.sampled_from(["lokr", "lokr", "lokr", "lokr-peft", "lora", "head", "full"]),
    r=st.sampled_from([4, 12, 16, 32]),
    alpha=st.sampled_from([4, 12, 16, 32]),
    decompose_factor=st.sampled_from([-1, 4, 16]),
    decompose_both=st.booleans(),
    init_weights=st.sampled_from([True, "lycoris"]),
    rank_dropout=st.sampled_from([0.0, 0.1]),
    rank_dropout_scale=st.booleans(),
    epochs=st.sampled_from([1, 2]),
    seed=st.sampled_from([0, 1]),
)
LISTS = st.lists(TRIALS, max_size=40)


def lokr(**knobs: object) -> Trial:
    return Trial(**{"task": "glue/rte", **knobs})


def planned(trials, finished=(), lanes=8, layers=layers_of):
    return plan(trials, finished, lanes, layers_of=layers, rows_of=rows_of)


def sizes(trials, lanes=8):
    return sorted(pack.lanes for pack in planned(trials, lanes=lanes).packs)


@given(LISTS, st.integers(1, 9), st.randoms(use_true_random=False))
def test_every_trial_is_finished_or_in_one_pack_or_equal_to_one_that_is(trials, lanes, random):
    finished = {trial.id for trial in trials if random.random() < 0.3}
    result = planned(trials, finished, lanes)
    alone = [*result.finished, *result.remaining]
    collapsed = [c.trial for c in result.collapsed]
    assert sorted(t.id for t in [*alone, *collapsed]) == sorted({t.id for t in trials})
    assert all(c.representative in alone for c in result.collapsed)
    assert {t.id for t in result.finished} <= finished
    assert finished.isdisjoint(t.id for t in result.remaining)


@given(LISTS, st.integers(1, 9))
def test_packs_are_no_wider_than_the_lanes_and_as_few_and_even_as_can_be(trials, lanes):
    by_key: dict[object, list[int]] = {}
    for pack in planned(trials, lanes=lanes).packs:
        width = lanes if pack.trials[0].method in LANED else 1
        assert 1 <= pack.lanes <= width
        by_key.setdefault((pack.key, width), []).append(pack.lanes)
    for (_, width), widths in by_key.items():
        assert len(widths) == -(-sum(widths) // width)
        assert max(widths) - min(widths) <= 1


@given(LISTS, st.integers(2, 9))
def test_lanes_of_a_pack_differ_only_in_what_may_vary(trials, lanes):
    for pack in planned(trials, lanes=lanes).packs:
        read = KNOBS_READ[pack.trials[0].method]
        unread = {knob for knob in ADAPTER_KNOBS if knob not in read}
        for field in {f.name for f in fields(Trial)} - set(MAY_VARY) - unread:
            assert len({getattr(trial, field) for trial in pack.trials}) == 1, field
        if pack.trials[0].method == "lokr":
            assert len({tuple(x.structure for x in layers_of(t)) for t in pack.trials}) == 1


@given(LISTS)
def test_collapsed_trials_have_the_same_tensors_and_scale(trials):
    for collapsed in collapse(trials, layers_of)[1]:
        one, other = collapsed.trial, collapsed.representative
        assert (one.method, one.seed, one.epochs) == (other.method, other.seed, other.epochs)
        if one.method in ("lokr", "lokr-peft"):
            assert one.init_weights == other.init_weights
            assert one.rank_dropout == other.rank_dropout
            for ours, theirs in zip(layers_of(one), layers_of(other), strict=True):
                assert (ours.shapes, ours.scale) == (theirs.shapes, theirs.scale)


@given(LISTS)
def test_a_reason_names_every_knob_in_which_the_trials_differ(trials):
    for collapsed in collapse(trials, layers_of)[1]:
        for field in fields(Trial):
            ours, theirs = (
                getattr(t, field.name) for t in (collapsed.trial, collapsed.representative)
            )
            assert ours == theirs or field.name in collapsed.reason


@given(LISTS)
def test_the_representative_is_the_first_listed_whatever_is_finished(trials):
    everything = {trial.id for trial in trials}
    assert planned(trials).collapsed == planned(trials, everything).collapsed
    for collapsed in planned(trials).collapsed:
        assert trials.index(collapsed.representative) < trials.index(collapsed.trial)


@given(LISTS)
def test_what_is_finished_does_not_run(trials):
    first = planned(trials)
    again = planned(trials, {trial.id for trial in first.remaining})
    assert again.packs == ()
    assert set(again.finished) == set(first.remaining)


@given(LISTS, st.integers(1, 9))
def test_isolated_trials_keep_everything_but_their_company(trials, lanes):
    for pack in planned(trials, lanes=lanes).packs:
        pieces = pack.isolated()
        assert [piece.trials for piece in pieces] == [(trial,) for trial in pack.trials]
        assert {piece.steps for piece in pieces} == {pack.steps}
        assert len({pack.key, *(piece.key for piece in pieces)}) == pack.lanes + 1


def test_kin_differ_in_the_split_of_factors_alone():
    keys = [
        planned([lokr(r=4, **knobs)]).packs[0].key
        for knobs in ({}, {"decompose_factor": 4}, {"decompose_both": True}, {"batch_size": 8})
    ]
    assert len(set(keys)) == 4
    assert keys[0].kin == keys[1].kin == keys[2].kin != keys[3].kin


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (
            lokr(r=16, alpha=16),
            lokr(r=32, alpha=32),
            "r=32, alpha=32 and r=16, alpha=16 give the same factors: "
            "w2 is full in every layer from r=12, alpha/r is the same",
        ),
        (
            lokr(r=16, alpha=16, decompose_both=True),
            lokr(r=32, alpha=32, decompose_both=True),
            "r=32, alpha=32 and r=16, alpha=16 give the same factors: "
            "w2 is full in every layer from r=12 and w1 from r=8, alpha/r is the same",
        ),
        (
            lokr(r=8),
            lokr(r=8, decompose_both=True),
            "decompose_both=True and decompose_both=False give the same factors: "
            "w1 is full in every layer at r=8",
        ),
        (
            lokr(decompose_factor=16),
            lokr(decompose_factor=20),
            "decompose_factor=20 and decompose_factor=16 give the same factors: "
            "every dimension splits alike",
        ),
        (
            lokr(),
            lokr(use_effective_conv2d=True),
            "use_effective_conv2d=True and use_effective_conv2d=False give the same factors: "
            "no layer has a low-rank w2 over a kernel",
        ),
        (
            lokr(),
            lokr(target_modules=("value", "query")),
            "target_modules=value+query and target_modules=query+value give the same factors: "
            "the same layers are selected",
        ),
        (
            lokr(),
            lokr(rank_dropout_scale=True),
            "rank_dropout_scale has no mask to scale while rank_dropout is 0",
        ),
        (
            lokr(method="head"),
            lokr(method="head", r=4, init_weights=False),
            "head does not read r, init_weights",
        ),
        (
            lokr(method="full"),
            lokr(method="full", target_modules=("key",)),
            "full does not read target_modules",
        ),
        (
            lokr(method="lora"),
            lokr(method="lora", decompose_factor=4, rank_dropout_scale=True),
            "lora does not read decompose_factor, rank_dropout_scale",
        ),
        (
            lokr(method="lokr-peft", r=16, alpha=16),
            lokr(method="lokr-peft", r=12, alpha=12, rank_dropout_scale=True),
            "r=12, alpha=12 and r=16, alpha=16 give the same factors: "
            "w2 is full in every layer from r=12, alpha/r is the same; "
            "rank_dropout_scale has no mask to scale while rank_dropout is 0",
        ),
    ],
)
def test_equal_cells_collapse_for_a_reason_in_words(first, second, reason):
    result = planned([first, second])
    assert result.remaining == (first,)
    (collapsed,) = result.collapsed
    assert (collapsed.trial, collapsed.representative) == (second, first)
    assert collapsed.reason == reason


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lokr(r=11, alpha=11), lokr(r=12, alpha=12)),  # below the cap the rank has an axis
        (lokr(r=16, alpha=8), lokr(r=32, alpha=8)),  # full, but alpha/r differs
        (lokr(r=4), lokr(r=4, decompose_both=True)),
        (lokr(init_weights=True), lokr(init_weights="lycoris")),
        (lokr(rank_dropout=0.1), lokr(rank_dropout=0.1, rank_dropout_scale=True)),
        (lokr(seed=0), lokr(seed=1)),
        (lokr(method="lora", r=4), lokr(method="lora", r=8)),
        (lokr(method="lokr"), lokr(method="lokr-peft")),
        (lokr(method="head", epochs=1), lokr(method="head", epochs=2)),
    ],
)
def test_different_cells_do_not_collapse(first, second):
    assert planned([first, second]).collapsed == ()


def test_the_effective_form_counts_where_there_is_a_kernel():
    plain, effective = lokr(r=2), lokr(r=2, use_effective_conv2d=True)
    assert planned([plain, effective], layers=convolutions_of).collapsed == ()


def test_a_trial_listed_twice_runs_once():
    result = planned([lokr(), lokr()])
    assert result.remaining == (lokr(),)
    assert result.collapsed == ()


def test_a_collapsed_trial_needs_nothing_once_its_representative_is_finished():
    first, second = lokr(r=16, alpha=16), lokr(r=32, alpha=32)
    assert planned([first, second], {first.id}).packs == ()


def test_the_last_packs_are_balanced():
    trials = [lokr(seed=seed) for seed in range(10)]
    assert sizes(trials) == [5, 5]
    assert sizes(trials, lanes=4) == [3, 3, 4]


@pytest.mark.parametrize("method", ["full", "lora", "lokr-peft"])
def test_methods_without_lanes_train_alone(method):
    assert sizes([lokr(method=method, seed=seed) for seed in range(3)]) == [1, 1, 1]


def test_heads_share_a_pack_whatever_their_knobs_say():
    trials = [lokr(method="head", r=seed + 1, seed=seed) for seed in range(4)]
    assert sizes(trials) == [4]


@pytest.mark.parametrize(
    "knob",
    [
        {"epochs": 1},
        {"batch_size": 8},
        {"train_size": 10},
        {"max_length": 8},
        {"precision": "bf16"},
        {"warmup": 0.5},
        {"decompose_factor": 4},
        {"decompose_both": True},
        {"rank_dropout": 0.1, "rank_dropout_scale": True},
    ],
)
def test_trials_that_must_not_share_a_pack_do_not(knob):
    assert sizes([lokr(r=4), lokr(**{"r": 4, **knob})]) == [1, 1]


@pytest.mark.parametrize(
    "knob",
    [
        {"r": 5},
        {"alpha": 1},
        {"init_weights": "lycoris"},
        {"rank_dropout": 0.1},
        {"module_dropout": 0.1},
        {"learning_rate": 0.1},
        {"weight_decay": 0.1},
        {"clip": 0.1},
        {"seed": 1},
    ],
)
def test_trials_that_may_share_a_pack_do(knob):
    assert sizes([lokr(r=4), lokr(**{"r": 4, **knob})]) == [2]


def test_the_longest_pack_comes_first_and_neighboring_ranks_share_one():
    short = [lokr(seed=seed, epochs=1) for seed in range(3)]
    long = [lokr(r=r, seed=seed, epochs=9) for seed in range(2) for r in (2, 8)]
    packs = planned([*short, *long], lanes=2).packs
    assert [pack.steps for pack in packs] == [36, 36, 4, 4]
    assert [{trial.r for trial in pack.trials} for pack in packs[:2]] == [{2}, {8}]


def test_a_plan_says_how_wide_its_packs_are():
    trials = [lokr(seed=seed) for seed in range(7)] + [lokr(method="full")]
    assert list(planned(trials, lanes=3).widths.items()) == [(3, 1), (2, 2), (1, 1)]


def test_work_is_counted_from_rows_and_lanes():
    result = planned([lokr(seed=seed, epochs=2, batch_size=32) for seed in range(3)])
    assert result.steps == 2 * 4  # 100 rows are 4 batches
    assert result.row_passes == 3 * 8 * 32
    assert steps_of(lokr(epochs=3, batch_size=10), rows=21) == 9


@pytest.mark.parametrize("lanes", [0, -1])
def test_a_pack_has_a_lane(lanes):
    with pytest.raises(ValueError, match=f"lanes={lanes}: expected an integer >= 1"):
        planned([lokr()], lanes=lanes)


@given(LISTS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_shards_divide_the_trials_whatever_is_finished(trials, count, random):
    finished = {trial.id for trial in trials if random.random() < 0.3}

    def shares(done):
        return [
            plan(trials, done, 8, layers_of=layers_of, rows_of=rows_of, shard=(number, count))
            for number in range(1, count + 1)
        ]

    whole = planned(trials, finished)
    left = [trial.id for share in shares(finished) for trial in share.remaining]
    assert sorted(left) == sorted(trial.id for trial in whole.remaining)
    for fresh, later in zip(shares(()), shares(finished), strict=True):
        ids = {trial.id for trial in fresh.remaining}
        assert {trial.id for trial in (*later.remaining, *later.finished)} == ids


def test_shards_are_even():
    trials = [lokr(seed=seed, method=method) for seed in range(9) for method in ("lokr", "lora")]
    sizes = [
        len(plan(trials, (), 8, layers_of=layers_of, rows_of=rows_of, shard=(i, 4)).remaining)
        for i in range(1, 5)
    ]
    assert sorted(sizes) == [4, 4, 5, 5]
