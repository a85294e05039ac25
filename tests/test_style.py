"""The bars of the house: 400 lines a file, 60 a function, 8 arguments, no crumbs, names that say what a thing is."""

import ast
import functools
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(
  path
  for folder in ("attention_lab", "experiments", "tests", "docs", "launch")
  for path in (ROOT / folder).rglob("*.py")
)
PACKAGE = [path for path in FILES if path.relative_to(ROOT).parts[0] in ("attention_lab", "experiments")]
FACES = {"__init__.py", "__main__.py"}  # files that may be short, as may variants, cases and binaries
SHORT = ("attention_lab/attention/variants", "attention_lab/certify/cases", "experiments")
NO_NAMES = {"own", "found", "one", "said", "words", "ways", "facts", "kept", "given", "place", "piece"}
NO_FILES = {"utils", "util", "helpers", "helper", "common", "misc"}


@functools.cache
def tree(path):
  return ast.parse(path.read_text(encoding="utf-8"))


def functions(path):
  return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def bindings(path):
  """(name, line) of everything that a file names: variables, arguments, functions, classes, imports."""
  for node in ast.walk(tree(path)):
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
      yield node.id, node.lineno
    elif isinstance(node, ast.arg):
      yield node.arg, node.lineno
    elif isinstance(node, ast.FunctionDef | ast.ClassDef):
      yield node.name.strip("_"), node.lineno
    elif isinstance(node, ast.alias | ast.ExceptHandler):
      yield (node.asname if isinstance(node, ast.alias) else node.name) or "", node.lineno


def name_of(path):
  return str(path.relative_to(ROOT))


def test_files_and_functions_are_short():
  assert [name_of(path) for path in FILES if len(path.read_text().splitlines()) > 400] == []
  long = [
    (name_of(path), node.name) for path in FILES for node in functions(path) if node.end_lineno - node.lineno >= 60
  ]
  assert long == []


def test_there_are_no_crumbs():
  short = [path for path in PACKAGE if len(path.read_text().splitlines()) < 40 and path.name not in FACES]
  assert [name_of(path) for path in short if not name_of(path).startswith(SHORT)] == []


def test_signatures_are_short_or_say_why():
  for path in PACKAGE:
    for node in functions(path):
      arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
      count = len([argument for argument in arguments if argument.arg not in ("self", "cls")])
      explained = "arguments" in (ast.get_docstring(node) or "")
      where = f"{name_of(path)}: {node.name}"
      assert count <= 8 or explained, f"{where} takes {count} arguments and its docstring does not say why"


def test_modules_and_public_functions_have_docstrings():
  for path in PACKAGE:
    assert ast.get_docstring(tree(path)), f"{name_of(path)} has no docstring"
    for node in tree(path).body:
      overload = isinstance(node, ast.FunctionDef) and "overload" in map(ast.unparse, node.decorator_list)
      if isinstance(node, ast.FunctionDef) and not overload and not node.name.startswith("_") and node.name != "main":
        assert ast.get_docstring(node), f"{name_of(path)}: {node.name} has no docstring"


def test_names_say_what_a_thing_is():
  riddles = [f"{name_of(path)}:{line}: {name}" for path in FILES for name, line in bindings(path) if name in NO_NAMES]
  assert riddles == []


def test_files_are_named_by_nouns():
  assert [name_of(path) for path in FILES if NO_FILES & set(re.split(r"[_.]", path.stem))] == []


def test_importing_the_package_does_not_start_jax():
  code = "import attention_lab, sys; assert 'jax' not in sys.modules"
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
