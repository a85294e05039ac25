"""The oracles that read by position alone or within a fixed pattern, against literal tables."""

import importlib
from types import SimpleNamespace as Variant

import numpy as np
import pytest

from attention_lab.certify.cases import hard_coded
from attention_lab.certify.oracle import Example

VARIANTS = {
  "block_local": Variant(block=3, scale=None),
  "dilated": Variant(window=2, dilation=2, scale=None),
  "sparse_strided": Variant(stride=3, scale=None),
  "longformer": Variant(window=2, global_tokens=1, scale=None),
}
TABLES = {
  "block_local": ["1110000", "1110000", "1110000", "0001110", "0001110", "0001110", "0000001"],
  "dilated": ["1010000", "0101000", "1010100", "0101010", "0010101", "0001010", "0000101"],
  "sparse_strided": ["1111001", "1111100", "1111110", "1111111", "0111111", "0011111", "1001111"],
  "longformer": ["1111111", "1110000", "1111000", "1011100", "1001110", "1000111", "1000011"],
}


def test_hard_coded_heads_look_back_ahead_and_at_themselves():
  v = np.array([1.0, 2, 4, 8])
  mask, places = np.ones((4, 4, 4), bool), np.arange(4)
  sample = Example(None, None, np.tile(v[:, None, None], (1, 4, 1)), mask, places, places)
  sharp = hard_coded.oracle(Variant(sigma=0.05), {}, sample)[..., 0].T
  np.testing.assert_allclose(sharp, [[1, 1, 2, 4], [2, 4, 8, 8], v, [1, 1, 2, 4]], rtol=1e-12)
  wide = hard_coded.oracle(Variant(sigma=2.0), {}, sample)[0, :, 0]
  back = np.exp([-1 / 8, -4 / 8, -9 / 8, -16 / 8])
  np.testing.assert_allclose(wide[[0, 3]], back @ v / back.sum(), rtol=1e-14)


@pytest.mark.parametrize("name", TABLES)
def test_a_pattern_is_its_literal_table_by_positions_and_under_the_mask(name):
  oracle = importlib.import_module(f"attention_lab.certify.cases.{name}").oracle
  table, v = np.array([[int(c) for c in row] for row in TABLES[name]]), 2.0 ** np.arange(7)
  for rows, columns, mask in (
    (np.arange(7), np.arange(7), np.ones((7, 7), bool)),
    (np.arange(7), np.arange(7), np.tri(7, dtype=bool)),
    (np.array([3, 0, 6, 2]), np.array([5, 1, 0, 6, 2, 4, 3]), np.ones((4, 7), bool)),
  ):
    q, k = np.zeros((len(rows), 1, 1)), np.ones((7, 1, 1))
    read = table[rows][:, columns] * mask
    out = oracle(VARIANTS[name], {}, Example(q, k, v[:, None, None], mask[None], rows, columns))
    np.testing.assert_allclose(out[:, 0, 0], read @ v / read.sum(1), rtol=1e-14)


@pytest.mark.parametrize("name", TABLES)
def test_within_its_pattern_a_row_is_a_softmax_of_the_logits(name):
  oracle = importlib.import_module(f"attention_lab.certify.cases.{name}").oracle
  rng, table = np.random.default_rng(0), np.array([[c == "1" for c in row] for row in TABLES[name]])
  q, k, v, bias = rng.normal(size=(7, 4)), rng.normal(size=(7, 4)), rng.normal(size=(7, 2)), rng.normal(size=(7, 7))
  mask, places = np.ones((1, 7, 7), bool), np.arange(7)
  for scale, factor in ((None, 0.5), (0.3, 0.3)):
    variant = Variant(**(vars(VARIANTS[name]) | {"scale": scale}))
    sample = Example(q[:, None], k[:, None], v[:, None], mask, places, places, bias=bias[None])
    weights = np.where(table, np.exp(factor * q @ k.T + bias), 0.0)
    expected = weights @ v / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(oracle(variant, {}, sample)[:, 0], expected, atol=1e-13)
