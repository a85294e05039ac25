"""Variants against x-transformers."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra peers")
pytest.importorskip("x_transformers", reason="needs the extra peers")

from agreement import agree
from exchange import heads, mask, normal, run
from layers import flat, ready, split, tensors
from x_transformers.attend import Attend
from x_transformers.x_transformers import Attention, CoPE

D, N, T = 32, 4, 12
ATTEND = "x_transformers.attend.Attend"


@pytest.mark.parametrize("causal", [False, True])
def test_top_k_equals_sparse_top_k(causal):
  qkv = heads(1)
  theirs, _ = Attend(heads=N, sparse_topk=3, causal=causal)(*tensors(qkv))
  agree("top_k", ATTEND, run("top_k(k=3)", qkv, mask=mask(causal=causal)), theirs.transpose(1, 2))


def test_sigmoid_equals_sigmoid_with_the_bias_of_its_length():
  qkv = heads(2)
  theirs, _ = Attend(heads=N, sigmoid=True, causal=True)(*tensors(qkv), attn_bias=torch.tensor(-math.log(T)))
  agree("sigmoid", ATTEND, run("sigmoid", qkv, mask=mask(causal=True)), theirs.transpose(1, 2))


def test_talking_heads_equal_talking_heads():
  qkv, layer = heads(3), ready(Attend(heads=N, pre_talking_heads=True, post_talking_heads=True))
  theirs, _ = layer(*tensors(qkv))
  before, after = (
    convolution.weight.detach().numpy()[:, :, 0, 0].T
    for convolution in (layer.pre_softmax_talking_heads, layer.post_softmax_talking_heads)
  )
  ours = run("talking_heads", qkv, params={"logits": before + np.eye(N), "weights": after})
  agree("talking_heads", ATTEND, ours, theirs.detach().transpose(1, 2))


def test_soft_cap_and_sink_equal_softclamp_and_sink():
  qkv, sinks = heads(4), normal(5, N)
  layer = Attend(heads=N, softclamp_logits=True, logit_softclamp_value=1.5, head_learned_sink=True, causal=True)
  layer.head_attn_sink.data = torch.from_numpy(sinks)
  theirs, _ = layer(*tensors(qkv))
  params = {"per_head": {"sink": sinks}}
  ours = run("softmax(soft_cap=1.5, sink=True)", qkv, params=params, mask=mask(causal=True))
  agree("softmax", ATTEND, ours, theirs.detach().transpose(1, 2))


def test_cope_equals_contextual_positions():
  qkv, layer = heads(6), ready(CoPE(8, N, 5))
  theirs, _ = Attend(heads=N, causal=True, cope=layer)(*tensors(qkv))
  params = {"codes": layer.pos_emb.detach().numpy()}
  ours = run("cope(positions=5)", qkv, params=params, mask=mask(causal=True))
  agree("cope", "x_transformers.CoPE", ours, theirs.detach().transpose(1, 2))


def test_cosine_equals_normalised_queries_and_keys():
  layer, x = ready(Attention(D, heads=N, dim_head=8, qk_norm=True, qk_norm_scale=7.0), "to_out"), normal(7, 2, T, D)
  ours = run("cosine(scale=7.0)", split(x, layer.to_q, layer.to_k, layer.to_v, count=N))
  agree("cosine", "x_transformers.Attention", flat(ours), layer(torch.from_numpy(x)).detach())


@pytest.mark.parametrize("causal", [False, True])
def test_persistent_equals_memory_keys_and_values(causal):
  layer, x = ready(Attention(D, heads=N, dim_head=8, num_mem_kv=3, causal=causal), "to_out"), normal(8, 2, T, D)
  params = {"per_head": {"keys": layer.mem_k.detach().numpy(), "values": layer.mem_v.detach().numpy()}}
  qkv = split(x, layer.to_q, layer.to_k, layer.to_v, count=N)
  ours = run("persistent(memories=3)", qkv, params=params, mask=mask(causal=causal))
  agree("persistent", "x_transformers.Attention", flat(ours), layer(torch.from_numpy(x)).detach())
