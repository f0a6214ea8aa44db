#!/usr/bin/env python3
"""Draws ward's targets, as its BUILD files have them:

    cd docs && ./draw_targets.py >targets.svg

Each layer is a frame with the targets that users may name. Within one, a line leads
down to what a target needs, directly or through private targets; what is needed by way
of another public one has no line.
"""

import functools
import os
import pathlib
from typing import NamedTuple

if __name__ == "__main__":
    os.chdir(pathlib.Path(__file__).parent.parent)

from repository import BUILD_FILES, is_public, rules, strings

LIBRARIES = ("cc_library", "cc_proto_library", "proto_library", "cc_binary")
# From above to below; each depends on those below it alone. Those of a line do not
# depend on one another.
LAYERS = (
    ("examples", "testing", "tools/wardctl"),
    ("server",),
    ("channel",),
    ("proto",),
)
LEVELS = {layer: i for i, line in enumerate(LAYERS) for layer in line}


class Target(NamedTuple):
    layer: str
    package: pathlib.Path
    name: str
    is_public: bool
    is_for_tests: bool
    needs: tuple[str, ...]


def layer_of(package: pathlib.Path) -> str | None:
    return next((layer for layer in LEVELS if package.is_relative_to(layer)), None)


def absolute(package: pathlib.Path, label: str) -> str:
    if label.startswith(":"):
        return f"//{package}{label}"
    return label if ":" in label else f"{label}:{label.rpartition('/')[2]}"


def read_targets() -> dict[str, Target]:
    targets = {}
    for package in BUILD_FILES:
        layer = layer_of(package)
        for rule in rules(package):
            kind = rule[""].id
            if layer is None or kind not in LIBRARIES:
                continue
            [name] = strings(rule["name"])
            needs = strings(rule["deps"]) if "deps" in rule else []
            targets[f"//{package}:{name}"] = Target(
                layer,
                package,
                name,
                is_public(rule),
                layer != "testing" and "testonly" in rule,
                tuple(absolute(package, label) for label in needs),
            )
    return targets


TARGETS = read_targets()


def needs_of(label: str) -> frozenset[str]:
    return frozenset(need for need in TARGETS[label].needs if need in TARGETS)


@functools.cache
def all_needs_of(label: str) -> frozenset[str]:
    return needs_of(label).union(*(all_needs_of(need) for need in needs_of(label)))


def upward() -> list[str]:
    """Who depends on a layer that is not below its own, which nobody may."""
    return [
        f"{label} -> {need}"
        for label, target in TARGETS.items()
        for need in needs_of(label)
        if not target.is_for_tests
        and TARGETS[need].layer != target.layer
        and LEVELS[TARGETS[need].layer] <= LEVELS[target.layer]
    ]


# --- the picture ---

WIDTH, CHARACTER, LINE, GAP = 960, 7.3, 24, 10
FRAMES = {"examples": "#fdf3e7", "testing": "#eef6ea", "tools/wardctl": "#fdf3e7"}


def rows_of(layer: str) -> list[list[str]]:
    """Public targets, those that need others of them above these."""
    shown = [
        label
        for label, target in TARGETS.items()
        if target.layer == layer and target.is_public and not target.is_for_tests
    ]
    depth: dict[str, int] = {}
    for label in sorted(shown, key=lambda label: len(all_needs_of(label))):
        below = [depth[need] for need in all_needs_of(label) if need in depth]
        depth[label] = max(below, default=-1) + 1
    rows: list[list[str]] = []
    place: dict[str, float] = {}
    for level in range(max(depth.values()), -1, -1):

        def middle(label: str) -> tuple[float, str]:
            """Under the middle of those that need it."""
            above = [place[user] for user in place if label in all_needs_of(user)]
            return (sum(above) / len(above) if above else 0, label)

        row = sorted((label for label in shown if depth[label] == level), key=middle)
        place.update((label, i - (len(row) - 1) / 2) for i, label in enumerate(row))
        rows.append(row)
    return rows


def width_of(label: str) -> float:
    return len(TARGETS[label].name) * CHARACTER + 14


def draw_layer(layer: str, x: float, y: float, width: float) -> tuple[list[str], float]:
    """The layer's frame, with its upper left corner at x and y; and its height."""
    has_lines = layer not in FRAMES
    gap = GAP * 2 if has_lines else GAP
    rows: list[list[str]] = []
    for row in rows_of(layer):
        rows.append([])
        used = 0.0
        for label in row:
            if used + width_of(label) + gap > width - 20:
                rows.append([])
                used = 0
            rows[-1].append(label)
            used += width_of(label) + gap
    step = LINE + gap
    height = 30 + step * len(rows) - (step - LINE) + 12
    private = sum(
        target.layer == layer and not target.is_public and not target.is_for_tests
        for target in TARGETS.values()
    )
    shows_private = has_lines and private > 0
    title = f"{layer}/" + (f", and {private} private targets" if shows_private else "")
    picture = [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
        f'fill="{FRAMES.get(layer, "#eaf1fa")}" stroke="#8a94a3"/>',
        f'<text x="{x + 10:g}" y="{y + 19:g}" font-weight="bold">{title}</text>',
    ]
    place: dict[str, tuple[float, float]] = {}
    boxes = []
    for i, row in enumerate(rows):
        left = x + (width - sum(map(width_of, row)) - gap * (len(row) - 1)) / 2
        top = y + 30 + step * i
        for label in row:
            place[label] = (left + width_of(label) / 2, top)
            name = TARGETS[label].name
            boxes += [
                f'<rect x="{left:.1f}" y="{top:g}" width="{width_of(label):.1f}" '
                f'height="{LINE}" rx="4" fill="#ffffff" stroke="#5b6675"/>',
                f'<text x="{left + 7:.1f}" y="{top + 16:g}">{name}</text>',
            ]
            left += width_of(label) + gap
    for label, (middle, top) in place.items():
        needs = all_needs_of(label) & place.keys() if has_lines else frozenset()
        for need in sorted(needs - set().union(*map(all_needs_of, needs))):
            to, below = place[need]
            picture.append(
                f'<line x1="{middle:.1f}" y1="{top + LINE:g}" x2="{to:.1f}" '
                f'y2="{below:g}" stroke="#9aa7b8"/>'
            )
    return picture + boxes, height


def draw() -> str:
    picture: list[str] = []
    top = 10.0
    for line in LAYERS:
        x = 10.0
        frames = []
        for layer, share in zip(line, (27, 55, 18) if len(line) == 3 else (100,)):
            width = (WIDTH - 20) * share / 100
            inner = width - (GAP if len(line) > 1 else 0)
            drawn, height = draw_layer(layer, x, top, inner)
            picture += drawn
            frames.append((x + inner / 2, top + height))
            x += width
        top = max(bottom for _, bottom in frames) + 34
        if line != LAYERS[-1]:
            picture += [
                f'<line x1="{x:g}" y1="{bottom:g}" x2="{x:g}" y2="{top - 2:g}" '
                'stroke="#333333" stroke-width="1.5" marker-end="url(#arrow)"/>'
                for x, bottom in frames
            ]
    height = top - 24
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
            'font-family="monospace" font-size="12" fill="#1d2733">',
            "<title>Ward's layers, and the targets that users may name</title>",
            '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker>',
            f'<rect width="{WIDTH}" height="{height:g}" fill="#ffffff"/>',
            *picture,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    print(draw(), end="")
