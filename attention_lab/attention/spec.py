"""Specs: the strings that name attention variants, and back.

    softmax    local(window=64)    my_pkg.my_file:Mine(k=3)     one variant, arguments are literals
    2*local(window=64)+6*linear                                 heads of one layer
    3*linear|softmax                                            layers, repeated cyclically
    conv(4)>gated_delta>norm>gate                               a mechanism and the parts around it, `layer_parts.PARTS`
    published(gated_delta)                                      the same with the parts that its paper gives it
    softmax;linear                                              rows of a comparison

`>` binds before `*`, `*` before `+`, `+` before `|`, `|` before `;`; parentheses group.
"""

import ast
import dataclasses
import importlib
import inspect
import itertools
import pkgutil
import re
import types
import typing
from collections.abc import Mapping

from attention_lab.attention import variants
from attention_lab.attention.base import Attention
from attention_lab.attention.composed import Composed
from attention_lab.attention.head_mixture import HeadMixture
from attention_lab.attention.layer_parts import PARTS, OutputPart, Part
from attention_lab.config import nearest_hint

ALIASES = {  # old spelling of a variant -> its name; rows, workdirs and commands of before hold the old one
  "fixed": "sparse_fixed",
  "forgetting": "fox",
  "pooled": "memory_compressed",
  "shared": "shared_qk",
  "space_time": "divided_space_time",
  "strided": "sparse_strided",
  "transient_global": "long_t5_tglobal",
}
ARGUMENT_ALIASES = {"stick_breaking(own=": "stick_breaking(attend_current="}  # old argument -> its name, in a spec


def names() -> tuple[str, ...]:
  """The names of the lab's variants, sorted: a variant is called as its file."""
  return tuple(sorted(module.name for module in pkgutil.iter_modules(variants.__path__)))


def rows(text: str) -> tuple[str, ...]:
  """Splits `text` at each `;` into the specs of a comparison's rows, old spellings replaced by the present ones.

  Args:
    text: specs between semicolons; one at the end may follow the last.

  Returns:
    One spec a row, not parsed.

  Raises:
    ValueError: a row is empty.
  """
  parts = tuple(respelled(part.strip()) for part in text.split(";"))
  if parts[-1] == "" and len(parts) > 1:
    parts = parts[:-1]
  if "" in parts:
    raise ValueError(f"attention spec '{text}' has an empty row")
  return parts


def parse(text: str) -> Attention:
  """Reads a spec of one layer.

  Args:
    text: a variant `name(argument=value)`, or a mixture by head `2*local+softmax`. A name with a colon, as in
      `my_pkg.my_file:Mine`, imports the package that it names.

  Returns:
    The variant, or the `HeadMixture` of several.

  Raises:
    ValueError: in one line, for a spec that is malformed, unknown, of illegal arguments or of several layers.
  """
  parsed = _layers(_tree(text), text)
  if len(parsed) != 1:
    raise ValueError(f"attention spec '{text}' names {len(parsed)} layers where one is wanted")
  return parsed[0]


def layers(text: str, count: int) -> tuple[Attention, ...]:
  """Reads a spec of a stack of layers.

  Args:
    text: specs of layers with `|` between them and `COUNT*` before those that repeat.
    count: layers of the stack, L; the layers that `text` names repeat cyclically, and those beyond L are left out.

  Returns:
    The variant of each layer, from the first to the last.

  Raises:
    ValueError: as `parse`.
  """
  parsed = _layers(_tree(text), text)
  return tuple(parsed[i % len(parsed)] for i in range(count))


def canonical(text: str) -> str:
  """The one way to write a spec: defaults left out, arguments by name, equal neighbours counted, present names.

  Args:
    text: a spec of one or several layers.

  Returns:
    The spec that is written alike for all specs of the same layers; rows of a comparison are matched by it.

  Raises:
    ValueError: as `parse`.
  """
  runs = [(len(list(run)), to_string(variant)) for variant, run in itertools.groupby(_layers(_tree(text), text))]
  if len(runs) == 1:
    return runs[0][1]
  return "|".join(
    name if count == 1 else f"{count}*({name})" if "+" in name else f"{count}*{name}" for count, name in runs
  )


def respelled(text: str, table: Mapping[str, str] = ALIASES) -> str:
  """A spec with names of variants replaced; nothing is imported, and arguments stay but for
  `ARGUMENT_ALIASES`.

  Args:
    text: a spec, a row of a comparison (with its `@FIELD=VALUE`) or several rows; it need not be well-formed.
    table: name of a variant -> the name in its place, by default the present one for an old one.

  Returns:
    The text, as it was but for those names.
  """
  choice = "|".join(sorted(table, key=len, reverse=True))
  name = rf"(?P<before>(?:^|[;|+*>]|(?<!\w)\()\s*)(?P<name>{choice})(?![\w.:=])"
  text = re.sub(name, lambda match: match["before"] + table[match["name"]], text)
  for old, new in ARGUMENT_ALIASES.items():
    text = text.replace(old, new)
  return text


