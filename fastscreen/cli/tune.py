"""fastscreen tune: what other settings would have done to recorded sessions."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from fastscreen.cli import COMMANDS
from fastscreen.cli.control_socket import USUAL_FILE
from fastscreen.cli.problems import print_problems
from fastscreen.config import ConfigError
from fastscreen.config.kinds import Time
from fastscreen.config.model import Action, Config
from fastscreen.core import SCORERS
from fastscreen.escaping import printable
from fastscreen.history import times
from fastscreen.history.archive import Archive, ArchiveError
from fastscreen.history.filter import END
from fastscreen.history.settings import HistorySettings
from fastscreen.offenses.rules import load_as_file
from fastscreen.tables import TableError
from fastscreen.tune import foreign, labeled, text
from fastscreen.tune.foreign import ForeignError
from fastscreen.tune.judging import WHOLE, ends, judge
from fastscreen.tune.labeled import Judged, MemorySettings, Player
from fastscreen.tune.settings import NO_FILE, Tried, site_text, tried
from fastscreen.tune.suggest import Share, Weights, sample, suggest, with_margin

EXAMPLES = """\
examples:
  fastscreen tune                                      the settings in force: nothing changes
  fastscreen tune --since 2026-11-01 --set dnsbl.threshold=4
  fastscreen tune --set "dnsbl.sites+=bl2.example*2" --set score.helo_address=1
  fastscreen tune --with /etc/fastscreen/next.toml --json
  fastscreen tune --suggest --max-collateral 0.1%
  fastscreen tune --sessions labeled.jsonl --suggest

Nothing is changed: tune only prints (docs/tune.md).

exit codes: 0 success, 1 the history (or a part) or the sessions cannot be read, 2 wrong usage or configuration
"""

_MIN_PROGRESS = 200_000  # sessions from which a progress bar is shown on a terminal
_EXAMPLES = 10
_MICROSECONDS = 1_000_000
_DAY = 86400
_LINE = 100  # bytes, about
_MEMORY = "/var/lib/fastscreen/offenses"
_AS_FILE = "/var/lib/fastscreen/as.csv"
_SEEN = ("seen_address", "seen_network", "seen_as")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "tune",
        help=COMMANDS["tune"],
        description="Judge recorded sessions by other settings, and compare the results with what happened.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        help=f"configuration with the settings in force and history.path (default: {USUAL_FILE}; if it is missing, the "
        "newest settings in the history)",
    )
    parser.add_argument("--path", metavar="FOLDER", type=Path, help="the folder of the history (default: history.path)")
    parser.add_argument("--since", metavar="TIME", default="", help="only sessions that ended from this time on")
    parser.add_argument("--until", metavar="TIME", default="", help="only sessions that ended before this time")
    parser.add_argument(
        "--set",
        dest="changes",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="another value of a key, as in the configuration; dnsbl.sites also takes += and -=; may be repeated",
    )
    parser.add_argument("--with", dest="other", metavar="FILE", type=Path, help="the configuration to judge by")
    parser.add_argument(
        "--sessions", metavar="FILE", type=Path, help="judge labeled sessions instead, one JSON object per line"
    )
    parser.add_argument(
        "--feedback-delay",
        metavar="TIME",
        type=_delay,
        default=labeled.DELAY,
        help="with --sessions: how long after a session the memory of offenses learns its label (default: 1h)",
    )
    parser.add_argument("--suggest", action="store_true", help="search weights of lists and scorers, and a threshold")
    parser.add_argument(
        "--max-collateral",
        metavar="SHARE",
        type=_share,
        default=0.001,
        help="with --suggest, the share of good clients that may be rejected, such as 0.1%% (default)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge, print, and return the exit code."""
    try:
        since, until = _moment("--since", arguments.since, 0), _moment("--until", arguments.until, END)
        if since >= until:
            raise ValueError("--since is not before --until")
        return _foreign(arguments, since, until) if arguments.sessions else _history(arguments, since, until)
    except (ArchiveError, ForeignError) as error:
        print(f"fastscreen: {error}", file=sys.stderr)
        return 1
    except (ConfigError, TableError, ValueError) as error:
        print_problems(error)
        return 2
    except MemoryError as error:
        print(f"fastscreen: out of memory: {error or 'choose a shorter period'}", file=sys.stderr)
        return 1


