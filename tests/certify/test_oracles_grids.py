"""The oracles on grids, over blocks and by hashes, against literal tables, values by hand and matrix formulas."""

import importlib
from types import SimpleNamespace as Variant

import numpy as np
import pytest

from attention_lab.certify.cases import hierarchical, long_t5_tglobal, lsh, moba, region
from attention_lab.certify.oracle import Example

RANDOM = {"fixed": {"blocks": np.array([[2.0], [3.0], [1.0], [2.0]])}}
FIRST = {"fixed": {"blocks": np.array([[3.0], [3.0], [0.0], [0.0]])}}
PATTERNS = {
  "sparse_fixed": (Variant(stride=3, expressivity=1), {}),
  "bigbird": (Variant(block=2, window=1, global_blocks=1, random=1), RANDOM),
  "bigbird/near": (Variant(block=2, window=3, global_blocks=0, random=1), FIRST),
  "axial": (Variant(columns=3), {}),
  "neighbourhood": (Variant(window=3, columns=3), {}),
  "swin": (Variant(window=2, shift=1, columns=3), {}),
  "swin/three": (Variant(window=3, shift=1, columns=3), {}),
  "swin/regular": (Variant(window=2, shift=0, columns=3), {}),
  "divided_space_time": (Variant(tokens=4), {}),
}
READ = """
sparse_fixed       111001001 111001001 111001001 001111001 001111001 001111001 001001111 001001111 001001111
bigbird            111111111 111111111 111100110 111100110 111111000 111111000 110011110 110011110 110011001
bigbird/near       111100110 111100110 111111110 111111110 111111110 111111110 110011111 110011111 110000111
axial              111100100 111010010 111001001 100111100 010111010 001111001 100100111 010010111 001001111
neighbourhood      110110000 111111000 011011000 110110110 111111111 011011011 000110110 000111111 000011011
swin               100000000 011000000 011000000 000100100 000011011 000011011 000100100 000011011 000011011
swin/three         100000000 011000000 011000000 000100100 000011011 000011011 000100100 000011011 000011011
swin/regular       110110000 110110000 001001000 110110000 110110000 001001000 000000110 000000110 000000001
divided_space_time 111110001 111101000 111100100 111100010 100011111 010011110 001011110 000111110 100010001
"""
TABLES = {name: rows for name, *rows in map(str.split, READ.strip().splitlines())}
LEVELS = {
  1: ["00112222", "00012222", "10001122", "11000122", "22100011", "22110001", "22221000", "22221100"],
  2: ["00001111"] * 2 + ["00000011"] * 2 + ["11000000"] * 2 + ["11110000"] * 2,
  4: ["00000000"] * 8,
}
NINE = np.arange(9)


def drawn(seed, queries, keys, readable, bias=False):
  """Four query heads on two key heads; the queries are those at the places `queries` of the array."""
  rng = np.random.default_rng(seed)
  q, k, v = rng.normal(size=(keys, 4, 3)), rng.normal(size=(keys, 2, 3)), rng.normal(size=(keys, 2, 2))
  added = rng.normal(size=(4, keys, keys))[:, queries] if bias else None
  mask = np.broadcast_to(readable, (4, keys, keys))[:, queries]
  return Example(q[queries], k, v, mask, np.asarray(queries), np.arange(keys), bias=added)


def dense(example, keys, values, read, factor):
  """Softmax over the slots that `read` [N, T, M] allows, with keys and values [M, N, ·]; rows without any are 0."""
  logits = factor * np.einsum("tnh,mnh->ntm", example.q, keys)
  weights = np.where(read, np.exp(logits + (0.0 if example.bias is None else example.bias)), 0.0)
  total = weights.sum(-1, keepdims=True)
  return np.einsum("ntm,mnv->tnv", weights / np.where(total, total, 1.0), values)


def wide(array):
  return np.repeat(array, 2, axis=1)


def table(rows):
  return np.array([[int(c) for c in row] for row in rows])


