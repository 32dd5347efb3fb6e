"""The matrix of checks and clients, and the page that holds it: docs/reference/clients.md."""

import re
from dataclasses import dataclass, field
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "clients.md"
YES, NO = "yes", "no"
# Rows whose values depend on the machine: printed, and not compared.
SECONDS_ROW = "Seconds from `curl … \\| python3 -` to the first result of a tool"
WAKE_SECONDS_ROW = "… seconds from a post to the model's request, with an empty inbox and with an old post"
_BEGIN = "<!-- matrix: begin -->"
_END = "<!-- matrix: end -->"
_CELL_SEPARATOR = re.compile(r"(?<!\\)\|")
_NOTE = re.compile(r"(\d+)\. (.*)")
_NOTE_REFERENCE = re.compile(r" \((\d+)\)$")
# Sizes change by a few bytes with port numbers and names.
_SIZE = re.compile(r"\d+\.\d KB")
_SIZE_TOLERANCE = 0.15


@dataclass(frozen=True)
class Cell:
    """A value of the matrix, and the reason or remark that belongs to it."""

    value: str
    note: str | None = None


@dataclass
class Matrix:
    """Cells by row and client, in the order of the page."""

    clients: list[str]
    rows: dict[str, dict[str, Cell]] = field(default_factory=dict)

    def set(self, row: str, client: str, cell: Cell) -> None:
        self.rows.setdefault(row, {})[client] = cell

    def format(self) -> str:
        """Format the matrix as a table with numbered notes."""
        notes: list[str] = []
        lines = [["", *self.clients]]
        for row, cells in self.rows.items():
            lines.append([row, *(_format_cell(cells.get(client), notes) for client in self.clients)])
        table = [f"| {' | '.join(line)} |" for line in lines]
        table.insert(1, f"|{'---|' * (len(self.clients) + 1)}")
        listed = [f"{number}. {note}" for number, note in enumerate(notes, 1)]
        return "\n".join([*table, *(["", *listed] if listed else [])]) + "\n"

    def find_differences(self, other: "Matrix") -> list[str]:
        """Describe where `other`, that of the page, differs; clients that this matrix lacks are left out."""
        differences = []
        for row in [*self.rows, *(row for row in other.rows if row not in self.rows)]:
            for client in self.clients:
                here, there = self.rows.get(row, {}).get(client), other.rows.get(row, {}).get(client)
                if not _is_equal(row, here, there):
                    differences.append(f"{client}, {row}: {_describe(here)}; the page says {_describe(there)}")
        return differences

    def find_losses(self, page: "Matrix") -> list[str]:
        """Describe what the page says a client can do and this matrix denies."""
        return [
            f"{client}: {row}"
            for row, cells in self.rows.items()
            for client, cell in cells.items()
            if cell.value == NO and page.rows.get(row, {}).get(client, cell).value != NO
        ]


def parse_matrix(text: str) -> Matrix:
    """Read what `Matrix.format` wrote."""
    lines = text.strip().splitlines()
    notes = {match[1]: match[2] for line in lines if (match := _NOTE.fullmatch(line))}
    table = [[cell.strip() for cell in _CELL_SEPARATOR.split(line)[1:-1]] for line in lines if line.startswith("|")]
    matrix = Matrix(table[0][1:])
    for row, *values in table[2:]:
        for client, value in zip(matrix.clients, values, strict=True):
            reference = _NOTE_REFERENCE.search(value)
            note = notes[reference[1]] if reference else None
            matrix.set(row, client, Cell(_NOTE_REFERENCE.sub("", value), note))
    return matrix


def read_page(text: str) -> Matrix:
    """Read the matrix of the page."""
    return parse_matrix(text.partition(_BEGIN)[2].partition(_END)[0])


def update_page(text: str, matrix: Matrix) -> str:
    """Return the page with this matrix."""
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    return f"{before}{_BEGIN}\n\n{matrix.format()}\n{_END}{after}"


def format_size(count: int) -> str:
    """Format bytes as thousands with one decimal."""
    return f"{count / 1000:.1f} KB"


def _format_cell(cell: Cell | None, notes: list[str]) -> str:
    if cell is None:
        return ""
    if cell.note is None:
        return cell.value
    if cell.note not in notes:
        notes.append(cell.note)
    return f"{cell.value} ({notes.index(cell.note) + 1})"


def _is_equal(row: str, here: Cell | None, there: Cell | None) -> bool:
    if here is None or there is None:
        return here is there
    if row in (SECONDS_ROW, WAKE_SECONDS_ROW):
        return (here.value == NO) == (there.value == NO)
    sizes = [[float(size.split()[0]) for size in _SIZE.findall(cell.value)] for cell in (here, there)]
    if sizes[0] and len(sizes[0]) == len(sizes[1]):
        return all(abs(first - second) <= _SIZE_TOLERANCE for first, second in zip(*sizes, strict=True))
    return here == there


def _describe(cell: Cell | None) -> str:
    if cell is None:
        return "nothing"
    return f"“{cell.value}”" + (f" ({cell.note})" if cell.note else "")
