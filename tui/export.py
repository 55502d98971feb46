"""A table as a file: CSV or JSON, by the ending of its name."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from pathlib import Path

from fastscreen.tui.view import Export, Value

FORMULA = ("=", "+", "-", "@")  # with one of these in front, a spreadsheet calculates


def file_name(title: str, ending: str) -> str:
    """A name that says what it is and when it was made."""
    return f"fastscreen-{title.lower()}-{datetime.now():%Y%m%d-%H%M%S}.{ending}"


def write(export: Export, name: str) -> int:
    """Write a new file; return the number of rows. Raises OSError; FileExistsError rather than writing over one."""
    path = Path(name).expanduser()
    with path.open("x", encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".json":
            rows = [dict(zip(export.columns, row, strict=True)) for row in export.rows]
            json.dump(rows, file, indent=1)
            file.write("\n")
        else:
            writer = csv.writer(file)
            writer.writerow(export.columns)
            writer.writerows([[_cell(value) for value in row] for row in export.rows])
    return len(export.rows)


def _cell(value: Value) -> Value:
    """Keep a spreadsheet from reading a client's text as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