def packages(text: str) -> frozenset[str]:
  """The top-level names of the users' packages that parsing `text` would import; nothing is imported here."""
  return frozenset(match.split(".")[0] for match in re.findall(r"([\w.]+):\w", text))


def to_string(variant: Attention) -> str:
  """The shortest spec that parses to `variant`: arguments that are the defaults are left out."""
  if isinstance(variant, HeadMixture):
    return "+".join(f"{count}*{to_string(part)}" if count > 1 else to_string(part) for count, part in variant.parts)
  if isinstance(variant, Composed):
    return _chain(variant)
  kind = type(variant)
  module, _, last = kind.__module__.rpartition(".")
  name = last if module == variants.__name__ else f"{kind.__module__}:{kind.__name__}"
  return name + arguments(variant)


def arguments(part: typing.Any) -> str:
  """The fields of a dataclass that differ from their defaults, as a spec writes them; empty if none does."""
  changed = [
    (field.name, getattr(part, field.name))
    for field in dataclasses.fields(part)
    if getattr(part, field.name) != field.default
  ]
  return f"({', '.join(f'{name}={value!r}' for name, value in changed)})" if changed else ""


def _tree(text: str) -> ast.expr:
  try:
    text = re.sub(r"(?<=\w):(?=[A-Za-z_])", ".", respelled(text.strip()))
    return ast.parse(text.replace(">", "**"), mode="eval").body  # Python's ** binds as > does here
  except (SyntaxError, ValueError) as error:
    raise ValueError(
      f"malformed attention spec '{text}': write name(argument=value), joined by ; | + > and count*"
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


def _chain(variant: Composed) -> str:
  """The spec of a mechanism with its parts: `published(…)` where they are those of its paper."""
  mechanism = to_string(variant.mechanism)
  if variant.mechanism.published and dataclasses.replace(variant, rotation=None) == _published(variant.mechanism):
    return f"published({mechanism})"
  names = {kind: name for name, kind in PARTS.items()}
  before, after = ([names[type(part)] + arguments(part) for part in parts] for parts in (variant.before, variant.after))
  return ">".join([*before, f"({mechanism})" if isinstance(variant.mechanism, HeadMixture) else mechanism, *after])


def _published(mechanism: Attention) -> Attention:
  """The layer that the paper of a mechanism makes of it."""
  if not mechanism.published:
    name = to_string(mechanism)
    raise ValueError(
      f"published({name}): its paper puts no part around it; write {name}, or parts as in conv(4)>{name}"
    )
  return _composed(_tree(mechanism.published), mechanism.published, mechanism)


def _composed(node: ast.expr, text: str, itself: Attention | None = None) -> Composed:
  """A chain of parts around a mechanism; itself: the mechanism that the chain calls `self`."""
  before: list[Part] = []
  after: list[OutputPart] = []
  mechanism: Attention | None = None
  links = list(_links(node))
  for link in links:
    call = link if isinstance(link, ast.Call) else ast.Call(link, [], [])
    name = ast.unparse(call.func)
    if name in PARTS:
      part = instance(PARTS[name], name, call)
      if isinstance(part, OutputPart) == (mechanism is None):
        side = "before" if mechanism else "behind"
        raise ValueError(f"attention spec '{text}': the part {name} stands {side} the mechanism")
      (after if mechanism else before).append(part)
    elif mechanism is not None:
      raise ValueError(f"attention spec '{text}' chains two mechanisms: > joins one with parts, {', '.join(PARTS)}")
    else:
      mechanism = itself if name == "self" and itself else parse(ast.unparse(link).replace("**", ">"))
  if mechanism is None:
    raise ValueError(f"attention spec '{text}' has parts and no mechanism; parts are {', '.join(PARTS)}")
  return Composed(tuple(before), mechanism, tuple(after))


def _links(node: ast.expr) -> typing.Iterator[ast.expr]:
  """The parts of a chain in order."""
  while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
    yield node.left
    node = node.right
  yield node


def _variant(node: ast.expr, text: str) -> Attention:
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
    return _composed(node, text)
  call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
  if not isinstance(call.func, ast.Name | ast.Attribute):
    raise ValueError(f"malformed attention spec '{text}': '{ast.unparse(node)}' is not a variant")
  name = ast.unparse(call.func)
  if name in PARTS:
    raise ValueError(
      f"'{name}' is a part of a layer and no mechanism: write it beside one, as in conv(4)>ssd>norm>gate"
    )
  if name == "published":
    if len(call.args) != 1 or call.keywords:
      raise ValueError(f"attention spec '{text}': published takes one mechanism, as in published(gated_delta)")
    return _published(_variant(call.args[0], text))
  return instance(_kind(name), name, call)


def instance(kind: typing.Any, name: str, call: ast.Call) -> typing.Any:
  """Makes a dataclass from a call as a spec writes it.

  Args:
    kind: the dataclass.
    name: what messages call it.
    call: the parsed call; its arguments are literals, by place or by name.

  Returns:
    An instance of `kind`.

  Raises:
    ValueError: for an argument that is no literal, no field, one too many or of another type than its field.
  """
  fields = {field.name: field for field in sorted(dataclasses.fields(kind), key=lambda field: field.kw_only is True)}
  try:
    values = dict(zip(fields, (ast.literal_eval(value) for value in call.args), strict=False))
    values |= {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
  except ValueError as error:
    raise ValueError(f"{name}: arguments are literals such as 3, 0.5, 'text' or None") from error
  if len(call.args) > len(fields):
    raise ValueError(
      f"{name} takes {len(fields)} hyper-parameters ({', '.join(fields) or 'none'}), not {len(call.args)}"
    )
  hints = typing.get_type_hints(kind)
  for argument, value in values.items():
    if argument not in fields:
      hint = nearest_hint(argument, fields)
      raise ValueError(f"{name} has no hyper-parameter '{argument}'{hint}; it has {', '.join(fields) or 'none'}")
    if not _fits(value, hints[argument]):
      raise ValueError(f"{name}: {argument}={value!r} must be {_described(hints[argument])}")
  required = [field.name for field in fields.values() if field.init and _is_required(field)]
  missing = [argument for argument in required if argument not in values]
  if missing:
    raise ValueError(f"{name} needs {', '.join(missing)}: write {name}({', '.join(f'{part}=…' for part in required)})")
  try:
    return kind(**values)
  except Exception as error:
    if "." not in name:
      raise
    raise ValueError(f"{name} refuses its arguments: {type(error).__name__}: {error}") from error  # a user's own checks


def _is_required(field: dataclasses.Field) -> bool:
  """Whether a field has no default."""
  return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _kind(name: str) -> type[Attention]:
  if "." in name:
    module, _, kind = name.rpartition(".")
    variant = load(f"{module}:{kind}", "the variant")
    if not (isinstance(variant, type) and issubclass(variant, Attention)):
      raise ValueError(f"{module}:{kind} is not a variant: it must be a frozen dataclass that extends Attention")
    missing = sorted(getattr(variant, "__abstractmethods__", ()))
    if missing:
      raise ValueError(f"{module}:{kind} is not a variant: it does not define {' and '.join(missing)}")
    fields = [field for field, hint in inspect.get_annotations(variant).items() if "ClassVar" not in str(hint)]
    if "__dataclass_fields__" not in vars(variant) and (fields or "__init__" in vars(variant)):
      raise ValueError(f"{module}:{kind} is no dataclass: write @dataclasses.dataclass(frozen=True) above it")
    return variant
  if name not in names():
    raise ValueError(f"unknown attention variant '{name}'{nearest_hint(name, names())}; there are {', '.join(names())}")
  file = importlib.import_module(f"{variants.__name__}.{name}")
  return getattr(file, "".join(word.capitalize() for word in name.split("_")))


def load(name: str, role: str) -> typing.Any:
  """Imports what `my_pkg.my_file:NAME` names.

  Args:
    name: a module and one of its names, with a colon between them.
    role: what messages call it, as in `the variant`.

  Returns:
    The object of that name.

  Raises:
    ValueError: in one line, for a malformed name, a module that is not there or does not import, and for a name that it
      does not hold.
  """
  module, _, attribute = name.partition(":")
  if not module or not attribute:
    raise ValueError(f"cannot load {role} '{name}': write my_pkg.my_file:NAME")
  try:
    imported = importlib.import_module(module)
  except Exception as error:  # a user's file may raise anything
    where = "" if isinstance(error, ModuleNotFoundError) else f"importing {module} ends in {type(error).__name__}: "
    raise ValueError(f"cannot load {role} {name}: {where}{error}") from error
  if not hasattr(imported, attribute):
    public = [other for other in vars(imported) if not other.startswith("_")]
    raise ValueError(f"cannot load {role} {name}: {module} has no {attribute}{nearest_hint(attribute, public)}")
  return getattr(imported, attribute)


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
