"""Draws what `kills.py` measured: how much stood at each kill, and the little that was computed twice. Plain SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

WIDTH, HEIGHT = 760, 300
LEFT, TOP, BOTTOM = 56, 52, 56
KEPT, TWICE, INK = "#2b6cb0", "#c53030", "#2d3748"


def draw(path: Path, *, finished: Sequence[int], twice: Sequence[int], images: int, same: bool) -> None:
    """Writes the picture.

    Args:
        finished: images in finished parts at each kill. `twice`: images that each kill made the next run compute again.
        images: of the whole run. `same`: whether the end was the same, byte for byte.
    """
    columns = len(finished) + 1
    step = (WIDTH - LEFT - 20) / columns
    high = HEIGHT - TOP - BOTTOM

    def y(value: float) -> float:
        return TOP + high * (1 - value / images)

    shapes = [_text(LEFT, 24, "One run, killed ten times with SIGKILL and taken up again each time", size=16)]
    shapes.append(_text(LEFT, 42, "blue: images finished at that moment; red: images computed twice because of it"))
    for value in (0, images // 2, images):
        shapes.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - 20}" stroke="#cbd5e0"/>')
        shapes.append(_text(LEFT - 6, y(value) + 4, f"{value:,}", anchor="end"))
    for column, (done, again) in enumerate(zip(finished, twice, strict=True)):
        x = LEFT + step * column + step * 0.2
        shapes.append(_bar(x, y(done), step * 0.6, high + TOP - y(done), KEPT))
        shapes.append(_bar(x, y(done + again), step * 0.6, y(done) - y(done + again), TWICE))
        shapes.append(_text(x + step * 0.3, y(done + again) - 4, f"{again}", anchor="middle"))
        shapes.append(_text(x + step * 0.3, HEIGHT - BOTTOM + 18, f"kill {column + 1}", anchor="middle"))
    x = LEFT + step * len(finished) + step * 0.2
    shapes.append(_bar(x, y(images), step * 0.6, high, KEPT))
    shapes.append(_text(x + step * 0.3, HEIGHT - BOTTOM + 18, "end", anchor="middle"))
    words = "the same bytes as a run that nobody disturbed" if same else "NOT the same bytes as an undisturbed run"
    shapes.append(_text(WIDTH - 20, HEIGHT - 12, f"in the end: {words}", anchor="end", size=14))
    body = "\n".join(shapes)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n',
        encoding="utf-8",
    )


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{INK}">{words}</text>'
