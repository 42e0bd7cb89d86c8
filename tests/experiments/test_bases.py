"""The fast attention of the bases against transformers' own, and the mask that it is given."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from experiments import bases
from experiments.frozen.mpnet import Encoder, SelfAttention, fuse_attention
from tests.experiments.small_bases import classifier

ROWS, TOKENS = 3, 21


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (ROWS, TOKENS), generator=generator)
    mask = torch.arange(TOKENS) < torch.tensor([[TOKENS], [4], [17]])
    return {"input_ids": ids * mask + ~mask, "attention_mask": mask.long()}


def run(model: nn.Module, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Logits, and the gradient of every parameter that gets one."""
    model.zero_grad()
    logits = model(**inputs).logits
    logits.square().sum().backward()
    return logits, *(p.grad for p in model.parameters() if p.grad is not None)


def assert_same(first: nn.Module, second: nn.Module, inputs, others) -> None:
    pairs = list(zip(run(first, inputs), run(second, others), strict=True))
    assert len(pairs) > 30
    # A key's bias shifts all scores of a query alike: its gradient is rounding and no more.
    scale = max(theirs.abs().max().item() for _, theirs in pairs)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("padded", [True, False])
def test_mpnet_equals_transformers_with_its_gradients(padded):
    theirs = classifier("mpnet", relative_attention_num_buckets=32)
    ours = fuse_attention(copy.deepcopy(theirs))
    assert {type(m) for m in ours.modules()} >= {Encoder, SelfAttention}
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    inputs = batch() if padded else {"input_ids": batch()["input_ids"]}
    assert_same(ours, theirs, inputs, inputs)


def test_the_table_is_transformers_own_at_every_length():
    theirs = classifier("mpnet", relative_attention_num_buckets=32).mpnet.encoder
    ours = fuse_attention(copy.deepcopy(theirs))
    x = torch.zeros(1, 512, 1)
    assert torch.equal(ours.compute_position_bias(x), theirs.compute_position_bias(x))


def test_mpnet_gives_attentions_and_hidden_states_when_asked():
    theirs = classifier("mpnet").eval()
    ours = fuse_attention(copy.deepcopy(theirs))
    wanted = {"output_attentions": True, "output_hidden_states": True}
    first, second = (model.mpnet(**batch(), **wanted) for model in (ours, theirs))
    for name in ("attentions", "hidden_states"):
        for one, other in zip(first[name], second[name], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_loaded_mpnet_is_fast(tmp_path):
    classifier("mpnet").mpnet.save_pretrained(tmp_path)
    model = bases.load_model(bases.locate(str(tmp_path)), 2)
    assert sum(isinstance(m, SelfAttention) for m in model.modules()) == 2
    assert sum(isinstance(m, Encoder) for m in model.modules()) == 1


@pytest.mark.parametrize("kind", bases.ADDITIVE_MASK)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_additive_mask_stands_for_the_bases_own(kind, attention):
    if (kind, attention) == ("mpnet", "sdpa"):
        attention = "eager"  # all that transformers' own has
    changes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "dropout": 0.0}
    changes |= {"attention_dropout": 0.0, "seq_classif_dropout": 0.0}
    model = classifier(kind, **(changes if kind == "distilbert" else {}))
    model.set_attn_implementation(attention)
    assert bases.takes_additive_mask(model)
    inputs = batch()
    added = {**inputs, "attention_mask": bases.additive_mask(inputs["attention_mask"])}
    assert_same(model, model, added, inputs)


def test_the_additive_mask_has_autocasts_dtype():
    mask = torch.tensor([[1, 1, 0]])
    assert bases.additive_mask(mask).tolist() == [[[[0.0, 0.0, float("-inf")]]]]
    with torch.autocast("cpu", torch.bfloat16):
        assert bases.additive_mask(mask).dtype == torch.bfloat16


@pytest.mark.parametrize(("kind", "attention"), [("modernbert", "sdpa"), ("bert", "flash")])
def test_other_bases_keep_their_mask(kind, attention):
    config = SimpleNamespace(model_type=kind, _attn_implementation=attention)
    assert not bases.takes_additive_mask(SimpleNamespace(config=config))