# ---- the history


def _history(arguments: argparse.Namespace, since: int, until: int) -> int:
    warnings: list[str] = []
    archive = Archive(_folder(arguments), lambda line: _missing(line, warnings))
    recorded = archive.all_settings()
    period = ends(archive, since, until)
    if period is None or not recorded:
        raise ArchiveError(f"{printable(str(archive.folder))}: no sessions in this period")
    settings = tried(_base(arguments, recorded), arguments.other, arguments.changes)
    _note_unjudged(settings)
    _note_shadow(settings.config)
    if arguments.suggest:
        _suggest(arguments, archive, period, settings, warnings)
    else:
        _compare(arguments, archive, period, settings, warnings)
    return 1 if warnings else 0


def _compare(
    arguments: argparse.Namespace, archive: Archive, period: tuple[int, int], settings: Tried, warnings: list[str]
) -> None:
    """Judge all of the period, and print what happened and what would have."""
    with _progress(archive.count(*period), "judging") as advance:
        found = judge(archive, *period, settings.settings, settings.hostname, advance, mask=_mask(settings))
    examples = {what: found.examples(what, _EXAMPLES) for what in ("collateral", "missed", "saved")}
    summary = found.summary() | {"memory": found.memory()}
    if arguments.json:
        _print_json(
            {"period": _period(period), "settings": _settings(settings), "warnings": warnings}
            | _plain(summary, examples)
        )
        return
    counts = f"{text.number(summary['sessions'])} sessions of {text.number(summary['clients'])} clients"
    print(f"{text.span(*period)}: {counts}")
    _print_lines(text.changes(settings), text.summary(summary, examples))


def _suggest(
    arguments: argparse.Namespace, archive: Archive, period: tuple[int, int], settings: Tried, warnings: list[str]
) -> None:
    """Search on the first two thirds of the time, and judge the last third."""
    at = period[0] + (period[1] - period[0]) * 2 // 3
    before = labeled.weights_of(settings.config)
    sites = len(settings.config.dnsbl.sites)
    first, last = (period[0], at), (at, period[1])
    mask = _mask(settings)
    # Which clients there are, and what they showed, does not depend on the suggestion.
    samples = []
    for part in (first, last):
        with _progress(archive.count(*part), "collecting") as advance:
            found = judge(archive, *part, settings.settings, settings.hostname, advance, collecting=True, mask=mask)
        samples.append(sample(sites, len(SCORERS), *found.collected()))
    learned, held = samples
    capped = labeled.neighbors(len(before.weights))
    after = suggest(learned, before, with_margin(arguments.max_collateral, learned.good), capped=capped)
    suggested = _with_weights(settings, after)
    with _progress(archive.count(*last), "judging") as advance:
        found = judge(archive, *last, suggested.settings, suggested.hostname, advance, mask=mask)
    rows = [
        (name, each.share(before), each.share(after))
        for name, each in (("first two thirds", learned), ("last third", held))
    ]
    summary = found.summary()
    examples = {what: found.examples(what, _EXAMPLES) for what in ("collateral", "missed", "saved")}
    toml = _toml(settings.config, after)
    if arguments.json:
        _print_json(
            {"period": _period(period), "split": at / _MICROSECONDS, "settings": _settings(settings)}
            | {"warnings": warnings, "suggestion": _suggestion(settings, after, rows, toml)}
            | _plain(summary, examples)
        )
        return
    print(f"{text.span(*period)}; the last third begins {text.span(at, at).partition(' to ')[0]}")
    _print_lines(
        text.changes(settings),
        text.suggestion(after == before, toml, rows, _before(settings)),
        ["", "The last third with the suggestion"],
        text.summary(summary, examples),
    )


