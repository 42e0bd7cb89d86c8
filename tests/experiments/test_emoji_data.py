"""The emoji's sources, names, pixels and table, on synthetic sets and the real OpenMoji."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import cache
from experiments.errors import BenchError
from experiments.tasks.emoji import concepts, join, sources, table
from experiments.tasks.emoji.concepts import STYLES, TRAINING_STYLES, Concept
from experiments.tasks.emoji.render import UnreadableError, render
from experiments.tasks.emoji.sources import SOURCES

RECTANGLE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{body}</svg>'
SMALL = [Concept(name, code, dict.fromkeys(("openmoji", "openmoji-black"), code)) for name, code in
         (("blue circle", "1f535"), ("dog face", "1f436"), ("red circle", "1f534"))]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no way to the network."""

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a test asked for the network")

    monkeypatch.setenv("LOKR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(sources.subprocess, "run", refuse)
    return tmp_path / "cache"


def tarball(**files: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            data = json.dumps(content).encode()
            entry = tarfile.TarInfo(f"package/{name}.json")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def pinned(data: bytes) -> sources.Source:
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    return replace(SOURCES["twemoji"], integrity=f"sha512-{digest}")


def serve(monkeypatch: pytest.MonkeyPatch, data: bytes | OSError) -> list[str]:
    """Make urllib give ``data``; npm is not installed. Returns the addresses asked for."""
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        if isinstance(data, OSError):
            raise data
        return io.BytesIO(data)

    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://npm.example/")
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def fake_npm(monkeypatch: pytest.MonkeyPatch, data: bytes | None, error: str = "") -> list[str]:
    """Make ``npm pack`` write ``data``, or fail with ``error``. Returns what is asked for."""
    asked: list[str] = []

    def run(command: list[str], **options: object) -> object:
        asked.append(command[2])
        if data is not None:
            target = Path(command[command.index("--pack-destination") + 1])
            (target / "some-name.tgz").write_bytes(data)
        return sources.subprocess.CompletedProcess(command, 0 if data else 1, "", error)

    monkeypatch.setattr(sources.shutil, "which", lambda name: "/usr/bin/npm")
    monkeypatch.setattr(sources.subprocess, "run", run)
    return asked


class TestCache:
    def test_the_variable_goes_before_xdg_and_home(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache.root() == tmp_path / "cache"
        monkeypatch.delenv("LOKR_CACHE")
        assert cache.root() == tmp_path / "xdg" / "lokr-bench"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache.root() == tmp_path / ".cache" / "lokr-bench"

    def test_a_writer_that_fails_leaves_the_old_file_and_no_other(self):
        path = cache.folder("a") / "file"
        cache.write(path, lambda temporary: temporary.write_text("old") and None)

        def fail(temporary: Path) -> None:
            temporary.write_text("half")
            raise RuntimeError("killed")

        with pytest.raises(RuntimeError):
            cache.write(path, fail)
        assert path.read_text() == "old"
        assert list(path.parent.iterdir()) == [path]

    def test_a_cache_that_cannot_be_made_is_one_line(self, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("LOKR_CACHE", str(tmp_path / "file"))
        with pytest.raises(BenchError, match=r"set LOKR_CACHE"):
            cache.folder("downloads")
        with pytest.raises(BenchError, match=r"set LOKR_CACHE"):
            cache.write(tmp_path / "file" / "x", lambda path: path.write_text("") and None)


class TestFetch:
    def test_it_is_downloaded_once_and_checked(self, monkeypatch, folder):
        data = tarball(icons={"icons": {}}, chars={"1f436": "dog-face"})
        asked = serve(monkeypatch, data)
        source = pinned(data)
        assert sources.icon_set(source) == {"icons": {}}
        assert sources.code_points(source) == {"1f436": "dog-face"}
        assert asked == ["https://npm.example/@iconify-json/twemoji/-/twemoji-1.2.5.tgz"]
        assert [path.name for path in (folder / "downloads").iterdir()] == [
            "iconify-json-twemoji-1.2.5.tgz"
        ]

    def test_without_npm_and_a_registry_nothing_is_asked(self, monkeypatch):
        asked = serve(monkeypatch, tarball(icons={}))
        monkeypatch.delenv("NPM_CONFIG_REGISTRY")
        with pytest.raises(BenchError, match=r"npm .it is not installed, and NPM_CONFIG_REGISTRY"):
            sources.fetch(pinned(tarball(icons={})))
        assert asked == []

    def test_npm_is_asked_where_it_is_installed(self, monkeypatch):
        data = tarball(icons={})
        asked = fake_npm(monkeypatch, data)
        assert sources.fetch(pinned(data)).read_bytes() == data
        assert asked == ["@iconify-json/twemoji@1.2.5"]

    def test_another_file_than_the_pinned_one_is_not_kept(self, monkeypatch, folder):
        serve(monkeypatch, tarball(icons={"icons": {"x": 1}}))
        with pytest.raises(BenchError, match=r"twemoji@1\.2\.5: the checksum is .* not the pinned"):
            sources.fetch(pinned(tarball(icons={})))
        assert list((folder / "downloads").iterdir()) == []

    def test_a_kept_file_that_was_damaged_is_named(self, monkeypatch):
        data = tarball(icons={})
        serve(monkeypatch, data)
        kept = sources.fetch(pinned(data))
        kept.write_bytes(data[:-1])
        with pytest.raises(BenchError, match=rf"of {kept}: delete it"):
            sources.fetch(pinned(data))

    def test_no_network_says_where_to_put_the_file(self, monkeypatch, folder):
        serve(monkeypatch, OSError("no route to host"))
        with pytest.raises(BenchError, match=r"style 'twemoji'.*no route to host") as error:
            sources.fetch(SOURCES["twemoji"])
        assert str(folder / "downloads" / SOURCES["twemoji"].archive) in str(error.value)

    def test_npm_that_fails_is_quoted(self, monkeypatch):
        fake_npm(monkeypatch, None, "npm error code E404\nnpm error not found")
        with pytest.raises(BenchError, match=r"with npm pack \(npm error code E404\)"):
            sources.fetch(SOURCES["twemoji"])

    def test_a_tarball_without_the_file_is_named(self, monkeypatch):
        data = tarball(chars={})
        serve(monkeypatch, data)
        with pytest.raises(BenchError, match=r"no readable package/icons\.json"):
            sources.icon_set(pinned(data))

    @pytest.mark.parametrize("style", STYLES)
    def test_every_style_is_pinned_and_credited(self, style):
        source = SOURCES[style]
        assert source.license
        assert source.credit
        if source.kind == "npm":
            assert len(base64.b64decode(source.integrity.removeprefix("sha512-"))) == 64

    def test_training_styles_may_be_redistributed_as_weights(self):
        licenses = {SOURCES[style].license for style in TRAINING_STYLES}
        assert licenses == {"Apache-2.0", "MIT", "CC-BY-4.0"}

    def test_another_openmoji_than_the_pinned_one_is_refused(self):
        with pytest.raises(BenchError, match=r"is 17\.0\.0, not 16\.0\.0: run `pip install"):
            sources.drawings(replace(SOURCES["openmoji"], version="16.0.0"))


class TestIcons:
    SET = {  # noqa: RUF012
        "icons": {"dot": {"body": "<b/>"}, "wide": {"body": "<w/>", "width": 24, "left": 2}},
        "aliases": {
            "tod": {"parent": "wide", "hFlip": True},
            "point": {"parent": "dot"},
            "turned": {"parent": "dot", "rotate": 1},
        },
        "height": 12,
    }

    def test_the_box_is_the_icons_then_the_sets_then_iconifys(self):
        assert 'viewBox="0 0 16 12"><b/></svg>' in sources.icon_svg(self.SET, "dot")
        assert 'viewBox="2 0 24 12"><w/></svg>' in sources.icon_svg(self.SET, "wide")

    def test_an_alias_is_its_parent(self):
        assert sources.icon_svg(self.SET, "point") == sources.icon_svg(self.SET, "dot")

    def test_a_mirrored_alias_is_mirrored_about_its_own_middle(self):
        mirrored = {
            "icons": {"half": {"body": '<path d="M4 0H12V16H4Z"/>', "left": 4}},
            "aliases": {"flah": {"parent": "half", "hFlip": True}},
        }
        picture = render(sources.icon_svg(mirrored, "half"))
        flipped = render(sources.icon_svg(mirrored, "flah"))
        assert picture[:, :32].max() == 0
        assert picture[:, 32:].min() == 255
        np.testing.assert_array_equal(flipped, picture[:, ::-1])

    def test_what_is_not_there_or_not_understood_raises(self):
        with pytest.raises(KeyError):
            sources.icon_svg(self.SET, "nothing")
        with pytest.raises(ValueError, match="alias 'turned' has rotate"):
            sources.icon_svg(self.SET, "turned")

    def test_black_openmoji_is_the_lines_of_the_color_version(self):
        color = sources.drawings(SOURCES["openmoji"])("1f436")
        black = sources.drawings(SOURCES["openmoji-black"])("1f436")
        assert 'id="color"' in color
        assert 'id="line"' in black
        assert 'id="color"' not in black
        pixels = render(black).astype(int)
        assert np.ptp(pixels, axis=2).max() == 0  # no color is left
        assert np.ptp(render(color).astype(int), axis=2).max() > 100


class TestRender:
    def test_the_aspect_is_kept_and_the_picture_centered(self):
        body = '<rect x="10" y="20" width="40" height="20" fill="red"/>'
        picture = render(RECTANGLE.format(box="10 20 40 20", body=body))
        assert picture.shape == (64, 64, 3)
        assert picture.dtype == np.uint8
        assert (picture[16:48] == [255, 0, 0]).all()
        assert (picture[:16] == 255).all()
        assert (picture[48:] == 255).all()

    def test_the_frame_adds_a_margin(self):
        body = '<rect width="10" height="10" fill="currentColor"/>'
        picture = render(RECTANGLE.format(box="0 0 10 10", body=body), frame=2.0)
        assert (picture[16:48, 16:48] == 0).all()  # currentColor is black
        assert (picture != 255).any(2).sum() == 32 * 32

    def test_what_is_transparent_is_white(self):
        body = '<rect width="10" height="10" opacity="0.5"/>'
        picture = render(RECTANGLE.format(box="0 0 10 10", body=body))
        assert set(np.unique(picture)) <= {127, 128}

    def test_the_size_in_the_svg_is_of_no_account(self):
        svg = RECTANGLE.format(box="0 0 10 10", body='<rect width="10" height="10"/>')
        sized = svg.replace("<svg", '<svg width="4" height="4"')
        np.testing.assert_array_equal(render(sized), render(svg))

    @pytest.mark.parametrize(
        ("svg", "reason"),
        [
            (RECTANGLE.format(box="0 0 10 10", body=""), "blank"),
            (RECTANGLE.format(box="0 0 10 10", body="<rect"), "."),
            (RECTANGLE.format(box="0 0 10", body=""), "no viewBox of four numbers"),
            ("not an svg", "no <svg> element"),
        ],
    )
    def test_what_gives_no_picture_says_why(self, svg, reason):
        with pytest.raises(UnreadableError, match=reason):
            render(svg)


class TestJoin:
    ICONS = {  # noqa: RUF012
        "noto": {"icons": {}, "aliases": {"bear-face": {"parent": "bear"}}},
        "emojione": {
            "icons": {"bear-face": {}, "cricket-game": {}},
            "aliases": {"cricket": {"parent": "cricket-game"}},
        },
        "fxemoji": {
            "icons": {
                icon: {}
                for icon in (
                    "babychick",
                    "leopardside",
                    "blackscissors",
                    "pig",
                    "pigside",
                    "kiss",
                )
            }
        },
        "streamline-emojis": {"icons": {"bear-2": {}, "bear-face-1": {}, "unheard-of": {}}},
    }
    CODES = {  # noqa: RUF012
        "noto": {
            "1f43b": "bear",
            "1f997": "cricket",
            "1f3cf": "cricket-game",
            "1f424": "baby-chick",
            "1f406": "leopard",
            "2702": "scissors",
            "1f416": "pig",
            "1f437": "pig-face",
            "1f48f": "kiss",
            "1f43b-200d-2744": "polar-bear",
        }
    }

    def joined(self) -> dict[str, dict[str, str]]:
        return join.join(self.ICONS, self.CODES)

    def test_sets_meet_at_code_points(self):
        assert self.joined()["1f43b"] == {
            "noto": "bear",
            "emojione": "bear-face",  # by an alias that another set knows
            "streamline-emojis": "bear-2",  # the first of several drawings
        }

    def test_a_second_name_that_is_another_concept_gives_no_drawing(self):
        table = self.joined()
        assert "emojione" not in table["1f997"]
        assert table["1f3cf"]["emojione"] == "cricket-game"

    def test_fxemoji_is_joined_by_letters_by_hand_and_by_unicode(self):
        table = self.joined()
        assert table["1f424"]["fxemoji"] == "babychick"
        assert table["1f406"]["fxemoji"] == "leopardside"
        assert table["2702"]["fxemoji"] == "blackscissors"

    def test_fxemoji_calls_the_face_by_the_animals_name(self):
        table = self.joined()
        assert table["1f437"]["fxemoji"] == "pig"
        assert table["1f416"]["fxemoji"] == "pigside"

    def test_fxemoji_shows_another_thing_under_some_names(self):
        assert "fxemoji" not in self.joined()["1f48f"]  # a kissing face, not a couple

    def test_what_no_training_style_draws_is_left_out(self):
        codes = {"fluent-emoji-high-contrast": {"1f43b": "bear"}}
        assert join.join({"fluent-emoji-high-contrast": {"icons": {"bear": {}}}}, codes) == {}

    @pytest.mark.parametrize(
        ("code", "kept"),
        [
            ("1f436", True),
            ("2764", True),
            ("1f44b-1f3fb", False),  # skin tone
            ("1f1eb-1f1f7", False),  # France
            ("1f3f4-e0067-e0062-e0065-e006e-e0067-e007f", False),  # England
            ("1f550", False),  # one o'clock
            ("1f468-200d-1f33e", False),  # farmer
            ("0031-20e3", False),  # keycap
            ("1f170", False),  # A
            ("fe82b", False),  # private
        ],
    )
    def test_left_out(self, code, kept):
        assert join.kept(code) is kept

    def test_what_is_written_is_read(self, monkeypatch, tmp_path):
        monkeypatch.setattr(join, "FILE", tmp_path / "concepts.csv")
        monkeypatch.setattr(concepts, "FILE", tmp_path / "concepts.csv")
        join.write(self.joined())
        read = {c.code: c for c in concepts.load.__wrapped__()}
        assert {code: c.icons for code, c in read.items()} == self.joined()
        assert read["1f3cf"].name == "cricket game"


class TestConcepts:
    def test_names_are_unique_sorted_and_short(self):
        names = [concept.name for concept in concepts.load()]
        assert names == sorted(set(names))
        assert len(names) > 1300
        assert max(len(name.split()) for name in names) <= 12

    def test_every_concept_is_of_the_benchmark_and_known_to_the_base(self):
        for concept in concepts.load():
            assert join.kept(concept.code)
            assert concept.icons.keys() & set(TRAINING_STYLES)

    def test_openmoji_has_every_drawing_that_the_table_says(self):
        draw = sources.drawings(SOURCES["openmoji"])
        codes = [c.icons["openmoji"] for c in concepts.load() if "openmoji" in c.icons]
        assert len(codes) > 1300
        assert all(draw(code).lstrip().startswith("<svg") for code in codes)

    def test_one_in_five_is_for_testing(self):
        names = [concept.name for concept in concepts.load()]
        assert 0.15 < sum(map(concepts.is_test, names)) / len(names) < 0.25

    def test_the_split_never_changes(self):
        # Results on disk hang on it, and on no list: a concept's side is its name's alone.
        sides = [concepts.is_test(name) for name in ("cat face", "banana", "dog face", "pizza")]
        assert sides == [True, True, False, False]
        listed = "\n".join(c.name for c in concepts.load() if concepts.is_test(c.name))
        assert hashlib.sha256(listed.encode()).hexdigest()[:16] == "9e77d0b2082a03fd"

    def test_captions(self):
        assert concepts.caption("dog face", "openmoji-black") == "dog face, black openmoji style"
        with pytest.raises(
            BenchError, match="style 'nobody' is not known; known are noto, noto-v1"
        ):
            concepts.caption("dog face", "nobody")

    def test_no_caption_is_longer_than_20_tokens(self):
        from experiments.bases import load_tokenizer, locate

        captions = [concepts.caption(c.name, style) for c in concepts.load() for style in STYLES]
        lengths = map(len, load_tokenizer(locate("minilm"))(captions)["input_ids"])
        assert max(lengths) <= 20


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[Concept]:
    """Three concepts, of which two look alike without color."""
    monkeypatch.setattr(concepts, "load", lambda: tuple(SMALL))
    return SMALL


class TestTable:
    def test_rows_are_sorted_by_style_then_concept(self, small):
        both = table.load(["openmoji-black", "openmoji"])
        assert both.styles == ("openmoji",) * 3 + ("openmoji-black",) * 2
        assert both.concepts[:3] == ("blue circle", "dog face", "red circle")
        assert both.captions[0] == "blue circle, openmoji style"
        assert both.images.shape == (5, 3, 64, 64)
        assert both.images.dtype == torch.uint8

    def test_pixels_are_those_of_the_drawing(self, small):
        loaded = table.load(["openmoji"])
        svg = sources.drawings(SOURCES["openmoji"])("1f436")
        drawn = render(svg, SOURCES["openmoji"].frame)
        np.testing.assert_array_equal(loaded.images[1].permute(1, 2, 0).numpy(), drawn)

    def test_a_picture_seen_before_is_left_out_and_said(self, small, capfd):
        assert table.load(["openmoji-black"]).concepts == ("blue circle", "dog face")
        assert (
            "1 of 3 left out: red circle (same pixels as 'blue circle')" in capfd.readouterr().err
        )
        assert table.left_out("openmoji-black") == {"red circle": "same pixels as 'blue circle'"}

    def test_what_cannot_be_drawn_is_left_out_and_said(self, small, capfd, monkeypatch):
        blank = RECTANGLE.format(box="0 0 1 1", body="")
        draw = {
            "1f535": blank,
            "1f436": RECTANGLE.format(box="0 0 1 1", body="<path d='M0 0H1V1H0'/>"),
        }
        monkeypatch.setattr(sources, "drawings", lambda source: draw.__getitem__)
        assert table.load(["openmoji"]).concepts == ("dog face",)
        said = capfd.readouterr().err
        assert "2 of 3 left out: blue circle (UnreadableError: blank), red circle (KeyError" in said

    def test_a_style_of_which_nothing_can_be_drawn_is_an_error(self, small, monkeypatch):
        monkeypatch.setattr(sources, "drawings", lambda source: {}.__getitem__)
        with pytest.raises(BenchError, match="style 'openmoji': none of its 3 drawings"):
            table.load(["openmoji"])

    def test_the_second_load_reads_the_cache_only(self, small, monkeypatch):
        first = table.load(["openmoji"])
        monkeypatch.setattr(table, "build", lambda source: pytest.fail("drawn again"))
        second = table.load(["openmoji"])
        assert second.fingerprint == first.fingerprint
        assert torch.equal(second.images, first.images)

    def test_other_pins_or_names_are_another_file(self, small, monkeypatch):
        before = table.cached("openmoji")
        monkeypatch.setattr(concepts, "load", lambda: tuple(SMALL[:2]))
        assert table.cached("openmoji") != before

    def test_a_damaged_file_is_named(self, small):
        table.load(["openmoji"])
        table.cached("openmoji").write_bytes(b"PAR1")
        with pytest.raises(BenchError, match=r"openmoji-\w+\.parquet cannot be read .* delete it"):
            table.load(["openmoji"])

    def test_the_fingerprint_is_of_captions_and_pixels(self, small):
        loaded = table.load(["openmoji"])
        other = loaded.images.clone()
        other[0, 0, 0, 0] -= 1
        prints = {
            loaded.fingerprint,
            replace(loaded, images=other).fingerprint,
            replace(loaded, captions=("x", *loaded.captions[1:])).fingerprint,
        }
        assert len(prints) == 3
        assert all(len(found) == 16 and int(found, 16) >= 0 for found in prints)

    def test_where(self, small):
        both = table.load(["openmoji", "openmoji-black"])
        test = [concepts.is_test(name) for name in both.concepts]
        assert both.where().tolist() == [0, 1, 2, 3, 4]
        assert both.where("openmoji-black").tolist() == [3, 4]
        assert both.where(test=True).tolist() == [i for i, yes in enumerate(test) if yes]
        assert sorted(both.where(test=True).tolist() + both.where(test=False).tolist()) == [
            *range(5)
        ]
        with pytest.raises(
            BenchError, match="style 'noto' is not in this table; it has openmoji, "
        ):
            both.where("noto")

    def test_too_few_images_is_one_line(self, small):
        loaded = table.load(["openmoji"])
        has = len(loaded.where("openmoji", test=False))
        loaded.need("openmoji", has)
        with pytest.raises(
            BenchError, match=rf"'openmoji': 32 images asked for, .* split has {has}"
        ):
            loaded.need("openmoji", 32)

    def test_unknown_and_no_styles_are_refused(self):
        with pytest.raises(BenchError, match="style 'nobody' is not known; known are noto"):
            table.load(["openmoji", "nobody"])
        with pytest.raises(BenchError, match="no style is named; known are noto"):
            table.load([])

    def test_the_command_prints_counts_and_writes_a_sheet(self, small, capsys, tmp_path):
        from PIL import Image

        path = tmp_path / "sheet.png"
        table.main(["--style", "openmoji", "--style", "openmoji-black", "--sheet", str(path)])
        printed = capsys.readouterr().out
        assert "5 pictures of 3 concepts" in printed
        assert f"fingerprint {table.load(['openmoji', 'openmoji-black']).fingerprint}" in printed
        drawn = np.asarray(Image.open(path))
        assert drawn.shape == (3 * 64, 2 * 64, 3)
        assert (drawn[128:, 64:] == 0xD0).all()  # the red circle that was left out
