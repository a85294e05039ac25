"""An import may only go down."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FLOORS = [  # from the top; where a package and a part of it both stand here, the longer name counts
  ("experiments", "launch"),
  ("attention_lab.compare",),
  ("attention_lab.compare.report", "attention_lab.compare.execute"),
  ("attention_lab.compare.schedule", "attention_lab.compare.budget"),
  ("attention_lab.benchmark", "attention_lab.workflows"),
  ("attention_lab.results",),
  ("attention_lab.train", "attention_lab.certify"),
  ("attention_lab.tasks",),
  ("attention_lab.models", "attention_lab.data"),
  ("attention_lab.attention.sharded", "attention_lab.attention.spec", "attention_lab.attention.attention_maps"),
  ("attention_lab.attention.variants", "attention_lab.attention.head_mixture"),
  ("attention_lab.attention.composed", "attention_lab.attention.layer_parts"),
  ("attention_lab.attention.families",),
  ("attention_lab.attention.engines",),
  ("attention_lab.attention",),
  ("attention_lab",),  # mesh, compiled, config, cli and the other single files
]
HEIGHTS = {package: len(FLOORS) - height for height, packages in enumerate(FLOORS) for package in packages}
APART = [  # packages that know nothing of each other
  ("attention_lab.compare", "attention_lab.benchmark"),
  ("attention_lab.compare.report", "attention_lab.compare.execute"),
  ("attention_lab.compare.schedule", "attention_lab.compare.budget"),
  ("attention_lab.workflows", "attention_lab.compare"),
  ("attention_lab.workflows", "attention_lab.benchmark"),
  ("attention_lab.results", "attention_lab.train"),
  ("attention_lab.train", "attention_lab.certify"),
  ("attention_lab.models", "attention_lab.data"),
]
FILES = sorted(path for folder in ("attention_lab", "experiments") for path in (ROOT / folder).rglob("*.py"))


def module_of(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module):
  return max((package for package in HEIGHTS if f"{module}.".startswith(f"{package}.")), key=len)


def is_module(name):
  path = ROOT / name.replace(".", "/")
  return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.module:
      children = [f"{node.module}.{alias.name}" for alias in node.names]
      yield from (child if is_module(child) else node.module for child in children)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_go_down(path):
  module = module_of(path)
  package = package_of(module)
  for name in imports(path):
    if name.startswith(("attention_lab", "experiments")):
      assert HEIGHTS[package_of(name)] <= HEIGHTS[package], f"{package} imports {name}, which lies above it"
      for pair in APART:
        sides = {side for side in pair for end in (module, name) if f"{end}.".startswith(f"{side}.")}
        assert len(sides) < 2, f"{module} imports {name}: {pair[0]} and {pair[1]} know nothing of each other"


def test_no_modules_import_each_other_in_a_circle():
  graph = {module_of(path): set(imports(path)) for path in FILES}
  finished, trail = set(), []

  def visit(module):
    assert module not in trail, f"circle: {' → '.join([*trail[trail.index(module) :], module])}"
    if module in graph and module not in finished:
      trail.append(module)
      for name in graph[module]:
        visit(name)
      finished.add(trail.pop())

  for module in graph:
    visit(module)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_flax_lives_in_models_alone(path):
  if not module_of(path).startswith("attention_lab.models"):
    assert not [name for name in imports(path) if name.split(".")[0] == "flax"]


def test_variants_never_import_each_other():
  for path in FILES:
    if module_of(path).startswith("attention_lab.attention.variants."):
      assert not [name for name in imports(path) if name.startswith("attention_lab.attention.variants")]


def test_certify_imports_attention_mesh_and_compiled_only():
  parts = ("attention", "mesh", "compiled", "worker_processes", "certify")
  allowed = tuple(f"attention_lab.{part}" for part in parts)
  for path in FILES:
    if module_of(path).startswith("attention_lab.certify"):
      assert not [name for name in imports(path) if name.startswith("attention_lab") and not name.startswith(allowed)]
