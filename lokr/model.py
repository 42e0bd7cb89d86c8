"""``LoKrModel``: finds the targets in a model, wraps them, switches, merges, unloads."""

from __future__ import annotations

import copy
import dataclasses
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lokr import checkpoint
from lokr.config import LANE_FIELDS, LoKrConfig
from lokr.lanes import LaneNoise, LaneStack
from lokr.layers import Adapter, Generators, LoKrLayer
from lokr.targets import Target, alpha_of, check_patterns, rank_of, select_targets

Lanes = Sequence[LoKrConfig]


class ModulesToSave(nn.Module):
    """A module trained in full: the original, and a copy (all its lanes) for each adapter."""

    def __init__(self, original_module: nn.Module) -> None:
        super().__init__()
        self.original_module = original_module
        self.copies = nn.ModuleDict()
        self.active: str | None = None
        self.enabled = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The active adapter's copy, or the original."""
        if self.enabled and self.active is not None:
            return self.copies[self.active](*args, **kwargs)
        return self.original_module(*args, **kwargs)

    def stack(self, name: str) -> LaneStack:
        """The copy of adapter ``name``."""
        stack = self.copies[name]
        assert isinstance(stack, LaneStack)
        return stack


class LoKrModel(nn.Module):
    """A model with LoKr adapters, changed in place.

    Args:
        model: any model with Linear, Conv1d, Conv2d or transformers' Conv1D layers.
        config: the adapter's config; or ``{name: config}`` for several adapters; or a list of
            configs, one a *lane*: trials side by side on one base, whose batches are lane-major,
            (L·B, …). Lanes may differ in ``lokr.config.LANE_FIELDS``.
        adapter_name: name of the adapter, where ``config`` does not name it.
        low_cpu_mem_usage: create the factors on the meta device, to be loaded afterwards.
        state_dict: adapt the layers that its keys name (PEFT's key layout), whatever the config
            targets; its values are not read.
        generator: source of the initial factors; a list for lanes. Default: torch's own.

    Raises:
        ValueError, TypeError: see :func:`lokr.targets.select_targets` and :class:`LoKrConfig`.
    """

    def __init__(
        self,
        model: nn.Module,
        config: LoKrConfig | Mapping[str, LoKrConfig] | Lanes,
        adapter_name: str = "default",
        low_cpu_mem_usage: bool = False,
        state_dict: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | Generators | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.lane_configs: dict[str, tuple[LoKrConfig, ...]] = {}
        self.active_adapters: list[str] = []
        named = config if isinstance(config, Mapping) else {adapter_name: config}
        if not named:
            raise ValueError("config={}: expected at least one adapter")
        frozen = list(model.parameters())
        for name, one in named.items():
            self.add_adapter(name, one, low_cpu_mem_usage, state_dict, generator)
        for parameter in frozen:
            parameter.requires_grad_(False)
        self.set_adapter(next(iter(named)))

    @property
    def peft_config(self) -> dict[str, LoKrConfig]:
        """Adapter name -> its config (the first lane's)."""
        return {name: lanes[0] for name, lanes in self.lane_configs.items()}

    @property
    def lanes(self) -> int:
        """L."""
        return len(next(iter(self.lane_configs.values()))) if self.lane_configs else 1

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The adapted model's forward pass."""
        return self.model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":  # not yet set: do not look for it in itself
                raise
            return getattr(self.model, name)

    # -- adapters ---------------------------------------------------------------------------

    def add_adapter(
        self,
        adapter_name: str,
        config: LoKrConfig | Lanes,
        low_cpu_mem_usage: bool = False,
        state_dict: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | Generators | None = None,
    ) -> None:
        """Add an adapter beside the others; it is not active until :meth:`set_adapter`.

        Raises:
            ValueError: the name is taken or has a dot, the number of lanes differs, or the config
                does not fit the model, which is then as it was.
        """
        lanes = _check_lanes((config,) if isinstance(config, LoKrConfig) else tuple(config))
        self._check_new(adapter_name, lanes)
        if state_dict is None:
            targets = select_targets(self.model, lanes[0])
            for lane in lanes:
                check_patterns([t.name for t in targets], lane)
        else:
            targets = checkpoint.targets_of(self.model, state_dict)
        saved = _modules_to_save(self.model, lanes[0], strict=state_dict is None)
        generators = _generators(generator, len(lanes))
        try:
            with torch.device("meta") if low_cpu_mem_usage else nullcontext():
                self._create(adapter_name, lanes, targets, generators)
            for name in saved:
                self._save_too(name, adapter_name, len(lanes))
        except Exception:
            self._forget(adapter_name)
            self._unwrap_unused()
            raise
        self.lane_configs[adapter_name] = lanes
        self._refresh()
        self._say_where_rank_is_idle(adapter_name)

    def set_adapter(self, adapter_name: str | Sequence[str]) -> None:
        """Make one adapter, or several whose ΔW add up, the active ones, and only them trainable.

        Merged adapters are taken out of the weights: they would hide the active ones.

        Raises:
            ValueError: an unknown name; or two adapters that both replace one module to save.
        """
        names = [adapter_name] if isinstance(adapter_name, str) else list(adapter_name)
        for name in names:
            self._check_known(name)
        for path, module in self._saved_modules():
            both = [name for name in names if name in module.copies]
            if len(both) > 1:
                raise ValueError(
                    f"adapters {', '.join(both)} each have their own {path!r} (modules_to_save): "
                    "only one of them can be active"
                )
        self.unmerge_adapter()
        self.active_adapters = names
        self._refresh()

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter; a merged one is taken out of the weights first."""
        self._check_known(adapter_name)
        merged = self.merged_adapters
        if adapter_name in merged:
            self.unmerge_adapter()
            self.merge_adapter([name for name in merged if name != adapter_name])
        self._forget(adapter_name)
        del self.lane_configs[adapter_name]
        self.active_adapters = [name for name in self.active_adapters if name != adapter_name]
        self._refresh()

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """The frozen model inside the ``with``: nothing added, nothing merged."""
        merged = self.merged_adapters
        enabled = all(layer.enabled for _, layer in self._layers())
        self.disable_adapter_layers()
        try:
            yield
        finally:
            self._enable(enabled)
            self.merge_adapter(merged)

    def disable_adapter_layers(self) -> None:
        """Switch every adapter off (merged ones are taken out of the weights)."""
        self.unmerge_adapter()
        self._enable(False)

    def enable_adapter_layers(self) -> None:
        """Switch the active adapters on again."""
        self._enable(True)

    # -- merging ----------------------------------------------------------------------------

    @property
    def merged_adapters(self) -> list[str]:
        """Names of the adapters now in the weights."""
        return list(dict.fromkeys(n for _, layer in self._layers() for n in layer.merged_adapters))

    def merge_adapter(
        self, adapter_names: Sequence[str] | None = None, safe_merge: bool = False
    ) -> None:
        """Put the adapters (the active ones by default) into the weights; see ``LoKrLayer.merge``.

        Raises:
            ValueError: an unknown name, several lanes, or (``safe_merge``) weights that would not
                be finite; no weight has then changed.
        """
        names = self.active_adapters if adapter_names is None else adapter_names
        for name in names:
            self._check_known(name)
        done: list[tuple[LoKrLayer, list[str]]] = []
        try:
            for _, layer in self._layers():
                before = list(layer.merged_adapters)
                layer.merge(names, safe_merge)
                done.append((layer, before))
        except ValueError:
            for layer, before in done:
                layer.unmerge()
                layer.merge(before)
            raise

    def unmerge_adapter(self) -> None:
        """Restore every frozen weight exactly."""
        for _, layer in self._layers():
            layer.unmerge()

    def merge_and_unload(
        self, safe_merge: bool = False, adapter_names: Sequence[str] | None = None
    ) -> nn.Module:
        """The plain model with the adapters in its weights and the trained modules in place."""
        names = self.active_adapters if adapter_names is None else list(adapter_names)
        self.merge_adapter(names, safe_merge)
        return self._unload(keep=names)

    def unload(self) -> nn.Module:
        """The plain model as it was before any adapter."""
        self.unmerge_adapter()
        return self._unload(keep=())

    def get_delta_weight(self, adapter_name: str | None = None, lane: int = 0) -> dict[str, Tensor]:
        """Layer name -> ΔW, in the layout of the frozen weight, in the dtype of the factors."""
        name = adapter_name or next(iter(self.active_adapters), "")
        self._check_known(name)
        return {
            path: layer.get_delta_weight(name, lane) for path, layer in self.adapted_layers(name)
        }

    # -- checkpoints ------------------------------------------------------------------------

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], adapter_name: str | None = None, lane: int = 0
    ) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` in PEFT's layout.

        Several adapters are written as PEFT does: ``default`` into the folder itself, the others
        into folders of their names; ``adapter_name`` writes one, into the folder itself.
        """
        if adapter_name is not None:
            self._check_known(adapter_name)
            checkpoint.save(self, save_directory, adapter_name, lane)
            return
        for name in self.lane_configs:
            folder = save_directory if name == "default" else os.path.join(save_directory, name)
            checkpoint.save(self, folder, name, lane)

    @classmethod
    def from_pretrained(
        cls,
        model: nn.Module,
        folder: str | os.PathLike[str],
        adapter_name: str = "default",
        is_trainable: bool = False,
        low_cpu_mem_usage: bool = False,
    ) -> LoKrModel:
        """A model with the adapter of a folder that PEFT or :meth:`save_pretrained` wrote.

        Raises:
            FileNotFoundError: the folder lacks one of the two files.
            ValueError: the tensors do not fit the model; names them.
        """
        config, state = checkpoint.read(folder, is_trainable)
        self = cls(model, config, adapter_name, low_cpu_mem_usage, state_dict=state.tensors)
        try:
            checkpoint.load(self, adapter_name, state)
        except ValueError:
            self.unload()
            raise
        return self

    def load_adapter(
        self,
        folder: str | os.PathLike[str],
        adapter_name: str,
        is_trainable: bool = False,
        low_cpu_mem_usage: bool = False,
    ) -> None:
        """Add the adapter of a folder under a name; see :meth:`from_pretrained`."""
        config, state = checkpoint.read(folder, is_trainable)
        self.add_adapter(adapter_name, config, low_cpu_mem_usage, state_dict=state.tensors)
        try:
            checkpoint.load(self, adapter_name, state)
        except ValueError:
            self.delete_adapter(adapter_name)
            raise

    # -- lanes and counts -------------------------------------------------------------------

    def set_noise(self, noise: LaneNoise | None) -> None:
        """Draw every dropout mask from ``noise``, which the caller advances once a step.

        None goes back to torch's default generator.
        """
        for adapter in self._adapters():
            adapter.noise = () if noise is None else (noise,)

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """(trainable, all) parameters."""
        counts = [(p.numel(), p.requires_grad) for p in self.parameters()]
        return sum(n for n, trainable in counts if trainable), sum(n for n, _ in counts)

    def print_trainable_parameters(self) -> None:
        """Print both counts and their ratio."""
        trainable, total = self.get_nb_trainable_parameters()
        print(f"trainable: {trainable:,} of {total:,} parameters ({trainable / total:.4%})")

    def adapted_layers(self, adapter_name: str) -> Iterator[tuple[str, LoKrLayer]]:
        """(path, wrapper) of every layer that has this adapter."""
        return ((n, layer) for n, layer in self._layers() if adapter_name in layer.adapters)

    def saved_modules(self, adapter_name: str) -> Iterator[tuple[str, LaneStack]]:
        """(path, trained copy) of every module that this adapter saves too."""
        modules = self._saved_modules()
        return ((n, m.stack(adapter_name)) for n, m in modules if adapter_name in m.copies)

    # -- within -----------------------------------------------------------------------------

    def _layers(self) -> list[tuple[str, LoKrLayer]]:
        return [(n, m) for n, m in self.model.named_modules() if isinstance(m, LoKrLayer)]

    def _saved_modules(self) -> list[tuple[str, ModulesToSave]]:
        return [(n, m) for n, m in self.model.named_modules() if isinstance(m, ModulesToSave)]

    def _adapters(self) -> list[Adapter]:
        return [m for m in self.model.modules() if isinstance(m, Adapter)]

    def _create(
        self, adapter_name: str, lanes: Lanes, targets: Sequence[Target], generators: Generators
    ) -> None:
        """The factors of every target."""
        for place, target in enumerate(targets):
            self._wrap(target).add_adapter(
                adapter_name,
                lanes,
                [rank_of(target.name, lane) for lane in lanes],
                [alpha_of(target.name, lane) for lane in lanes],
                place,
                generators,
            )

    def _forget(self, adapter_name: str) -> None:
        """Remove the factors and the trained modules of an adapter."""
        for _, layer in self.adapted_layers(adapter_name):
            del layer.adapters[adapter_name]
        for _, module in self._saved_modules():
            if adapter_name in module.copies:
                del module.copies[adapter_name]

    def _unwrap_unused(self) -> None:
        """Put back the layers and modules that no adapter uses."""
        for name, layer in self._layers():
            if not layer.adapters:
                _replace(self.model, name, layer.base_layer)
        for name, module in self._saved_modules():
            if not module.copies:
                _replace(self.model, name, module.original_module)

    def _wrap(self, target: Target) -> LoKrLayer:
        if isinstance(target.layer, LoKrLayer):
            return target.layer
        layer = target.wrapper(target.layer).train(target.layer.training)
        _replace(self.model, target.name, layer)
        return layer

    def _save_too(self, path: str, adapter_name: str, lanes: int) -> None:
        module = self.model.get_submodule(path)
        if not isinstance(module, ModulesToSave):
            module = ModulesToSave(module).train(module.training)
            _replace(self.model, path, module)
        copies = [copy.deepcopy(module.original_module) for _ in range(lanes)]
        module.copies[adapter_name] = LaneStack(copies).train(module.training)

    def _refresh(self) -> None:
        """Bring every wrapper in line with the active adapters."""
        for _, layer in self._layers():
            layer.active_adapters = [n for n in self.active_adapters if n in layer.adapters]
            self._set_trainable(layer.adapters)
        for _, module in self._saved_modules():
            module.active = next((n for n in self.active_adapters if n in module.copies), None)
            self._set_trainable(module.copies)

    def _set_trainable(self, adapters: nn.ModuleDict) -> None:
        for name, adapter in adapters.items():
            config = self.peft_config.get(name)
            training = config is not None and not config.inference_mode
            adapter.requires_grad_(training and name in self.active_adapters)

    def _enable(self, enabled: bool) -> None:
        for module in self.model.modules():
            if isinstance(module, LoKrLayer | ModulesToSave):
                module.enabled = enabled

    def _unload(self, keep: Sequence[str]) -> nn.Module:
        for name, layer in self._layers():
            _replace(self.model, name, layer.base_layer)
        for name, module in self._saved_modules():
            trained = next((n for n in keep if n in module.copies), None)
            plain = module.stack(trained).module() if trained else module.original_module
            _replace(self.model, name, plain)
        return self.model

    def _check_known(self, adapter_name: str) -> None:
        if adapter_name not in self.lane_configs:
            known = ", ".join(map(repr, self.lane_configs)) or "none"
            raise ValueError(f"adapter_name={adapter_name!r}: no such adapter; there are {known}")

    def _check_new(self, adapter_name: str, lanes: Lanes) -> None:
        if adapter_name in self.lane_configs:
            raise ValueError(f"adapter_name={adapter_name!r}: there is an adapter of this name")
        if not adapter_name or "." in adapter_name:
            raise ValueError(f"adapter_name={adapter_name!r}: expected a name without dots")
        if self.lane_configs and len(lanes) != self.lanes:
            raise ValueError(
                f"adapter {adapter_name!r} has {len(lanes)} lanes, the others {self.lanes}"
            )

    def _say_where_rank_is_idle(self, adapter_name: str) -> None:
        """One warning for all layers in which the rank has no effect but through the scale."""
        idle = [
            (name, layer.adapter(adapter_name).specs[0])
            for name, layer in self.adapted_layers(adapter_name)
            if not any(spec.rank_matters for spec in layer.adapter(adapter_name).specs)
        ]
        if not idle:
            return
        groups: dict[str, int] = {}
        for name, spec in idle:
            key = f"*.{name.rpartition('.')[2]} (w2 {spec.b}x{spec.d}, r={spec.r})"
            groups[key] = groups.get(key, 0) + 1
        listed = "; ".join(f"{count} x {key}" for key, count in groups.items())
        warnings.warn(
            f"adapter {adapter_name!r}: the rank saves nothing in these layers, which get full "
            f"factors (r only divides the scale there): {listed}",
            UserWarning,
            stacklevel=4,
        )


def _check_lanes(lanes: Lanes) -> tuple[LoKrConfig, ...]:
    if not lanes:
        raise ValueError("config=[]: expected at least one lane")
    for lane, config in enumerate(lanes):
        for field in dataclasses.fields(LoKrConfig):
            value, first = getattr(config, field.name), getattr(lanes[0], field.name)
            if field.name not in LANE_FIELDS and value != first:
                raise ValueError(
                    f"lane {lane}: {field.name}={value!r} differs from lane 0's {first!r}; lanes "
                    f"may differ in {', '.join(LANE_FIELDS)}"
                )
    return tuple(lanes)


def _generators(generator: torch.Generator | Generators | None, lanes: int) -> Generators:
    if generator is None or isinstance(generator, torch.Generator):
        return [generator] * lanes
    if len(generator) != lanes:
        raise ValueError(f"generator: expected one, or {lanes} (one a lane), got {len(generator)}")
    return generator


def _modules_to_save(model: nn.Module, config: LoKrConfig, strict: bool) -> list[str]:
    """Paths of the modules to save, by exact name or dotted suffix as in PEFT.

    A name must match, if ``strict``; PEFT writes common names that a model need not have.
    """
    names = [n for n, m in model.named_modules() if n and not n.endswith("original_module")]
    paths = []
    for wanted in config.modules_to_save or ():
        found = [n for n in names if n == wanted or n.endswith(f".{wanted}")]
        if not found and strict:
            last = sorted({n.rpartition(".")[2] for n in names})
            raise ValueError(
                f"modules_to_save={wanted!r} matches no module; there are {', '.join(last[:20])}"
            )
        paths += [n for n in found if n not in paths]
    return paths


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
