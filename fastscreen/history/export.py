"""Recorded sessions as files for other programs: JSON lines, CSV or Parquet (docs/history.md)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, BinaryIO

import msgspec

from fastscreen.history.fields import NAMES, cells, record
from fastscreen.history.session import Session

FORMATS = ("jsonl", "csv", "parquet")
_BATCH = 1000  # sessions that are written at once
_ROW_GROUP = 50_000  # sessions of a Parquet row group, which is kept in memory until it is written


class MissingError(Exception):
    """A package that the format needs is not installed. One line for people."""


def write(sessions: Iterable[Session], form: str, to: BinaryIO) -> int:
    """Write sessions in one of FORMATS; return their number. MissingError: nothing was written. OSError."""
    if form == "parquet":
        return _write_parquet(sessions, to)
    count = 0
    lines = _json_lines if form == "jsonl" else _csv_lines
    if form == "csv":
        to.write(csv_text([list(NAMES)]).encode())
    for batch in _batches(sessions, _BATCH):
        to.write(lines(batch))
        count += len(batch)
    return count


def json_line(session: Session) -> str:
    """A session as one line without its end."""
    return msgspec.json.encode(record(session)).decode()


def csv_text(rows: Iterable[list[str]]) -> str:
    """Lines of CSV (RFC 4180, but with LF)."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _json_lines(batch: list[Session]) -> bytes:
    return b"".join(msgspec.json.encode(record(session)) + b"\n" for session in batch)


def _csv_lines(batch: list[Session]) -> bytes:
    return csv_text(map(cells, batch)).encode()


def _batches(sessions: Iterable[Session], size: int) -> Iterator[list[Session]]:
    each = iter(sessions)
    while batch := list(islice(each, size)):
        yield batch


# ---- Parquet


def _write_parquet(sessions: Iterable[Session], to: BinaryIO) -> int:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingError(
            "--format parquet: pyarrow is missing; install it with `pip install 'fastscreen[parquet]'` or as "
            f"python3-pyarrow ({error})"
        ) from None
    schema = _schema(arrow)
    count = 0
    with parquet.ParquetWriter(to, schema, compression="zstd") as writer:
        for batch in _batches(sessions, _ROW_GROUP):
            writer.write_table(arrow.Table.from_pylist([_parquet_row(session) for session in batch], schema=schema))
            count += len(batch)
    return count


def _parquet_row(session: Session) -> dict[str, Any]:
    found = record(session)
    found["began"], found["ended"] = _timestamp(session.began), _timestamp(session.ended)
    found["parts"] = list(session.parts.items())
    return found


def _timestamp(when: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(when, UTC)
    except (OverflowError, ValueError, OSError):  # a damaged record
        return None


def _schema(arrow: Any) -> Any:
    """Times are UTC; the other fields are those of JSON."""
    text, count = arrow.string(), arrow.int32()
    time, texts = arrow.timestamp("us", tz="UTC"), arrow.list_(text)
    lists = arrow.list_(arrow.struct([("list", text), ("state", text), ("answers", texts)]))
    types = dict.fromkeys(NAMES, count)
    types |= dict.fromkeys(("address", "server", "stage", "outcome", "helo", "tls", "dialect", "syn"), text)
    types |= dict.fromkeys(("needed", "made", "found", "failed", "marks", "evidence"), texts)
    types |= {"began": time, "ended": time, "lasted": arrow.float64(), "proxied": arrow.bool_(), "lists": lists}
    types |= {"parts": arrow.map_(text, count), "settings": arrow.int64(), "weight": arrow.int64()}
    return arrow.schema([(name, types[name]) for name in NAMES])
