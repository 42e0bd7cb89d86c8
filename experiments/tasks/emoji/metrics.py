"""What sampled pictures are worth, each metric defined once, all on features of pictures.

similarity   cosine of a sample's features and those of the true drawing (as CLIP-I and DINO in
             DreamBooth, arXiv 2208.12242, which has no true drawing and uses the training photos)
frechet      |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½) (Dowson & Landau 1982; Heusel et al. 2017,
             arXiv 1706.08500, on Inception features): here the EfficientNet Fréchet distance, not
             FID, and comparable only between equal numbers of pictures
vendi        exp of the entropy of the eigenvalues of K/n, K the cosines (Friedman & Dieng 2022,
             arXiv 2210.02410): the effective number of distinct pictures
style        share that a logistic regression, trained on true drawings, takes for the style
retrieval    share whose own concept's drawing is among the nearest of a gallery (R-precision of
             AttnGAN, arXiv 1711.10485, with pictures in the place of captions)

Features answer to style as well as to content, so none of these is read alone.

Legend: N pictures or samples; D features of a picture; C drawings of the gallery, one a concept;
S styles; L lanes; P known drawings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.errors import BenchError
from experiments.tasks.emoji.features import smaller

Embed = Callable[[Tensor], Tensor]
"""(N, 3, H, W) uint8 -> (N, D) fp32, as :class:`experiments.tasks.emoji.features.Features`."""
Array = Tensor | np.ndarray
Scores = dict[str, float | None]
"""Metric -> value; None where it is not defined."""
TOP = (1, 5)
"""Depths at which retrieval is read."""
PER_STYLE = 512
"""Drawings of a style that the classifier learns from, at most: more add little."""


def similarity(samples: Array, truth: Array) -> Tensor:
    """Cosine of each sample's features and its true drawing's.

    Args:
        samples: (N, D).
        truth: (N, D), row for row.

    Returns:
        (N,) in -1 to 1, on the samples' device.
    """
    return F.cosine_similarity(_features(samples), _features(truth), dim=-1)


def frechet(a: Array, b: Array) -> float:
    """Fréchet distance of two normal distributions fitted to features, in float64.

    With X the centered features over √(N - 1), S = XᵀX, and the trace of (S1 S2)^½ is the sum of
    the singular values of X1 X2ᵀ: no root of a singular D x D matrix is taken, and nothing is
    shrunk, for however few pictures.

    Args:
        a: (N, D).
        b: (N', D).

    Returns:
        The squared distance, as FID is; at least 0.

    Raises:
        ValueError: fewer than two pictures on a side.
    """
    a, b = _features(a).double(), _features(b).double()
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance needs two pictures, not {min(len(a), len(b))}")
    left, right = _scatter(a), _scatter(b)
    overlap = torch.linalg.svdvals(left @ right.mT).sum()
    between = (a.mean(0) - b.mean(0)).square().sum()
    return float((between + left.square().sum() + right.square().sum() - 2 * overlap).clamp(min=0))


def _scatter(features: Tensor) -> Tensor:
    """X with XᵀX the covariance, of at most D rows; (N, D) -> (min(N, D), D)."""
    centered = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    if centered.shape[0] <= centered.shape[1]:
        return centered
    return torch.linalg.qr(centered, mode="r").R


def vendi(features: Array) -> float:
    """Vendi score with the cosine kernel: 1 if all are equal, N if all are orthogonal.

    Args:
        features: (N, D), no row of zeros.
    """
    unit = F.normalize(_features(features).double(), dim=-1)
    spectrum = torch.linalg.eigvalsh(unit @ unit.mT / len(unit)).clamp(min=0)
    return float(torch.special.entr(spectrum).sum().exp())


def retrieval(
    samples: Array, gallery: Array, target: Array, top: Sequence[int] = TOP
) -> dict[int, float]:
    """Share of samples whose own drawing is among the nearest of the gallery by cosine.

    Args:
        samples: (N, D).
        gallery: (C, D), one drawing a concept.
        target: (N,) int, the row of the gallery that is right.
        top: depths.

    Returns:
        Depth -> share. A sample of no features at all (NaN) has found nothing.
    """
    unit = F.normalize(_features(gallery), dim=-1)
    cosines = F.normalize(_features(samples), dim=-1) @ unit.mT  # (N, C)
    own = cosines.gather(1, torch.as_tensor(target, device=cosines.device).long()[:, None])
    rank = (~(cosines <= own)).sum(-1)  # how many are nearer than the right one
    return {depth: float((rank < depth).float().mean()) for depth in top}


@dataclass(frozen=True)
class StyleClassifier:
    """Multinomial logistic regression from features to styles.

    Attributes:
        styles: names, S.
        weight: (S, D) fp32, on raw features: standardization is folded in.
        bias: (S,) fp32.
    """

    styles: tuple[str, ...]
    weight: Tensor
    bias: Tensor

    @classmethod
    def fit(
        cls, features: Array, styles: Sequence[str], seed: int, per_style: int = PER_STYLE
    ) -> StyleClassifier:
        """Fit on true drawings by scikit-learn (L2, C = 0.01, classes weighted alike).

        Args:
            features: (N, D).
            styles: N names, at least two distinct.
            seed: which drawings of a style are taken where there are more than ``per_style``.
            per_style: how many of each style are used at most.

        Raises:
            ValueError: fewer than two styles.
        """
        rows = _balanced(styles, seed, per_style)
        labels = np.asarray(styles)[rows]
        if len(set(labels)) < 2:
            raise ValueError(f"styles: {sorted(set(labels))}; a classifier needs two")
        tensor = _features(features)
        return cls._of(*_fit_logistic(tensor[rows].double().cpu().numpy(), labels), tensor)

    @classmethod
    def _of(cls, names: Sequence[str], weight: Array, bias: Array, like: Tensor) -> StyleClassifier:
        tensors = (torch.as_tensor(x).to(like.device, torch.float32) for x in (weight, bias))
        return cls(tuple(names), *tensors)

    def classify(self, features: Array) -> Tensor:
        """Index into ``styles`` of each picture's likeliest style: (N, D) -> (N,) int64."""
        return (torch.as_tensor(features).to(self.weight) @ self.weight.mT + self.bias).argmax(-1)

    def recognized(self, features: Array, style: str) -> float:
        """Share of pictures (N, D) that are taken for ``style``.

        Raises:
            ValueError: a style that the classifier does not know.
        """
        if style not in self.styles:
            raise ValueError(f"style {style!r}: the classifier knows {', '.join(self.styles)}")
        return float((self.classify(features) == self.styles.index(style)).float().mean())

    def accuracy(self, features: Array, styles: Sequence[str]) -> float:
        """Share of pictures (N, D) that are taken for their own style."""
        named = [self.styles[index] for index in self.classify(features).tolist()]
        return float(np.mean([a == b for a, b in zip(named, styles, strict=True)]))


def _balanced(styles: Sequence[str], seed: int, per_style: int) -> list[int]:
    """Rows in order, at most ``per_style`` a style, drawn without replacement."""
    rng = np.random.default_rng(seed)
    names = np.asarray(styles)
    rows: list[int] = []
    for style in sorted(set(styles)):
        own = np.flatnonzero(names == style)
        rows += rng.permutation(own)[:per_style].tolist()
    return sorted(rows)


def _fit_logistic(
    features: np.ndarray, labels: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names (S), weight (S, D) and bias (S,) on raw features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
    model.fit(scaler.transform(features), labels)
    weight, bias = model.coef_ / scaler.scale_, model.intercept_
    bias = bias - weight @ scaler.mean_
    if len(model.classes_) == 2:  # scikit-learn keeps only the second class's row
        weight, bias = np.vstack([-weight / 2, weight / 2]), np.hstack([-bias / 2, bias / 2])
    return [str(name) for name in model.classes_], weight, bias


@dataclass(frozen=True)
class Drawings:
    """True drawings that samples are judged by, with their features.

    Attributes:
        images: (P, 3, H, W) uint8, on white.
        styles: P names.
        concepts: P names; a style draws a concept once.
        test: (P,) bool, concepts of the test split.
        features: (P, D) fp32.
    """

    images: Tensor
    styles: tuple[str, ...]
    concepts: tuple[str, ...]
    test: Tensor
    features: Tensor

    @classmethod
    def of(
        cls,
        images: Tensor,
        styles: Sequence[str],
        concepts: Sequence[str],
        test: Array | Sequence[bool],
        embed: Embed,
    ) -> Drawings:
        """Compute the features: once for all the styles that will be judged."""
        marks = torch.as_tensor(test).bool().cpu()
        return cls(images, tuple(styles), tuple(concepts), marks, embed(images))

    @classmethod
    def join(cls, parts: Sequence[Drawings]) -> Drawings:
        """All drawings of several, end to end."""
        return cls(
            torch.cat([part.images for part in parts]),
            tuple(style for part in parts for style in part.styles),
            tuple(concept for part in parts for concept in part.concepts),
            torch.cat([part.test for part in parts]),
            torch.cat([part.features for part in parts]),
        )

    def rows(self, style: str | None = None, test: bool | None = None) -> list[int]:
        """Numbers of the drawings of a style and of a split; None takes all."""
        marks = self.test.tolist()
        return [
            row
            for row, own in enumerate(self.styles)
            if style in (None, own) and test in (None, marks[row])
        ]


class Judge:
    """Scores samples of one style against the truth; what does not change is computed once.

    Args:
        drawings: true drawings: of the style, for truth and gallery, and of other styles, for the
            classifier and the references.
        style: the style that samples should be in.
        prompts: the concepts that are sampled, N; a concept may come more than once.
        embed: what gives features of samples, the same that gave those of ``drawings``.
        seed: draws the classifier's drawings and the references'.

    Raises:
        BenchError: a prompt that the style has no drawing of, or none at all.
    """

    def __init__(
        self, drawings: Drawings, style: str, prompts: Sequence[str], embed: Embed, seed: int = 0
    ) -> None:
        self.drawings, self.style, self.embed, self.seed = drawings, style, embed, seed
        gallery = drawings.rows(style)
        known = {drawings.concepts[row]: index for index, row in enumerate(gallery)}
        _check_prompts(prompts, known, style)
        self.gallery = drawings.features[gallery]  # (C, D)
        self.target = torch.tensor([known[p] for p in prompts], device=self.gallery.device)  # (N,)
        self.truth = self.gallery[self.target]  # (N, D)
        self.distinct = self.gallery[self.target.unique()]  # a concept's drawing once
        self.classifier = _classifier(drawings, style, seed)
        self._gallery_rows = gallery

    @torch.no_grad()
    def scores(self, samples: Tensor) -> list[Scores]:
        """Scores of each lane's samples.

        Args:
            samples: (L, N, 3, H, W) uint8, one picture a prompt, in the prompts' order.

        Returns:
            A dict a lane, each with ``similarity`` and its standard error over samples
            ``similarity_se``, ``frechet`` (to the sampled concepts' true drawings), ``vendi``,
            ``style``, and ``retrieval_top1``, ``retrieval_top5`` (in the gallery of all drawings of
            the style). None where it is not defined: a spread of one sample, a style that no
            classifier could learn, a gallery no larger than the depth.

        Raises:
            ValueError: not one picture a prompt.
        """
        if samples.dim() != 5 or samples.shape[1] != len(self.target):
            raise ValueError(
                f"samples are (lanes, {len(self.target)} prompts, 3, H, W), "
                f"not {tuple(samples.shape)}"
            )
        features = self.embed(samples.flatten(0, 1)).unflatten(0, samples.shape[:2])
        return [self._lane(lane) for lane in features]

    def _lane(self, features: Tensor) -> Scores:
        """One lane's scores, from (N, D)."""
        cosines = similarity(features, self.truth)
        several = len(cosines) > 1
        return {
            "similarity": float(cosines.mean()),
            "similarity_se": float(cosines.std() / len(cosines) ** 0.5) if several else None,
            "frechet": _distance(features, self.distinct),
            "vendi": vendi(features),
            "style": self.recognized(features),
            **self.retrieved(features, self.target),
        }

    def recognized(self, features: Tensor) -> float | None:
        """Share of pictures (N, D) that are taken for the style; None without a classifier."""
        if self.classifier is None or not len(features):
            return None
        return self.classifier.recognized(features, self.style)

    def retrieved(self, features: Tensor, target: Tensor, suffix: str = "") -> Scores:
        """``retrieval_top<k><suffix>`` of pictures (N, D) whose concepts are ``target`` (N,)."""
        asked = [depth for depth in TOP if depth < len(self.gallery) and len(features)]
        shares = retrieval(features, self.gallery, target, asked) if asked else {}
        return {f"retrieval_top{depth}{suffix}": shares.get(depth) for depth in TOP}

    @torch.no_grad()
    def reference(self) -> Scores:
        """What scores are to be read against; the floor is ``scores`` of the untuned base.

        Returns:
            A dict with the sizes ``prompts``, ``gallery``, ``styles`` (that the classifier
            tells apart), and where defined, else None:

            ``*_ceiling``: the true drawings themselves, at 7/8 of their size (``similarity``,
            ``retrieval_top1``, ``retrieval_top5``) or as they are (``vendi``; ``style``: of all the
            style's drawings of test concepts, which the classifier never saw);
            ``*_other_style``: the same concepts as other styles draw them (``similarity``,
            ``retrieval_top1``, ``retrieval_top5``): content without the style;
            ``*_other_concepts``: other concepts in the same style (``similarity``, and ``frechet``
            of as many drawings as there are prompts): the style without the content;
            ``style_accuracy``: the classifier's on all styles' drawings of test concepts, and
            ``style_false``: the share of other styles' ones that it takes for this style.
        """
        known = len(self.classifier.styles) if self.classifier else 0
        return {
            "prompts": len(self.target),
            "gallery": len(self.gallery),
            "styles": known,
            **self._ceilings(),
            **self._other_styles(),
            "similarity_other_concepts": _mean_other_cosine(self.distinct),
            "frechet_other_concepts": self._other_concepts(),
            **self._classifier_quality(),
        }

    def _ceilings(self) -> Scores:
        rows = [self._gallery_rows[index] for index in self.target.tolist()]
        resized = self.embed(smaller(self.drawings.images[rows]))
        return {
            "similarity_ceiling": float(similarity(resized, self.truth).mean()),
            **self.retrieved(resized, self.target, "_ceiling"),
            "vendi_ceiling": vendi(self.truth),
        }

    def _other_concepts(self) -> float | None:
        """Fréchet distance to as many of the style's drawings of concepts that are not sampled."""
        sampled = set(self.target.tolist())
        others = [index for index in range(len(self.gallery)) if index not in sampled]
        chosen = np.random.default_rng(self.seed).permutation(others)[: len(self.target)]
        if len(chosen) < len(self.target):
            return None
        return _distance(self.gallery[chosen.tolist()], self.distinct)

    def _other_styles(self) -> Scores:
        """The sampled concepts as other styles draw them, each concept counted alike."""
        index = {self.drawings.concepts[self._gallery_rows[i]]: i for i in self.target.tolist()}
        rows = [
            row
            for row, (style, concept) in enumerate(
                zip(self.drawings.styles, self.drawings.concepts, strict=True)
            )
            if style != self.style and concept in index
        ]
        owner = torch.tensor(
            [index[self.drawings.concepts[row]] for row in rows],
            dtype=torch.int64,
            device=self.gallery.device,
        )
        features = self.drawings.features[rows]
        cosines = similarity(features, self.gallery[owner])
        return {
            "similarity_other_style": _mean_of_groups(cosines, owner),
            **self.retrieved(features, owner, "_other_style"),
        }

    def _classifier_quality(self) -> Scores:
        """The classifier on true drawings that it was not trained on."""
        rows = self.drawings.rows(test=True)
        if self.classifier is None or not rows:
            return {"style_ceiling": None, "style_accuracy": None, "style_false": None}
        styles = [self.drawings.styles[row] for row in rows]
        own = self.drawings.rows(self.style, test=True)
        others = [row for row, style in zip(rows, styles, strict=True) if style != self.style]
        return {
            "style_ceiling": self.recognized(self.drawings.features[own]),
            "style_accuracy": self.classifier.accuracy(self.drawings.features[rows], styles),
            "style_false": self.recognized(self.drawings.features[others]),
        }


def _check_prompts(prompts: Sequence[str], known: dict[str, int], style: str) -> None:
    if not prompts:
        raise BenchError("prompts: none given; name at least one concept to sample")
    unknown = sorted(set(prompts) - set(known))
    if unknown:
        raise BenchError(
            f"prompts: {unknown[0]!r} has no true drawing in style {style!r} "
            f"({len(unknown)} of {len(prompts)} have none); name concepts that it draws"
        )


def _classifier(drawings: Drawings, style: str, seed: int) -> StyleClassifier | None:
    """Trained on the training split's drawings; None where they do not tell this style from one."""
    rows = drawings.rows(test=False)
    styles = [drawings.styles[row] for row in rows]
    if style not in styles or len(set(styles)) < 2:
        return None
    return StyleClassifier.fit(drawings.features[rows], styles, seed)


def _distance(a: Tensor, b: Tensor) -> float | None:
    return frechet(a, b) if min(len(a), len(b)) > 1 else None


def _mean_other_cosine(features: Tensor) -> float | None:
    """Mean cosine of two distinct rows of (N, D)."""
    count = len(features)
    if count < 2:
        return None
    total = F.normalize(features.double(), dim=-1).sum(0).square().sum()
    return float((total - count) / (count * (count - 1)))


def _mean_of_groups(values: Tensor, group: Tensor) -> float | None:
    """Mean over groups of their mean: (N,), (N,) int64; None if there are none."""
    if not len(values):
        return None
    _, place = group.unique(return_inverse=True)
    sums = torch.zeros(int(place.max()) + 1, dtype=values.dtype, device=values.device)
    return float((sums.index_add(0, place, values) / place.bincount()).mean())


def _features(array: Array) -> Tensor:
    """As a float tensor where it is; half precision is widened."""
    tensor = torch.as_tensor(array)
    return tensor if tensor.dtype == torch.float64 else tensor.float()
