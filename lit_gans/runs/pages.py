"""HTML pages of one file each: nothing in them is fetched or run, and what a run's files say is text, never markup."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lit_gans.base.files import lasting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PX, READABLE_PX, LOSSLESS_BYTES = 1024, 512, 200_000


def write_html(path: Path, template: str, **values: Any) -> Path:
    """Writes a page of `templates/`; a value is escaped unless it is Markup."""
    loader = PackageLoader("lit_gans.runs")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    with lasting(path) as unfinished:
        unfinished.write_text(environment.get_template(template).render(values), encoding="utf-8")
    return path


def svg(figure: Figure, name: str) -> Markup:
    """A plot as part of a page; its texts are those that matplotlib was given, escaped."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = Markup(buffer.getvalue().split("<svg", 1)[1])
    return Markup('<svg role="img" aria-label="{}"').format(name) + drawn


def picture(path: Path) -> str | None:
    """A PNG as data of a page, at most 1024 px wide or high; None where there is none that can be read.

    A small one is enlarged by a whole factor, without smoothing.
    """
    try:
        return _picture(path, path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=64)  # a page that is written again and again shows most of them again
def _picture(path: Path, changed_ns: int) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            large = max(image.size) > MOST_PX
            image.thumbnail((MOST_PX, MOST_PX))
            factor = max(READABLE_PX // max(image.size), 1)
            buffer, photograph = io.BytesIO(), large or path.stat().st_size > LOSSLESS_BYTES
            if photograph:
                image.convert("RGB").save(buffer, "jpeg", quality=88)
            else:
                size = (image.width * factor, image.height * factor)
                image.resize(size, Image.Resampling.NEAREST).save(buffer, "png")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    kind = "jpeg" if photograph else "png"
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
