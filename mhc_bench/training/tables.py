"""CSV tables that grow while a run goes on and are cut back to the step that it resumes from."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from mhc_bench.files import write_text

Cell = str | int | float | None


class Table:
    """A CSV file whose first column is `step`; a row lacks a value as an empty cell."""

    def __init__(self, path: Path, columns: Sequence[str], resumed_step: int) -> None:
        """Open for appending without the rows after `resumed_step` and a half-written one; 0 starts anew."""
        kept = _rows_until(path, columns, resumed_step) if resumed_step else []
        write_text(path, _csv_text([columns, *kept]))
        self._columns = list(columns)
        self._handle = path.open("a", encoding="utf-8", newline="")
        self._writer = csv.writer(self._handle, lineterminator="\n")

    def write(self, rows: Iterable[Mapping[str, Cell]]) -> None:
        """Append rows; they are on disk (of the operating system) afterwards.

        Raises:
            ValueError: a value for a column that the table does not have.
        """
        for row in rows:
            if unknown := set(row) - set(self._columns):
                raise ValueError(f"no column {sorted(unknown)[0]!r} in {self._columns}")
            self._writer.writerow([_cell(row.get(name)) for name in self._columns])
        self._handle.flush()

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.8g}" if math.isfinite(value) else str(value)
    return str(value)


def _rows_until(path: Path, columns: Sequence[str], step: int) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.reader(handle))
    if not rows or rows[0] != list(columns):
        return []
    whole = (row for row in rows[1:] if len(row) == len(columns) and row[0].isdigit())
    return [row for row in whole if int(row[0]) <= step]


def _csv_text(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
