"""The package stands alone and its imports go one way, those inside functions included."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {"retrieval", "files"}  # of this project


def imports(path):
    """Full names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def graph():
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / "retrieval").rglob("*.py")
        if path.name != "__init__.py"
    }
    return {module: set(imports(path)) for module, path in files.items()}


def test_there_is_no_circle():
    modules = graph()
    list(TopologicalSorter({module: names & modules.keys() for module, names in modules.items()}).static_order())


def test_nothing_above_is_imported():
    own = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    used = {name.split(".")[0] for names in graph().values() for name in names}
    assert used & own <= ALLOWED and "mindspore" not in used
