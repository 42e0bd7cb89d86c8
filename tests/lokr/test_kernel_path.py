"""Which path serves a layer, and that both give the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", reason="Triton is not installed: the PyTorch path serves alone")

from lokr import LaneNoise, LoKrConfig, LoKrModel, kernels
from lokr.kernels import tiles
from lokr.product import Factors
from tests.lokr import architectures as arch
from tests.lokr.peers import Mlp, Net, adapt, randomize

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
TARGETS = {"target_modules": ["up", "down"]}


def run(model: LoKrModel, x: Tensor, path: str) -> dict[str, Tensor]:
    """Output and gradients on one path."""
    model.zero_grad()
    x = x.detach().requires_grad_()
    with kernels.force(path):
        out = model(x)
        out.square().sum().backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    return {"out": out.detach(), "x": x.grad, **grads}


def check_same(model: LoKrModel, x: Tensor) -> None:
    model, x = model.to(DEVICE), x.to(DEVICE)
    assert_close(run(model, x, "triton"), run(model, x, "torch"), **CLOSE)


CASES = {
    "low-rank": {"r": 2},
    "both": {"r": 1, "decompose_both": True},
    "full": {"r": 64},
    "factor-2": {"r": 3, "alpha": 5, "decompose_factor": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_both_paths_agree(case):
    torch.manual_seed(0)
    model = adapt(Mlp(), **CASES[case], **TARGETS)
    randomize(model)
    check_same(model, torch.randn(3, 5, 12))


def test_inputs_and_gradients_of_any_strides():
    torch.manual_seed(0)
    model = adapt(Mlp(), r=2, **TARGETS).to(DEVICE)
    randomize(model)
    wide = torch.randn(12, 5, 6, device=DEVICE)
    outcomes = []
    for path, x in (("triton", wide.permute(2, 1, 0)), ("torch", wide.permute(2, 1, 0).clone())):
        leaf = x.detach().requires_grad_()
        assert path == "torch" or not leaf.is_contiguous()
        with kernels.force(path):
            model(leaf).mT.sigmoid().sum().backward()  # its gradient is a view, transposed
        outcomes.append(leaf.grad)
    assert_close(*outcomes, **CLOSE)


def test_lanes_of_different_rank_and_scale():
    torch.manual_seed(0)
    configs = [LoKrConfig(r=r, alpha=alpha, **TARGETS) for r, alpha in ((1, 4), (2, 1), (1, 16))]
    model = adapt(Mlp(), configs)
    randomize(model)
    check_same(model, torch.randn(6, 4, 12))


@pytest.mark.parametrize("dropouts", [{"rank_dropout": 0.5}, {"module_dropout": 0.5}])
def test_dropouts(dropouts):
    torch.manual_seed(0)
    model = adapt(Mlp(), [LoKrConfig(r=2, **TARGETS, **dropouts)] * 2).train()
    randomize(model)
    model.set_noise(LaneNoise([0, 1]).to(DEVICE))
    check_same(model, torch.randn(8, 12))


def test_a_transposed_layer():
    torch.manual_seed(0)
    model = adapt(arch.gpt2(), r=1, target_modules=["c_attn", "c_fc"]).eval().to(DEVICE)
    randomize(model)
    ids = torch.randint(0, 50, (2, 7), device=DEVICE)
    outputs = []
    for path in ("triton", "torch"):
        with kernels.force(path), torch.no_grad():
            outputs.append(model(ids).logits)
    assert_close(*outputs, **CLOSE)


class Noisy(nn.Linear):
    """A layer that is more than W·x + bias."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


def hooked() -> nn.Linear:
    layer = nn.Linear(12, 20)
    layer.register_forward_hook(lambda module, args, out: out * 2)
    return layer


def replaced() -> nn.Linear:
    """As accelerate does it to bring offloaded weights."""
    layer = nn.Linear(12, 20)
    own = layer.forward
    layer.forward = lambda x: own(x) * 2
    return layer


def noisy_conv1d() -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    class NoisyConv1D(Conv1D):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).tanh()

    return NoisyConv1D(20, 12)


