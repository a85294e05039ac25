"""Specs: the strings that name attention variants, and back.

    softmax    local(window=64)    my_pkg.my_file:Mine(k=3)     one variant, arguments are literals
    2*local(window=64)+6*linear                                 heads of one layer
    3*linear|softmax                                            layers, repeated cyclically
    softmax;linear                                              rows of a comparison

`*` binds before `+`, `+` before `|`, `|` before `;`; parentheses group.
"""

import ast
import dataclasses
import importlib
import itertools
import pkgutil
import re
import types
import typing

from attention_lab.attention import variants
from attention_lab.attention.base import Attention
from attention_lab.attention.head_mixture import HeadMixture
from attention_lab.config import nearest_hint


def names() -> tuple[str, ...]:
  """The variants of the lab, by file name."""
  return tuple(sorted(module.name for module in pkgutil.iter_modules(variants.__path__)))


def rows(text: str) -> tuple[str, ...]:
  """The rows of a comparison; raises ValueError if one is empty."""
  parts = tuple(part.strip() for part in text.split(";"))
  if parts[-1] == "" and len(parts) > 1:
    parts = parts[:-1]
  if "" in parts:
    raise ValueError(f"attention spec '{text}' has an empty row")
  return parts


def parse(text: str) -> Attention:
  """The one variant, or mixture of heads, that `text` names; raises ValueError in one line."""
  found = _layers(_tree(text), text)
  if len(found) != 1:
    raise ValueError(f"attention spec '{text}' names {len(found)} layers where one is wanted")
  return found[0]


def layers(text: str, count: int) -> tuple[Attention, ...]:
  """The variant of each of `count` layers; the layers that `text` names are repeated cyclically."""
  found = _layers(_tree(text), text)
  return tuple(found[i % len(found)] for i in range(count))


def canonical(text: str) -> str:
  """The one way to write a row: defaults left out, arguments by name, equal neighbours counted."""
  found = itertools.groupby(_layers(_tree(text), text))
  counted = [(len(list(group)), to_string(variant)) for variant, group in found]
  if len(counted) == 1:
    return counted[0][1]
  return "|".join(
    name if count == 1 else f"{count}*({name})" if "+" in name else f"{count}*{name}" for count, name in counted
  )


def packages(text: str) -> frozenset[str]:
  """The users' packages that parsing `text` would import."""
  return frozenset(match.split(".")[0] for match in re.findall(r"([\w.]+):\w", text))


def to_string(variant: Attention) -> str:
  """The shortest spec that parses to `variant`."""
  if isinstance(variant, HeadMixture):
    return "+".join(f"{count}*{to_string(part)}" if count > 1 else to_string(part) for count, part in variant.parts)
  kind = type(variant)
  module, _, last = kind.__module__.rpartition(".")
  name = last if module == variants.__name__ else f"{kind.__module__}:{kind.__name__}"
  return name + arguments(variant)


def arguments(part: typing.Any) -> str:
  """The fields of a dataclass that differ from their defaults, as a spec writes them; empty if none does."""
  given = [
    (field.name, getattr(part, field.name))
    for field in dataclasses.fields(part)
    if getattr(part, field.name) != field.default
  ]
  return f"({', '.join(f'{name}={value!r}' for name, value in given)})" if given else ""


def _tree(text: str) -> ast.expr:
  try:
    return ast.parse(re.sub(r"(?<=\w):(?=[A-Za-z_])", ".", text.strip()), mode="eval").body
  except (SyntaxError, ValueError) as error:
    raise ValueError(
      f"malformed attention spec '{text}': write name(argument=value), joined by ; | + and count*"
    ) from error


def _layers(node: ast.expr, text: str) -> list[Attention]:
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
    return _layers(node.left, text) + _layers(node.right, text)
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
    return _layers(node.right, text) * _count(node.left, text)
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
    return [HeadMixture(tuple(_heads(node, text)))]
  return [_variant(node, text)]


def _heads(node: ast.expr, text: str) -> list[tuple[int, Attention]]:
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
    return _heads(node.left, text) + _heads(node.right, text)
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
    return [(_count(node.left, text), _variant(node.right, text))]
  return [(1, _variant(node, text))]


def _count(node: ast.expr, text: str) -> int:
  if isinstance(node, ast.Constant) and type(node.value) is int and node.value >= 1:
    return node.value
  raise ValueError(f"malformed attention spec '{text}': before * stands a count of at least 1, as in 3*softmax")


def _variant(node: ast.expr, text: str) -> Attention:
  call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
  if not isinstance(call.func, ast.Name | ast.Attribute):
    raise ValueError(f"malformed attention spec '{text}': '{ast.unparse(node)}' is not a variant")
  name = ast.unparse(call.func)
  return instance(_kind(name), name, call)


def instance(kind: typing.Any, name: str, call: ast.Call) -> typing.Any:
  """The dataclass `kind` with the arguments of `call`, which are literals. Raises ValueError, saying `name`."""
  fields = {field.name: field for field in sorted(dataclasses.fields(kind), key=lambda field: field.kw_only is True)}
  try:
    given = dict(zip(fields, (ast.literal_eval(value) for value in call.args), strict=False))
    given |= {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
  except ValueError as error:
    raise ValueError(f"{name}: arguments are literals such as 3, 0.5, 'text' or None") from error
  if len(call.args) > len(fields):
    raise ValueError(
      f"{name} takes {len(fields)} hyper-parameters ({', '.join(fields) or 'none'}), not {len(call.args)}"
    )
  hints = typing.get_type_hints(kind)
  for argument, value in given.items():
    if argument not in fields:
      hint = nearest_hint(argument, fields)
      raise ValueError(f"{name} has no hyper-parameter '{argument}'{hint}; it has {', '.join(fields) or 'none'}")
    if not _fits(value, hints[argument]):
      raise ValueError(f"{name}: {argument}={value!r} must be {_described(hints[argument])}")
  return kind(**given)


def _kind(name: str) -> type[Attention]:
  if "." in name:
    module, _, kind = name.rpartition(".")
    try:
      found = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError) as error:
      raise ValueError(f"cannot load the variant {module}:{kind}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Attention) and dataclasses.is_dataclass(found)):
      raise ValueError(f"{module}:{kind} is not a variant: it must be a frozen dataclass that extends Attention")
    return found
  if name not in names():
    raise ValueError(f"unknown attention variant '{name}'{nearest_hint(name, names())}; there are {', '.join(names())}")
  file = importlib.import_module(f"{variants.__name__}.{name}")
  return getattr(file, "".join(word.capitalize() for word in name.split("_")))


def _fits(value: object, hint: object) -> bool:
  options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
  for option in options:
    kind = typing.get_origin(option) or option
    if kind is float and type(value) is int:
      return True
    if kind is typing.Literal and value in typing.get_args(option):
      return True
    if isinstance(kind, type) and (type(value) is kind or (value is None and kind is types.NoneType)):
      return True
  return False


def _described(hint: object) -> str:
  if typing.get_origin(hint) is typing.Literal:
    return "one of " + ", ".join(map(repr, typing.get_args(hint)))
  return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)
