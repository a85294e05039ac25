"""An import may only go down."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FLOORS = [
  ("experiments", "launch"),
  ("attention_lab.compare", "attention_lab.benchmark", "attention_lab.plan"),
  ("attention_lab.train", "attention_lab.certify"),
  ("attention_lab.tasks",),
  ("attention_lab.models", "attention_lab.data"),
  ("attention_lab.attention.sharded", "attention_lab.attention.spec", "attention_lab.attention.probe"),
  ("attention_lab.attention.variants", "attention_lab.attention.heads"),
  ("attention_lab.attention.primitives",),
  (
    "attention_lab.attention",
    "attention_lab.mesh",
    "attention_lab.compiled",
    "attention_lab.cli",
    "attention_lab.config",
  ),
  ("attention_lab",),
]
HEIGHTS = {package: len(FLOORS) - height for height, packages in enumerate(FLOORS) for package in packages}
SAME_FLOOR_APART = {"attention_lab.models": "attention_lab.data", "attention_lab.data": "attention_lab.models"}
FILES = sorted(path for folder in ("attention_lab", "experiments") for path in (ROOT / folder).rglob("*.py"))


def module_of(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module):
  return max((package for package in HEIGHTS if f"{module}.".startswith(f"{package}.")), key=len)


def imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.module:
      children = [f"{node.module}.{alias.name}" for alias in node.names]
      yield from (
        child if (ROOT / child.replace(".", "/")).with_suffix(".py").exists() else node.module for child in children
      )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_go_down(path):
  own = package_of(module_of(path))
  for name in imports(path):
    if not name.startswith(("attention_lab", "experiments")) or package_of(name) == own:
      continue
    other = package_of(name)
    assert HEIGHTS[other] <= HEIGHTS[own], f"{own} imports {name}, which lies above it"
    assert SAME_FLOOR_APART.get(own) != other, f"{own} and {other} know nothing of each other"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_flax_lives_in_models_alone(path):
  if not module_of(path).startswith("attention_lab.models"):
    assert not [name for name in imports(path) if name.split(".")[0] == "flax"]


def test_variants_never_import_each_other():
  for path in FILES:
    if module_of(path).startswith("attention_lab.attention.variants."):
      assert not [name for name in imports(path) if name.startswith("attention_lab.attention.variants")]


def test_certify_imports_attention_mesh_and_compiled_only():
  allowed = ("attention_lab.attention", "attention_lab.mesh", "attention_lab.compiled", "attention_lab.certify")
  for path in FILES:
    if module_of(path).startswith("attention_lab.certify"):
      assert not [name for name in imports(path) if name.startswith("attention_lab") and not name.startswith(allowed)]