@pytest.mark.parametrize("make", [lambda: Noisy(12, 20), hooked, replaced, noisy_conv1d])
def test_a_layer_that_does_more_keeps_doing_it(make):
    torch.manual_seed(0)
    bare, x = Net(make()).to(DEVICE), torch.randn(3, 12, device=DEVICE)
    expected = bare(x).detach()
    model = adapt(bare, r=2, target_modules=["layer"]).to(DEVICE)  # ΔW = 0 so far
    for path in ("triton", "torch"):
        with kernels.force(path), torch.no_grad():
            assert_close(model(x), expected, **CLOSE)
    randomize(model)
    check_same(model, x)


def test_a_hook_on_the_gradient_of_the_frozen_layer_is_called():
    torch.manual_seed(0)
    model = adapt(Net(nn.Linear(12, 20)), r=2, target_modules=["layer"]).to(DEVICE)
    (layer,) = (module for module in model.modules() if type(module) is nn.Linear)
    calls = []
    layer.register_full_backward_pre_hook(lambda module, gradients: calls.append(1))
    model(torch.randn(3, 12, device=DEVICE, requires_grad=True)).sum().backward()
    assert calls == [1]


@pytest.mark.parametrize("path", ["triton", "torch"])
@pytest.mark.parametrize("shape", [(12,), (3, 12), (2, 3, 12)], ids=str)
def test_the_output_may_be_changed_in_place(path, shape):
    torch.manual_seed(0)
    model = adapt(Net(nn.Linear(12, 20)), r=2, target_modules=["layer"]).to(DEVICE)
    randomize(model)
    x = torch.randn(shape, device=DEVICE, requires_grad=True)
    with kernels.force(path):
        (expected,) = torch.autograd.grad(model(x).relu().square().sum(), x)
        (found,) = torch.autograd.grad(model(x).relu_().square().sum(), x)
    assert_close(found, expected, rtol=0, atol=0)


def test_a_device_without_autocast():
    model = adapt(Net(nn.Linear(12, 20)), r=2, target_modules=["layer"]).to("meta")
    assert model(torch.empty(3, 12, device="meta")).shape == (3, 20)


def test_two_active_adapters_and_a_merged_one():
    torch.manual_seed(0)
    model = adapt(Mlp(), {name: LoKrConfig(r=2, **TARGETS) for name in ("a", "b")})
    randomize(model)
    model.set_adapter(["a", "b"])
    check_same(model, torch.randn(3, 12))
    x = torch.randn(3, 12, device=DEVICE)
    model.set_adapter("a")
    with torch.no_grad(), kernels.force("triton"):
        before = model(x)
        model.merge_adapter()
        assert_close(model(x), before, **CLOSE)


def test_one_graph_with_the_operator_in_it():
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = adapt(Mlp(), r=2, **TARGETS).to(DEVICE)
    randomize(model)
    x = torch.randn(4, 12, device=DEVICE)
    expected = run(model, x, "triton")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    model.zero_grad()
    own = x.detach().requires_grad_()
    with kernels.force("triton"):
        out = compiled(own)
        out.square().sum().backward()
    assert_close(own.grad, expected["x"], **CLOSE)
    assert_close(out.detach(), expected["out"], **CLOSE)
    torch._dynamo.reset()


@pytest.mark.skipif(DEVICE == "cuda", reason="on a GPU Triton is the usual path")
def test_a_cpu_takes_the_pytorch_path_by_itself(monkeypatch):
    from lokr.kernels import linear

    calls = []
    operator = linear.adapted_linear

    def spy(*args: object) -> Tensor:
        calls.append(args[7])  # fused
        return operator(*args)

    monkeypatch.setattr(linear, "adapted_linear", spy)
    adapt(Mlp(), r=2, target_modules=["blocks.0.up"])(torch.randn(3, 12))
    with kernels.force("triton"):
        adapt(Mlp(), r=2, target_modules=["blocks.0.up"])(torch.randn(3, 12))
    assert calls == [False, True]


