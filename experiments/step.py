"""One optimizer step of a pack, and one batch of its evaluation, without a word from the host.

    row numbers -> batch -> base and adapters -> loss of each lane (L,) -> their sum, backward
                -> clipping and AdamW, each lane with its own numbers -> the next line of rows

A batch may come in parts: forward and backward run part by part, each with its share of the rows'
mean, and the gradients add up to those of the whole batch before the one update.

Data, row numbers, losses, counters and the rate of every step to come live on the device, and a
step finds its place by counters there. So all steps of one kind are the same operations on the
same memory: on CUDA they are recorded in a graph (:mod:`experiments.graphs`) and replayed, on the
CPU the same code runs as it stands.

The sum of the lanes' losses gives every lane the gradient it would have alone, since no lane's loss
depends on another lane's parameters.

Legend: L lanes; B rows a lane; S batches of a pass; N rows of a split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache, partial, reduce
from typing import Any

import torch
from torch import Tensor, nn

from experiments.batches import Pass, Step, part_rows, rows_of
from experiments.graphs import Recorder, cuda_graphs
from experiments.methods import Adapted, seed_of
from experiments.optimizer import LaneAdamW, LaneParameters, schedule
from experiments.tasks.base import Batch, Final, Split, Task
from experiments.trial import Trial
from lokr import LaneNoise, kernels
from lokr.kernels.launch import rehearse

Operations = Callable[[], None]


class Feed:
    """The rows of a pass on the device, handed out line by line.

    Args:
        split: where the rows come from.
        lanes: L.
        device: where they go.
    """

    def __init__(self, split: Split, lanes: int, device: torch.device) -> None:
        self.split = split
        self.lanes = lanes
        self.line = torch.zeros(1, dtype=torch.int64, device=device)
        """The next batch of the pass, (1,)."""
        self.rows = torch.zeros(0, 0, dtype=torch.int64, device=device)
        """Row numbers, (S, L·B)."""

    def load(self, batches: Pass) -> None:
        """Begin a pass.

        Raises:
            ValueError: it is of another size than the first one, whose memory it must use.
        """
        if self.rows.numel() == 0:
            self.rows = torch.zeros_like(batches.rows, device=self.line.device)
        if self.rows.shape != batches.rows.shape:
            sizes = f"{tuple(batches.rows.shape)}, the first one's were {tuple(self.rows.shape)}"
            raise ValueError(f"row numbers of a pass: {sizes}")
        source = batches.rows.pin_memory() if self.line.is_cuda else batches.rows
        self.rows.copy_(source, non_blocking=True)
        self.line.zero_()

    def take(self, step: Step, part: int = 0) -> tuple[Tensor, Batch]:
        """Row numbers of a part of the next step, (L·B,), and their batch."""
        line = self.rows.index_select(0, self.line)[0]
        rows = part_rows(line, step, self.lanes, part)
        return rows, self.split.gather(rows, step[part].length)

    def advance(self) -> None:
        """The step after it is next."""
        self.line += 1


class PackStep:
    """Training steps and evaluation of a pack of L trials.

    Args:
        task: gives batches, losses and predictions.
        adapted: the trials' model, on ``device``.
        trials: one a lane.
        device: where all of it is.
        steps: optimizer steps in all; None: the epochs of the trials.
        capture: record the steps in CUDA graphs; None: wherever the device is a CUDA device.
        compile: let ``torch.compile`` have the base's repeated layers.

    Raises:
        ValueError: ``capture`` without a CUDA device.
    """

    def __init__(
        self,
        task: Task,
        adapted: Adapted,
        trials: Sequence[Trial],
        device: torch.device,
        *,
        steps: int | None = None,
        capture: bool | None = None,
        compile: bool = False,
    ) -> None:
        shared = trials[0]
        self.task = task
        self.lanes = len(trials)
        self.precision = shared.precision
        self.device = device
        self.model = lighten(adapted.model, shared.precision, fuse=not compile)
        if compile:
            compile_layers(self.model)
        self.noise = [noise.to(device) for noise in adapted.noise]
        self.draws = draws_of(trials).to(device) if task.stochastic else None
        self.steps = steps or steps_of(shared, task)
        self.done = 0
        """Steps taken, as the host counts them: the device may be behind."""
        self.optimizer = LaneAdamW(
            LaneParameters(adapted.trainable, self.lanes, adapted.stacked),
            [trial.learning_rate for trial in trials],
            [trial.weight_decay for trial in trials],
            [trial.clip for trial in trials],
            schedule(self.steps, shared.warmup),
        )
        self.losses = torch.full((self.steps, self.lanes), math.nan, device=device)
        """Losses of the steps taken, (steps, L)."""
        self.predictions = torch.full((self.lanes, len(task.dev)), math.nan, device=device)
        """What the latest evaluation said of each dev row, (L, N)."""
        self.train_feed = Feed(task.train, self.lanes, device)
        self.dev_feed = Feed(task.dev, self.lanes, device)
        self._training: bool | None = None
        self.recorder = _recorder(trials, device, capture)

    def prepare(self, train: Iterable[Step], dev: Iterable[Step] = ()) -> None:
        """Record the steps of these kinds, so that what needs most memory comes first.

        The feeds must be loaded. Changes no number: what the warm-up does is undone.
        """
        if not self.recorder.active:
            return
        training = [(("train", s), self._train_operations(s)) for s in largest_first(train)]
        evaluation = [(("dev", s), self._dev_operations(s)) for s in largest_first(dev)]
        kinds = [*training[:1], *evaluation[:1]]  # other sizes have much the same programs
        rehearse(self.device, *(partial(self._try, operations) for _, operations in kinds))
        for _, operations in (*training, *evaluation):
            self._try(operations)
        for kind, operations in (*training, *evaluation):
            self.recorder.record(kind, operations)

    def _try(self, operations: Operations) -> None:
        """Run operations and undo what they did."""
        with unchanged(self.state()):
            operations()

    def train(self, step: Step) -> None:
        """One optimizer step on the next batch, which has these parts.

        Raises:
            IndexError: all steps are done.
        """
        if self.done == self.steps:
            raise IndexError(f"all {self.steps} steps are done")
        self.recorder.run(("train", step), self._train_operations(step))
        self.done += 1

    def evaluate(self, batches: Pass) -> None:
        """Fill ``predictions`` from a pass over the dev rows, the same for every lane.

        Its steps are of one part.
        """
        self.dev_feed.load(batches)
        for step in batches.steps:
            self.recorder.run(("dev", step), self._dev_operations(step))

    def state(self) -> list[Tensor]:
        """Every tensor that a training step or an evaluation changes."""
        optimizer = self.optimizer
        state = [optimizer.parameters.values, optimizer.first, optimizer.second, optimizer.done]
        state += [self.losses, self.predictions, self.train_feed.line, self.dev_feed.line]
        return [*state, *(noise.step for noise in self._streams())]

    def finish(self, trials: Sequence[Trial]) -> list[Final]:
        """What the task reads off each lane after the last step; no step can follow."""
        self.close()
        self._mode(training=False)
        with torch.no_grad(), autocast(self.device, self.precision):
            return self.task.finish(self.model, trials)

    def close(self) -> None:
        """Let recordings and their memory go."""
        self.recorder.clear()

    def forward(self, step: Step, part: int = 0) -> Tensor:
        """What a part of the next batch adds to the losses, (L,), with its history for
        :meth:`backward`; the sum over the parts is the mean over the rows of each lane.
        """
        self._mode(training=True)
        _, batch = self.train_feed.take(step, part)
        with autocast(self.device, self.precision):
            losses = self.task.loss(self.model, batch, self.lanes, self.draws)
        return losses if len(step) == 1 else losses * (step[part].rows / rows_of(step))

    def backward(self, losses: Tensor) -> None:
        """Gradients of every lane's parameters, added to those of the parts before."""
        losses.sum().backward()

    def update(self, shares: Sequence[Tensor]) -> None:
        """Write the losses down, the sum of what each part added, and update the parameters, which
        uses the gradients up; then the next batch is next.
        """
        losses = reduce(torch.add, [share.detach() for share in shares])
        self.losses.index_copy_(0, self.optimizer.done, losses.unsqueeze(0))
        self.optimizer.step()
        self.train_feed.advance()
        for noise in self._streams():  # not before: all parts of a step drop the same
            noise.advance()

    def predict(self, step: Step) -> None:
        """Predictions of the next batch of dev rows."""
        self._mode(training=False)
        (shape,) = step
        rows, batch = self.dev_feed.take(step)
        with torch.no_grad(), autocast(self.device, self.precision):
            predicted = self.task.predict(self.model, batch, self.lanes)
        self.predictions.index_copy_(1, rows[: shape.rows], predicted)
        self.dev_feed.advance()

    def _train_operations(self, step: Step) -> Operations:
        def operations() -> None:
            self.optimizer.parameters.drop_gradients()  # an interrupted step may have left some
            self.update([self._pass(step, part) for part in range(len(step))])

        return operations

    def _pass(self, step: Step, part: int) -> Tensor:
        """Forward and backward; the history, and with it the memory, ends with the part."""
        share = self.forward(step, part)
        self.backward(share)
        return share.detach()

    def _dev_operations(self, step: Step) -> Operations:
        return lambda: self.predict(step)

    def _streams(self) -> list[LaneNoise]:
        """The random numbers of a step: masks of dropouts, and what the task draws."""
        return self.noise if self.draws is None else [*self.noise, self.draws]

    def _mode(self, training: bool) -> None:
        if self._training != training:  # the model's own flag says nothing of its parts
            self.model.train(training)
            self._training = training