def plain(readable, v=None):
  """One head whose logits are all 0."""
  queries, keys = readable.shape
  values = 2.0 ** np.arange(keys) if v is None else v
  zeros = np.zeros((keys, 1, 1))
  return Example(zeros[:queries], zeros, values[:, None, None], readable[None], np.arange(queries), np.arange(keys))


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_its_literal_table_whatever_order_the_positions_come_in(name):
  variant, params = PATTERNS[name]
  oracle = importlib.import_module(f"attention_lab.certify.cases.{name.split('/')[0]}").oracle
  literal = table(TABLES[name]).astype(bool)
  for scale, factor, mask in ((None, 3**-0.5, np.ones((9, 9), bool)), (0.3, 0.3, np.tri(9, dtype=bool))):
    order = np.random.default_rng(5).permutation(9)
    picked = np.array([4, 0, 8, 2, 7])
    example = drawn(1, picked, 9, mask, bias=True)
    shuffled = Example(example.q, example.k, example.v, example.readable, picked, order, bias=example.bias)
    expected = dense(example, wide(example.k), wide(example.v), literal[picked][:, order] & example.readable, factor)
    out = oracle(Variant(**vars(variant), scale=scale), params, shuffled)
    np.testing.assert_allclose(out, expected, atol=1e-13)


def test_summaries_stand_beside_near_keys_and_count_valid_keys_only():
  variant, valid = Variant(window=2, block=3, scale=None), np.array([1, 0, 1, 0, 0, 0, 1], bool)
  out = long_t5_tglobal.oracle(variant, {}, plain(np.tile(valid, (7, 1))))[:, 0, 0]
  first, last = (1 + 4) / 2, 64.0
  assert out[0] == pytest.approx((1 + first + last) / 3)
  assert out[1] == pytest.approx((1 + 4 + first + last) / 4)
  assert out[4] == pytest.approx((first + last) / 2)
  assert out[6] == pytest.approx((64 + first + last) / 3)


def test_other_regions_are_read_as_means_and_the_own_one_by_token():
  variant = Variant(size=2, columns=3, scale=None)
  out = region.oracle(variant, {}, plain(np.ones((9, 9), bool)))[:, 0, 0]
  assert out[0] == out[4] == pytest.approx((1 + 2 + 8 + 16 + 18 + 96 + 256) / 7)
  assert out[5] == pytest.approx((4 + 32 + 6.75 + 96 + 256) / 5)
  assert out[8] == pytest.approx((256 + 6.75 + 18 + 96) / 4)
  holes = region.oracle(variant, {}, plain(np.tile(~np.isin(NINE, [2, 4, 5]), (9, 1))))[:, 0, 0]
  assert holes[4] == pytest.approx((1 + 2 + 8 + 96 + 256) / 5)
  assert holes[2] == pytest.approx((11 / 3 + 96 + 256) / 3)


@pytest.mark.parametrize("picked", [NINE, np.array([7, 2])], ids=["all rows", "two rows"])
@pytest.mark.parametrize("name", ["long_t5_tglobal", "region"])
def test_pooled_keys_are_slots_of_one_softmax(name, picked):
  cells = {"long_t5_tglobal": "000111222", "region": "001001223"}[name]
  cell_of = np.array([int(c) for c in cells])
  q_valid, kv_valid = NINE != 2, ~np.isin(NINE, [1, 2, 5])
  example = drawn(2, picked, 9, q_valid[:, None] & kv_valid)
  member = (cell_of == np.arange(4)[:, None]) & kv_valid
  pool = np.einsum("cs,snh->cnh", member / np.maximum(member.sum(1, keepdims=True), 1), example.k)
  pool_values = np.einsum("cs,snh->cnh", member / np.maximum(member.sum(1, keepdims=True), 1), example.v)
  if name == "region":
    single, group = cell_of[picked][:, None] == cell_of, cell_of[picked][:, None] != np.arange(4)
    oracle, variant = region.oracle, Variant(size=2, columns=3, scale=0.7)
  else:
    single, group = abs(picked[:, None] - NINE) < 2, np.ones((len(picked), 4), bool)
    oracle, variant = long_t5_tglobal.oracle, Variant(window=2, block=3, scale=0.7)
  read = np.concatenate([single & kv_valid, group & member.any(1)], axis=1) & q_valid[picked][:, None]
  slots, values = np.concatenate([example.k, pool]), np.concatenate([example.v, pool_values])
  expected = dense(example, wide(slots), wide(values), np.tile(read, (4, 1, 1)), 0.7)
  np.testing.assert_allclose(oracle(variant, {}, example), expected, atol=1e-13)
  assert np.all(oracle(variant, {}, example)[picked == 2] == 0)


