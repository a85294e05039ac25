"""Hyper-parameters and parameters: nothing is accepted and ignored, and the tree keeps the rules of the house."""

import ast
import dataclasses
import functools
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab import compiled
from attention_lab.attention import spec
from attention_lab.attention.base import Attention, Call, Dims, Unsupported
from attention_lab.attention.composed import Composed
from attention_lab.attention.layer_parts import PARTS
from attention_lab.certify.finding import NOT_GIVEN, NOT_RUN, Refuted, require, same
from attention_lab.certify.under_test import Shape, VariantUnderTest, is_fixed

SPEED_ONLY = frozenset({"chunk", "unroll", "implementation"})  # fields that change the speed, not the result
# Values that a field may take, by its type.
CANDIDATES = {int: (1, 2, 3, 5, 8), float: (0.37, 1.7), bool: (True, False)}
SIZES = ((1, 1, 3, 1), (4, 4, 3, 5), (6, 3, 4, 300), (12, 2, 2, 7))  # N, K, H and the longest sequence
DRAWS = 256  # keys under which a law of random parameters is looked at
ROUNDING = 1e-6  # of a float32, relative


class Setting(NamedTuple):
  """One hyper-parameter: of a variant, or of a part of a composed layer."""

  name: str  # as in 'window', of a part as in 'conv.width'
  field: dataclasses.Field
  owner: Any  # the variant or the part
  replaced: Callable[[Any], Attention]  # the variant with another value


def fields(subject: VariantUnderTest) -> str:
  """Every hyper-parameter changes the output; one about speed (`SPEED_ONLY`, or metadata speed=True) does not."""
  chosen = list(_hyper_parameters(subject.variant))
  require(bool(chosen), "has no hyper-parameters")
  verdicts = []
  for name, field, owner, replaced in chosen:
    speed = field.name in SPEED_ONLY or field.metadata.get("speed", False)
    values = [value for value in others(subject, field, owner) if not speed or _runs(subject, replaced(value))]
    if not values:
      verdicts.append(f"{name} has no second legal value known here")
      continue
    moved = next((value for value in values if _differs(subject, replaced(value))), None)
    if speed and moved is not None:
      raise Refuted(f"'{name}' is about speed, and {name}={moved!r} changes the result")
    if not speed and moved is None and not _sizes_blocks(subject, values, replaced):
      raise Refuted(f"'{name}' is accepted and ignored: {', '.join(map(repr, values))} all give the same output")
    verdicts.append(f"{name} {'leaves the result' if moved is None else 'acts'}")
  require(any("no second" not in verdict for verdict in verdicts), ", ".join(verdicts), NOT_RUN)
  return ", ".join(verdicts)


def _sizes_blocks(subject: VariantUnderTest, values: list[Any], replaced: Callable[[Any], Attention]) -> bool:
  """Whether a whole number changes the program: one that leaves the result is the size of its blocks, about speed."""
  shape = subject.shape(T=7, S=7)
  programs = set()
  for value in values:
    rival = dataclasses.replace(subject, variant=replaced(value))
    arguments = rival.params(shape.dims()), rival.inputs(shape), Call(rival.mask())
    programs.add(compiled.fingerprint(jax.jit(rival.eager).lower(*arguments)))
  return type(values[0]) is int and len(programs) > 1


def _hyper_parameters(variant: Attention) -> Iterator[Setting]:
  """The fields of a variant; of a composed layer those of its parts, since the mechanism has a certificate."""
  if not isinstance(variant, Composed):
    for field in dataclasses.fields(variant):
      replaced = functools.partial(_replaced, variant, field.name)
      yield Setting(field.name, field, variant, replaced)
    return
  for side in ("before", "after"):
    parts = getattr(variant, side)
    for index, part in enumerate(parts):
      name = next(name for name, kind in PARTS.items() if isinstance(part, kind))
      for field in dataclasses.fields(part):
        replaced = functools.partial(_with_part, variant, side, index, field.name)
        yield Setting(f"{name}.{field.name}", field, part, replaced)


def _replaced(variant: Attention, name: str, value: Any) -> Attention:
  return dataclasses.replace(variant, **{name: value})


def _with_part(variant: Composed, side: str, index: int, name: str, value: Any) -> Attention:
  """The layer in which one part has another value of one field."""
  parts = list(getattr(variant, side))
  parts[index] = dataclasses.replace(parts[index], **{name: value})
  return _replaced(variant, side, tuple(parts))


def others(subject: VariantUnderTest, field: dataclasses.Field, owner: Any) -> Iterator[Any]:
  """A few other legal values of a field of the subject, or of a part of it, by the field's type."""
  hint = typing.get_type_hints(type(owner))[field.name]
  options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
  candidates: list[Any] = []
  for option in options:
    candidates += typing.get_args(option) if typing.get_origin(option) is typing.Literal else CANDIDATES.get(option, ())
  legal, most = 0, 2 if subject.quick else 3
  for value in candidates:
    if value == getattr(owner, field.name) or legal == most:
      continue
    try:
      dataclasses.replace(owner, **{field.name: value})
    except ValueError:
      continue
    legal += 1
    yield value


