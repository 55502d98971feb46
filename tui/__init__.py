"""The terminal view: shows, never decides."""

from __future__ import annotations

import os

# Textual reads these once, when it is first imported. A frame is only drawn when something has changed; over SSH ten a
# second are as good as sixty, and animation is traffic without news.
os.environ["TEXTUAL_FPS"] = "10"
os.environ["TEXTUAL_ANIMATIONS"] = "none"
os.environ["TEXTUAL_SMOOTH_SCROLL"] = "0"