def test_a_gpu_takes_triton_if_its_tiles_were_measured_there(monkeypatch):
    gpu, factors = torch.device("cuda", 0), Factors(torch.ones(1, 8, 8), w2=torch.ones(1, 96, 96))
    capabilities = [(9, 0), (8, 9)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
    monkeypatch.setattr(kernels, "_measured_gpus", set())
    assert not kernels.serves(gpu, torch.bfloat16, factors)
    kernels.meet(torch.device("cpu"))
    assert not kernels.serves(gpu, torch.bfloat16, factors)
    kernels.meet(gpu)
    assert kernels.serves(gpu, torch.bfloat16, factors)
    assert not kernels.serves(gpu, torch.float32, factors)
    assert not kernels.serves(torch.device("cuda", 1), torch.bfloat16, factors)
    with kernels.force("triton"):
        assert kernels.serves(torch.device("cuda", 1), torch.bfloat16, factors)


def test_other_programs_go_with_the_adapters(monkeypatch):
    capabilities = [(9, 0), (8, 9)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
    monkeypatch.setattr(kernels, "_measured_gpus", set())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    devices = [torch.device(name) for name in ("cuda", "cuda:0", "cuda:1", "cpu")]
    chosen = {}
    for path in kernels.PATHS:
        with kernels.force(path):
            chosen[path] = [kernels.chooses_triton(device) for device in devices]
    assert chosen == {
        "auto": [True, True, False, False],
        "torch": [False, False, False, False],
        "triton": [True, True, True, False],
    }


def test_what_triton_cannot_serve_is_said_when_it_is_forced():
    model = adapt(Mlp(), r=2, **TARGETS).double().to(DEVICE)
    with kernels.force("triton"), pytest.raises(RuntimeError, match="float64: expected bfloat16"):
        model(torch.randn(3, 12, dtype=torch.float64, device=DEVICE))
    wide = adapt(Net(nn.Linear(512, 512)), r=2, target_modules=["layer"], decompose_factor=256)
    wide.to(DEVICE)
    with kernels.force("triton"), pytest.raises(RuntimeError, match=f"{tiles.LARGEST} at most"):
        wide(torch.randn(3, 512, device=DEVICE))


def test_an_unknown_path_is_refused():
    with pytest.raises(ValueError, match="LOKR_KERNEL='cuda': expected one of auto, torch, triton"):
        kernels.force("cuda").__enter__()


@pytest.mark.parametrize("path", ["torch", "triton"])
@pytest.mark.parametrize("shape", [(3, 12), (3, 4, 12), (1, 2, 12), (12,)])
def test_a_batch_that_lanes_cannot_share(shape, path):
    """(3, 4, 12) has 12 rows, but an item's rows would go to two lanes."""
    model = adapt(Mlp(), [LoKrConfig(r=2, **TARGETS)] * 2).to(DEVICE)
    with kernels.force(path), pytest.raises(ValueError, match="must be a multiple of the 2 lanes"):
        model(torch.randn(shape, device=DEVICE))


@pytest.mark.parametrize("path", ["triton", "torch"])
def test_an_input_of_another_width(path):
    model = adapt(Net(nn.Linear(12, 20)), r=2, target_modules=["layer"]).to(DEVICE)
    with kernels.force(path), pytest.raises(ValueError, match="24 features, the layer takes 12"):
        model(torch.randn(3, 24, device=DEVICE))


def replica(module: nn.Module) -> nn.Module:
    """A copy as ``DataParallel`` makes it for each device: tensors where parameters were."""
    copy = module._replicate_for_data_parallel()
    for name, child in module.named_children():
        copy._modules[name] = replica(child)
    for name, parameter in module.named_parameters(recurse=False):
        setattr(copy, name, parameter.clone() if parameter.requires_grad else parameter.detach())
    return copy


def test_a_replica_whose_tensors_are_no_parameters():
    torch.manual_seed(0)
    model = adapt(Mlp(), r=2, **TARGETS).to(DEVICE)
    randomize(model)
    x = torch.randn(3, 12, device=DEVICE)
    found = []
    for one in (model, replica(model)):
        model.zero_grad()
        out = one(x)
        out.square().sum().backward()
        grads = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        found.append([out.detach(), *grads])
    assert_close(found[1], found[0], rtol=0, atol=0)


class Seen(TorchDispatchMode):
    """The names of all operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("path", ["torch", "triton"])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_plain_call_and_the_operator_give_the_same_bits(kind, path, autocast):
    torch.manual_seed(0)
    base = Mlp() if kind == "linear" else Net(nn.Conv2d(8, 12, 3, padding=1))
    targets = {"linear": ["up", "down"], "conv": ["layer"]}[kind]
    model = adapt(base, r=2, target_modules=targets).to(DEVICE)
    randomize(model)
    shape = (6, 12) if kind == "linear" else (2, 8, 5, 5)
    x = torch.randn(shape, device=DEVICE, requires_grad=True)
    trained = [p for p in model.parameters() if p.requires_grad]

    def outcome() -> list[Tensor]:
        with kernels.force(path):
            with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
                y = model(x)
            return [y.detach(), *torch.autograd.grad(y.float().square().sum(), [x, *trained])]

    plain = outcome()
    with Seen() as seen:  # who looks on sees each layer as an operator
        looked_at = outcome()
    joined = kind == "linear" or path == "triton"
    assert any("lokr.adapted_linear." in name for name in seen.names) == joined
    for one, other in zip(plain, looked_at, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("r", [0, 2, 30])
def test_the_operator_keeps_its_word_to_compilers(fused, r):
    """Shapes as it says them, also where a size is a symbol; gradients as registered."""
    from lokr.kernels import linear

    lanes, n, a, b, c, d = 2, 3, 2, 40, 2, 24
    x = torch.randn(lanes * n, c * d, device=DEVICE, requires_grad=True)
    low = None if r == 0 else torch.randn(lanes, b, r, device=DEVICE, requires_grad=True)
    high = None if r == 0 else torch.randn(lanes, r, d, device=DEVICE, requires_grad=True)
    full = torch.randn(lanes, b, d, device=DEVICE, requires_grad=True) if r == 0 else None
    w1 = torch.randn(lanes, a, c, device=DEVICE, requires_grad=True)
    scale = torch.randn(lanes, device=DEVICE) if fused else None
    weight, bias = torch.randn(a * b, c * d, device=DEVICE), torch.randn(a * b, device=DEVICE)
    given = (x, weight, bias, w1, full, low, high, fused, None, scale)
    torch.library.opcheck(linear._forward, given)


@pytest.mark.parametrize("path", ["torch", "triton"])
@pytest.mark.parametrize("r", [2, 64])
def test_batches_of_several_sizes_compile(path, r):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = adapt(Mlp(), r=r, alpha=3, **TARGETS).to(DEVICE)
    randomize(model)
    with kernels.force(path):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        for rows in (3, 5, 7):
            x = torch.randn(rows, 12, device=DEVICE)
            assert_close(compiled(x), model(x), **CLOSE)
    torch._dynamo.reset()


def test_an_error_inside_leaves_autocast_as_it_was(monkeypatch):
    from lokr.kernels import linear

    model = adapt(Mlp(), r=2, **TARGETS).to(DEVICE)
    x = torch.randn(3, 12, device=DEVICE)
    monkeypatch.setattr(linear.plain, "forward", lambda *_: 1 / 0)
    with kernels.force("torch"), torch.autocast(DEVICE, torch.bfloat16):
        with pytest.raises(ZeroDivisionError):
            model(x)
        assert torch.is_autocast_enabled(DEVICE)


def test_gradients_do_not_depend_on_autocast_around_the_backward_pass():
    torch.manual_seed(0)
    model = adapt(Net(nn.Linear(12, 20)), r=2, target_modules=["layer"]).to(DEVICE)
    randomize(model)
    x = torch.randn(3, 12, device=DEVICE)
    found = []
    for enabled in (False, True):
        model.zero_grad()
        with kernels.force("torch"):
            loss = model(x).square().sum()
            with torch.autocast(DEVICE, torch.bfloat16, enabled=enabled):
                loss.backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, under in zip(*found, strict=True):
        assert torch.equal(plain, under)


def test_module_dropout_of_joined_convolutions():
    torch.manual_seed(0)
    configs = [
        LoKrConfig(r=2, alpha=alpha, target_modules=["layer"], module_dropout=0.5)
        for alpha in (1, 4, 9)
    ]
    model = LoKrModel(Net(nn.Conv2d(12, 20, 3)), configs).train().to(DEVICE)
    randomize(model)
    noise = LaneNoise([0, 1, 2])
    model.set_noise(noise.to(DEVICE))
    x = torch.randn(6, 12, 5, 5)
    outputs = []
    for _ in range(6):
        check_same(model, x)
        outputs.append(model(x.to(DEVICE)).unflatten(0, (3, 2)))
        noise.advance()
    skipped = model.model.layer.base_layer(x.to(DEVICE)).unflatten(0, (3, 2))
    seen = {
        bool((out[lane] - skipped[lane]).abs().max() < 1e-5) for out in outputs for lane in range(3)
    }
    assert seen == {True, False}