def _runs(subject: VariantUnderTest, other: Attention) -> bool:
  """Whether a variant with another value of a field about speed takes a call: a kernel may need another machine."""
  shape = subject.shape(T=7, S=7)
  rival = dataclasses.replace(subject, variant=other)
  call = Call(rival.mask(), key=jax.random.key(0))
  return rival.refusal(rival.params(shape.dims()), rival.inputs(shape), call) is None


def _differs(subject: VariantUnderTest, other: Any) -> bool:
  shape = subject.shape(T=7, S=7)
  rival = dataclasses.replace(subject, variant=other)
  outs = []
  for variant in (subject, rival):
    call = Call(variant.mask(), key=jax.random.key(0))
    outs.append(np.asarray(variant.forward(variant.params(shape.dims()), variant.inputs(shape, scale=1.5), call)))
  scale = max(1.0, float(np.max(np.abs(outs[0]))))
  moves = outs[0].shape != outs[1].shape or float(np.max(np.abs(outs[0] - outs[1]))) > 1e-5 * scale
  return moves or _losses(subject, shape) != _losses(rival, shape)


def _losses(subject: VariantUnderTest, shape: Shape) -> dict[str, float]:
  """The auxiliary losses, for a setting that acts on nothing else."""
  arguments = subject.params(shape.dims()), subject.inputs(shape), Call(subject.mask())
  losses = subject.compiled(subject.losses)
  if not jax.eval_shape(losses, *arguments):
    return {}
  return {name: float(value) for name, value in losses(*arguments).items()}


def parameters(subject: VariantUnderTest) -> str:
  """A nested dict of finite arrays, the same for the same key; leaves under per_head lead with N."""
  shape = subject.shape(N=4)
  trees = [subject.variant.init(jax.random.key(0), shape.dims()) for _ in range(2)]
  for path, leaf in jax.tree_util.tree_leaves_with_path(trees[0]):
    keys: list[Any] = [getattr(part, "key", None) for part in path]
    if not all(isinstance(key, str) for key in keys):
      raise Refuted(f"the parameter {jax.tree_util.keystr(path)} is not in a nested dict with names", shape=shape)
    if not isinstance(leaf, jax.Array) or not bool(jnp.all(jnp.isfinite(leaf))):
      raise Refuted(f"the parameter {'/'.join(keys)} is not a finite array", shape=shape)
    if "per_head" in keys and leaf.shape[:1] != (shape.N,):
      raise Refuted(
        f"the parameter {'/'.join(keys)} is per head and has shape {leaf.shape}, not N = {shape.N} first", shape=shape
      )
  for first, second in zip(*map(jax.tree.leaves, trees), strict=True):
    same(first, second, "parameters of the same key", tolerance=0.0, shape=shape)
  return f"{len(jax.tree.leaves(trees[0]))} leaves"


def limits(subject: VariantUnderTest) -> str:
  """Of each pair (legal, illegal) of settings in the case, the first is taken and the second refused, by its name."""
  kind: Any = type(subject.variant)
  make = spec.parse if kind is Composed else lambda text: kind(**_arguments(text))
  pairs: Any = getattr(subject.case, "LIMITS", None)
  checks = bool(kind.at_least_one) or kind.__post_init__ is not Attention.__post_init__
  require(bool(dataclasses.fields(kind)), "has no hyper-parameters")
  require(pairs is not None, "no LIMITS in its case", NOT_GIVEN)
  require(bool(pairs) or checks, "every value of its fields is legal")
  require(bool(pairs), "it checks its fields, and LIMITS is empty", NOT_GIVEN)
  for legal, illegal in pairs:
    arguments, illegal_arguments = _arguments(legal), _arguments(illegal)
    try:
      variant = make(legal)
    except ValueError as error:
      raise Refuted(f"{legal} is legal, and is refused: {error}") from error
    _calls(dataclasses.replace(subject, variant=variant, quick=True), legal, runs=not subject.quick)
    names = {name for name in illegal_arguments if illegal_arguments[name] != arguments.get(name)}
    _refused(make, illegal, names)
  return f"{len(pairs)} limits"


def _arguments(text: str) -> dict[str, Any]:
  """The arguments of a spec of one variant, or of one part beside a variant, all by name."""
  calls = (node for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Call))
  return {str(keyword.arg): ast.literal_eval(keyword.value) for call in calls for keyword in call.keywords}


def _refused(make: Callable[[str], Attention], text: str, names: set[str]) -> None:
  """Refutes unless the spec is refused, by one of the names, in one line."""
  try:
    make(text)
  except ValueError as error:
    message = str(error)
    if "\n" in message or not any(re.search(rf"\b{name}\b", message) for name in names):
      raise Refuted(f"the refusal of {text} must name {', '.join(sorted(names))} in one line: {message!r}") from error
    return
  raise Refuted(f"{text} is accepted: it must be refused with a ValueError that names {', '.join(sorted(names))}")


