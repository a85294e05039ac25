"""Language models whose prompt reads itself in both directions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention.base import Unsupported
from attention_lab.attention.mask import Mask
from attention_lab.config import ModelConfig
from attention_lab.models.functional import functional
from attention_lab.models.language_model import TransformerLM

TOKENS = jnp.array([[1, 2, 3, 4, 5, 6], [6, 1, 5, 2, 4, 3]])
PREFIX = jnp.array([3, 1])


def prefix_model(attention):
  config = ModelConfig(attention=attention, width=16, heads=2, layers=2)
  return functional(lambda key: TransformerLM(config, 11, 12, key=key))


@pytest.mark.parametrize("attention", ["softmax", "alibi|local(window=4)"])
def test_a_prefix_reads_itself_both_ways_and_nothing_that_follows_it(filled, attention):
  model = prefix_model(attention)
  params = filled(model)
  run = jax.jit(lambda tokens: model.apply(params, tokens, mask=Mask(causal=True, prefix=PREFIX)).logits)
  plain = run(TOKENS)
  within, after = (np.abs(run(TOKENS.at[:, position].set(9)) - plain).max(axis=-1) for position in (2, 4))
  assert (within[0, :2] > 1e-3).all()  # row 0: tokens 0 and 1 read token 2, which is in their prefix
  chex.assert_trees_all_close(within[1, :2], np.zeros(2, np.float32), atol=1e-5)  # in row 1 it is not
  chex.assert_trees_all_close(after[:, :4], np.zeros((2, 4), np.float32), atol=1e-5)
  assert (after[:, 4:] > 1e-3).all()


def test_a_prefix_of_one_token_is_a_causal_model(filled):
  model = prefix_model("softmax")
  params = filled(model)
  run = jax.jit(model.apply)
  logits = run(params, TOKENS, mask=Mask(causal=True, prefix=jnp.array([1, 0]))).logits
  chex.assert_trees_all_close(logits, run(params, TOKENS).logits, atol=1e-5)


def test_a_variant_without_prefixes_refuses_one_by_name(filled):
  model = prefix_model("linear")
  with pytest.raises(Unsupported, match="Linear does not honour the mask constraint 'prefix'"):
    model.apply(filled(model), TOKENS, mask=Mask(causal=True, prefix=PREFIX))