def steps_of(trial: Trial, task: Task) -> int:
    """Optimizer steps of a trial."""
    return trial.epochs * math.ceil(task.train_size * trial.repeats / trial.batch_size)


def draws_of(trials: Sequence[Trial]) -> LaneNoise:
    """What a stochastic task draws from: equal seeds draw the same, whatever else differs."""
    return LaneNoise([seed_of(trial, "draws") for trial in trials])


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The precision of a trial.

    Casts are not cached: a recording must not reuse one that was made outside of it.
    """
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


@contextmanager
def unchanged(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Give the tensors their values back at the end."""
    before = [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, values in zip(tensors, before, strict=True):
            tensor.copy_(values)


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Work on a stream that can be recorded, and finish it before leaving; no effect on a CPU."""
    if device.type != "cuda":
        yield
        return
    outer, inner = torch.cuda.current_stream(device), _stream(device)
    inner.wait_stream(outer)
    with torch.cuda.stream(inner):
        yield
    outer.wait_stream(inner)


@lru_cache(maxsize=8)
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One stream a device for all packs, since freed memory is reused within a stream only."""
    return torch.cuda.Stream(device)


def lighten(model: nn.Module, precision: str, fuse: bool = True) -> nn.Module:
    """Make a model on its device faster, with the numbers that autocast gives.

    In bf16 the frozen weights of products are kept so, where autocast would cast them anew each
    step. On a GPU pictures lie with their channels last, as its convolutions want them, and in bf16
    norms are one program each with the sums, activations and casts around them (``fuse``, where
    adapters are in Triton too; not for a compiler, which does that itself).
    """
    if fuse and precision == "bf16" and kernels.chooses_triton(next(model.parameters()).device):
        from experiments.frozen.post_norm import fuse_encoders
        from experiments.frozen.unet import fuse_unets

        fuse_unets(fuse_encoders(model))
    for module in model.modules():
        frozen = not any(p.requires_grad for p in module.parameters())
        if precision == "bf16" and isinstance(module, nn.Linear | nn.Conv2d) and frozen:
            module.to(torch.bfloat16)
        if isinstance(module, nn.Conv2d) and module.weight.is_cuda:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def open_first_layer(model: nn.Module) -> None:
    """Let the gradient run back to a frozen model's first layer, so that all of it takes part."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.requires_grad_(True)

    owners = (m for m in model.modules() if next(m.parameters(recurse=False), None) is not None)
    next(owners).register_forward_hook(hook)


def compile_layers(model: nn.Module) -> None:
    """Have ``torch.compile`` on each layer of a stack of alike ones, compiled once for all."""
    # A shape of batches each, for training and evaluation: torch's own limit of 8 is soon reached.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for stack in model.modules():
        alike = isinstance(stack, nn.ModuleList) and len({type(layer) for layer in stack}) == 1
        for layer in stack.children() if alike else ():
            layer.compile(dynamic=False)


def largest_part(step: Step) -> int:
    """The part of most tokens, which needs the most memory."""
    tokens = _tokens(step)
    return tokens.index(max(tokens))


def largest_first(steps: Iterable[Step]) -> list[Step]:
    """Kinds of steps, each once, those whose largest part has most tokens first."""
    return sorted(set(steps), key=lambda step: sorted(_tokens(step), reverse=True), reverse=True)


def _tokens(step: Step) -> list[int]:
    """Of a lane in each part; rows where those are of one size."""
    return [shape.rows * (shape.length or 1) for shape in step]


def _recorder(trials: Sequence[Trial], device: torch.device, capture: bool | None) -> Recorder:
    if capture and device.type != "cuda":
        raise ValueError(f"capture=True: needs a CUDA device, got {str(device)!r}")
    if device.type != "cuda" or capture is False:
        return Recorder(None)
    recorder = Recorder(cuda_graphs())
    reason = obstacle(trials)
    if reason is not None:
        recorder.give_up(reason)
    return recorder


def obstacle(trials: Sequence[Trial]) -> str | None:
    """What makes the trials' steps impossible to record, None if nothing does."""
    dropouts = any(trial.rank_dropout or trial.module_dropout for trial in trials)
    if trials[0].method == "lokr-peft" and dropouts:
        return "peft draws the masks of its dropouts on the host"
    return None
