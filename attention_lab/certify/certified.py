"""Kept certificates: each holds as long as JAX and the sources that it rests on are those that it was made with.

`certified.json` has, for each spec of the cases, the fingerprint under which the full battery found no failure, the
claims that it proved, with what was examined, and those that it did not prove. `python -m experiments.certify --record`
writes it, and nothing else. A fingerprint covers the files of the variant, of its case and of the battery, with every
file of the package that these import, directly or not: their syntax, so that comments, docstrings and layout may
change. The versions of jax and jaxlib are part of it, since XLA computes what was proved: after an upgrade every
certificate is made anew.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from attention_lab.attention import spec
from attention_lab.attention.base import Attention
from attention_lab.certify import battery, composed_case
from attention_lab.certify.finding import NOT_CLAIMED, NOT_GIVEN, NOT_RUN, PROVED, Certificate, Finding

FILE = pathlib.Path(__file__).with_name("certified.json")  # in the repository, beside this module
_PACKAGE = __name__.partition(".")[0]
_ROOT = pathlib.Path(__file__).parents[__name__.count(".")]  # the folder of the package, from which modules are named
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)  # nodes that may have a docstring
_UNPROVED = (NOT_CLAIMED, NOT_GIVEN, NOT_RUN)  # statuses of a claim that neither holds nor fails

ReadFn = Callable[[pathlib.Path], str]  # the text of a source file


def current(variant: Attention, path: pathlib.Path = FILE) -> Certificate | None:
  """The kept certificate of a variant, if it still holds.

  Args:
    variant: the instance that was examined.
    path: the file of kept certificates.

  Returns:
    None where none is kept, or where something that it rests on has changed since.
  """
  case, certificate = battery.case_of(variant), recorded(variant, path)
  if case is None or certificate is None or _entry(variant, path)["fingerprint"] != fingerprint(variant, case):
    return None
  return certificate


def recorded(variant: Attention, path: pathlib.Path = FILE) -> Certificate | None:
  """The kept certificate of a variant, whatever has changed since; None where none is kept."""
  entry = _entry(variant, path)
  if not entry:
    return None
  findings = [Finding(claim, PROVED, detail) for claim, detail in entry[PROVED].items()]
  findings += [Finding(claim, status, reason) for status in _UNPROVED for claim, reason in entry[status].items()]
  return Certificate(spec.to_string(variant), tuple(findings), battery.metadata(variant))


def proofs(text: str, path: pathlib.Path = FILE) -> dict[str, str]:
  """The proved claims of a spec's kept certificate, each with what was examined; none where none is kept."""
  return _entry(spec.parse(text), path).get(PROVED, {})


class Recorder:
  """Writes certificates of the full battery to the file, each as soon as it is made."""

  def __init__(self, variants: Iterable[Attention], path: pathlib.Path = FILE):
    """Takes the fingerprints of `variants` as they are now, before the first proof.

    Raises:
      ValueError: one of the variants is not a spec of a case.
    """
    self._path = path
    self._cases = {spec.to_string(spec.parse(row)): case for row, case in battery.specs()}
    names = {spec.to_string(variant): variant for variant in variants}
    others = [name for name in names if name not in self._cases]
    if others:
      raise ValueError(f"only specs of certify/cases are recorded: leave {', '.join(others)} out")
    self._fingerprints = {name: fingerprint(variant, self._cases[name]) for name, variant in names.items()}

  def add(self, certificate: Certificate) -> None:
    """Writes a certificate, or takes it out of the file if a claim fails; with it go specs that no case has."""
    entries = {name: entry for name, entry in read(self._path).items() if name in self._cases}
    entries.pop(certificate.spec, None)
    if not certificate.failures:
      details = {status: _details(certificate, status) for status in (PROVED, *_UNPROVED)}
      entries[certificate.spec] = {"fingerprint": self._fingerprints[certificate.spec], **details}
    entries = dict(sorted(entries.items()))
    self._path.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")


def read(path: pathlib.Path = FILE) -> dict[str, dict[str, Any]]:
  """The entries of the file, by spec; none where there is no file."""
  return json.loads(path.read_text()) if path.exists() else {}


def _entry(variant: Attention, path: pathlib.Path) -> dict[str, Any]:
  return read(path).get(spec.to_string(variant), {})


def _details(certificate: Certificate, status: str) -> dict[str, str]:
  return {finding.claim: finding.detail for finding in certificate.findings if finding.status == status}


def fingerprint(variant: Attention, case: ModuleType, read_source: ReadFn = pathlib.Path.read_text) -> str:
  """The versions of jax and jaxlib, and a hash of the sources, that a certificate of the variant rests on.

  Args:
    variant: an instance of one of the lab's own classes, or a layer composed of these; its hyper-parameters are no
      part of the fingerprint.
    case: the variant's case.
    read_source: reads a file; another one shows what a change would do.

  Returns:
    One line, equal for equal versions and equal syntax of all the sources.
  """
  names = [type(variant).__module__, case.__name__, battery.__name__]
  mechanisms = composed_case.mechanisms(variant)  # which a composed layer does not import
  names += [type(mechanism).__module__ for mechanism in mechanisms]
  names += [inner.__name__ for inner in map(battery.case_of, mechanisms) if inner]
  texts = sources(tuple(names), read_source)
  digests = "".join(f"{name} {_syntax(text)}\n" for name, text in sorted(texts.items()))
  digest = hashlib.sha256(digests.encode()).hexdigest()[:16]
  versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("jax", "jaxlib"))
  return f"{versions}, sources {digest}"


def sources(modules: tuple[str, ...], read_source: ReadFn = pathlib.Path.read_text) -> dict[str, str]:
  """The text of `modules` and of every module of the package that they import, directly or not, by name."""
  pending, texts = list(modules), {}
  while pending:
    name = pending.pop()
    path = _path(name)
    if path is not None and name not in texts:
      texts[name] = read_source(path)
      pending += _imports(texts[name])
  return texts


@functools.cache
def _path(module: str) -> pathlib.Path | None:
  """The file of a module of the package; None for what is not a module, or not of the package."""
  if module.partition(".")[0] != _PACKAGE:
    return None
  stem = _ROOT.joinpath(*module.split("."))
  return next((path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.exists()), None)


@functools.cache
def _imports(text: str) -> tuple[str, ...]:
  """The modules that a source may import: each that it names, and each name that it takes from one."""
  return tuple(name for node in ast.walk(ast.parse(text)) for name in _imported(node))


def _imported(node: ast.AST) -> Iterator[str]:
  if isinstance(node, ast.Import):
    yield from (alias.name for alias in node.names)
  elif isinstance(node, ast.ImportFrom) and node.module:
    yield node.module
    yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def _syntax(text: str) -> str:
  """A hash of a source's syntax tree, without docstrings; the same under Python 3.11, 3.12 and 3.13."""
  return hashlib.sha256(repr(_tree(ast.parse(text))).encode()).hexdigest()


def _tree(node: Any) -> Any:
  """A node, or what is in its place, as nested tuples and lists, without docstrings and empty fields."""
  if isinstance(node, list):
    return [_tree(child) for child in node]
  if not isinstance(node, ast.AST):
    return node
  children = dict(ast.iter_fields(node))
  if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
    children["body"] = node.body[1:]
  if isinstance(node, ast.JoinedStr):  # Python 3.12.1 ends a format with an empty constant
    children["values"] = [value for value in node.values if getattr(value, "value", None) != ""]
  return type(node).__name__, [(name, _tree(child)) for name, child in children.items() if child not in (None, [])]
