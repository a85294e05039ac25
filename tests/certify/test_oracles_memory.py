"""The oracles of low rank and of memories: claims of all, and each against a closed form or values by hand.

The shared claims hold for cosformer and ssd too; their values are in test_oracles_kernels.py.
"""

import importlib
import math
from types import SimpleNamespace as Variant

import numpy as np
import pytest

from attention_lab.certify.cases import memorizing, nystrom, synthesizer
from attention_lab.certify.oracle import Example

T, S, N, K, H, V, D, M = 5, 6, 4, 2, 3, 2, 4, 3
VARIANTS = {
  "nystrom": Variant(landmarks=3, iterations=30, scale=None),
  "synthesizer": Variant(kind="dense", hidden=M, rank=2),
  "induced_set": Variant(latents=M, scale=None),
  "memory_compressed": Variant(stride=2, scale=None),
  "persistent": Variant(memories=M, scale=None),
  "memorizing": Variant(window=2, neighbours=2, scale=None),
  "cosformer": Variant(chunk=4),
  "ssd": Variant(chunk=4),
}
SHAPES = {
  "dense": {"kernel1": (N, D, M), "bias1": (N, M), "kernel2": (N, M, S), "bias2": (N, S)},
  "random": {"logits": (N, S, S)},
  "factorized": {"rows": (N, S, 2), "columns": (N, S, 2)},
  "induced_set": {"latents": (N, M, H)},
  "persistent": {"keys": (N, M, H), "values": (N, M, V)},
  "memorizing": {"gate": (N,)},
}
UNSCALED, TINY = math.sqrt(H), 1e-13


def params_of(name):
  rng = np.random.default_rng(1)
  if name == "ssd":
    return {"kernel": rng.normal(size=(D, K)), "bias": rng.normal(size=K), "rate": rng.normal(size=K)}
  tables = SHAPES.get("dense" if name == "synthesizer" else name, {})
  return {"per_head": {n: rng.normal(size=size) for n, size in tables.items()}, "fixed": {"length": np.array(6.0)}}


def example(mask=None, queries=T, keys=S, **changes):
  """Random values; every key readable unless `mask` says otherwise."""
  rng = np.random.default_rng(0)
  q, k, v = rng.normal(size=(queries, N, H)), rng.normal(size=(keys, K, H)), rng.normal(size=(keys, K, V))
  x, y = rng.normal(size=(queries, D)), rng.normal(size=(keys, D))
  readable = np.broadcast_to(True if mask is None else mask, (N, queries, keys))
  fields = {"i": np.arange(queries), "j": np.arange(keys), "x": x, "y": y, "readable": readable}
  return Example(**({"q": q, "k": k, "v": v} | fields | changes))


def line(q, k, v, mask=None):
  """One head of width 1 at positions 0, 1, …; query t stands at position t."""
  q, k, v = (np.array(a, float)[:, None, None] for a in (q, k, v))
  mask = np.ones((len(q), len(k)), bool) if mask is None else mask
  return Example(
    q, k, v, mask[None], np.arange(len(q)), np.arange(len(k)), np.zeros((len(q), 1)), np.zeros((len(k), 1))
  )


def run(name, sample, params=None, **fields):
  module = importlib.import_module(f"attention_lab.certify.cases.{name}")
  variant = Variant(**(vars(VARIANTS[name]) | fields))
  return module.oracle(variant, params_of(name) if params is None else params, sample)


def softmax(logits, mask=True):
  weights = np.where(mask, np.exp(logits), 0.0)
  return weights / weights.sum(axis=-1, keepdims=True)


def repeated(array):
  return np.repeat(array, N // K, axis=1)


def products(e):
  return np.einsum("tnh,snh->nts", e.q, repeated(e.k))


def mixed(weights, e):
  return np.einsum("nts,snv->tnv", weights, repeated(e.v))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_case_names_its_variant_and_its_paper(name):
  module = importlib.import_module(f"attention_lab.certify.cases.{name}")
  assert 1 <= len(module.SPECS) <= 3
  assert all(spec.partition("(")[0] == name for spec in module.SPECS)
  assert "arXiv" in module.__doc__


@pytest.mark.parametrize("name", VARIANTS)
def test_a_row_without_a_readable_key_gives_zeros(name):
  mask = np.ones((T, S), bool)
  mask[2] = False
  out = run(name, example(mask))
  np.testing.assert_array_equal(out[2], 0.0)
  assert np.isfinite(out).all()
  np.testing.assert_array_equal(run(name, example(np.zeros((T, S), bool))), 0.0)


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {"memory_compressed"}))
def test_a_key_that_no_query_reads_is_as_if_it_were_not_there(name):
  e, keep = example(np.arange(S) != 3), [0, 1, 2, 4, 5]
  short = Example(e.q, e.k[keep], e.v[keep], e.readable[:, :, keep], e.i, e.j[keep], e.x, e.y[keep])
  np.testing.assert_allclose(run(name, short), run(name, e), atol=TINY)


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {"nystrom"}))
def test_a_part_of_the_queries_gives_that_part_of_the_rows(name):
  e, rows = example(np.tri(T, S, dtype=bool)), [1, 4]
  part = Example(e.q[rows], e.k, e.v, e.readable[:, rows], e.i[rows], e.j, e.x[rows], e.y)
  np.testing.assert_array_equal(run(name, part), run(name, e)[rows])


