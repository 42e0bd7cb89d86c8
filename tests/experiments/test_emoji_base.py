"""The base of the emoji task: captions, the U-Net, diffusion, its training and its card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from typer.testing import CliRunner

from experiments import bases
from experiments.errors import BenchError
from experiments.tasks.emoji import card, diffusion, metrics, pretrain, text, unet
from experiments.tasks.emoji import table as tables
from experiments.tasks.emoji.concepts import TRAINING_STYLES, caption
from experiments.tasks.emoji.pretrain import Options, Pictures, Trainer
from experiments.tasks.emoji.table import Table
from experiments.tasks.emoji.text import TOKENS, WIDTH, TextStates
from lokr import LoKrConfig, LoKrModel

SMALL = {"block_out_channels": [8, 16, 16], "norm_num_groups": 4, "attention_head_dim": 2}
TINY = {**unet.CONFIG, **SMALL}
CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:.*the rank saves nothing")
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"]


def tiny(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return unet.build(TINY).eval()


def captions_of(rows: int, seed: int = 0) -> TextStates:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(rows, TOKENS, WIDTH, generator=generator)
    return TextStates(states, torch.randn(rows, WIDTH, generator=generator))


def pictures_of(rows: int) -> Pictures:
    """A square whose color the caption tells."""
    images = torch.full((rows, 3, 64, 64), 255, dtype=torch.uint8)
    told = captions_of(3)[torch.arange(rows) % 3]
    for row in range(rows):
        images[row, row % 3, 16:48, 16:48] = 0
    return Pictures(images, told)


def latents(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, *unet.LATENT, generator=torch.Generator().manual_seed(seed))


class TestText:
    def test_is_the_encoder_s_last_layer_and_its_mean(self) -> None:
        caption = "red apple, twemoji style"
        base = bases.locate("minilm")
        tokens = bases.load_tokenizer(base)(caption, return_tensors="pt")
        with torch.no_grad():
            hidden = text._encoder(base.location)(**tokens).last_hidden_state[0]
        # Beside a longer caption it is padded within the batch, and past the batch.
        encoded = text.encode(["a very long name of some thing, noto style", caption])
        length = len(hidden)
        torch.testing.assert_close(encoded.states[1, :length], 2 * hidden, atol=1e-4, rtol=1e-4)
        assert encoded.states[1, length:].abs().max() == 0
        mean = torch.nn.functional.normalize(hidden.mean(0), dim=0) * WIDTH**0.5
        torch.testing.assert_close(encoded.pooled[1], mean, atol=1e-4, rtol=1e-4)

    def test_rows_follow_their_captions(self) -> None:
        names = ["pizza", "", "dog face", "pizza"]
        encoded = text.encode(names)
        assert encoded.states.shape == (4, TOKENS, WIDTH)
        assert len(encoded) == 4
        assert torch.equal(encoded.states[0], encoded.states[3])
        assert not torch.equal(encoded.states[0], encoded.states[2])
        assert torch.equal(encoded.states[1], text.EMPTY.states[0])
        assert torch.equal(encoded.pooled[1], text.EMPTY.pooled[0])

    def test_each_distinct_caption_is_encoded_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[str] = []
        encode_chunk = text._encode_chunk

        def counted(captions: list[str], *rest: Any) -> TextStates:
            seen.extend(captions)
            return encode_chunk(captions, *rest)

        monkeypatch.setattr(text, "_encode_chunk", counted)
        monkeypatch.setattr(text, "CHUNK", 1)
        assert len(text.encode(["b", "a", "b", "", "a"])) == 5
        assert seen == ["a", "b"]

    def test_nothing_but_the_empty_caption_needs_no_encoder(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(text, "_encoder", None)
        assert text.encode([""]).states.abs().max() == 0

    def test_a_caption_too_long_is_named(self) -> None:
        long = "cat " * 19 + "cat"
        with pytest.raises(BenchError, match=r"^caption 'cat .*': 22 tokens, at most 20"):
            text.encode(["dog", long])
        assert len(text.encode(["cat " * 18])) == 1


class TestUNet:
    def test_fits_a_file_of_16_mib(self) -> None:
        model = unet.skeleton()
        count = sum(part.numel() for part in model.parameters())
        assert count <= 8_300_000
        assert 2 * count < pretrain.LARGEST_FILE
        assert all(part.is_meta for part in model.parameters())

    def test_has_the_layers_that_adapters_name(self) -> None:
        names = [name for name, _ in unet.skeleton().named_modules()]
        for target in TARGETS:
            assert any(name.endswith("." + target) for name in names), target

    def test_heads_are_what_attention_head_dim_says(self) -> None:
        attention = unet.skeleton().mid_block.attentions[0].transformer_blocks[0].attn1
        assert attention.heads == unet.CONFIG["attention_head_dim"]

    def test_pixels_come_back(self) -> None:
        every = torch.arange(256, dtype=torch.uint8).repeat(48)[: 3 * 64 * 64].view(1, 3, 64, 64)
        seen = unet.to_latents(every)
        assert seen.shape == (1, *unet.LATENT)
        assert seen.min() == -1
        assert seen.max() == 1
        assert torch.equal(unet.to_images(seen), every)

    def test_a_position_is_a_block_of_four_pixels(self) -> None:
        image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
        image[0, :, 2:4, 6:8] = 255
        lit = (unet.to_latents(image) == 1).all(1)[0].nonzero()
        assert lit.tolist() == [[1, 3]]

    def test_beyond_black_and_white_is_cut_off(self) -> None:
        far = torch.stack([torch.full(unet.LATENT, -1.5), torch.full(unet.LATENT, 1.5)])
        assert unet.to_images(far).flatten(1).unique(dim=1).tolist() == [[0], [255]]

    def test_saved_weights_load_here_and_in_diffusers(self, tmp_path: Path) -> None:
        from diffusers import UNet2DConditionModel

        model = tiny()
        file = unet.save(model, tmp_path)
        assert file.stat().st_size < 2.2 * sum(part.numel() for part in model.parameters())
        ours, theirs = unet.load(str(tmp_path)), UNet2DConditionModel.from_pretrained(tmp_path)
        assert not ours.training
        for name, part in model.state_dict().items():
            assert torch.equal(ours.state_dict()[name], part.half().float())
            assert torch.equal(theirs.state_dict()[name].float(), part.half().float())
        assert unet.skeleton(str(tmp_path)).config.block_out_channels == [8, 16, 16]

    def test_a_base_that_does_not_fit(self, tmp_path: Path) -> None:
        unet.save(tiny(), tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"in_channels": 4}))
        with pytest.raises(BenchError, match=r"^base '.*': in_channels=4 in config.json, .* 12$"):
            unet.load(str(tmp_path))

    def test_a_base_of_other_weights(self, tmp_path: Path) -> None:
        unet.save(tiny(), tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"layers_per_block": 2}))
        with pytest.raises(BenchError, match=r"diffusion_pytorch_model.safetensors cannot be lo"):
            unet.load(str(tmp_path))

    def test_no_base(self, tmp_path: Path) -> None:
        with pytest.raises(BenchError, match=r"^base 'nowhere': .* cannot be read .* 'emoji'"):
            unet.load("nowhere")
        (tmp_path / "config.json").write_text(json.dumps(TINY))
        with pytest.raises(BenchError, match="cannot be loaded"):
            unet.load(str(tmp_path))

    @pytest.mark.parametrize("wrapper", ["lokr", "peft"])
    def test_predicts_through_an_adapter(self, wrapper: str) -> None:
        import peft

        told, x, t = captions_of(2), latents(2), torch.tensor([10, 900])
        with torch.no_grad():
            alone = unet.predict(tiny(), x, t, told.states.half(), told.pooled.half())
            if wrapper == "lokr":
                adapted = LoKrModel(tiny(), LoKrConfig(r=2, target_modules=TARGETS))
            else:
                adapted = peft.get_peft_model(tiny(), peft.LoraConfig(r=2, target_modules=TARGETS))
            said = unet.predict(adapted, x, t, told.states.half(), told.pooled.half())
        torch.testing.assert_close(said, alone)


class TestDiffusion:
    def scheduler(self, steps: int | None = None) -> Any:
        from diffusers import DDIMScheduler

        made = DDIMScheduler(
            beta_schedule="squaredcos_cap_v2",
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            clip_sample=True,
        )
        if steps:
            made.set_timesteps(steps)
        return made

    def test_schedule_is_diffusers(self) -> None:
        theirs = self.scheduler().alphas_cumprod.double()
        torch.testing.assert_close(diffusion.signal_table().square(), theirs, rtol=1e-4, atol=1e-6)
        a, b = diffusion.schedule(CPU)
        torch.testing.assert_close(a.square() + b.square(), torch.ones(1000))

    def test_corrupts_as_diffusers_does(self) -> None:
        x0, noise = latents(4), latents(4, seed=1)
        t = torch.tensor([0, 17, 500, 999])
        x, v = diffusion.corrupt(x0, t, noise)
        theirs = self.scheduler()
        torch.testing.assert_close(x, theirs.add_noise(x0, noise, t), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(v, theirs.get_velocity(x0, noise, t), rtol=1e-4, atol=1e-4)

    def test_loss_of_a_row_is_its_own(self) -> None:
        told, x0, noise, t = captions_of(3), latents(3), latents(3, 1), torch.tensor([3, 400, 950])
        model = tiny()
        with torch.no_grad():
            losses = diffusion.row_losses(model, x0, t, noise, told.states, told.pooled)
            x, v = diffusion.corrupt(x0, t, noise)
            said = unet.predict(model, x, t, told.states, told.pooled)
            one = diffusion.row_losses(
                model, x0[1:2], t[1:2], noise[1:2], told.states[1:2], told.pooled[1:2]
            )
        by_hand = torch.stack([((said[i] - v[i]) ** 2).mean() for i in range(3)])
        torch.testing.assert_close(losses, by_hand)
        torch.testing.assert_close(one[0], losses[1])

    def test_bf16_losses_are_fp32(self) -> None:
        told, t = captions_of(2), torch.tensor([100, 700])
        arguments = (latents(2), t, latents(2, 1), told.states.half(), told.pooled.half())
        model = tiny()
        with torch.no_grad():
            exact = diffusion.row_losses(model, *arguments)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                losses = diffusion.row_losses(model, *arguments)
        assert losses.dtype == torch.float32
        torch.testing.assert_close(losses, exact, rtol=0.02, atol=0.02)

    @pytest.mark.parametrize("guidance", [1.0, 3.0])
    @pytest.mark.parametrize("steps", [4, 25])
    def test_samples_are_diffusers_ddim(self, guidance: float, steps: int) -> None:
        model, told, scheduler = tiny(), captions_of(2), self.scheduler(steps)
        ours = diffusion.sample(
            model, told.states, told.pooled, seed=5, steps=steps, guidance=guidance
        )
        x, nothing = diffusion.initial_noise(2, 5), text.EMPTY[torch.tensor([0, 0])]
        with torch.no_grad():
            for t in scheduler.timesteps:
                times = t.repeat(2)
                v = unet.predict(model, x, times, told.states, told.pooled)
                if guidance != 1:
                    free = unet.predict(model, x, times, nothing.states, nothing.pooled)
                    v = free + guidance * (v - free)
                x = scheduler.step(v, t, x, use_clipped_model_output=True).prev_sample
        torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-3)
        assert ours.std() > 0.1  # something was drawn

    def test_starts_where_no_signal_is_left(self) -> None:
        assert diffusion.sampling_timesteps(4) == [999, 749, 499, 249]
        assert diffusion.signal_table()[999] < 1e-3

    @pytest.mark.parametrize("steps", [0, -5, 7, 2000])
    def test_steps_that_do_not_divide(self, steps: int) -> None:
        told = captions_of(1)
        with pytest.raises(ValueError, match=f"steps={steps}: a divisor of 1000"):
            diffusion.sample(tiny(), told.states, told.pooled, steps=steps)

    def test_a_lane_s_samples_are_its_own(self) -> None:
        configs = [LoKrConfig(r=2, alpha=alpha, target_modules=TARGETS) for alpha in (2, 16)]
        told, packed = captions_of(2), LoKrModel(tiny(), configs)
        torch.manual_seed(1)
        with torch.no_grad():
            for part in packed.parameters():
                if part.requires_grad:
                    part.normal_(std=0.1)
        states, pooled = told.states.repeat(2, 1, 1), told.pooled.repeat(2, 1)
        both = diffusion.sample(packed, states, pooled, seed=3, steps=4, lanes=2)
        given = diffusion.initial_noise(2, 3).repeat(2, 1, 1, 1)
        assert torch.equal(both, diffusion.sample(packed, states, pooled, steps=4, noise=given))
        for lane, config in enumerate(configs):
            alone = LoKrModel(tiny(), [config])
            with torch.no_grad():
                for own, all_lanes in zip(_trained(alone), _trained(packed), strict=True):
                    own.copy_(all_lanes[lane : lane + 1])
            own = diffusion.sample(alone, told.states, told.pooled, seed=3, steps=4)
            torch.testing.assert_close(both[2 * lane : 2 * lane + 2], own, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(both[:2], both[2:], atol=1e-2)

    def test_initial_noise_does_not_depend_on_the_number_of_rows(self) -> None:
        assert torch.equal(diffusion.initial_noise(5, 7)[:2], diffusion.initial_noise(2, 7))
        assert not torch.equal(diffusion.initial_noise(2, 7), diffusion.initial_noise(2, 8))

    @given(rows=st.integers(1, 300), seed=st.integers(0, 99))
    def test_timesteps_are_spread_evenly(self, rows: int, seed: int) -> None:
        t = diffusion.spread_timesteps(rows, torch.Generator().manual_seed(seed))
        width = diffusion.STEPS / rows
        assert t.dtype == torch.int64
        for i, one in enumerate(t.tolist()):
            assert i * width - 1 <= one <= (i + 1) * width
            assert 0 <= one < diffusion.STEPS

    def test_timesteps_without_a_generator_are_the_middles(self) -> None:
        assert diffusion.spread_timesteps(4).tolist() == [125, 375, 625, 875]


def _trained(model: LoKrModel) -> list[Tensor]:
    return [part for _, part in sorted(model.named_parameters()) if part.requires_grad]


class TestTraining:
    def options(self, **changed: Any) -> Options:
        few = {"steps": 24, "batch_size": 6, "every": 8, "compiled": False, "rate": 0.03}
        return Options(**{**few, **changed})

    def trainer(self, say: pretrain.Say = lambda line: None, **changed: Any) -> Trainer:
        options = self.options(**changed)
        pictures = pictures_of(12)
        model = pretrain.draw(options, CPU, TINY)
        return Trainer(model, pictures, pictures[torch.arange(3)], options, say)

    def test_learns(self) -> None:
        lines: list[str] = []
        trainer = self.trainer(lines.append)
        assert trainer.run() == "finished"
        losses = [point["held_out_loss"] for point in trainer.curve]
        assert [point["step"] for point in trainer.curve] == [8, 16, 24]
        assert losses[-1] < 0.9 * losses[0]
        assert trainer.best.loss == min(losses)
        last = trainer.options.rate * pretrain.rate_factor(23, 23 / 24)
        assert trainer.curve[-1]["rate"] == pytest.approx(last)
        assert trainer.curve[0]["train_loss"] == pytest.approx(1.0, rel=0.5)
        assert lines[0].startswith("first step (not compiled)")
        assert len(lines) == 4

    def test_the_same_seed_is_the_same_run(self) -> None:
        first, second, other = (self.trainer(seed=seed) for seed in (3, 3, 4))
        for trainer in (first, second, other):
            trainer.run()
        assert first.best.loss == second.best.loss != other.best.loss

    def test_what_is_held_out_is_kept_at_its_best(self) -> None:
        best, model = pretrain.Best(), torch.nn.Linear(1, 1)
        for step, loss in enumerate([0.3, 0.1, 0.2]):
            torch.nn.init.constant_(model.weight, step)
            best.offer(loss, step, model)
        assert (best.step, best.loss) == (1, 0.1)
        assert best.weights["weight"].item() == 1

    def test_minutes_end_a_run_and_its_rate(self) -> None:
        trainer = self.trainer(steps=10**6, minutes=2 / 60, every=10**6)
        trainer.run()
        assert 2 < trainer.step < 10**6
        assert len(trainer.curve) == 1
        assert trainer.curve[0]["seconds"] >= 2

    def test_interrupted_keeps_what_is_there(self, tmp_path: Path) -> None:
        def stop(line: str) -> None:
            if line.startswith("step     16"):
                raise KeyboardInterrupt

        trainer = self.trainer(stop)
        assert trainer.run() == "interrupted"
        pretrain.save(trainer, tmp_path, "interrupted", {})
        record = json.loads((tmp_path / "training.json").read_text())
        assert record["ended"] == "interrupted"
        assert record["steps"] == 16
        unet.load(str(tmp_path))

    def test_interrupted_before_there_is_anything(self) -> None:
        def stop(line: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(BenchError, match=r"^interrupted at step 1, .* not saved$"):
            self.trainer(stop).run()

    def test_a_loss_that_is_no_number_ends_the_run(self) -> None:
        def spoil(line: str) -> None:
            if line.startswith("step      8"):
                torch.nn.init.constant_(trainer.model.conv_in.weight, torch.nan)

        trainer = self.trainer(spoil)
        assert trainer.run() == "diverged"
        assert trainer.best.step == 8
        assert trainer.step == 16
        assert all(part.isfinite().all() for part in trainer.best.weights.values())
        record = pretrain.report(trainer, "diverged", {})
        assert record["curve"][-1]["held_out_loss"] is None
        json.dumps(record, allow_nan=False)

    def test_a_file_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer = self.trainer()
        trainer.run()
        monkeypatch.setattr(pretrain, "LARGEST_FILE", 1000)
        with pytest.raises(BenchError, match="fewer than 1000 are allowed"):
            pretrain.save(trainer, tmp_path, "finished", {})

    def test_nothing_to_train_on(self) -> None:
        pictures = pictures_of(3)
        with pytest.raises(BenchError, match=r"^3 pictures to train on and 0 held out"):
            Trainer(tiny(), pictures, pictures[torch.arange(0)], self.options())

    def test_starts_by_answering_zero(self) -> None:
        model = pretrain.draw(self.options(), CPU, TINY)
        told = captions_of(1)
        v = unet.predict(model, latents(1), torch.tensor([5]), told.states, told.pooled)
        assert v.abs().max() == 0

    def test_a_dropped_caption_is_the_empty_one(self) -> None:
        pictures, t, noise = pictures_of(2), torch.tensor([50, 600]), latents(2)
        model, nothing = tiny(), text.EMPTY[torch.tensor([0, 0])]
        with torch.no_grad():
            some = pretrain.losses_of(model, pictures, t, noise, torch.tensor([True, False]))
            all_told = pretrain.losses_of(model, pictures, t, noise)
            without = pretrain.losses_of(model, Pictures(pictures.images, nothing), t, noise)
        torch.testing.assert_close(some, torch.stack([all_told[0], without[1]]))
        assert not torch.allclose(all_told[1], without[1])

    def test_an_exam_is_the_same_every_time(self) -> None:
        model, exam = tiny(), pretrain.Exam.of(pictures_of(5))
        assert len(exam.t) == 5 * pretrain.DRAWS
        assert exam.loss(model) == pretrain.Exam.of(pictures_of(5)).loss(model)
        with torch.no_grad():
            rows = pretrain.losses_of(model, exam.pictures, exam.t, exam.noise)
        assert exam.loss(model) == pytest.approx(rows.mean().item(), rel=1e-5)

    def test_average_weighs_a_step_by_its_power(self) -> None:
        model, values = torch.nn.Linear(1, 1), [3.0, -1.0, 4.0, 1.5]
        average = pretrain.Average(torch.nn.Linear(1, 1).requires_grad_(False))
        for value in values:
            torch.nn.init.constant_(model.weight, value)
            average.update(model)
        # beta of step i leaves (1 - 1/i)^(p+1) of what was before it, so the weights telescope.
        power = pretrain.AVERAGE_POWER + 1
        steps = range(1, len(values) + 1)
        shares = [(i**power - (i - 1) ** power) / len(values) ** power for i in steps]
        expected = sum(share * value for share, value in zip(shares, values, strict=True))
        assert average.model.weight.item() == pytest.approx(expected, rel=1e-5)

    @given(step=st.integers(0, 10**5), progress=st.floats(0, 2))
    def test_rate_is_a_share(self, step: int, progress: float) -> None:
        assert 0 <= pretrain.rate_factor(step, progress) <= 1

    def test_rate_rises_stays_and_falls(self) -> None:
        at = pretrain.rate_factor
        assert at(0, 0.0) == 0
        assert at(100, 0.0) == 0.5
        assert at(1000, 0.1) == at(5000, 0.62) == 1
        assert at(6000, 0.81) == pytest.approx(0.5)
        assert at(8000, 1.0) == at(8000, 1.2) == 0

    @given(count=st.integers(1, 20), size=st.integers(1, 30))
    def test_rows_come_once_each_before_any_comes_again(self, count: int, size: int) -> None:
        batches = pretrain.row_numbers(count, size, torch.Generator().manual_seed(0))
        drawn = torch.cat([next(batches) for _ in range(count)])  # a whole number of rounds
        for turn in drawn.split(count):
            assert sorted(turn.tolist()) == list(range(count))

    def test_split_is_of_pairs_and_every_concept_is_trained_on(self) -> None:
        names = [f"thing {i}" for i in range(300)]
        pairs = [(name, style) for style in TRAINING_STYLES for name in names]
        pairs += [(f"rare {i}", "noto") for i in range(300)]  # one designer only
        ours, held_out = pretrain.split(*zip(*pairs, strict=True))
        assert sorted([*ours.tolist(), *held_out.tolist()]) == list(range(len(pairs)))
        assert {pairs[i][0] for i in held_out.tolist()} <= {pairs[i][0] for i in ours.tolist()}
        assert len(held_out) == pytest.approx(2100 / pretrain.HELD_OUT_SHARE, rel=0.3)
        few = pretrain.split(*zip(*pairs[:600], strict=True))[1]  # what else is there matters not
        assert set(few.tolist()) <= set(held_out.tolist())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Table:
    """A table of twelve concepts by seven designers, a tiny U-Net, and short sampling."""
    names = [*card.COMMON[:2], *(f"thing {i}" for i in range(10))]
    pairs = [(name, style) for style in sorted(TRAINING_STYLES) for name in names]
    generator = torch.Generator().manual_seed(0)
    images = torch.full((len(pairs), 3, 64, 64), 255, dtype=torch.uint8)
    colors = torch.randint(0, 200, (len(pairs), 3, 4, 4), generator=generator)
    images[:, :, 16:48, 16:48] = colors.repeat_interleave(8, 2).repeat_interleave(8, 3).byte()
    captions = tuple(caption(*pair) for pair in pairs)
    table = Table(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs), captions, images)
    for key, value in SMALL.items():
        monkeypatch.setitem(unet.CONFIG, key, value)
    monkeypatch.setattr(tables, "load", lambda styles: table)
    monkeypatch.setattr(card, "STEPS", 2)
    monkeypatch.setattr(card, "COMMON", card.COMMON[:2])
    monkeypatch.setattr(card, "GUIDANCES", (1.0, 3.0))
    return table


class TestCard:
    def truth(self, table: Table, size: int = 500) -> card.Truth:
        features = torch.randn(len(table.concepts), 16, generator=torch.Generator().manual_seed(0))
        return card.Truth(table, features, size)

    def test_true_drawings_find_themselves(self, small: Table) -> None:
        truth, rows = self.truth(small), torch.tensor([0, 13, 40, 80])
        assert truth.retrieval(truth.features[rows], rows) == {"top1": 1.0, "top5": 1.0}

    def test_retrieval_is_that_of_each_designer_s_gallery(self, small: Table) -> None:
        truth, rows = self.truth(small), torch.tensor([0, 3, 13])  # two of the first, one
        features = torch.randn(3, 16, generator=torch.Generator().manual_seed(4))
        found = truth.retrieval(features, rows)
        first = metrics.retrieval(features[:2], truth.features[:12], torch.tensor([0, 3]))
        second = metrics.retrieval(features[2:], truth.features[12:24], torch.tensor([1]))
        for depth in metrics.TOP:
            assert found[f"top{depth}"] == pytest.approx((2 * first[depth] + second[depth]) / 3)

    def test_a_gallery_holds_the_right_ones_and_no_more_than_its_size(self, small: Table) -> None:
        first = small.where(style="noto")[[7, 2]]
        gallery = self.truth(small, size=5)._gallery("noto", first).tolist()
        assert gallery[:2] == first.tolist()
        assert len(set(gallery)) == 5
        assert {small.styles[row] for row in gallery} == {"noto"}

    def test_another_designer_draws_the_same_concept(self, small: Table) -> None:
        others, own = self.truth(small).other_designer(torch.tensor([0, 13, 83]))
        assert own.tolist() == [0, 13, 83]
        for other, row in zip(others.tolist(), own.tolist(), strict=True):
            assert small.concepts[other] == small.concepts[row]
            assert small.styles[other] != small.styles[row]

    def test_a_sheet_shows_every_picture_in_its_place(self) -> None:
        import io

        import numpy as np
        from PIL import Image

        pictures = torch.zeros(2, 3, 3, 64, 64, dtype=torch.uint8)
        for r in range(2):
            for c in range(3):
                pictures[r, c, 0] = 50 + 100 * r + 30 * c
        content = card.sheet(pictures, ["one", "two"], ["a", "b", "c"])
        image = np.asarray(Image.open(io.BytesIO(content)))
        for r in range(2):
            for c in range(3):
                color = [50 + 100 * r + 30 * c, 0, 0]
                assert (image == color).all(-1).sum() == 64 * 64

    def test_from_pictures_to_the_model_card(self, small: Table, tmp_path: Path) -> None:
        out = tmp_path / "base"
        run = ["--out", str(out), "--steps", "3", "--batch-size", "4", "--no-compile"]
        app = _app(pretrain.main)
        done = CliRunner().invoke(app, [*run, "--device", "cpu"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        training = json.loads((out / "training.json").read_text())
        judged = json.loads((out / "evaluation.json").read_text())
        page = (out / "README.md").read_text()
        assert training["ended"] == "finished"
        assert training["data"]["sha256"] == small.fingerprint
        assert training["data"]["train"] + training["data"]["held_out"] == 84
        assert [entry["guidance"] for entry in judged["by_guidance"]] == [1.0, 3.0]
        assert f"| v-loss, held-out pictures | {training['held_out_loss']:.4f} |" in page
        assert f"| seed | {training['options']['seed']} |" in page
        assert "Twitter and other contributors" in page
        assert (out / "samples.png").read_bytes().startswith(b"\x89PNG")
        assert (out / "held_out.png").read_bytes().startswith(b"\x89PNG")
        (out / "README.md").unlink()
        again = CliRunner().invoke(_app(card.main), [str(out), "--text-only"])
        assert again.exit_code == 0
        assert (out / "README.md").read_text() == page

    def test_a_card_needs_a_record_of_the_training(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(_app(card.main), [str(tmp_path), "--device", "cpu"])
        assert done.exit_code == 1
        assert "training.json cannot be read" in done.output


def _app(command: Any) -> Any:
    import typer

    app = typer.Typer()
    app.command()(command)
    return app
