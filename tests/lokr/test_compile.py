"""``torch.compile(fullgraph=True)``: one graph in training and evaluation, the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lokr import LaneNoise, LoKrConfig, LoKrModel
from tests.lokr import architectures as arch
from tests.lokr.peers import Convs, Mlp, adapt, randomize

CLOSE = {"rtol": 1e-5, "atol": 1e-4}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, fullgraph=True, backend="aot_eager")


def both(model: LoKrModel, x: Tensor) -> None:
    """Outputs and gradients, compiled and not."""
    results = []
    for run in (model, compiled(model)):
        model.zero_grad()
        out = run(x)
        out.square().sum().backward()
        results.append((out, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}))
    assert_close(*results, **CLOSE)


CASES = {
    "linear": (Mlp, (4, 12), {"r": 2, "target_modules": ["up", "down"]}),
    "full": (Mlp, (4, 12), {"r": 64, "target_modules": ["up", "down"]}),
    "saved": (Mlp, (4, 12), {"r": 2, "target_modules": ["up"], "modules_to_save": ["head"]}),
    "conv": (
        Convs,
        (2, 4, 8, 8),
        {
            "r": 1,
            "target_modules": ["square", "tall", "grouped", "line"],
            "use_effective_conv2d": True,
        },
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_one_graph(case, training):
    torch.manual_seed(0)
    build, shape, fields = CASES[case]
    dropouts = {"rank_dropout": 0.5, "module_dropout": 0.5, "rank_dropout_scale": True}
    model = adapt(build(), **fields, **dropouts).train(training)
    randomize(model)
    model.set_noise(LaneNoise([0]))  # the same masks, compiled or not
    both(model, torch.randn(shape))


def test_one_graph_for_a_pack_whose_noise_goes_on():
    torch.manual_seed(0)
    fields = {"r": 2, "target_modules": ["up"], "modules_to_save": ["head"]}
    configs = [LoKrConfig(rank_dropout=p, **fields) for p in (0.0, 0.5)]
    model = adapt(Mlp(), configs).train()
    randomize(model)
    noise = LaneNoise([0, 1])
    model.set_noise(noise)
    run, x = compiled(model), torch.randn(4, 12)
    outputs = []
    for _ in range(3):
        outputs.append(run(x))
        assert_close(outputs[-1], model(x), **CLOSE)
        noise.advance()
    assert torch.equal(outputs[0][:2], outputs[1][:2])
    assert not torch.allclose(outputs[0][2:], outputs[1][2:])


def test_dropouts_from_torch_compile_too():
    torch.manual_seed(0)
    model = adapt(Mlp(), r=2, target_modules=["up"], rank_dropout=0.5, module_dropout=0.1).train()
    randomize(model)
    run, x = compiled(model), torch.randn(4, 12)
    first = run(x)
    assert first.isfinite().all()
    assert not torch.equal(run(x), first)  # a new mask each step


def test_several_adapters_and_a_switch():
    torch.manual_seed(0)
    model = adapt(
        Mlp(),
        {
            "a": LoKrConfig(r=2, target_modules=["up"]),
            "b": LoKrConfig(r=1, target_modules=["down"]),
        },
    )
    randomize(model)
    run, x = compiled(model), torch.randn(4, 12)
    for names in ("a", ["a", "b"], "b"):
        model.set_adapter(names)
        assert_close(run(x), model(x), **CLOSE)
    with model.disable_adapter():
        assert_close(run(x), model(x), **CLOSE)


def test_a_model_of_transformers():
    torch.manual_seed(0)
    model = adapt(arch.bert(), r=1, target_modules=["query", "value"]).eval()
    randomize(model)
    ids = torch.randint(0, 50, (2, 7))
    assert_close(
        compiled(model)(ids).last_hidden_state, model(ids).last_hidden_state, rtol=1e-4, atol=1e-4
    )
