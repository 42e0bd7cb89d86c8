"""What a config gives a model, from shapes alone: build the model on the meta device and count.

with torch.device("meta"):
    model = AutoModel.from_config(AutoConfig.from_pretrained("roberta-base"))
print(table(count(model, LoKrConfig(r=8))))
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from torch import nn

from lokr.config import LoKrConfig
from lokr.factors import FactorSpec, Shape
from lokr.targets import check_patterns, select_targets


@dataclass(frozen=True)
class LayerCount:
    """One adapted layer: its name, and the factors it gets."""

    name: str
    spec: FactorSpec

    @property
    def shapes(self) -> dict[str, Shape]:
        """Tensor name -> shape."""
        return self.spec.shapes

    @property
    def scale(self) -> float:
        """The factor before kron(w1, w2)."""
        return self.spec.scale

    @property
    def parameters(self) -> int:
        """Trainable adapter parameters."""
        return self.spec.parameters

    @property
    def structure(self) -> Hashable:
        """Equal in two configs whose adapters can be lanes of one pack, rank apart."""
        return self.spec.structure


def count(model: nn.Module, config: LoKrConfig) -> list[LayerCount]:
    """The adapted layers of ``model`` (weights may be on the meta device), in order.

    Raises:
        ValueError, TypeError: as :class:`lokr.LoKrModel` would.
    """
    targets = select_targets(model, config)
    check_patterns([target.name for target in targets], config)
    return [LayerCount(target.name, target.spec(config)) for target in targets]


def table(rows: Sequence[LayerCount]) -> str:
    """The counts as aligned text, one layer a line, with the sum."""
    cells = [("layer", "parameters", "scale", "tensors")]
    for row in rows:
        tensors = "  ".join(f"{n.removeprefix('lokr_')} {s}" for n, s in row.shapes.items())
        cells.append((row.name, f"{row.parameters:,}", f"{row.scale:g}", tensors))
    cells.append(("sum", f"{sum(row.parameters for row in rows):,}", "", ""))
    name, number, scale = (max(len(line[i]) for line in cells) for i in range(3))
    return "\n".join(
        f"{n:<{name}}  {p:>{number}}  {s:>{scale}}  {t}".rstrip() for n, p, s, t in cells
    )
