"""Imports only go down, and `import fpemu` costs nothing it does not need."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Every module of fpemu stands here, by itself or through its subpackage ("backends.*").
# `fpemu` is the facade: it re-exports the layers up to 2, so only what lies above may import it.
LAYERS: dict[int, tuple[str, ...]] = {
    0: (
        "algebra",
        "tiles",
        "codebooks",
        "table_format",
        "scales",
        "gaussian_clip",
        "blocks",
        "block_reference",
        "block_lowering",
        "block_presets",
        "casts",
        "catalog",
        "choices",
        "compare",
        "contract",
        "describe",
        "formats",
        "grids",
        "keys",
        "ladder",
        "lowering",
        "numerals",
        "philox",
        "policy",
        "qsnr",
        "reference",
        "rounding",
        "spans",
        "tables",
        "values",
    ),
    1: ("backends.*", "gaussian"),
    2: (
        "arrays",
        "atomic",
        "files",
        "interop",
        "layouts",
        "storage",
        "table_blocks",
        "table_arrays",
        "table_plans",
        "scale_search",
        "quantized",
        "flushing",
        "block_arrays",
        "block_imitations",
        "arguments",
        "distances",
        "dtypes",
        "integers",
        "metrics",
        "noise",
        "packing",
        "testing.*",
        "transforms",
        "ulps",
    ),
    3: ("fpemu", "torch.*"),
    4: ("__main__", "cli.*", "plots"),
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}
OPTIONAL = ("numba", "torch", "typer", "rich", "matplotlib", "safetensors", "hypothesis", "scipy")


class Import(NamedTuple):
    """`target` is a module of fpemu, or the top-level package of another distribution."""

    target: str
    line: int
    at_module_level: bool
    for_types_only: bool


def layer(module: str) -> int:
    name = module.removeprefix("fpemu.")
    for entry in (name, name.split(".")[0] + ".*"):
        if entry in LAYER_OF:
            return LAYER_OF[entry]
    raise LookupError(f"{module} stands in no layer of LAYERS")


def sources() -> dict[str, str]:
    found = {}
    for path in sorted((ROOT / "fpemu").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


def imports(module: str, modules: dict[str, str]) -> Iterator[Import]:
    """Every import statement, and every import_module or __import__ of a literal name."""
    is_package = any(other.startswith(module + ".") for other in modules)
    package = module if is_package else module.rpartition(".")[0]

    def visit(node: ast.AST, outer: bool, types: bool) -> Iterator[Import]:
        for target in targets(node):
            yield Import(target, node.lineno, outer, types)  # type: ignore[attr-defined]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            outer = False
        for child in ast.iter_child_nodes(node):
            guarded = isinstance(node, ast.If) and child in node.body and _is_type_guard(node.test)
            yield from visit(child, outer, types or guarded)

    def targets(node: ast.AST) -> Iterator[str]:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield owner(alias.name)
            case ast.ImportFrom(module=source, names=names, level=level):
                base = source or ""
                if level:
                    kept = package.split(".")[: len(package.split(".")) - level + 1]
                    base = ".".join((*kept, source)) if source else ".".join(kept)
                for alias in names:
                    yield owner(f"{base}.{alias.name}")
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
                called = function.attr if isinstance(function, ast.Attribute) else function
                called = called.id if isinstance(called, ast.Name) else called
                if called in ("import_module", "__import__"):
                    yield owner(name)

    def owner(dotted: str) -> str:
        """The module that a dotted name is, or is an attribute of."""
        if dotted.split(".")[0] != "fpemu":
            return dotted.split(".")[0]
        while dotted != "fpemu" and dotted not in modules:
            dotted = dotted.rpartition(".")[0]
        return dotted

    yield from visit(ast.parse(modules[module]), True, False)


def _is_type_guard(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def violations(modules: dict[str, str]) -> list[str]:
    """One line for each import that goes up, leaves the standard library in layer 0, or that
    makes the facade load more than layer 0 at once."""
    found = []
    for module in modules:
        for each in imports(module, modules):
            ours = each.target.split(".")[0] == "fpemu"
            if ours:
                eager = module == "fpemu" and each.at_module_level and not each.for_types_only
                allowed = layer(each.target) <= (0 if eager else layer(module))
            else:
                allowed = layer(module) > 0 or each.target in sys.stdlib_module_names
            if not allowed:
                found.append(f"{module}:{each.line} imports {each.target}")
    return found


def cycle(modules: dict[str, str]) -> list[str]:
    """A ring of modules of one layer that import each other as they load; empty if none."""
    graph: dict[str, set[str]] = {}
    for module in modules:
        graph[module] = {
            each.target
            for each in imports(module, modules)
            if each.at_module_level and not each.for_types_only
            if each.target in modules and each.target != module
            if layer(each.target) == layer(module)
        }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", sources())
def test_every_module_has_a_layer(module: str) -> None:
    assert layer(module) in LAYERS


def test_every_import_goes_down() -> None:
    assert violations(sources()) == []


def test_no_module_level_cycle_within_a_layer() -> None:
    assert cycle(sources()) == []


@pytest.mark.parametrize(
    ("module", "source", "line"),
    [
        ("fpemu.formats", "import numpy", "fpemu.formats:1 imports numpy"),
        ("fpemu.formats", "def f():\n    import numpy.linalg", "fpemu.formats:2 imports numpy"),
        ("fpemu.formats", "from fpemu import arrays", "fpemu.formats:1 imports fpemu.arrays"),
        ("fpemu.formats", "from .arrays import quantize", "fpemu.formats:1 imports fpemu.arrays"),
        ("fpemu.backends", "from ..arrays import f", "fpemu.backends:1 imports fpemu.arrays"),
        (
            "fpemu.backends._numpy",
            "from .. import arrays",
            "fpemu.backends._numpy:1 imports fpemu.arrays",
        ),
        ("fpemu.arrays", "from fpemu import quantize", "fpemu.arrays:1 imports fpemu"),
        ("fpemu.arrays", "import_module('fpemu.cli')", "fpemu.arrays:1 imports fpemu.cli"),
        (
            "fpemu.arrays",
            "importlib.import_module('fpemu.cli')",
            "fpemu.arrays:1 imports fpemu.cli",
        ),
        ("fpemu", "from fpemu.arrays import quantize", "fpemu:1 imports fpemu.arrays"),
    ],
)
def test_an_import_that_goes_up_is_found(module: str, source: str, line: str) -> None:
    names = ("fpemu", "fpemu.formats", "fpemu.backends", "fpemu.backends._numpy", "fpemu.arrays")
    modules = dict.fromkeys((*names, "fpemu.cli"), "") | {module: source}
    assert violations(modules) == [line]


def test_a_cycle_is_found_unless_it_is_lazy() -> None:
    modules = {
        "fpemu.formats": "from fpemu import catalog",
        "fpemu.catalog": "from fpemu.formats import Format",
    }
    assert set(cycle(modules)) == {"fpemu.formats", "fpemu.catalog"}
    modules["fpemu.catalog"] = "def f():\n    from fpemu.formats import Format"
    assert cycle(modules) == []
    modules["fpemu.catalog"] = "if TYPE_CHECKING:\n    from fpemu.formats import Format"
    assert cycle(modules) == []


def test_import_loads_no_optional_package() -> None:
    loaded = run_python(f"import fpemu, sys; print([n for n in {OPTIONAL} if n in sys.modules])")
    assert loaded.strip() == "[]"


def test_import_changes_no_global_state() -> None:
    """The random generators, the warning filters and the loggers are as before."""
    run_python(
        "import logging, random, warnings, numpy as np\n"
        "def state():\n"
        "    kind, words, *rest = np.random.get_state()\n"
        "    loggers = (logging.root.level, tuple(logging.root.handlers))\n"
        "    filters = tuple(warnings.filters)\n"
        "    return random.getstate(), kind, words.tobytes(), rest, filters, loggers\n"
        "before = state()\n"
        "import fpemu\n"
        "assert state() == before\n"
    )


@pytest.mark.parametrize("module", LAYERS[0])
def test_layer_0_works_without_numpy(module: str) -> None:
    run_python(
        f"import sys; sys.modules['numpy'] = None\n"
        f"import fpemu.{module}\n"
        "assert 'ml_dtypes' not in sys.modules"
    )