def _calls(subject: VariantUnderTest, text: str, runs: bool) -> None:
  """One call at a limit: traced, and in the full battery run; a refusal by name is an answer too."""
  shape = subject.shape(B=1, T=4, S=4, N=2, K=2)
  call, inputs = Call(subject.mask()), subject.inputs(shape)
  try:
    params = jax.eval_shape(lambda key: subject.variant.init(key, shape.dims()), jax.random.key(0))
    jax.eval_shape(subject.eager, params, inputs, call)
    out = subject.run(inputs, shape, call) if runs else np.zeros(1)
  except Unsupported:
    return
  if not np.all(np.isfinite(out)):
    raise Refuted(f"{text} is legal, and its output is not finite", shape=shape)


def fixed(subject: VariantUnderTest) -> str:
  """What is never trained has the values, or for random draws the law, that the case writes from the paper."""
  law: Any = getattr(subject.case, "fixed_law", None)
  values: Any = getattr(subject.case, "fixed", None)
  tree = jax.eval_shape(lambda key: subject.variant.init(key, subject.shape().dims()), jax.random.key(0))
  has_fixed = any(is_fixed(path) for path, _ in jax.tree.leaves_with_path(tree))
  require(has_fixed or values is not None, "has no fixed parameter")
  require(bool(law or values), "no fixed or fixed_law in its case", NOT_GIVEN)
  sizes = SIZES[::2] if law and subject.quick else SIZES
  shapes = [subject.shape(N=n, K=k, H=h, T=t, S=t) for n, k, h, t in sizes]
  for shape in shapes:
    dims = shape.dims()
    leaves = _drawn(subject, dims, DRAWS if law else 1)
    wrong = law(subject.variant, leaves, dims) if law else _unlike(values(subject.variant, dims), leaves)
    if wrong:
      raise Refuted(wrong, shape=f"{shape}, longest sequence {dims.max_len}")
  return f"{'their law' if law else 'their values'} at {len(shapes)} sizes"


def _drawn(subject: VariantUnderTest, dims: Dims, draws: int) -> dict:
  """What is fixed in the parameters, with an axis of draws in front where they are more than one."""
  if draws == 1:
    return subject.variant.init(jax.random.key(0), dims).get("fixed", {})
  keys = jax.random.split(jax.random.key(0), draws)
  return jax.vmap(lambda key: subject.variant.init(key, dims))(keys).get("fixed", {})


def _unlike(expected: dict, params: Any) -> str:
  """Where two nested dicts of numbers differ by more than float32 rounds; "" if nowhere."""
  names = sorted(params) if isinstance(params, dict) else ["an array"]
  if names != sorted(expected):
    return f"fixed holds {', '.join(names) or 'nothing'}, not {', '.join(sorted(expected))}"
  for name, values in expected.items():
    if isinstance(values, dict):
      wrong = _unlike(values, params[name])
      if wrong:
        return wrong
      continue
    right, value = np.asarray(values, np.float64), np.asarray(params[name], np.float64)
    if right.shape != value.shape:
      return f"fixed {name} has the shape {value.shape}, not {right.shape}"
    off = np.abs(right - value) > ROUNDING * np.abs(right)
    if np.any(off):
      index = tuple(int(axis) for axis in np.argwhere(off)[0])
      return f"fixed {name}{list(index) if index else ''} is {value[index]:.7g}, not {right[index]:.7g}"
  return ""


def act(subject: VariantUnderTest) -> str:
  """Every parameter changes the output."""
  shape, call = subject.shape(T=7, S=7), Call(subject.mask(), key=jax.random.key(0))
  leaves, tree = jax.tree_util.tree_flatten_with_path(subject.params(shape.dims()))
  floats = [index for index, (_, leaf) in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]
  require(bool(floats), "has no parameters")

  def out(seed: int, moved: int = -1) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(size=leaves[moved][1].shape).astype(np.float32)
    values = [leaf + 0.5 * steps if index == moved else leaf for index, (_, leaf) in enumerate(leaves)]
    return np.asarray(subject.forward(jax.tree.unflatten(tree, values), subject.inputs(shape, seed, scale=1.5), call))

  for index in floats:
    if not any(np.any(np.abs(out(seed, index) - out(seed)) > 1e-5) for seed in range(4)):
      name = jax.tree_util.keystr(leaves[index][0], simple=True, separator="/")
      raise Refuted(f"the parameter {name} changes nothing", shape=shape)
  return f"{len(floats)} leaves"


PROOFS = {
  "every hyper-parameter acts": fields,
  "parameters keep the rules": parameters,
  "illegal settings are refused": limits,
  "fixed parameters are the paper's": fixed,
  "every parameter acts": act,
}
