"""The screen as an SVG file that needs nothing from elsewhere."""

from __future__ import annotations

import re

FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"
SIZE = 20.26  # px: their letters are then as wide as Rich's cells, for readers that do not stretch text
_FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)


def standalone(svg: str) -> str:
    """Rich's SVG without the font that it fetches from the network, and with the blanks that a reader would drop."""

    def restyled(found: re.Match[str]) -> str:
        style = _FONT_FACE.sub("", found[0]).replace("font-family: Fira Code, monospace", f"font-family: {FONTS}")
        return style.replace("font-size: 20px", f"font-size: {SIZE}px")

    return _STYLE.sub(restyled, svg, count=1).replace("<text ", '<text xml:space="preserve" ')
