#!/usr/bin/env python3
"""Draws the geometric means of a table of `convrelu-peers` as bars.

    python3 benches/speed.py benches/results/peers-zen4-avx512.md > benches/results/speed-zen4.svg
    python3 benches/speed.py --check benches/results/peers-zen4-avx512.md benches/results/speed-zen4.svg

The table is the one below "### Geometric means of ratios". `--check` draws nothing and fails if the picture is not the one
that the table gives. It needs Python's standard library only.
"""

import sys
from html import escape

HEADING = "### Geometric means of ratios"
COLUMNS = ["layers", "pass", "layout", "shapes", "oneDNN, same plain format", "oneDNN, best format"]
PASSES = {
    "forward": "forward",
    "backward-input": "gradients of input and thresholds",
    "backward-weight": "gradient of the weight",
}
LAYOUTS = {"nchw": "channels first", "nhwc": "channels last"}
LAYERS = {"dense, grouped": "dense and grouped layers", "depthwise": "depthwise layers"}
# The colours of the program's own pictures.
BARS = [("oneDNN, same plain format", "oneDNN given the same tensors", "#0072b2"),
        ("oneDNN, best format", "oneDNN in its best format, reorders not timed", "#d55e00")]

INK, PAPER = "#282828", "#fff"
# Pixels: of the longest bar, of a bar's height, of the names left of the bars, of one panel, around everything.
LONGEST, BAR, NAMES, PANEL, MARGIN = 310, 13, 110, 440, 16


def read(path):
    """The rows of the table, each as {column: text}."""
    lines = iter(open(path, encoding="utf-8").read().split("\n"))
    if HEADING not in lines:
        sys.exit(f"{path}: it has no heading '{HEADING}'")
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in _table(lines)]
    if not cells or cells[0] != COLUMNS:
        sys.exit(f"{path}: the columns below '{HEADING}' are {cells[:1]}: they must be {COLUMNS}")
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells[2:]]


def _table(lines):
    for line in lines:
        if line.startswith("|"):
            yield line
        elif line:
            return


def text(x, y, words, size=13, anchor="start", weight="normal", colour=INK):
    style = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(words)}</text>'


def panel(rows, unit, x, top):
    """The bars of some layers, and where they end. A ratio of 1 has `unit` pixels."""
    left, y, shapes = x + NAMES, top, []
    for pass_key, pass_name in PASSES.items():
        y += 24
        shapes.append(text(x, y, pass_name))
        for layout_key, layout in LAYOUTS.items():
            (row,) = [r for r in rows if (r["pass"], r["layout"]) == (pass_key, layout_key)]
            y += 6
            shapes.append(text(left - 8, y + BAR + 4, layout, 12, "end"))
            for column, _, colour in BARS:
                length = float(row[column]) * unit
                shapes.append(f'<rect x="{left}" y="{y}" width="{length:g}" height="{BAR}" fill="{colour}"/>')
                shapes.append(text(left + length - 4, y + BAR - 2, row[column], 11, "end", colour=PAPER))
                y += BAR
    bottom, lines = y + 10, []
    for tick in (half / 2 for half in range(int(2 * LONGEST / unit) + 1)):
        at = left + tick * unit
        style = f'stroke="{INK}" ' + ('stroke-width="1.5"' if tick == 1 else 'stroke-width="0.5" stroke-dasharray="2 4"')
        lines.append(f'<line x1="{at:g}" y1="{top}" x2="{at:g}" y2="{bottom}" {style}/>')
        shapes.append(text(at, bottom + 16, f"{tick:g}", 12, "middle"))
    return lines + shapes, bottom + 16


def draw(rows, title):
    """The SVG document."""
    note = "The bars are oneDNN's time for a plain convolution divided by our time for ConvReLU. Above 1, ours is faster."
    shapes, y = [text(MARGIN, 28, title, 16, weight="bold"), text(MARGIN, 50, note)], 72
    for _, name, colour in BARS:
        shapes += [f'<rect x="{MARGIN}" y="{y - 10}" width="12" height="12" fill="{colour}"/>', text(MARGIN + 20, y, name)]
        y += 20
    y += 14
    unit = LONGEST / max(float(row[column]) for row in rows for column, _, _ in BARS)
    for index, (key, name) in enumerate(LAYERS.items()):
        own, x = [row for row in rows if row["layers"] == key], MARGIN + index * PANEL
        count = " or ".join(sorted({row["shapes"] for row in own}))
        bars, bottom = panel(own, unit, x, y + 8)
        shapes += [text(x, y, f"{name} ({count})", 14, weight="bold"), *bars]
    width, height = MARGIN + len(LAYERS) * PANEL, bottom + MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    background = f'<rect width="{width}" height="{height}" fill="{PAPER}"/>'
    return head + 'font-family="sans-serif">\n' + "\n".join([background, *shapes]) + "\n</svg>\n"


def main():
    check, paths = sys.argv[1:2] == ["--check"], [path for path in sys.argv[1:] if path != "--check"]
    if len(paths) != 1 + check:
        sys.exit(__doc__)
    heading = open(paths[0], encoding="utf-8").readline().lstrip("# ").strip()
    picture = draw(read(paths[0]), heading)
    if not check:
        sys.stdout.write(picture)
    elif open(paths[1], encoding="utf-8").read() != picture:
        sys.exit(f"{paths[1]} is not what {paths[0]} gives: draw it again")


main()
