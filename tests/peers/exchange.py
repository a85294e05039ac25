"""The same numbers for both sides: draws in NumPy, a variant called by its spec, tensors in torch's order of axes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention import spec
from attention_lab.attention.base import Call, Dims
from attention_lab.attention.mask import Mask


class Heads(NamedTuple):
  """Queries `B T N H`, keys `B S K H`, values `B S K V`."""

  q: np.ndarray
  k: np.ndarray
  v: np.ndarray


def normal(seed, *shape, scale=1.0):
  """Gaussian float32 numbers."""
  return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def heads(seed=0, *, B=2, T=12, S=0, N=4, K=0, H=8, V=0):
  """Gaussian queries, keys and values; S, K and V are T, N and H unless given."""
  shapes = (B, T, N, H), (B, S or T, K or N, H), (B, S or T, K or N, V or H)
  return Heads(*(normal(1000 * seed + i, *shape) for i, shape in enumerate(shapes)))


def mask(**constraints):
  """A mask out of NumPy arrays."""
  return Mask(
    **{name: jnp.asarray(value) if isinstance(value, np.ndarray) else value for name, value in constraints.items()}
  )


def run(text, qkv, *, params=None, dims=None, x=None, **demands):
  """The output of the variant that `text` names; `params` replaces parameters by name and must fit them."""
  variant = spec.parse(text)
  arrays = {letter: array for letter, array in zip("qkv", qkv or (), strict=False) if letter in variant.projections}
  dims = dims or _dims(qkv, x)
  weights = _replaced(variant.init(jax.random.key(0), dims), params or {})
  demands |= {name: jnp.asarray(value) for name, value in demands.items() if isinstance(value, np.ndarray)}
  demands["x"] = None if x is None else jnp.asarray(x)
  q, k, v = (jnp.asarray(arrays[letter]) if letter in arrays else None for letter in "qkv")
  return np.asarray(variant.with_aux(weights, q, k, v, Call(**demands)).out)


def _dims(qkv, x):
  """Sizes as the arrays have them; the longest sequence is the one at hand."""
  if qkv is None:
    return Dims(x.shape[-1], 1, 1, 1, 1, x.shape[1])
  _, T, N, H = qkv.q.shape
  return Dims(N * H if x is None else x.shape[-1], N, qkv.k.shape[2], H, qkv.v.shape[3], max(T, qkv.k.shape[1]))


def projected(x, weight, bias, count):
  """A linear layer in NumPy, torch's layout of weights (out, in), its output cut into `count` heads: `B T N H`."""
  out = x @ np.asarray(weight).T + (0.0 if bias is None else np.asarray(bias))
  return out.reshape(*x.shape[:2], count, -1).astype(np.float32)


def _replaced(initial: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
  unknown = set(params) - set(initial)
  assert not unknown, f"the variant has no parameters {unknown}: it has {set(initial)}"
  merged = dict(initial)
  for name, value in params.items():
    if isinstance(value, Mapping):
      merged[name] = _replaced(initial[name], value)
    else:
      assert np.shape(value) == np.shape(initial[name]), f"{name}: {np.shape(value)} for {np.shape(initial[name])}"
      merged[name] = jnp.asarray(value, initial[name].dtype)
  return merged