def _before(settings: Tried) -> str:
    """What the weights are that a suggestion is compared with."""
    return "tried" if settings.changed else "in force"


def _with_weights(settings: Tried, found: Weights) -> Tried:
    """The settings with other weights."""
    lists = len(settings.settings.sites)
    sites = tuple(
        msgspec.structs.replace(site, weight=weight)
        for site, weight in zip(settings.settings.sites, found.weights, strict=False)
    )
    scorers = {
        scorer.key: weight
        for scorer, weight in zip(SCORERS[1:], found.weights[lists:], strict=True)
        if weight
    }  # fmt: skip
    tests = dict(settings.settings.tests)
    if not (settings.settings.shadow and not settings.settings.continues):
        tests["score"] = msgspec.structs.replace(tests["score"], enabled=bool(scorers))
    changed = msgspec.structs.replace(
        settings.settings, sites=sites, weights=scorers, threshold=found.threshold, tests=tests
    )
    return msgspec.structs.replace(settings, settings=changed)


def _toml(config: Config, found: Weights, memory: MemorySettings | None = None) -> list[str]:
    """The suggested keys, as for the configuration. memory: None: as it is."""
    lists = len(config.dnsbl.sites)
    sites = [
        site_text(msgspec.structs.replace(site, weight=weight))
        for site, weight in zip(config.dnsbl.sites, found.weights, strict=False)
    ]
    lines = ["[dnsbl]", f"threshold = {found.threshold}"]
    if sites:
        lines += ["sites = [", *(f"    {json.dumps(site)}," for site in sites), "]"]
    scorers = [
        f"{scorer.key} = {weight}"
        for scorer, weight in zip(SCORERS[1:], found.weights[lists:], strict=True)
        if weight or config.weights[scorer.key]
    ]
    keys = _memory_toml(config, found, memory) if memory is not None else []
    return [*lines, "", "[score]", *scorers, *keys] if scorers or keys else lines


def _memory_toml(config: Config, found: Weights, memory: MemorySettings) -> list[str]:
    """What the scorers of the memory need. The suggestion is to be a valid configuration."""
    weights = dict(zip((scorer.key for scorer in SCORERS[1:]), found.weights[len(config.dnsbl.sites) :], strict=True))
    if not any(weights[key] for key in _SEEN):
        return []
    keys = [f"memory = {json.dumps(_path(config.score.memory, _MEMORY))}"]
    if weights["seen_as"]:
        keys.append(f"as_file = {json.dumps(_path(config.score.as_file, _AS_FILE))}")
    usual = labeled.memory_of(config)
    for key in MemorySettings.__struct_fields__:
        value = getattr(memory, key)
        if value != getattr(usual, key):
            keys.append(f'{key} = "{value // _DAY}d"' if key.endswith("half_life") else f"{key} = {value}")
    return keys


def _path(configured: str, example: str) -> str:
    return configured if configured not in ("", NO_FILE) else example


# ---- foreign sessions


