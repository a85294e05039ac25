"""What a caller demands is honoured, or refused by name."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import Call, Unsupported
from attention_lab.attention.mask import NAMES, Mask
from attention_lab.attention.positions import Positions
from attention_lab.certify.finding import Refuted, require, same
from attention_lab.certify.under_test import Inputs, Shape, VariantUnderTest, at_positions, rows

HINTS = {  # on what a third party overlooks
  "empty slots": " (keys at position −1: ask mask.dense(T, S, call.positions), or refuse_positions of attention.base)"
}
SHORT, LONG = 5, 10  # tokens; chunks of 4 divide neither


def padding(subject: VariantUnderTest) -> str:
  """Padded on the right equals cut off, whatever stands in the padding; padded queries give zeros."""
  require({"q_valid", "kv_valid"} <= subject.claims.masks, "padding is refused")
  long, short = subject.shape(T=LONG, S=LONG), subject.shape(T=SHORT, S=SHORT)
  masks = [Mask(), Mask(causal=True)] if "causal" in subject.claims.masks else [Mask()]
  for seed in range(subject.draws):
    inputs, garbage = subject.inputs(long, seed), subject.inputs(long, seed + 1000, scale=(0.3, 30.0)[seed % 2])
    padded = Inputs(*(_joined(a, b) for a, b in zip(rows(inputs, 0, SHORT), rows(garbage, SHORT, LONG), strict=True)))
    real = jnp.asarray(np.tile(np.arange(LONG) < SHORT, (long.B, 1)))
    for mask in map(subject.mask, masks):
      call = Call(mask & Mask(q_valid=real, kv_valid=real))
      out = np.asarray(subject.forward(subject.params(long.dims()), padded, call))
      cut = subject.forward(subject.params(long.dims()), rows(inputs, 0, SHORT), Call(mask))
      same(out[:, :SHORT], cut, "padding against truncation", shape=long, seed=seed)
      same(out[:, SHORT:], np.zeros_like(out[:, SHORT:]), "padded queries", tolerance=0.0, shape=long, seed=seed)
  return f"length {LONG} padded from {SHORT}, {len(masks) * subject.draws} draws at {short}"


def packing(subject: VariantUnderTest) -> str:
  """Two sequences packed into one, with segments and restarting positions, equal each alone."""
  require("segments" in subject.claims.masks, "segments are refused")
  long = subject.shape(T=LONG, S=LONG)
  ids = jnp.asarray(np.tile(np.where(np.arange(LONG) < SHORT, 3, 8), (long.B, 1)).astype(np.int32))
  positions = at_positions(*[np.tile(np.arange(LONG) % SHORT, (long.B, 1))] * 2)
  masks = [Mask(), Mask(causal=True)] if "causal" in subject.claims.masks else [Mask()]
  params = subject.params(long.dims())
  for seed in range(subject.draws):
    inputs = subject.inputs(long, seed, scale=1.0)
    for mask in map(subject.mask, masks):
      call = Call(mask & Mask(q_segments=ids, k_segments=ids), positions)
      if subject.refusal(params, inputs, call) is not None:  # it knows tokens by their index, and has no positions
        call = call._replace(positions=Positions())
      packed = np.asarray(subject.forward(params, inputs, call))
      for start in (0, SHORT):
        alone = subject.forward(params, rows(inputs, start, start + SHORT), Call(mask))
        same(packed[:, start : start + SHORT], alone, f"packed from {start} against separate", shape=long, seed=seed)
  return f"two segments of {SHORT}, {len(masks) * subject.draws} draws"


def nothing(subject: VariantUnderTest) -> str:
  """A query that may read nothing returns zeros, without NaN in the gradient."""
  shape = subject.shape()
  sizes = {"kv_valid": (2, 5), "q_valid": (2, 5), "explicit": (2, 4, 5, 5)}
  claimed = {name: np.ones(size, bool) for name, size in sizes.items() if name in subject.claims.masks}
  require(bool(claimed), "every mask that could hide all keys is refused")
  calls = {name: Call(subject.mask(_mask(claimed | {name: ~array}))) for name, array in claimed.items()}
  inputs, params = subject.inputs(shape), subject.params(shape.dims())
  i, j = np.arange(5)[None], np.full((1, 5), -1)
  empty = Call(subject.mask(_mask(claimed)), at_positions(i, j))
  if "kv_valid" in claimed and subject.refusal(params, inputs, empty) is None:
    calls["empty slots"] = empty
  for name, call in calls.items():
    out = jax.eval_shape(subject.eager, params, inputs, call)
    out, grads = subject.gradient(params, inputs, call, np.ones(out.shape, np.float32))
    same(out, np.zeros_like(out), f"all hidden by {name}{HINTS.get(name, '')}", tolerance=0.0, shape=shape, seed=0)
    if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads)):
      raise Refuted(f"the gradient is not finite where {name} hides every key", shape=shape, seed=0)
  return f"by {', '.join(calls)}; gradient finite"


def refusals(subject: VariantUnderTest) -> str:
  """Each demand that is not claimed raises Unsupported with the names of the variant and of the demand."""
  claims, shape = subject.claims, subject.shape()
  demands = {
    name: (Call(subject.mask(demand(name))), shape)
    for name in NAMES
    if name not in claims.masks and not (name == "causal" and claims.requires_causal)
  }
  if not claims.bias:
    demands["bias"] = (Call(subject.mask(), bias=jnp.zeros((1, 1, 5, 5))), shape)
  if not claims.cross:
    demands["cross"] = (Call(subject.mask()), subject.shape(T=5, S=7, cross=True))
  if not claims.supports_gqa and {"q", "k"} <= set(subject.variant.projections):
    demands["kv_heads"] = (Call(subject.mask()), shape._replace(K=2))
  if claims.requires_causal:
    demands["causal"] = (Call(), shape)
  for name, (call, sizes) in demands.items():
    _expect(subject, name, call, sizes)
  if not claims.decode:
    _expect_no_decoding(subject, shape)
    demands["extend"] = (Call(), shape)
  require(bool(demands), "nothing is undeclared")
  return f"refuses {', '.join(demands)}"


def demand(name: str) -> Mask:
  """A mask with the constraint `name` alone, for 2 examples of 5 tokens; with a prefix comes `causal`."""
  zeros, ones = jnp.zeros((2, 5), jnp.int32), jnp.ones((2, 5), bool)
  fields: dict[str, dict[str, Any]] = {
    "causal": {"causal": True},
    "window": {"window": 2},
    "prefix": {"causal": True, "prefix": jnp.ones(2, jnp.int32)},
    "q_valid": {"q_valid": ones},
    "kv_valid": {"kv_valid": ones},
    "segments": {"q_segments": zeros, "k_segments": zeros},
    "explicit": {"explicit": jnp.ones((2, 1, 5, 5), bool)},
  }
  return Mask(**fields[name])


def _expect(subject: VariantUnderTest, name: str, call: Call, shape: Shape) -> None:
  """Refutes unless the call is refused by the names of the demand and of the variant."""
  try:
    jax.eval_shape(subject.eager, subject.params(shape.dims()), subject.inputs(shape), call)
  except Unsupported as refusal:
    message = str(refusal).lower()
    demand_named = name in message or (name == "prefix" and "causal" in message)
    if subject.name.lower() not in message or not demand_named:
      raise Refuted(f"the refusal of '{name}' does not name it and the variant: {refusal}", shape=shape) from refusal
    return
  except Exception as error:
    raise Refuted(
      f"'{name}' is not claimed; it ends in {type(error).__name__} and not in Unsupported: {error}", shape=shape
    ) from error
  raise Refuted(f"'{name}' is not claimed, yet accepted without a word", shape=shape)


def _expect_no_decoding(subject: VariantUnderTest, shape: Shape) -> None:
  """Refutes unless `extend` is refused by the name of the variant."""
  inputs = jax.tree.map(jnp.asarray, subject.inputs(shape))
  try:
    subject.variant.extend(subject.params(shape.dims()), {}, *inputs[:3], x=inputs.x)
  except Unsupported as refusal:
    if subject.name in str(refusal):
      return
  except Exception as error:
    raise Refuted(
      f"decoding is not claimed; it ends in {type(error).__name__} and not in Unsupported: {error}", shape=shape
    ) from error
  raise Refuted("decoding is not claimed, yet accepted, or refused without the variant's name", shape=shape)


def _mask(fields: dict[str, np.ndarray]) -> Mask:
  arrays: dict[str, Any] = {name: jnp.asarray(array) for name, array in fields.items()}
  return Mask(**arrays)


def _joined(a: Any, b: Any) -> Any:
  """Two arrays `B T …` one after the other in T; None where the variant does not read them."""
  return None if a is None else np.concatenate([a, b], axis=1)


PROOFS = {
  "padding equals truncation": padding,
  "packed equals separate": packing,
  "nothing readable gives zeros": nothing,
  "refuses undeclared demands": refusals,
}
