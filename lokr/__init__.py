"""LoKr adapters: PEFT's numbers and checkpoints, without ever building ΔW.

    from lokr import LoKrConfig, LoKrModel
    model = LoKrModel(model, LoKrConfig(r=8, alpha=16, target_modules=["query", "value"]))

Sources: arXiv 2309.14859 (LoKr in LyCORIS), arXiv 2108.06098 (FedPara), PEFT's ``tuners/lokr``.
"""

from lokr.config import LoKrConfig
from lokr.count import LayerCount, count, table
from lokr.factors import FactorSpec, LayerShape, factor_spec, factorization
from lokr.lanes import LaneNoise, LaneStack
from lokr.model import LoKrModel

__all__ = [
    "FactorSpec",
    "LaneNoise",
    "LaneStack",
    "LayerCount",
    "LayerShape",
    "LoKrConfig",
    "LoKrModel",
    "count",
    "factor_spec",
    "factorization",
    "table",
]
