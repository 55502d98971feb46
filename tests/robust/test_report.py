"""fastscreen report on a large log, compared with a simple count of lines, and its page in a real browser."""

import functools
import html
import http.server
import json
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from peers import needs

from bench.micro.maillog import rfc3339, write
from fastscreen.cli.report import read
from fastscreen.report.page import as_page
from fastscreen.report.summary import Named, Summary, summarize
from fastscreen.report.tally import Tally
from fastscreen.report.what_if import Settings, rejudge, settings_of

SIZE = 100_000_000
SCREENER = r" mx1 postfix/postscreen\[[0-9]+\]: "
SCRIPT = "</style></script><script>alert(1)</script><img src=x onerror=alert(1)>"
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("report") / "mail.log"
    write(path, SIZE)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def found(log: Path) -> Summary:
    return made_of(log)


def made_of(log: Path) -> Summary:
    tally = Tally()
    read([str(log)], tally)
    settings = settings_of(["threshold=4", "site=zen.example*2", "site=bl2.example*2", "site=x.example"], Settings())
    return summarize(tally, host="mx1.example.com", period="2026-11-30", what_if=rejudge(tally, settings))


def test_totals_equal_a_plain_count(log: Path, found: Summary) -> None:
    """Counted in the plainest way there is, line by line, by how the text begins."""
    begins = {
        "connect": ("CONNECT from ",),
        "disconnect": ("DISCONNECT ",),
        "pass_new": ("PASS NEW ",),
        "pass_old": ("PASS OLD ",),
        "allowlisted": ("ALLOWLISTED ",),
        "denylisted": ("DENYLISTED ",),
        "pregreet": ("PREGREET ",),
        "dnsbl": ("DNSBL rank ",),
        "pipelining": ("COMMAND PIPELINING ",),
        "non_smtp_command": ("NON-SMTP COMMAND ",),
        "bare_newline": ("BARE NEWLINE ",),
        "count_limit": ("COMMAND COUNT LIMIT ",),
        "hangup": ("HANGUP ",),
        "reject_rcpt": ("NOQUEUE: reject: RCPT ",),
        "reject_connect": ("NOQUEUE: reject: CONNECT ",),
        "continue": ("CONTINUE ",),
        "stress": ("entering STRESS ", "leaving STRESS "),
        "cleanup": ("cache ",),
        "warning": ("warning: ",),
    }
    kind_of = {text: kind for kind, texts in begins.items() for text in texts}
    counted = dict.fromkeys(begins, 0) | {"listed": 0, "tls_connect": 0}
    clients: set[str] = set()
    lists: dict[str, set[str]] = {}
    lines = 0
    with log.open(encoding="ascii") as file:
        for line in file:
            lines += 1
            program, _, text = line[20:].partition(": ")
            if program.startswith("postfix/postscreen["):
                kind = next(kind for begin, kind in kind_of.items() if text.startswith(begin))
                counted[kind] += 1
                if kind == "connect":
                    clients.add(text.split("[", 1)[1].split("]", 1)[0])
            elif program.startswith("postfix/dnsblog["):
                counted["listed"] += 1
                words = text.split()
                lists.setdefault(words[5], set()).add(words[1])
            elif program.startswith("postfix/tlsproxy["):
                counted["tls_connect"] += 1
    assert found.lines == lines
    assert {kind: count for kind, count in found.totals.items() if count} == {k: n for k, n in counted.items() if n}
    assert all(counted[kind] for kind in counted)
    assert found.clients == len(clients)
    assert {each.name: each.clients for each in found.lists} == {name: len(known) for name, known in lists.items()}
    for each in found.lists:
        others = set().union(*(known for name, known in lists.items() if name != each.name))
        assert each.alone == len(lists[each.name] - others)
        assert each.with_others == {
            name: both for name in lists if name != each.name and (both := len(lists[name] & lists[each.name]))
        }


def test_grep_counts_the_same(log: Path, found: Summary) -> None:
    for kind, text in (
        ("connect", "CONNECT from "),
        ("dnsbl", "DNSBL rank "),
        ("reject_rcpt", "NOQUEUE: reject: RCPT "),
    ):
        command = ["grep", "-cE", f"^.{{15}}{SCREENER}{text}", str(log)]
        counted = subprocess.run(command, env={"LC_ALL": "C"}, capture_output=True, text=True, check=True).stdout
        assert found.totals[kind] == int(counted)


def test_every_session_became_something(found: Summary) -> None:
    parts = ("handed", "not taken", "away", "refused", "hung up", "left", "open")
    assert sum(found.outcomes[part] for part in parts) == found.totals["connect"]
    assert sum(found.refusals.values()) == found.outcomes["refused"]
    assert sum(hour.connections for hour in found.hours) == found.totals["connect"]
    assert sum(hour.handed for hour in found.hours) == found.outcomes["handed"]
    assert sum(sum(hour.turned.values()) for hour in found.hours) == found.outcomes["refused"] + found.outcomes["away"]
    away = found.away
    assert away.back + away.neighbour + away.elsewhere + away.never == away.times
    assert min(away.back, away.neighbour, away.elsewhere, away.never) > 0
    assert sum(span.count for span in away.delays) == away.back
    assert sum(each.total for each in found.rejects) == found.totals["reject_rcpt"]
    assert found.what_if is not None
    judged = found.what_if
    assert judged.still + judged.no_longer + judged.unknown == found.totals["dnsbl"]


