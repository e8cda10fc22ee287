"""Imports go one way, and none of them needs the network."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import espnet_spire

ROOT = Path(espnet_spire.__file__).parent
MODULES = {
    ".".join(["espnet_spire", *path.relative_to(ROOT).with_suffix("").parts]): path
    for path in sorted(ROOT.rglob("*.py"))
}
# bin → tasks, baselines → decode, score, corpus → train, model → text, units → utils; mini uses all
# but bin, tasks and baselines.
UTILS = {"utils"}
LOW = UTILS | {"units", "text"}
MIDDLE = LOW | {"train", "model"}
HIGH = MIDDLE | {"tasks", "decode", "score", "corpus", "baselines"}
MAY_IMPORT = {
    "utils": UTILS,
    "units": LOW,
    "text": LOW,
    "train": MIDDLE,
    "model": MIDDLE,
    "tasks": HIGH - {"baselines"},
    "decode": HIGH - {"baselines"},
    "score": HIGH - {"baselines"},
    "corpus": HIGH - {"baselines"},
    "baselines": HIGH - {"tasks", "corpus"},
    "mini": HIGH - {"tasks", "baselines"} | {"mini"},
    "bin": HIGH | {"mini"},
}
ESPNET_USERS = ("espnet_spire.tasks.", "espnet_spire.model.", "espnet_spire.train.")


def imports(path):
    """Every absolute module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(module):
    """The part of the package that a module belongs to, or ``None``."""
    words = module.split(".")
    return words[1] if words[0] == "espnet_spire" and len(words) > 1 else None


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    if part(module) in (None, "__init__"):
        return
    used = {part(name) for name in imports(MODULES[module])} - {None, "__init__"}
    assert used <= MAY_IMPORT[part(module)] | {part(module)} - {"bin"}


@pytest.mark.parametrize("module", MODULES)
def test_espnet_is_imported_by_training_alone(module):
    uses = any(name.split(".")[0] in ("espnet", "espnet2") for name in imports(MODULES[module]))
    allowed = module.startswith(ESPNET_USERS) or module == "espnet_spire.bin.spire_train"
    assert allowed or not uses


SCRIPT = """
import importlib, socket, sys

def refuse(*args, **kwargs):
    raise OSError("network is blocked in this test")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse
for name in sys.argv[1:]:
    if name == "--":
        print("espnet2 is loaded" if "espnet2" in sys.modules else "no espnet2 so far")
    else:
        importlib.import_module(name)
print("imported everything")
"""


def test_every_module_imports_without_network():
    """And extraction, decoding and scoring run where ESPnet is not installed."""
    names = [name.removesuffix(".__init__") for name in MODULES]
    users = [n for n in names if n.startswith(ESPNET_USERS) or n == "espnet_spire.bin.spire_train"]
    words = [name for name in names if name not in users] + ["--"] + users
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout.splitlines()
    assert "no espnet2 so far" in said
    assert said[-1] == "imported everything"


ENTRY_POINTS = sorted(name for name in MODULES if part(name) == "bin" and "__init__" not in name)


@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_entry_points_are_thin(module):
    """get_parser, main(cmd=None), private helpers, and run(main)."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    public = {name for name in functions if not name.startswith("_")}
    assert public == {"get_parser", "main"}
    arguments = functions["main"].args
    assert [argument.arg for argument in arguments.args] == ["cmd"]
    assert arguments.defaults[0].value is None
    assert not [node for node in tree.body if isinstance(node, ast.ClassDef)]
    heavy = {"torch", "transformers", "espnet2", "datasets", "torchaudio"}
    at_the_top = (node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)))
    for node in at_the_top:
        roots = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        assert not {root.split(".")[0] for root in roots} & heavy
