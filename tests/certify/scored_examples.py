"""Small random examples for the oracles of scores and controls, with their variants, parameters and matrix forms."""

import importlib
from types import SimpleNamespace as Variant

import numpy as np

from attention_lab.certify.oracle import Example

T, N, K, H, V, D = 5, 4, 2, 4, 2, 6
R = 4  # rotated channels of mla
VARIANTS = {
  "softmax": Variant(scale=None, soft_cap=2.0, sink=True, temperature=True),
  "fox": Variant(scale=None),
  "stick_breaking": Variant(attend_current=False, scale=None),
  "adaptive_span": Variant(max_span=4, ramp=2, scale=None),
  "variational": Variant(sigma=0.5, prior_sigma=1.0, weight=1e-3, scale=None),
  "quantized": Variant(bits=4, block=3, scale=None),
  "mla": Variant(kv_rank=3, query_rank=2, rope=R, base=100.0),
  "shared_qk": Variant(values=True, scale=None),
  "transformer_xl": Variant(memory=0, scale=None),
  "disentangled": Variant(max_distance=2, scale=None),
  "cope": Variant(positions=3, scale=None),
  "long_convolution": Variant(squash=0.1),
  "token_mixer": Variant(hidden=2),
  "fourier": Variant(),
}
PER_HEAD = {
  "softmax": {"sink": (N,), "temperature": (N,)},
  "adaptive_span": {"span": (N,)},
  "mla": {"query": (N, 2, H + R), "keys": (N, 3, H), "values": (N, 3, V)},
  "transformer_xl": {"content": (N, H), "position": (N, H), "kernel": (N, D, H)},
  "disentangled": {"keys": (N, 4, H), "queries": (N, 4, H)},
  "long_convolution": {"filter": (N, 3), "backward": (N, 3)},
}
SHARED = {
  "fox": {"kernel": (D, K), "bias": (K,)},
  "mla": {"down": (D, 3), "rope": (D, R), "query": (D, 2)},
  "cope": {"codes": (3, H)},
  "token_mixer": {"kernel1": (T + 2, 2), "bias1": (2,), "kernel2": (2, T + 2), "bias2": (T + 2,)},
}
CAUSAL = ("fox", "stick_breaking", "cope")
WITHOUT_BIAS = ("long_convolution", "token_mixer", "fourier")
OWN_HEADS = ("mla", "shared_qk", *WITHOUT_BIAS)  # no grouped heads


def example(name="", valid=(1, 1, 1, 1, 1), asked=(1, 1, 0, 1, 1), **changes):
  """Random values; query 2 may read nothing; causal where the variant is."""
  rng = np.random.default_rng(0)
  mask = np.broadcast_to(np.outer(asked, valid).astype(bool), (N, T, T))
  mask = mask & np.tri(T, dtype=bool) if name in CAUSAL else mask
  kv = N if name in OWN_HEADS else K
  q, k, v = rng.normal(size=(T, N, H)), rng.normal(size=(T, kv, H)), rng.normal(size=(T, kv, V))
  x, i = rng.normal(size=(T, D)), np.arange(T)
  return Example(**({"q": q, "k": k, "v": v, "readable": mask, "i": i, "j": i, "x": x, "y": x} | changes))


def params_of(name):
  rng = np.random.default_rng(1)
  draw = lambda shapes: {leaf: rng.normal(size=shape) for leaf, shape in shapes.items()}
  return draw(SHARED.get(name, {})) | {"per_head": draw(PER_HEAD.get(name, {}))}


def run(name, sample, params=None, **fields):
  module = importlib.import_module(f"attention_lab.certify.cases.{name}")
  return module.oracle(Variant(**(vars(VARIANTS[name]) | fields)), params or params_of(name), sample)


def per_query_head(array):
  return np.repeat(array, N // array.shape[1], axis=1)


def products(e, q=None, k=None):
  return np.einsum("tnh,snh->nts", e.q if q is None else q, per_query_head(e.k if k is None else k))


def attended(logits, e, allowed=True):
  weights = np.where(e.readable & allowed, np.exp(logits), 0.0)
  total = weights.sum(-1, keepdims=True)
  return mixed(np.divide(weights, total, out=np.zeros_like(weights), where=total > 0), e)


def mixed(weights, e):
  return np.einsum("nts,snv->tnv", weights, per_query_head(e.v))


def close(name, e, expected, params=None, **fields):
  np.testing.assert_allclose(run(name, e, params, **fields), expected, atol=1e-12)
