"""What of `fleet` a release has to contain: exactly the modules that the agent's own imports reach.

A list kept by hand would drift with each move of a file. The imports are read from the source, not by importing,
so that building a release loads nothing of what goes into it. Imports inside functions count: the agent may come to
them late. Imports for type checkers alone do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def sources(root: Path, beside: tuple[str, ...] = ()) -> tuple[Path, ...]:
    """The files of a release below `root` (the folder that holds `agent` and `fleet`), relative to it, sorted.

    Everything of `agent`, and of `fleet` the modules it reaches, directly or through one another, and those that the
    modules `beside` it are and reach.
    """
    agent = [path.relative_to(root) for path in (root / "agent").rglob("*") if _is_source(path)]
    waiting = [module for path in agent if path.suffix == ".py" for module in _imports(root, path)]
    waiting += [module for name in beside for module in _with_parents(name)]
    reached: dict[str, Path] = {}
    while waiting:
        module = waiting.pop()
        path = None if module in reached else _find(root, module)
        if path is not None:
            reached[module] = path
            waiting += _imports(root, path)
    return tuple(sorted({*agent, *reached.values()}))


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _find(root: Path, module: str) -> Path | None:
    """The file of a module of `fleet`; None for what is no module (a name inside one) or not ours."""
    if module.split(".")[0] != "fleet":
        return None
    base = Path(*module.split("."))
    candidates = (base / "__init__.py", base.with_suffix(".py"))
    return next((path for path in candidates if (root / path).is_file()), None)


def _imports(root: Path, path: Path) -> list[str]:
    """The absolute names that a file imports, with their parents: importing `a.b.c` runs `a` and `a.b` first."""
    package = path.parent.parts
    names = [name for node in _at_run_time(ast.parse((root / path).read_bytes())) for name in _named(node, package)]
    return [module for name in names for module in _with_parents(name)]


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those below `if TYPE_CHECKING:`."""
    yield node
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        children: Iterator[ast.AST] = iter(node.orelse)
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from _at_run_time(child)


def _named(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            base = package[: len(package) - level + 1] if level else ()
            origin = ".".join((*base, module) if module else base)
            return [f"{origin}.{alias.name}" for alias in names]
        case _:
            return []