def _foreign(arguments: argparse.Namespace, since: int, until: int) -> int:
    settings = tried(_foreign_base(arguments), arguments.other, arguments.changes)
    config = settings.config
    _note_unjudged(settings)
    file = arguments.sessions
    table = load_as_file(config.score.as_file) if config.score.as_file not in ("", NO_FILE) else None
    size = file.stat().st_size if file.is_file() else 0
    with _progress(size, "reading", _LINE) as advance:
        read = foreign.read(file, config, table, (since / _MICROSECONDS, until / _MICROSECONDS), advance)
    for broken in read.broken:
        print(f"fastscreen: {printable(str(file))}: {foreign.told(broken)}", file=sys.stderr)
    count = len(read.sessions)
    first, last = read.sessions.time(0), read.sessions.time(count - 1)
    memory, weights = labeled.memory_of(config), labeled.weights_of(config)
    answer: dict[str, Any] = {
        "period": _period((int(first * _MICROSECONDS), int(last * _MICROSECONDS))),
        "settings": _settings(settings),
        "lines": read.lines,
        "broken": msgspec.to_builtins(read.broken),
    }
    head = [
        f"{text.span(int(first * _MICROSECONDS), int(last * _MICROSECONDS))}: {text.number(count)} sessions",
        *text.changes(settings),
    ]
    judging = labeled.Judge(config)
    with _progress(count, "playing") as advance:
        player = Player(read, memory, arguments.feedback_delay, config.score.memory_max_entries, advance)
        if not arguments.suggest:
            found = judging.judge(player.part(memory), weights)
    if not arguments.suggest:
        if arguments.json:
            _print_json(answer | {"all": _judged(found)})
        else:
            _print_lines(head, text.labeled(found))
        return 0
    at = first + (last - first) * 2 / 3
    with _progress(count, "searching", repeats=True) as advance:
        player = Player(read, memory, arguments.feedback_delay, config.score.memory_max_entries, advance)
        before = [judging.judge(player.part(memory, *part), weights) for part in ((first, at), (at, math.inf))]
        after = labeled.search(player, weights, memory, arguments.max_collateral, (first, at))
        then = [
            judging.judge(player.part(after.memory, *part), after.weights) for part in ((first, at), (at, math.inf))
        ]
    rows = [
        (name, labeled.share(old), labeled.share(new))
        for name, old, new in zip(("first two thirds", "last third"), before, then, strict=True)
    ]
    toml = _toml(config, after.weights, after.memory)
    if arguments.json:
        suggestion = _suggestion(settings, after.weights, rows, toml)
        _print_json(answer | {"split": at, "suggestion": suggestion, "last_third": _judged(then[1])})
        return 0
    same = (after.weights, after.memory) == (weights, memory)
    _print_lines(
        head,
        text.suggestion(same, toml, rows, _before(settings), "Addresses that are caught"),
        ["", "The last third with the suggestion"],
        text.labeled(then[1]),
    )
    return 0


def _foreign_base(arguments: argparse.Namespace) -> Path:
    file = arguments.config or arguments.other or USUAL_FILE
    if not file.exists():
        raise ConfigError(f"{file}: missing; --sessions needs a configuration, with -c FILE")
    return Path(file)


def _judged(found: Judged) -> dict[str, Any]:
    return {
        "sessions": {label: {"count": count, "caught": caught} for label, (count, caught) in found.sessions.items()},
        "addresses": {label: {"count": count, "caught": caught} for label, (count, caught) in found.addresses.items()},
        "shown": {
            name: {
                f"{label}_{what}": pair[at]
                for what, pair in (
                    ("sessions", each.sessions),
                    ("addresses", each.addresses),
                    ("decisive", each.decisive),
                )
                for at, label in enumerate(foreign.LABELS)
            }
            | {"both": each.both}
            for name, each in found.features.items()
        },
    }


# ---- parts


def _folder(arguments: argparse.Namespace) -> Path:
    """Where the history is. ConfigError, ValueError."""
    if arguments.path is not None:
        return Path(arguments.path)
    from fastscreen.config import load

    file = arguments.config or USUAL_FILE
    path = load(file).history.path
    if not path:
        raise ValueError(
            f"{file}: history.path is empty; expected the folder of the history, there or as --path FOLDER"
        )
    return Path(path)


def _base(arguments: argparse.Namespace, recorded: dict[int, HistorySettings]) -> Path | HistorySettings:
    """The settings in force: a configuration, or the newest in the history."""
    if arguments.config is not None:
        return Path(arguments.config)
    if arguments.path is None or USUAL_FILE.exists():
        return USUAL_FILE
    return list(recorded.values())[-1]


def _moment(option: str, value: str, default: int) -> int:
    """A time in µs since 1970. ValueError."""
    if not value:
        return default
    try:
        return times.moment(value, time.time(), later=option == "--until")
    except ValueError as error:
        raise ValueError(f"{option} {error}") from None


def _mask(settings: Tried) -> tuple[int, int]:
    """Bits of addresses that the history has, as far as a configuration says."""
    if not settings.configured:
        _warn("note: no configuration says whether addresses are cut (history.mask); they count as whole; use -c FILE")
    if settings.mask is None:
        return WHOLE
    _warn("note: history.mask is set: clients of one network count as one, and their passes cannot be told apart")
    return settings.mask


