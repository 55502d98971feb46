"""The meaning of colors. Screens name a role; the theme in use says what it looks like, in 16 colors as well."""

from __future__ import annotations

from rich.color import Color as RichColor
from rich.style import Style
from rich.theme import Theme as RichTheme
from textual.color import Color, ColorParseError
from textual.theme import Theme

OK, WARN, BAD, MUTED, ACCENT, STRONG = "fs.ok", "fs.warn", "fs.bad", "fs.muted", "fs.accent", "fs.strong"
HEADING, SELECTED, ALARM, PAST, CURRENT, OK_ON_REST, REST, PLAIN = (
    "fs.heading",
    "fs.selected",
    "fs.alarm",
    "fs.past",
    "fs.current",
    "fs.ok_on_rest",
    "fs.rest",
    "",
)

FASTSCREEN = Theme(
    name="fastscreen",
    primary="#5fafff",
    secondary="#87afd7",
    accent="#ffaf5f",
    foreground="#d0d4dc",
    background="#14171c",
    surface="#1a1e25",
    panel="#242a33",
    success="#5fd787",
    warning="#ffd75f",
    error="#ff5f5f",
    dark=True,
)


def roles(variables: dict[str, str], ansi: bool) -> RichTheme:
    """Rich's styles for the roles, from a theme's variables. ansi: the terminal's own 16 colors."""

    def color(name: str) -> RichColor | None:
        try:
            return Color.parse(variables.get(name, "")).rich_color
        except ColorParseError:
            return None

    ok, warn, bad, accent = color("success"), color("warning"), color("error"), color("primary")
    inverse = Style(reverse=True)
    return RichTheme(
        {
            OK: Style(color=ok),
            WARN: Style(color=warn),
            BAD: Style(color=bad, bold=True),
            MUTED: Style(dim=True),
            ACCENT: Style(color=accent),
            STRONG: Style(bold=True),
            HEADING: Style(color=accent, bold=True),
            SELECTED: inverse if ansi else Style(bgcolor=color("primary-muted") or color("panel"), bold=True),
            ALARM: Style(color="white", bgcolor="red", bold=True)
            if ansi
            else Style(color="#ffffff", bgcolor=bad, bold=True),
            PAST: Style(color="yellow", bgcolor="black", bold=True, reverse=True)  # reversed without color, too
            if ansi
            else Style(color=color("background"), bgcolor=color("accent"), bold=True),
            CURRENT: inverse if ansi else Style(color=color("background"), bgcolor=accent, bold=True),
            REST: Style(color=warn),
            OK_ON_REST: Style(color=ok, bgcolor=warn),
        },
        inherit=False,
    )
