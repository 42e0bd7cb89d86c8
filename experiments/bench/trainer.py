"""A trial as most people train one: PEFT's LoKr in transformers' Trainer.

The trial's numbers, the data, the base (its dropouts off) and the initial factors are those of our
own runs; the loop, its padding and its precision are the Trainer's.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from experiments import bases, tasks
from experiments.methods import attach, seed_of
from experiments.step import steps_of
from experiments.tasks.base import Scores, Split, Task
from experiments.trial import Trial

EVALUATION_ROWS = 256
"""Rows of an evaluation batch; larger ones gained nothing."""


class Rows(Dataset[dict[str, Any]]):
    """A split's rows without padding, as lists of numbers: what a tokenizer gives."""

    def __init__(self, split: Split) -> None:
        self.rows = [_row(split, i) for i in range(len(split))]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def train(trial: Trial, device: str, data: str | None) -> list[Scores]:
    """Train the trial with PEFT's LoKr in the Trainer.

    Returns:
        The dev set's scores after each epoch.

    Raises:
        BenchError: task, base or data cannot be had.
    """
    task = tasks.load(trial, data)
    model = as_published(attach([replace(trial, method="lokr-peft")], task).model)
    history: list[Scores] = []

    def score(evaluation: Any) -> dict[str, float]:
        history.append(task.scores(_predictions(evaluation.predictions)))
        return history[-1]["full"]

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The Trainer's own business, such as pinned memory without a GPU.
        warnings.simplefilter("ignore")
        _trainer(model, trial, task, device, folder, score).train()
    return history


def as_published(model: nn.Module) -> nn.Module:
    """Give a base back transformers' own modules where ours are faster (MPNet's attention)."""
    for module in model.modules():
        if type(module).__module__ == "experiments.frozen.mpnet":
            module.__class__ = type(module).__mro__[1]
    return model


def _trainer(model: Any, trial: Trial, task: Task, device: str, folder: str, score: Any) -> Any:
    from transformers import DataCollatorWithPadding, Trainer
    from transformers.trainer_callback import PrinterCallback

    tokenizer = bases.load_tokenizer(bases.locate(trial.base))
    trainer = Trainer(
        model=model,
        args=_arguments(trial, steps_of(trial, task), device, folder),
        train_dataset=Rows(task.train),
        eval_dataset=Rows(task.dev),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=score,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(trial: Trial, steps: int, device: str, folder: str) -> Any:
    """The trial's numbers; the rest is the Trainer's default, without saving and reporting."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=trial.batch_size,
        per_device_eval_batch_size=EVALUATION_ROWS,
        num_train_epochs=trial.epochs,
        learning_rate=trial.learning_rate,
        weight_decay=trial.weight_decay,
        max_grad_norm=trial.clip,
        lr_scheduler_type="linear",
        warmup_steps=max(1, round(trial.warmup * steps)),
        bf16=trial.precision == "bf16",
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=device == "cuda",
        use_cpu=device == "cpu",
        seed=seed_of(trial, "order"),
    )


def _row(split: Split, index: int) -> dict[str, Any]:
    length = None if split.lengths is None else int(split.lengths[index])
    return {
        name: (tensor[index, :length] if tensor.dim() == 2 else tensor[index]).tolist()
        for name, tensor in split.tensors.items()
    }


def _predictions(logits: Any) -> Tensor:
    """One number a row, as ``Task.predict`` gives: the class, or the number of a regression."""
    scores = torch.as_tensor(logits)
    return scores.squeeze(-1) if scores.shape[-1] == 1 else scores.argmax(-1).float()
