"""How large a trial is, before it runs: layers and parameters from shapes alone, rows of its data.

What ``experiments.plan`` is told about the real models and data; the plan itself knows neither.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import prod

from experiments import tasks
from experiments.errors import BenchError
from experiments.methods import check_head, lokr_config, quiet_about_rank
from experiments.plan import FACTORED, SHAPE_KNOBS
from experiments.trial import Trial
from lokr import LayerCount, count


def layers_of(trial: Trial) -> tuple[LayerCount, ...]:
    """The layers that the trial adapts, with their factors.

    Raises:
        BenchError: the base cannot be had, or the knobs do not fit it.
    """
    shaping = (*SHAPE_KNOBS, "task", "base", "text_r", "text_alpha")
    return _layers(Trial(**{name: getattr(trial, name) for name in shaping}))


def parameters_of(trial: Trial) -> int:
    """Trainable parameters: the method's and the head's.

    Raises:
        BenchError: the base cannot be had, the knobs do not fit it, or there is no head to train.
    """
    model = tasks.skeleton(trial)
    family = tasks.family(trial)
    check_head(trial, family.heads(model))
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    heads = tuple(f"{head}." for head in family.heads(model))
    head = sum(size for name, size in sizes.items() if name.startswith(heads))
    parts = tuple(f"{path}." if path else "" for path in family.parts(trial))
    if trial.method in FACTORED:
        return head + sum(layer.parameters for layer in layers_of(trial))
    if trial.method == "lora":
        shapes = (model.get_parameter(f"{layer.name}.weight").shape for layer in layers_of(trial))
        return head + sum(trial.r * (out + prod(rest)) for out, *rest in shapes)
    trained = sum(size for name, size in sizes.items() if name.startswith(parts))
    return trained if trial.method == "full" else head


def rows_of(trial: Trial, data: str | None) -> int:
    """Training rows of an epoch; where the trial does not say, its task is loaded.

    Raises:
        BenchError: the data cannot be had.
    """
    return (trial.train_size or tasks.load(trial, data).train_size) * trial.repeats


@lru_cache(maxsize=1024)
def _layers(trial: Trial) -> tuple[LayerCount, ...]:
    model = tasks.skeleton(trial)
    family = tasks.family(trial)
    heads = family.heads(model)
    layers: list[LayerCount] = []
    for path, part in family.parts(trial).items():
        try:
            with quiet_about_rank():
                found = count(model.get_submodule(path), lokr_config(part, heads, family.task_type))
        except ValueError as error:
            raise BenchError(f"LoKr on base {trial.base!r}: {error}") from error
        layers += [replace(one, name=f"{path}.{one.name}" if path else one.name) for one in found]
    return tuple(layers)
