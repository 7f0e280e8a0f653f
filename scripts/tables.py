"""Markdown tables and sections, as the reference pages use them."""

from __future__ import annotations

from collections.abc import Iterable


def section(title: str, text: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], level: int = 2) -> str:
    """A heading, a paragraph (left out when empty) and a table."""
    lines = ["#" * level + f" {title}", ""]
    if text:
        lines += [text, ""]
    lines += [_row(heads), _row(tuple("---" for _ in heads)), *(_row(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
