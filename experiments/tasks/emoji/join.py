"""Writes ``concepts.csv``: the sets joined by code points, and by names where a set has none.

    python -m experiments.tasks.emoji.join

Needs the packages of all styles. noto, twemoji and the flat and high-contrast Fluent sets say which
code point an icon stands for (``chars.json``); the others are joined by slug, by the aliases that
any set knows for it, and for fxemoji by the letters of the slug alone, Unicode's own name, and a
list made by hand. The name is noto's slug, which is CLDR's short name, with spaces.

Left out: skin tones, sequences joined by ZWJ, flags of places, keycaps, letters and lettering,
clock faces, private code points, and what no training style draws. fxemoji draws foxes where the
others draw cats with a mood, and most of its blue heart is outside its view box: left out too.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.tasks.emoji.concepts import FILE, STYLES, TRAINING_STYLES, slug
from experiments.tasks.emoji.sources import SOURCES, code_points, drawings, icon_set

CODED = ("noto", "twemoji", "fluent-emoji-flat", "fluent-emoji-high-contrast")
"""Sets whose packages give code points, the best names first."""
OPENMOJI = ("openmoji", "openmoji-black")
ICONIFY = tuple(style for style in STYLES if style not in OPENMOJI)

LEFT_OUT = (
    (0x0000, 0x00FF),  # digits, #, *, (c), (r)
    (0x200D, 0x200D),  # ZWJ
    (0x20E3, 0x20E3),  # keycap
    (0x2122, 0x2122),  # TM
    (0x24C2, 0x24C2),  # circled M
    (0x3297, 0x3299),  # Japanese buttons
    (0xE000, 0xF8FF),  # private
    (0x1F100, 0x1F265),  # squared letters, regional indicators, Japanese buttons
    (0x1F3FB, 0x1F3FF),  # skin tones
    (0x1F520, 0x1F524),  # input of letters
    (0x1F550, 0x1F567),  # clock faces
    (0xE0000, 0x10FFFF),  # tags of flags, private
)

FXEMOJI = {
    "2hearts": "two-hearts",
    "americasglobe": "globe-showing-americas",
    "anger": "anger-symbol",
    "angry": "angry-face",
    "anguish": "anguished-face",
    "aok": "ok-hand",
    "asiaaustraliaglobe": "globe-showing-asia-australia",
    "astonished": "astonished-face",
    "banknotedollar": "dollar-banknote",
    "banknoteeuro": "euro-banknote",
    "banknotepound": "pound-banknote",
    "banknoteyen": "yen-banknote",
    "beachumbrella": "umbrella-on-ground",
    "blonde": "person-blond-hair",
    "bolt": "high-voltage",
    "boot": "womans-boot",
    "bouquetofflowers": "bouquet",
    "bow": "ribbon",
    "bowing": "person-bowing",
    "bride": "person-with-veil",
    "bunny": "rabbit-face",
    "bunnyside": "rabbit",
    "cat": "cat-face",
    "catside": "cat",
    "cellphone": "mobile-phone",
    "chartdownwardstrend": "chart-decreasing",
    "chartupwardstrend": "chart-increasing",
    "chartupwardstrendyen": "chart-increasing-with-yen",
    "chilipepper": "hot-pepper",
    "clap": "clapping-hands",
    "closedmailboxlowered": "closed-mailbox-with-lowered-flag",
    "closedmailboxraised": "closed-mailbox-with-raised-flag",
    "confetti": "confetti-ball",
    "confounded": "confounded-face",
    "confused": "confused-face",
    "cop": "police-officer",
    "crying": "crying-face",
    "dash": "dashing-away",
    "disappointed": "disappointed-face",
    "dog": "dog-face",
    "dogside": "dog",
    "dragonhead": "dragon-face",
    "dragonside": "dragon",
    "europeafricaglobe": "globe-showing-europe-africa",
    "evergreen": "evergreen-tree",
    "expressionless": "expressionless-face",
    "fallingleaf": "fallen-leaf",
    "fearful": "fearful-face",
    "fishcakeswirl": "fish-cake-with-swirl",
    "fistedhand": "oncoming-fist",
    "flexbicep": "flexed-biceps",
    "flushed": "flushed-face",
    "flyingenvelope": "incoming-envelope",
    "forkknife": "fork-and-knife-with-plate",
    "frontfacingchick": "front-facing-baby-chick",
    "gem": "gem-stone",
    "gma": "old-woman",
    "gpa": "old-man",
    "grimacing": "grimacing-face",
    "grin": "grinning-face",
    "grineyes": "beaming-face-with-smiling-eyes",
    "grinsquint": "grinning-squinting-face",
    "grinsweat": "grinning-face-with-sweat",
    "grintears": "face-with-tears-of-joy",
    "grinwide": "grinning-face-with-big-eyes",
    "grinwideeyes": "grinning-face-with-smiling-eyes",
    "halo": "smiling-face-with-halo",
    "hampster": "hamster",
    "headmassage": "person-getting-massage",
    "heartarrow": "heart-with-arrow",
    "hearteyes": "smiling-face-with-heart-eyes",
    "heartgreen": "green-heart",
    "heartpurple": "purple-heart",
    "heartribbon": "heart-with-ribbon",
    "heartyellow": "yellow-heart",
    "heels": "high-heeled-shoe",
    "hourglassflowingsand": "hourglass-not-done",
    "hushed": "hushed-face",
    "index": "index-pointing-up",
    "kissclosedeyes": "kissing-face-with-closed-eyes",
    "kisseyes": "kissing-face-with-smiling-eyes",
    "kissing": "kissing-face",
    "leaffluttering": "leaf-fluttering-in-wind",
    "leftmagnifyingglass": "magnifying-glass-tilted-left",
    "leopardside": "leopard",
    "lips": "mouth",
    "lockandkey": "locked-with-key",
    "loudlycrying": "loudly-crying-face",
    "medicalmask": "face-with-medical-mask",
    "mensrunner": "running-shoe",
    "mensshoe": "mans-shoe",
    "monkeyhear": "hear-no-evil-monkey",
    "monkeysee": "see-no-evil-monkey",
    "monkeyspeak": "speak-no-evil-monkey",
    "mouse": "mouse-face",
    "mouseside": "mouse",
    "neutral": "neutral-face",
    "nomouth": "face-without-mouth",
    "openfolder": "open-file-folder",
    "openmailboxlowered": "open-mailbox-with-lowered-flag",
    "openmailboxraised": "open-mailbox-with-raised-flag",
    "openmouth": "face-with-open-mouth",
    "outbox": "outbox-tray",
    "pensive": "pensive-face",
    "perservere": "persevering-face",
    "pig": "pig-face",
    "pigside": "pig",
    "pigsnout": "pig-nose",
    "pinkwallet": "purse",
    "poo": "pile-of-poo",
    "potablewatersystem": "potable-water",
    "pray": "folded-hands",
    "present": "wrapped-gift",
    "racecar": "racing-car",
    "raincloud": "cloud-with-rain",
    "relieved": "relieved-face",
    "rightmagnifyingglass": "magnifying-glass-tilted-right",
    "running": "person-running",
    "saggitarius": "sagittarius",
    "sandals": "womans-sandal",
    "screamfear": "face-screaming-in-fear",
    "sleeping": "sleeping-face",
    "sleepy": "sleepy-face",
    "sleuthspy": "detective",
    "smileeyes": "smiling-face-with-smiling-eyes",
    "smirk": "smirking-face",
    "snowcloud": "cloud-with-snow",
    "spurtingwhale": "spouting-whale",
    "stormcloud": "cloud-with-lightning",
    "studiomic": "studio-microphone",
    "sunraincloud": "sun-behind-rain-cloud",
    "sweatsplash": "sweat-droplets",
    "swimming": "person-swimming",
    "tennisball": "tennis",
    "tie": "necktie",
    "tiger": "tiger-face",
    "tigerside": "tiger",
    "tired": "tired-face",
    "tongueout": "face-with-tongue",
    "tongueoutwink": "winking-face-with-tongue",
    "toykotower": "tokyo-tower",
    "triumph": "face-with-steam-from-nose",
    "turban": "person-wearing-turban",
    "unamused": "unamused-face",
    "videocasette": "videocassette",
    "walking": "person-walking",
    "waningbibbousmoon": "waning-gibbous-moon",
    "wave": "water-wave",
    "waving": "waving-hand",
    "weary": "weary-face",
    "whitestar": "star",
    "winking": "winking-face",
    "womansshirt": "womans-clothes",
    "worried": "worried-face",
}

FXEMOJI_OTHER = ("construction", "gamedie", "kiss", "trackball", "window")
"""Its icons that show something else than the concept of their name: a crane, a domino, ..."""


def main() -> None:
    """Read every package and write the table."""
    icons = {style: icon_set(SOURCES[style]) for style in ICONIFY}
    codes = {style: code_points(SOURCES[style]) for style in CODED}
    table = join(icons, codes)
    for style in OPENMOJI:
        add_coded(table, style, drawable(style, table))
    write(table)


def join(
    icons: Mapping[str, Mapping[str, Any]], codes: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """Code point -> style -> icon, for the Iconify sets."""
    table: dict[str, dict[str, str]] = {}
    slugs = slugs_of(codes, icons)
    for style in icons:
        for icon, code in _coded(style, icons[style], codes, slugs):
            if kept(code):
                table.setdefault(code, {}).setdefault(style, icon)
    return {code: row for code, row in table.items() if row.keys() & set(TRAINING_STYLES)}


def kept(code: str) -> bool:
    """Whether a sequence of code points (hex, joined by hyphens) is a concept of the benchmark."""
    points = [int(point, 16) for point in code.split("-")]
    return not any(low <= point <= high for point in points for low, high in LEFT_OUT)


def slugs_of(
    codes: Mapping[str, Mapping[str, str]], icons: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Slug -> code point: the sets' own, then what any set calls an alias of them."""
    slugs: dict[str, str] = {}
    for style in codes:
        for code, icon in codes[style].items():
            slugs.setdefault(icon, code)
    for style in icons:
        for alias, target in icons[style].get("aliases", {}).items():
            if set(target) == {"parent"}:
                _pair(slugs, alias, target["parent"])
    return slugs


