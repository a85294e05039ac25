"""Variants against JAX's own attention."""

import jax
import numpy as np
import pytest
from agreement import agree
from exchange import heads, mask, normal, run

DOT = "jax.nn.dot_product_attention"


def test_softmax_equals_dot_product_attention():
  qkv, bias = heads(1, S=9, K=2), normal(2, 2, 4, 12, 9)
  agree("softmax", DOT, run("softmax", qkv, bias=bias), np.asarray(jax.nn.dot_product_attention(*qkv, bias)))


def test_softmax_with_lengths_equals_dot_product_attention():
  qkv, lengths = heads(3), np.array([12, 7], np.int32)
  valid = np.arange(12)[None] < lengths[:, None]
  theirs = jax.nn.dot_product_attention(*qkv, key_value_seq_lengths=lengths, is_causal=True)
  agree("softmax", DOT, run("softmax", qkv, mask=mask(causal=True, kv_valid=valid)), np.asarray(theirs))


@pytest.mark.parametrize("causal", [True, False])
def test_local_equals_dot_product_attention_with_a_window(causal):
  qkv, side = heads(4), 3
  window = (side, 0) if causal else (side, side)
  theirs = jax.nn.dot_product_attention(*qkv, is_causal=causal, local_window_size=window)
  agree("local", DOT, run(f"local(window={side + 1})", qkv, mask=mask(causal=causal)), np.asarray(theirs))
