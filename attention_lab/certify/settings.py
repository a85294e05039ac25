"""Hyper-parameters and parameters: nothing is accepted and ignored, and the tree keeps the rules of the house."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import Call
from attention_lab.certify.comparison import same
from attention_lab.certify.finding import NOT_RUN, Refuted, Undecided, require
from attention_lab.certify.subject import Subject

SPEED_ONLY = frozenset({"chunk", "unroll", "implementation"})  # change the speed, not the result
CANDIDATES = {int: (1, 2, 3, 5, 8), float: (0.37, 1.7), bool: (True, False)}


def fields(subject: Subject) -> str:
  """Every hyper-parameter changes the output; one about speed (`SPEED_ONLY`, or metadata speed=True) does not."""
  chosen = dataclasses.fields(subject.variant)
  require(bool(chosen), "has no hyper-parameters")
  verdicts = []
  for field in chosen:
    speed = field.name in SPEED_ONLY or field.metadata.get("speed", False)
    others = list(_others(subject, field))
    if not others:
      raise Undecided(NOT_RUN, f"no second value of '{field.name}' is known to the battery")
    rivals = ((value, dataclasses.replace(subject.variant, **{field.name: value})) for value in others)
    moved = next((value for value, rival in rivals if _differs(subject, rival)), None)
    if speed and moved is not None:
      raise Refuted(f"'{field.name}' is about speed, and {field.name}={moved!r} changes the result")
    if not speed and moved is None:
      raise Refuted(f"'{field.name}' is accepted and ignored: {', '.join(map(repr, others))} all give the same output")
    verdicts.append(f"{field.name} {'leaves the result' if speed else 'acts'}")
  return ", ".join(verdicts)


def _others(subject: Subject, field: dataclasses.Field) -> Iterator[Any]:
  """A few other legal values of a field, by its type."""
  hint = typing.get_type_hints(type(subject.variant))[field.name]
  options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
  candidates: list[Any] = []
  for option in options:
    candidates += typing.get_args(option) if typing.get_origin(option) is typing.Literal else CANDIDATES.get(option, ())
  legal, most = 0, 2 if subject.quick else 3
  for value in candidates:
    if value == getattr(subject.variant, field.name) or legal == most:
      continue
    try:
      dataclasses.replace(subject.variant, **{field.name: value})
    except ValueError:
      continue
    legal += 1
    yield value


def _differs(subject: Subject, other: Any) -> bool:
  shape = subject.shape(T=7, S=7)
  rival = dataclasses.replace(subject, variant=other)
  outs = []
  for one in (subject, rival):
    call = Call(one.mask(), key=jax.random.key(0))
    outs.append(np.asarray(one.forward(one.params(shape.dims()), one.inputs(shape, scale=1.5), call)))
  scale = max(1.0, float(np.max(np.abs(outs[0]))))
  return outs[0].shape != outs[1].shape or float(np.max(np.abs(outs[0] - outs[1]))) > 1e-5 * scale


def parameters(subject: Subject) -> str:
  """A nested dict of finite arrays, the same for the same key; leaves under per_head lead with N."""
  shape = subject.shape(N=4)
  trees = [subject.variant.init(jax.random.key(0), shape.dims()) for _ in range(2)]
  for path, leaf in jax.tree_util.tree_leaves_with_path(trees[0]):
    keys = [getattr(part, "key", None) for part in path]
    if not all(isinstance(key, str) for key in keys):
      raise Refuted(f"the parameter {jax.tree_util.keystr(path)} is not in a nested dict with names", shape=shape)
    if not isinstance(leaf, jax.Array) or not bool(jnp.all(jnp.isfinite(leaf))):
      raise Refuted(f"the parameter {'/'.join(keys)} is not a finite array", shape=shape)
    if "per_head" in keys and leaf.shape[:1] != (shape.N,):
      raise Refuted(
        f"the parameter {'/'.join(keys)} is per head and has shape {leaf.shape}, not N = {shape.N} first", shape=shape
      )
  for one, two in zip(*map(jax.tree.leaves, trees), strict=True):
    same(one, two, "parameters of the same key", tolerance=0.0, shape=shape)
  return f"{len(jax.tree.leaves(trees[0]))} leaves"


PROOFS = {"every hyper-parameter acts": fields, "parameters keep the rules": parameters}
