"""Count local names that are function words, and the sizes of files and functions.

    python scripts/benchmarks/naming.py
    python scripts/benchmarks/naming.py --root OTHER_CHECKOUT --json OUT.json
    python scripts/benchmarks/naming.py --show datasets/metrics   # every place, to rename them

A function word (`one`, `there`, `what`) says nothing about the value that it names. A binding is
a name that a function's body assigns: assignments, `for` and `with` targets, comprehensions,
`:=`, `except ... as`; `_` is left out. Parameters have a column of their own. The total is of the
library (`datasets`, `models`, `autolabel`, `viz`); scripts and tests stand below it.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import reporting

from datasets.cli.exit_codes import exit_code

LIBRARY = ("datasets", "models", "autolabel", "viz")
OUTSIDE = ("scripts", "tests")

_WORDS = {
    "pronouns": "one ones it its they them their theirs these those this that we us our ours my "
    "mine you your yours everything something nothing anything everyone",
    "determiners": "same such both each every either neither some any all none many more most "
    "much few fewer less least several enough only whole rest",
    "question words": "what which who whom whose why how when where whatever",
    "adverbs": "there here now again still already yet away ahead apart aside alone later earlier "
    "elsewhere everywhere otherwise together once twice too also else ever never soon thus",
    "prepositions": "at on of by without around since like",
    "conjunctions": "but so because although though while whether than",
    "participles": "found seen told known taken given made kept",
}
FUNCTION_WORDS = frozenset(word for words in _WORDS.values() for word in words.split())

AMBIGUOUS = {
    "left right up down above below behind beside along back over under beyond": "directions",
    "between among within into onto": "relations of two intervals or sets",
    "before after until then": "states and times of a comparison",
    "other others own": "the second operand, the object's own part",
}
"""Function words that can be the noun, and what they then name; counted apart."""
AMBIGUOUS_WORDS = frozenset(word for words in AMBIGUOUS for word in words.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A name that a function binds."""

    name: str
    path: str
    """Relative to the checkout."""
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """Names and sizes of a module."""

    path: str
    """Relative to the checkout."""
    n_lines: int
    bindings: tuple[Binding, ...]
    parameters: tuple[Binding, ...]
    functions: tuple[tuple[int, str], ...]
    """Lines and qualified name of each function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Function words among the bindings of a folder."""

    folder: str
    n_lines: int = 0
    bindings: int = 0
    function_words: int = 0
    ambiguous: int = 0
    parameters: int = 0
    function_word_parameters: int = 0

    @property
    def percent(self) -> float:
        return 100 * self.function_words / max(self.bindings, 1)

    @property
    def parameter_percent(self) -> float:
        return 100 * self.function_word_parameters / max(self.parameters, 1)


@dataclass(slots=True)
class _Visitor(ast.NodeVisitor):
    """Collects the bindings, parameters and functions of a module."""

    path: str
    depth: int = 0
    """Functions around the node; a class body inside a function starts again at 0."""
    scope: list[str] = field(default_factory=list)
    bindings: list[Binding] = field(default_factory=list)
    parameters: list[Binding] = field(default_factory=list)
    functions: list[tuple[int, str]] = field(default_factory=list)

    def _bind(self, name: str, line: int) -> None:
        if self.depth and name != "_":
            self.bindings.append(Binding(name=name, path=self.path, line=line))

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id, node.lineno)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._bind(node.name, node.lineno)
        self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> None:
        if node.arg not in ("self", "cls", "_"):
            self.parameters.append(Binding(name=node.arg, path=self.path, line=node.lineno))
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._enter(node, node.name, depth=0)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
        self.functions.append((n_lines, ".".join([*self.scope, node.name])))
        self._enter(node, node.name, depth=self.depth + 1)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._enter(node, "<lambda>", depth=self.depth + 1)

    def _enter(self, node: ast.AST, name: str, *, depth: int) -> None:
        outer, self.depth = self.depth, depth
        self.scope.append(name)
        self.generic_visit(node)
        self.scope.pop()
        self.depth = outer


def read_source(path: Path, root: Path) -> SourceFile:
    """Parse a module of the checkout at ``root``."""
    text = path.read_text()
    visitor = _Visitor(path.relative_to(root).as_posix())
    visitor.visit(ast.parse(text, filename=str(path)))
    return SourceFile(
        path=visitor.path,
        n_lines=text.count("\n"),
        bindings=tuple(visitor.bindings),
        parameters=tuple(visitor.parameters),
        functions=tuple(visitor.functions),
    )