@pytest.mark.parametrize("name", ("nystrom", "induced_set", "memory_compressed", "cosformer", "ssd"))
def test_a_bias_is_refused(name):
  with pytest.raises(ValueError, match="drop the bias"):
    run(name, example(bias=np.zeros((N, T, S))))


def test_nystrom_with_a_landmark_for_each_token_is_softmax_attention():
  e = example(queries=3, keys=3)
  exact = mixed(softmax(products(e) / UNSCALED), e)
  for count in (3, 8):
    np.testing.assert_allclose(run("nystrom", e, landmarks=count, iterations=60), exact, atol=1e-9)
  assert np.abs(run("nystrom", e, landmarks=2) - exact).max() > 1e-3


def test_nystrom_equals_its_formula_with_the_exact_pseudo_inverse():
  e, means = example(queries=6), np.kron(np.eye(3), [0.5, 0.5])
  few_q, few_k = np.einsum("mt,tnh->mnh", means, e.q), np.einsum("ms,snh->mnh", means, e.k)
  f = softmax(np.einsum("tnh,mnh->ntm", e.q, repeated(few_k)) / UNSCALED)
  a = softmax(np.einsum("lnh,mnh->nlm", few_q, repeated(few_k)) / UNSCALED)
  b = softmax(np.einsum("mnh,snh->nms", few_q, repeated(e.k)) / UNSCALED)
  np.testing.assert_allclose(run("nystrom", e, iterations=60), mixed(f @ np.linalg.pinv(a) @ b, e), atol=1e-9)


def test_nystrom_with_one_landmark_is_the_read_of_the_mean_query():
  e = example(np.array([True, True, False, True, True])[:, None])
  logits = np.einsum("nh,snh->ns", e.q[[0, 1, 3, 4]].mean(axis=0), repeated(e.k)) / UNSCALED
  out, expected = run("nystrom", e, landmarks=1), np.einsum("ns,snv->nv", softmax(logits), repeated(e.v))
  np.testing.assert_array_equal(out[2], 0.0)
  np.testing.assert_allclose(out[[0, 1, 3, 4]], np.broadcast_to(expected, (4, N, V)), atol=TINY)


def test_nystrom_landmarks_by_rank():
  tokens = [np.array([float(x)]) for x in (1, 2, 3, 4, 5)]
  assert [float(x[0]) for x in nystrom.landmarks(tokens, 3)] == [1.5, 3.5, 5.0]
  assert [float(x[0]) for x in nystrom.landmarks(tokens[:2], 3)] == [1.0, 2.0]
  assert nystrom.ALL_ROWS


def test_nystrom_inverse_by_hand():
  matrix = np.array([[2.0, 0.0], [0.0, 1.0]])  # starts at matrix / 4, with a product of diag(1, 1/4)
  step = 0.25 * 0.25 * (13 - 0.25 * (15 - 0.25 * (7 - 0.25)))
  np.testing.assert_allclose(nystrom.inverse(matrix, 1), np.diag([0.5 * (13 - (15 - (7 - 1))) / 4, step]), rtol=1e-14)
  np.testing.assert_array_equal(nystrom.inverse(matrix, 0), matrix / 4)


def test_synthesizers_equal_their_matrix_forms():
  e, bias, rng = example(), np.random.default_rng(5).normal(size=(N, T, S)), np.random.default_rng(2)
  tables = {kind: {n: rng.normal(size=s) for n, s in SHAPES[kind].items()} for kind in synthesizer.KINDS}
  d, f = tables["dense"], tables["factorized"]
  hidden = np.maximum(np.einsum("td,ndr->ntr", e.x, d["kernel1"]) + d["bias1"][:, None], 0.0)
  logits = {
    "dense": hidden @ d["kernel2"] + d["bias2"][:, None],
    "random": tables["random"]["logits"][:, :T],
    "factorized": (f["rows"] @ f["columns"].transpose(0, 2, 1))[:, :T],
  }
  sample = example(q=None, k=None, bias=bias)
  for kind, expected in logits.items():
    out = run("synthesizer", sample, {"per_head": tables[kind]}, kind=kind)
    np.testing.assert_allclose(out, mixed(softmax(expected + bias), e), atol=TINY)


def test_synthesizers_read_positions_and_have_none_beyond_their_tables():
  i, j = np.array([4, 0, 2, 1, 6]), np.array([5, 3, -1, 1, 0, 2])
  e = example(j >= 0, i=i, j=j)
  table = np.random.default_rng(2).normal(size=(N, S, S))
  out = run("synthesizer", e, {"per_head": {"logits": table}}, kind="random")
  logits = table[:, i[:4]][:, :, j]
  np.testing.assert_allclose(out[:4], mixed(softmax(logits, j >= 0), e), atol=TINY)
  assert np.isnan(out[4]).all()
  assert np.isfinite(run("synthesizer", e)).all()  # a dense one has no table of queries
  assert np.isnan(run("synthesizer", example(j >= 0, i=i, j=np.where(j == 5, 6, j)))).all()