@pytest.mark.parametrize("block", LEVELS)
def test_levels_are_the_literal_tables(block):
  levels = [[hierarchical.level(t, s, block) for s in range(8)] for t in range(8)]
  np.testing.assert_array_equal(levels, table(LEVELS[block]))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("block", LEVELS)
def test_a_logit_reads_the_mean_over_its_cell_and_a_value_stays_its_own(block, causal):
  valid, places = np.array([1, 1, 0, 1, 1, 1, 0, 1], bool), np.arange(8)
  readable = valid & (np.tri(8, dtype=bool) if causal else np.ones((8, 8), bool))
  for picked in (places, np.array([6, 7, 3])):
    example = drawn(3, picked, 8, readable)
    logits = np.zeros((4, len(picked), 8))
    for level in range(3):
      cell = (places[:, None] >> level == places >> level) & valid
      pool = np.einsum("sr,rnh->snh", cell / np.maximum(cell.sum(1, keepdims=True), 1), wide(example.k))
      logits += (table(LEVELS[block])[picked] == level) * np.einsum("tnh,snh->nts", example.q, pool)
    weights = np.where(example.readable, np.exp(logits / 3**0.5), 0.0)
    expected = np.einsum("nts,snv->tnv", weights / weights.sum(-1, keepdims=True), wide(example.v))
    np.testing.assert_allclose(hierarchical.oracle(Variant(block=block, scale=None), {}, example), expected, atol=1e-13)


def test_a_query_reads_its_bucket_and_itself_only_when_alone():
  numbers, v = np.array([1.0, 2, -1, -3, 0.5]), 2.0 ** np.arange(5)
  sides = {"fixed": {"rotations": np.array([[[1.0]]])}}
  places, q = np.arange(5), numbers[:, None, None]
  for mask, reads in (
    (np.ones((5, 5), bool), ["01001", "10001", "00010", "00100", "11000"]),
    (np.tri(5, dtype=bool), ["10000", "10000", "00100", "00100", "11000"]),
  ):
    example = Example(q, None, v[:, None, None], mask[None], places, places)
    out = lsh.oracle(Variant(scale=0.0), sides, example)[:, 0, 0]
    np.testing.assert_allclose(out, table(reads) @ v / table(reads).sum(1), rtol=1e-14)
  tie = {"fixed": {"rotations": np.zeros((1, 1, 1))}}
  out = lsh.oracle(Variant(scale=0.0), tie, example)[:, 0, 0]
  np.testing.assert_allclose(out, [1, 1, 3 / 2, 7 / 3, 15 / 4], rtol=1e-14)


def test_rounds_of_hashing_are_joined_and_heads_hash_for_themselves():
  rng = np.random.default_rng(4)
  q, v, rotations = rng.normal(size=(9, 4, 3)), rng.normal(size=(9, 4, 2)), rng.normal(size=(2, 3, 2))
  order, bias = rng.permutation(9) + 3, rng.normal(size=(4, 9, 9))
  readable = np.broadcast_to(NINE != 5, (4, 9, 9))
  turned = np.einsum("tnh,rhc->rntc", q, rotations)
  bucket = np.argmax(np.concatenate([turned, -turned], axis=-1), axis=-1)
  shared = (bucket[..., :, None] == bucket[..., None, :]).any(0) & readable
  others = shared & ~np.eye(9, dtype=bool)
  read = np.where(others.any(-1, keepdims=True), others, shared)
  keys = q / np.sqrt((q**2).sum(-1, keepdims=True) + 1e-6)
  example, params = Example(q, None, v, readable, order, order, bias=bias), {"fixed": {"rotations": rotations}}
  out = lsh.oracle(Variant(scale=None), params, example)
  np.testing.assert_allclose(out, dense(example, keys, v, read, 3**-0.5), atol=1e-13)
  with pytest.raises(ValueError, match="give all 9 rows"):
    lsh.oracle(Variant(scale=None), params, Example(q[:2], None, v, readable[:, :2], order[:2], order))


