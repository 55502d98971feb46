"""The screens, in the order of their keys."""

from __future__ import annotations

from fastscreen.tui.view import View
from fastscreen.tui.views.cache import CacheView
from fastscreen.tui.views.clients import ClientsView
from fastscreen.tui.views.cluster import ClusterView
from fastscreen.tui.views.connections import ConnectionsView
from fastscreen.tui.views.dnsbl import DnsblView
from fastscreen.tui.views.events import EventsView
from fastscreen.tui.views.heat import HeatView
from fastscreen.tui.views.networks import NetworksView
from fastscreen.tui.views.overview import OverviewView
from fastscreen.tui.views.story import StoryView
from fastscreen.tui.views.warnings import WarningsView

VIEWS: tuple[type[View], ...] = (
    OverviewView,
    ConnectionsView,
    StoryView,
    EventsView,
    DnsblView,
    ClientsView,
    CacheView,
    WarningsView,
    ClusterView,
    HeatView,
    NetworksView,
)
KEYS = "1234567890w"


def key_of(at: int) -> str:
    """The key of a screen: a digit, or a letter when there is no digit left."""
    return KEYS[at]