def test_induced_sets_equal_their_matrix_form():
  valid = np.arange(S) != 1
  e, latents = example(valid), params_of("induced_set")["per_head"]["latents"]
  gathered = softmax(np.einsum("nmh,snh->nms", latents, repeated(e.k)) * 0.7, valid) @ repeated(e.v).transpose(1, 0, 2)
  expected = softmax(np.einsum("tnh,nmh->ntm", e.q, latents) * 0.7) @ gathered
  np.testing.assert_allclose(run("induced_set", e, scale=0.7), expected.transpose(1, 0, 2), atol=TINY)


def test_pooled_cells_are_array_slots_and_means_over_the_readable():
  mask = np.array([[True, True, False, True, False, False, True]])
  keys = np.log([1, 9, 7, 2, 5, 5, 4])  # cells (0, 1), (3), none, (6): weights 3, 2, 4
  sample = line([1.0], keys, [2, 4, 9, 5, 9, 9, 7], mask)
  np.testing.assert_allclose(run("memory_compressed", sample)[0, 0, 0], (3 * 3 + 2 * 5 + 4 * 7) / 9, rtol=1e-14)


def test_pooled_of_stride_one_is_softmax_attention_and_of_any_stride_softmax_over_means():
  e = example()
  np.testing.assert_allclose(
    run("memory_compressed", e, stride=1), mixed(softmax(products(e) / UNSCALED), e), atol=TINY
  )
  k, v = e.k.reshape(2, 3, K, H).mean(axis=1), e.v.reshape(2, 3, K, V).mean(axis=1)
  few = example(keys=2, k=k, v=v)
  np.testing.assert_allclose(
    run("memory_compressed", e, stride=3), mixed(softmax(products(few) / UNSCALED), few), atol=TINY
  )


def test_persistent_memories_stand_beside_the_tokens_without_a_bias():
  mask, bias = np.tri(T, S, dtype=bool), np.random.default_rng(5).normal(size=(N, T, S))
  e, memory = example(mask, bias=bias), params_of("persistent")["per_head"]
  tokens = np.where(mask, np.exp(products(e) / UNSCALED + bias), 0.0)
  stored = np.exp(np.einsum("tnh,nmh->ntm", e.q, memory["keys"]) / UNSCALED)
  total = tokens.sum(-1) + stored.sum(-1)
  expected = mixed(tokens, e) + np.einsum("ntm,nmv->tnv", stored, memory["values"])
  np.testing.assert_allclose(run("persistent", e), expected / total.T[:, :, None], atol=TINY)


def test_memorizing_of_one_query_by_hand():
  params = {"per_head": {"gate": np.log([3])}}  # g = 3/4
  sample = line(np.ones(6), np.log([5, 1, 3, 5, 2, 6]), [1, 2, 3, 4, 8, 16], np.tri(6, dtype=bool))
  out = memorizing.oracle(VARIANTS["memorizing"], params, sample)[:, 0, 0]
  near, far = (2 * 8 + 6 * 16) / 8, (5 * 1 + 5 * 4) / 10
  np.testing.assert_allclose(out[5], 0.25 * near + 0.75 * far, rtol=1e-14)
  np.testing.assert_allclose(out[:3], [1, (5 + 2) / 6, 0.25 * (2 + 3 * 3) / 4 + 0.75 * 1], rtol=1e-14)
  tied = memorizing.oracle(Variant(window=2, neighbours=1, scale=None), params, sample)[5, 0, 0]
  np.testing.assert_allclose(tied, 0.25 * near + 0.75 * far, rtol=1e-14)


def test_memorizing_without_a_near_key_or_without_a_memory():
  params, mask = {"per_head": {"gate": np.zeros(1)}}, np.tri(4, dtype=bool)
  mask[3, 2:] = False
  out = memorizing.oracle(VARIANTS["memorizing"], params, line(np.zeros(4), np.ones(4), [2, 4, 6, 8], mask))
  np.testing.assert_allclose(out[:, 0, 0], [2, 3, (2 + 5) / 2, 3 / 2], rtol=1e-14)


def test_memorizing_chooses_by_the_biased_logit():
  e = line(np.ones(5), [2, 1, 0, 0, 0], [1, 2, 4, 8, 16], np.tri(5, dtype=bool))
  bias = np.zeros((1, 5, 5))
  bias[0, 4, :3] = [0, 1, 2]  # all three tie
  biased = Example(e.q, e.k, e.v, e.readable, e.i, e.j, bias=bias)
  out = memorizing.oracle(VARIANTS["memorizing"], {"per_head": {"gate": np.zeros(1)}}, biased)
  np.testing.assert_allclose(out[4, 0, 0], (7 / 3 + 12) / 2, rtol=1e-14)
