"""Results for people: a table on standard output, the same rows as JSON for machines."""

from __future__ import annotations

import json
from pathlib import Path


def show(columns: list[str], rows: list[list[object]]) -> str:
    """Aligned columns, numbers to the right."""
    text = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in [columns, *text]) for at in range(len(columns))]
    right = [bool(rows) and all(isinstance(row[at], (int, float)) for row in rows) for at in range(len(columns))]

    def line(row: list[str]) -> str:
        cells = (cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in zip(row, widths, right))
        return "  ".join(cells).rstrip()

    return "\n".join([line(columns), *(line(row) for row in text)])


def markdown(columns: list[str], rows: list[list[object]]) -> str:
    """The same for a page."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def keep(file: Path, columns: list[str], rows: list[list[object]]) -> None:
    """As JSON: a list of objects, one a row."""
    file.write_text(json.dumps([dict(zip(columns, row)) for row in rows], indent=1) + "\n")
