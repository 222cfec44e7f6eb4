"""One photo with boxes and labels above it, as HTML that a notebook shows: no style sheet, nothing is loaded."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from models.detectors.cropping import reduced
from pipeline.report.overlay import VIEW, Mark, has_label, label_of, marks, percent, view_of
from pipeline.report.photo import KEPT, Photo
from pipeline.report.visible_names import visible
from transforms.formats.decode import decode
from transforms.formats.encode import as_webp
from transforms.formats.records import Limits, RejectedContent

COLOURS = (
    "#ffb000",
    "#b7e36a",
    "#e08bff",
    "#ffe45c",
    "#7fd4ff",
    "#5f9bff",
    "#ff7f6b",
    "#ffffff",
)  # as on the run's page
QUALITY = 70
ROWS = 12  # faces in the table
LETTERS = 24  # of the name of a class
_RECT = Markup(
    '<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" stroke="{stroke}" stroke-width="{thick}" '
    'vector-effect="non-scaling-stroke">{title}</rect>'
)
_TEXT = Markup(
    '<text x="{x}" y="{y}" font-family="sans-serif" font-size="20" font-weight="600" fill="#fff" stroke="#000" '
    'stroke-width="5" stroke-linejoin="round" paint-order="stroke">{text}</text>'
)
_CELL = Markup('<td style="text-align:{side};padding:1px 10px 1px 0">{text}</td>')


def photo_figure(photo: Photo, classes: Sequence[str], picture: bytes | Path, words: str) -> str:
    """Returns a figure: the photo with its faces, a line of words, and a table of the first faces.

    Args:
        picture: the encoded photo, or where to read it; the figure goes without it where that fails.
        words: what was found.
    """
    classes = [visible(known, LETTERS) for known in classes]
    name = Markup("<b>{}</b> ").format(visible(photo.image_id)) if photo.image_id else Markup()
    caption = Markup("<figcaption>{}{}×{}: {}</figcaption>").format(name, photo.width, photo.height, words)
    parts = [_drawing(photo, classes, picture, words), caption, _table(photo, classes)]
    return str(Markup('<figure style="margin:0;max-width:{}px">{}</figure>').format(VIEW, Markup().join(parts)))


def _drawing(photo: Photo, classes: Sequence[str], picture: bytes | Path, words: str) -> Markup:
    data = _small(picture)
    if data is None:
        return Markup("<p>The picture cannot be read.</p>")
    width, height = view_of(photo)
    drawn = marks(photo, classes, KEPT)
    image = Markup(
        '<image href="data:image/webp;base64,{}" width="{}" height="{}" preserveAspectRatio="none"/>'
    ).format(base64.b64encode(data).decode("ascii"), width, height)
    boxes = Markup().join(_boxed(mark) for mark in drawn if not mark.whole)
    texts = Markup().join(_TEXT.format(x=mark.at[0], y=mark.at[1], text=mark.text) for mark in drawn if mark.text)
    return Markup(
        '<svg role="img" viewBox="0 0 {} {}" aria-label="{}" style="width:100%;display:block">{}{}{}</svg>'
    ).format(width, height, words, image, boxes, texts)


def _boxed(mark: Mark) -> Markup:
    """Returns a box: a dark line below a coloured one, so that it shows on any ground."""
    place = {"x": mark.x, "y": mark.y, "width": mark.width, "height": mark.height}
    title = Markup("<title>{}</title>").format(mark.title)
    dark = _RECT.format(**place, stroke="#000", thick=4.5, title="")
    return dark + _RECT.format(**place, stroke=COLOURS[mark.look % len(COLOURS)], thick=2.2, title=title)


def _small(picture: bytes | Path) -> bytes | None:
    """Returns the photo as a small WebP; None where it cannot be read or decoded."""
    try:
        data = picture.read_bytes() if isinstance(picture, Path) else picture
        decoded = decode(data, channels=3, limits=Limits(), at_least=(VIEW, VIEW))
    except (OSError, RejectedContent):
        return None
    return as_webp(reduced(decoded.image, VIEW), QUALITY)


def _table(photo: Photo, classes: Sequence[str]) -> Markup:
    if not photo.faces:
        return Markup()
    head = Markup().join(Markup('<th scope="col" style="text-align:left;padding:1px 10px 1px 0">{}</th>').format(name)
                         for name in ("face", "label", "confidence", "detection"))  # fmt: skip
    rows = [
        (str(face.number), label_of(face, classes), percent(face.confidence) if has_label(face) else "–",
         f"{face.score:.2f}")
        for face in photo.faces[:ROWS]
    ]  # fmt: skip
    left = photo.face_count - ROWS
    more = Markup("<p>and {} more</p>").format(left) if left > 0 else Markup()
    lines = (
        Markup("<tr>{}</tr>").format(Markup().join(_CELL.format(side="left", text=t) for t in row)) for row in rows
    )
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>{}").format(
        head, Markup().join(lines), more
    )
