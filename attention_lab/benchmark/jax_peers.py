"""Peers that are JAX functions, as variants: `jax.nn.dot_product_attention`, by XLA and by cuDNN, and tokamax."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Attention, Call, Claims
from attention_lab.benchmark.program import Case, Program, attention_flops, refuse
from attention_lab.benchmark.variant_program import compile_variant


@dataclasses.dataclass(frozen=True)
class JaxPeer(Attention):
  """Attention by a function with the signature of `jax.nn.dot_product_attention`, causal or under a window."""

  name: str  # jax_dpa, jax_cudnn or tokamax

  def claims(self) -> Claims:
    return Claims(masks=frozenset({"causal", "window"}))

  def attend(self, params: Any, q: Any, k: Any, v: Any, call: Call) -> jax.Array:
    window, causal = call.mask.span, call.mask.causal
    demands = {"local_window_size": (window[0] - 1, 0 if causal else window[1] - 1)} if window else {}
    return self._function(q, k, v, is_causal=causal, **demands)

  def init_state(self, batch: int, dims: Any, dtype: Any) -> dict[str, jax.Array]:
    """A cache of keys and values, written in place."""
    rows = jnp.zeros((batch, dims.max_len, dims.kv_heads, dims.head), dtype)
    return {"k": rows, "v": rows, "length": jnp.zeros((), jnp.int32)}

  def extend(self, params: Any, state: Any, q: Any, k: Any, v: Any, **_: Any) -> tuple[Any, jax.Array]:
    """Appends tokens and attends from the last of them, the cache's unused slots masked by length."""
    at, length = state["length"], state["length"] + k.shape[1]
    caches = [
      jax.lax.dynamic_update_slice_in_dim(state[letter], rows, at, axis=1) for letter, rows in (("k", k), ("v", v))
    ]
    lengths = jnp.full((len(k),), length, jnp.int32)
    out = self._function(q[:, -1:], *caches, key_value_seq_lengths=lengths)
    return {"k": caches[0], "v": caches[1], "length": length}, out

  def _function(self, q: Any, k: Any, v: Any, **demands: Any) -> jax.Array:
    if self.name == "tokamax":
      import tokamax

      return tokamax.dot_product_attention(q, k, v, **demands)
    implementation: Any = "cudnn" if self.name == "jax_cudnn" else "xla"
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation, **demands)


def compile_jax(name: str, case: Case) -> Program:
  """`jax_dpa`, `jax_cudnn` or `tokamax` at `case`; raises Unsupported for what they do not do."""
  if name == "tokamax" and case.window:
    raise refuse(name, "is not measured under a window; leave --window out")
  if name == "tokamax" and case.mode == "decode":
    raise refuse(name, "is not measured in decoding: it takes no lengths of a cache; leave --mode=decode out")
  program = compile_variant(JaxPeer(name), case)
  if name != "jax_dpa":
    program = dataclasses.replace(program, flops=attention_flops(case), flops_from="formula")
  return program