def test_other_stamps_say_the_same(tmp_path: Path) -> None:
    """The same sessions in two forms of a log; the sizes differ, so it is the lines that are compared."""
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, 3_000_000)
    write(two, 4_000_000, stamp=rfc3339)
    lines = min(path.read_bytes().count(b"\n") for path in (one, two))
    for path in (one, two):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))
    summaries = [msgspec.structs.replace(made_of(path), first=0, last=0, suspects=(), hours=()) for path in (one, two)]
    assert msgspec.structs.replace(summaries[0], days=()) == msgspec.structs.replace(summaries[1], days=())


def test_a_bar_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    """script(1) gives it a terminal; without one nothing is written to standard error."""
    log = tmp_path / "log"
    write(log, 3_000_000)
    program = (
        "from fastscreen.cli import main, report; import sys; report.MIN_PROGRESS = 1; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "report", str(log), "--json"]
    silent = subprocess.run(command, capture_output=True, text=True, check=True)
    assert silent.stderr == ""
    assert json.loads(silent.stdout)["clients"] > 1000
    shown = tmp_path / "shown"
    wrapped = [needs.program("script"), "-qec", f"{shlex.join(command)} > /dev/null", str(shown)]
    subprocess.run(wrapped, capture_output=True, check=True, env={"TERM": "xterm", "PATH": "/usr/bin:/bin"})
    assert "reading" in shown.read_text(errors="replace")


# ---- the page


class Pages(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and keeps what was asked for."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *words: object) -> None:
        """Silence."""


@pytest.fixture
def hostile(found: Summary) -> Summary:
    """A report of a large log, with what could do harm in every place for text, and fewer tests by hour."""
    named = (Named(SCRIPT, 7), Named("a" * 3000, 5), Named("\\r\\n", 1))
    hours = tuple(
        msgspec.structs.replace(hour, turned={test: hour.turned.get(test, 0) for test in ("dnsbl", "pregreet", "x")})
        for hour in found.hours
    )
    lists = (msgspec.structs.replace(found.lists[0], name=SCRIPT), *found.lists[1:])
    rejects = tuple(msgspec.structs.replace(each, reply=each.reply + SCRIPT) for each in found.rejects)
    return msgspec.structs.replace(
        found,
        host=f"mx1{SCRIPT}",
        senders=named,
        recipients=named,
        said={"pregreet": named},
        warnings=named,
        hours=hours,
        lists=lists,
        rejects=rejects,
        shadow_replies=named,
    )


def test_the_page_in_a_browser(found: Summary, hostile: Summary, tmp_path: Path) -> None:
    """It is drawn whole at two widths: nothing on the console, nothing asked for, nothing wider than the window."""
    pages = {"plain": found, "hostile": hostile, "empty": summarize(Tally(), host="mx1", period="")}
    for name, summary in pages.items():
        (tmp_path / f"{name}.html").write_text(as_page(summary), encoding="utf-8")
    frames = [(name, width) for name in pages for width in WIDTHS]
    inside = "".join(f'<iframe src="{name}.html" style="width:{width}px"></iframe>' for name, width in frames)
    (tmp_path / "frames.html").write_text(FRAMES.replace("FRAMES", inside), encoding="utf-8")
    Pages.asked.clear()
    handler = functools.partial(Pages, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            looked = look(f"http://127.0.0.1:{server.server_address[1]}/frames.html", tmp_path)
        finally:
            server.shutdown()
    assert len(looked) == len(frames)
    for (name, width), drawn in zip(frames, looked, strict=True):
        charts = 0 if name == "empty" else 6
        nothing = {"wide": [], "unpainted": 0, "crowded": 0, "scripts": 0, "images": 0}
        assert drawn == {"width": width, "charts": charts, "painted": charts > 0, **nothing}
    assert set(Pages.asked) - {"/favicon.ico"} == {f"/{name}.html" for name in ("frames", *pages)}


# Looks at pages in frames of the widths that are wanted. What is wider may only be so inside of what scrolls.
FRAMES = """<!DOCTYPE html><title>frames</title><style>iframe{height:900px;border:0}</style>FRAMES
<pre id="looked"></pre>
<script>onload = () => {
  document.getElementById("looked").textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, width = frame.contentWindow.innerWidth;
    const wide = [...page.querySelectorAll("body *")].filter(
      each => each.getBoundingClientRect().right > width + 1 && !each.closest(".scroll, svg"));
    if (page.documentElement.scrollWidth > width) wide.push(page.documentElement);
    const bars = [...page.querySelectorAll("svg .bar rect")];
    const fills = bars.map(each => frame.contentWindow.getComputedStyle(each).fill);
    const words = [...page.querySelectorAll("svg .legends text")].map(
      each => [each.getBoundingClientRect(), each.closest("svg").getBoundingClientRect()]);
    const crowded = words.filter(([one, whole]) => one.right > whole.right || one.bottom > whole.bottom ||
      words.some(([other]) => other !== one && one.left < other.right && other.left < one.right &&
        one.top < other.bottom && other.top < one.bottom)).length;
    return {
      crowded, width, wide: wide.map(each => each.tagName + "." + each.className),
      charts: page.querySelectorAll("svg").length,
      painted: fills.length > 0, unpainted: fills.filter(each => each === "rgb(0, 0, 0)").length,
      scripts: page.querySelectorAll("script").length, images: page.querySelectorAll("img").length};
  }));
}</script>"""


def look(address: str, folder: Path) -> list[dict[str, object]]:
    """Have the browser draw FRAMES; return what that found. Anything on the console is a failure."""
    command = [needs.program("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--dump-dom", f"--user-data-dir={folder}/profile", "--window-size=1400,1000", address]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in drawn.stderr.splitlines() if "CONSOLE" in line] == []
    text = drawn.stdout.partition('<pre id="looked">')[2].partition("</pre>")[0]
    return list(json.loads(html.unescape(text)))
