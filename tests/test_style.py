"""The bars of the house: files of 400 lines, functions of 60, arguments 8; an exception says why in its docstring."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(
  path for folder in ("attention_lab", "experiments", "tests", "launch") for path in (ROOT / folder).rglob("*.py")
)
PACKAGE = [path for path in FILES if path.relative_to(ROOT).parts[0] in ("attention_lab", "experiments")]


def functions(path):
  return [
    node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
  ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
  assert len(path.read_text().splitlines()) <= 400
  for node in functions(path):
    assert node.end_lineno - node.lineno < 60, f"{node.name} is longer than 60 lines"


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_signatures_are_short_or_say_why(path):
  for node in functions(path):
    arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    count = len([argument for argument in arguments if argument.arg not in ("self", "cls")])
    explained = "arguments" in (ast.get_docstring(node) or "")
    assert count <= 8 or explained, f"{node.name} takes {count} arguments and its docstring does not say why"


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_have_docstrings(path):
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name != "main":
      assert ast.get_docstring(node), f"{node.name} has no docstring"
  assert ast.get_docstring(ast.parse(path.read_text())), "the module has no docstring"


def test_files_are_named_by_nouns():
  banned = {"utils", "util", "helpers", "helper", "common", "misc"}
  assert not [path for path in FILES if banned & set(re.split(r"[_.]", path.stem))]


def test_importing_the_package_does_not_start_jax():
  code = "import attention_lab, sys; assert 'jax' not in sys.modules"
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