def _share(value: str) -> float:
    """`0.1%` or `0.001`."""
    number = value.removesuffix("%")
    try:
        found = float(number) / (100 if value.endswith("%") else 1)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a share; expected 0.1% or a number from 0 to 1")
    return found


def _delay(value: str) -> float:
    """`1h`."""
    try:
        return float(Time("s", least=0).parse(value))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not a time; expected 0s, 1h or 1d") from None


def _missing(line: str, warnings: list[str]) -> None:
    warnings.append(line)
    _warn(f"warning: {line}")


def _warn(line: str) -> None:
    print(f"fastscreen: {line}", file=sys.stderr)


def _note_unjudged(settings: Tried) -> None:
    if settings.unjudged:
        keys = ", ".join(settings.unjudged)
        _warn(f"note: {settings.source} also has other values of {keys}, which tune cannot judge")


def _note_shadow(config: Config) -> None:
    """The score is known, but no result follows from it."""
    if not any(config.weights.values()) or config.score.action is Action.OFF:
        return
    key = "mode" if config.shadow else "score.action"
    if config.follows(config.score.action) is Action.IGNORE:
        value = {"mode": "screen"}.get(key, "enforce")
        _warn(f"note: by {key}, the score rejects no client; add --set {key}={value} to see whom it would reject")


@contextmanager
def _progress(total: int, what: str, unit: int = 1, *, repeats: bool = False) -> Iterator[Callable[[int], None]]:
    """A progress bar, if standard error is a terminal and there is much to do. unit: of total, for a session. repeats:
    in rounds of which nobody knows how many there will be."""
    if total < _MIN_PROGRESS * unit or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        done = [0]

        def advance(count: int) -> None:
            done[0] += count
            if repeats and done[0] >= total:
                done[0] = 0
            bar.update(task, completed=done[0])

        yield advance


def _print_lines(*sections: Iterator[str] | Sequence[str]) -> None:
    for section in sections:
        for line in section:
            print(line)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2))


def _period(ends: tuple[int, int]) -> dict[str, float]:
    return {"first": ends[0] / _MICROSECONDS, "last": ends[1] / _MICROSECONDS, "printed": time.time()}


def _settings(settings: Tried) -> dict[str, Any]:
    return {
        "source": settings.source,
        "changed": {key: {"in_force": before, "tried": after} for key, before, after in settings.changed},
        "not_judged": list(settings.unjudged),
    }


def _suggestion(
    settings: Tried, found: Weights, rows: Sequence[tuple[str, Share, Share]], toml: Sequence[str]
) -> dict[str, Any]:
    return {
        "threshold": found.threshold,
        "toml": "\n".join(toml) + "\n",
        "clients": {
            name.replace(" ", "_"): {
                _before(settings).replace(" ", "_"): msgspec.to_builtins(old),
                "suggested": msgspec.to_builtins(new),
            }
            for name, old, new in rows
        },
    }


def _plain(summary: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    """The summary with names instead of tuples."""

    def counted(pair: tuple[int, int]) -> dict[str, int]:
        return {"sessions": pair[0], "clients": pair[1]}

    found = dict(summary)
    for key in ("happened", "would"):
        found[key] = {result: counted(pair) for result, pair in summary[key].items()}
    found["moved"] = [
        {"happened": before, "would": after, "sessions": count} for (before, after), count in summary["moved"].items()
    ]
    found["collateral"] = {
        when: {key: counted(each) if isinstance(each, tuple) else each for key, each in counts.items()}
        for when, counts in summary["collateral"].items()
    }
    found["cannot_be_judged"] = found.pop("reasons")
    found["examples"] = {
        what: [{"client": _address(address), "kinds": kinds} for address, kinds in clients]
        for what, clients in examples.items()
    }
    return found


def _address(packed: bytes) -> str:
    import ipaddress

    return str(ipaddress.ip_address(packed))