def share_of(folder: str, sources: Iterable[SourceFile]) -> Share:
    """Share of function words among all bindings of ``sources``."""
    sources = list(sources)
    names = Counter(binding.name for source in sources for binding in source.bindings)
    parameters = Counter(binding.name for source in sources for binding in source.parameters)
    return Share(
        folder=folder,
        n_lines=sum(source.n_lines for source in sources),
        bindings=names.total(),
        function_words=sum(names[word] for word in FUNCTION_WORDS),
        ambiguous=sum(names[word] for word in AMBIGUOUS_WORDS),
        parameters=parameters.total(),
        function_word_parameters=sum(parameters[word] for word in FUNCTION_WORDS),
    )


def package_of(path: str) -> str:
    """`datasets/metrics` of a file at any depth below it; `datasets` of a file beside it."""
    return "/".join(Path(path).parts[:-1][:2])


def shares_by_package(sources: Iterable[SourceFile]) -> list[Share]:
    """One row a package, in the order of their names."""
    folders: dict[str, list[SourceFile]] = {}
    for source in sources:
        folders.setdefault(package_of(source.path), []).append(source)
    return [share_of(folder, folders[folder]) for folder in sorted(folders)]


def function_words(sources: Iterable[SourceFile]) -> dict[str, list[Binding]]:
    """Places of each function word, the most frequent first."""
    places: dict[str, list[Binding]] = {}
    for source in sources:
        for binding in source.bindings:
            if binding.name in FUNCTION_WORDS:
                places.setdefault(binding.name, []).append(binding)
    return dict(sorted(places.items(), key=lambda item: (-len(item[1]), item[0])))


def sizes(sources: list[SourceFile]) -> dict[str, object]:
    """Lines of files and functions, and modules of the fullest folder."""
    folders = Counter(Path(source.path).parent.as_posix() for source in sources)
    folder, n_modules = max(folders.items(), key=lambda item: item[1])
    longest = max(sources, key=lambda source: source.n_lines)
    n_lines, function, path = max(
        (n_lines, name, source.path) for source in sources for n_lines, name in source.functions
    )
    return {
        "files": len(sources),
        "lines": sum(source.n_lines for source in sources),
        "most_modules_in_a_folder": {"folder": folder, "modules": n_modules},
        "median_file_lines": statistics.median(source.n_lines for source in sources),
        "longest_file": {"path": longest.path, "lines": longest.n_lines},
        "longest_function": {"path": path, "function": function, "lines": n_lines},
    }


def _rows(shares: Iterable[Share]) -> Iterator[str]:
    yield "| folder | lines | bindings | function words | share | ambiguous | of parameters |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for share in shares:
        yield (
            f"| {share.folder} | {share.n_lines:,} | {share.bindings:,} | {share.function_words} "
            f"| {share.percent:.2f} % | {share.ambiguous} | {share.parameter_percent:.2f} % |"
        )


def _as_json(share: Share) -> dict[str, object]:
    names = (name for name in Share.__slots__ if name != "folder")
    return {name: getattr(share, name) for name in names} | {"percent": round(share.percent, 3)}


def main() -> int:
    parser = reporting.parser(__doc__, json=True)
    add = parser.add_argument
    add("--root", type=Path, default=Path(__file__).resolve().parents[2], help="checkout to read")
    add("--top", type=int, default=20, help="names to list, with three places each")
    add("--show", metavar="FOLDER", help="list every function word below this folder instead")
    args = parser.parse_args()

    read = {
        room: [read_source(path, args.root) for path in sorted((args.root / room).rglob("*.py"))]
        for room in (*LIBRARY, *OUTSIDE)
    }
    library = [source for room in LIBRARY for source in read[room]]
    if args.show:
        folder = args.show.rstrip("/")
        files = [source for sources in read.values() for source in sources]
        chosen = [s for s in files if s.path == folder or s.path.startswith(folder + "/")]
        for name, places in function_words(chosen).items():
            print(f"{name}: {' '.join(f'{b.path}:{b.line}' for b in places)}")
        print(*_rows([share_of(folder, chosen)]), sep="\n")
        return 0

    packages = shares_by_package(library)
    rooms = {room: share_of(room, sources) for room, sources in read.items()}
    total = share_of("library", library)
    print(*_rows([*packages, total, *(rooms[room] for room in OUTSIDE)]), sep="\n")
    print("\n| name | times | places |\n|---|---:|---|")
    words = function_words(library)
    for name, places in list(words.items())[: args.top]:
        print(f"| {name} | {len(places)} | {', '.join(f'{b.path}:{b.line}' for b in places[:3])} |")
    size = sizes(library)
    print("\n| library | |\n|---|---|")
    for name, value in size.items():
        text = " ".join(map(str, value.values())) if isinstance(value, dict) else value
        print(f"| {name.replace('_', ' ')} | {text} |")
    figures = {
        "library": _as_json(total) | {"sizes": size},
        "rooms": {room: _as_json(share) for room, share in rooms.items()},
        "packages": {share.folder: _as_json(share) for share in packages},
        "names": {name: len(places) for name, places in words.items()},
    }
    reporting.write_figures(figures, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