def blocks_read(q, hidden=(), top_k=2, picked=range(8)):
  """Which keys moba reads, from means 0, 2, 2.5 and 0 of four blocks of two; `q` is every query."""
  keys, picked = np.array([0, 0, 3, 1, 2.5, 2.5, 0, 0]), list(picked)
  mask = (np.tri(8, dtype=bool) & ~np.isin(np.arange(8), list(hidden)))[picked]
  queries = np.full((len(picked), 1, 1), float(q))
  sample = Example(queries, keys[:, None, None], np.eye(8)[:, None], mask[None], np.array(picked), np.arange(8))
  out = moba.oracle(Variant(block=2, top_k=top_k, scale=1.0), {}, sample)[:, 0]
  return ["".join("1" if x > 0 else "0" for x in row) for row in out]


def test_the_best_earlier_blocks_are_read_with_the_own_one():
  first = ["10000000", "11000000", "11100000", "11110000"]
  assert blocks_read(1) == [*first, "00111000", "00111100", "00001110", "00001111"]
  assert blocks_read(-1) == [*first, "11001000", "11001100", "11000010", "11000011"]
  assert blocks_read(0) == [*first, "11111000", "11111100", "11111110", "11111111"]
  assert blocks_read(1, hidden=(4, 5))[6:] == ["00110010", "00110011"]
  assert blocks_read(1, hidden=(3,))[6:] == ["00100010", "00100011"]
  own_blocks = ["10000000", "11000000", "00100000", "00110000", "00001000", "00001100", "00000010", "00000011"]
  assert blocks_read(1, top_k=1) == own_blocks
  assert blocks_read(1, top_k=3)[6] == "00111110"
  assert blocks_read(1, picked=(7, 2)) == ["00001111", "11100000"]


def test_heads_choose_blocks_alone_and_look_back_only():
  picked = np.array([8, 3, 6])
  example = drawn(6, picked, 9, np.tri(9, dtype=bool) & (NINE != 4))
  pool = np.stack([wide(example.k)[[s for s in (2 * c, 2 * c + 1) if s not in (4, 9)]].mean(0) for c in range(5)])
  liking = np.einsum("tnh,cnh->ntc", example.q, pool)
  liking = np.where(np.arange(5) < picked[:, None] // 2, liking, -np.inf)
  best = np.argmax(liking, axis=-1)
  read = (best[..., None] == NINE // 2) | (picked[:, None] // 2 == NINE // 2)
  expected = dense(example, wide(example.k), wide(example.v), read & example.readable, 3**-0.5)
  np.testing.assert_allclose(moba.oracle(Variant(block=2, top_k=2, scale=None), {}, example), expected, atol=1e-13)
  assert len(np.unique(best[:, 0])) > 1
  with pytest.raises(ValueError, match="causal=True"):
    moba.oracle(Variant(block=2, top_k=2, scale=None), {}, drawn(6, picked, 9, np.ones((9, 9), bool)))


@pytest.mark.parametrize("name", ["long_t5_tglobal", "region", "hierarchical", "moba"])
def test_what_counts_in_array_places_refuses_positions_and_bias(name):
  oracle = importlib.import_module(f"attention_lab.certify.cases.{name}").oracle
  variant = Variant(window=2, block=2, size=2, columns=3, top_k=2, scale=None)
  sample = plain(np.tri(4, dtype=bool))
  moved = Example(sample.q, sample.k, sample.v, sample.readable, sample.i + 1, sample.j + 1)
  with pytest.raises(ValueError, match="leave the positions out"):
    oracle(variant, {}, moved)
  biased = Example(sample.q, sample.k, sample.v, sample.readable, sample.i, sample.j, bias=np.zeros((1, 4, 4)))
  with pytest.raises(ValueError, match="drop the bias"):
    oracle(variant, {}, biased)
  assert np.all(oracle(variant, {}, plain(np.zeros((4, 4), bool))) == 0)


def test_a_grid_needs_its_columns():
  axial = importlib.import_module("attention_lab.certify.cases.axial").oracle
  with pytest.raises(ValueError, match="columns=0"):
    axial(Variant(columns=0, scale=None), {}, plain(np.ones((4, 4), bool)))