def add_coded(table: dict[str, dict[str, str]], style: str, codes: Iterable[str]) -> None:
    """A set whose icons are called by their code points."""
    for code in codes:
        table[code][style] = code


def drawable(style: str, codes: Iterable[str]) -> list[str]:
    """The code points that OpenMoji draws."""
    draw = drawings(SOURCES[style])
    found = []
    for code in codes:
        try:
            draw(code)
        except FileNotFoundError:
            continue
        found.append(code)
    return found


def write(table: Mapping[str, Mapping[str, str]]) -> None:
    """One line a concept, sorted by name."""
    rows = sorted(_row(code, icons) for code, icons in table.items())
    with FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "code", *STYLES])
        writer.writerows(rows)


def _pair(slugs: dict[str, str], one: str, other: str) -> None:
    if one in slugs:
        slugs.setdefault(other, slugs[one])
    elif other in slugs:
        slugs[one] = slugs[other]


def _coded(
    style: str,
    icons: Mapping[str, Any],
    codes: Mapping[str, Mapping[str, str]],
    slugs: Mapping[str, str],
) -> Iterable[tuple[str, str]]:
    """(icon, code point) of a set, the plainest icon of a concept first."""
    if style in codes:
        return [(icon, code) for code, icon in codes[style].items()]
    # Other aliases are second names, and some ("cricket" for the game) are another concept's first.
    mirrored = [name for name, target in icons.get("aliases", {}).items() if "hFlip" in target]
    known = [*icons["icons"], *mirrored]
    find = _fxemoji_codes(slugs) if style == "fxemoji" else slugs
    pairs = [(icon, find.get(icon) or find.get(_unnumbered(icon))) for icon in known]
    return [(icon, code) for icon, code in pairs if code]


def _unnumbered(icon: str) -> str:
    """streamline-emojis draws some concepts several times: robot-face-1, robot-face-2."""
    head, _, tail = icon.rpartition("-")
    return head if tail.isdigit() else icon


def _fxemoji_codes(slugs: Mapping[str, str]) -> dict[str, str]:
    found = {icon: slugs[target] for icon, target in FXEMOJI.items() if target in slugs}
    for name, code in slugs.items():
        found.setdefault(name.replace("-", ""), code)  # by hand goes first: "cat" is a cat's face
    for code in slugs.values():
        if "-" not in code:
            unicode = unicodedata.name(chr(int(code, 16)), "").lower()
            found.setdefault(unicode.replace(" ", "").replace("-", ""), code)
    return {icon: code for icon, code in found.items() if icon not in FXEMOJI_OTHER}


def _row(code: str, icons: Mapping[str, str]) -> list[str]:
    named = next(icons[style] for style in (*CODED, *TRAINING_STYLES) if style in icons)
    name = named.replace("-", " ")
    cells = [icons.get(style, "") for style in STYLES]
    return [name, code, *("=" if cell == slug(name) else cell for cell in cells)]


if __name__ == "__main__":
    main()
