"""Variants that score every pair, against modules of Hugging Face transformers with random weights."""

import types

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra peers")
transformers = pytest.importorskip("transformers", reason="needs the extra peers")

from agreement import agree
from exchange import Heads, heads, mask, normal, projected, run
from layers import flat, ready, split, tensors, triangle
from transformers.models.bert import modeling_bert
from transformers.models.deberta_v2 import modeling_deberta_v2
from transformers.models.diffllama import modeling_diffllama
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gpt_oss import modeling_gpt_oss
from transformers.models.mpt import modeling_mpt
from transformers.models.seamless_m4t_v2 import modeling_seamless_m4t_v2
from transformers.models.swinv2 import modeling_swinv2
from transformers.models.t5 import modeling_t5

D, N, T = 32, 4, 12


def test_softmax_equals_bert_with_padding():
  config = transformers.BertConfig(hidden_size=D, num_attention_heads=N, attn_implementation="eager")
  layer, x = ready(modeling_bert.BertSelfAttention(config)), normal(1, 2, T, D)
  valid = np.arange(T)[None] < np.array([[T], [7]])
  hidden = torch.where(torch.from_numpy(valid), 0.0, torch.finfo(torch.float32).min)[:, None, None]
  theirs = layer(torch.from_numpy(x), hidden)[0].detach()
  ours = run("softmax", split(x, layer.query, layer.key, layer.value, count=N), mask=mask(kv_valid=valid))
  agree("softmax", "transformers.BertSelfAttention", flat(ours), theirs)


def test_soft_cap_equals_gemma2():
  qkv = heads(2, K=2)
  module = types.SimpleNamespace(num_key_value_groups=2, training=False, head_dim=8)
  theirs, _ = modeling_gemma2.eager_attention_forward(module, *tensors(qkv), triangle(T), softcap=1.5)
  ours = run("softmax(soft_cap=1.5)", qkv, mask=mask(causal=True))
  agree("softmax", "transformers.gemma2.eager_attention_forward", ours, theirs)


def test_sinks_equal_gpt_oss():
  qkv, sinks = heads(3, K=2), normal(4, N)
  module = types.SimpleNamespace(num_key_value_groups=2, training=False, sinks=torch.from_numpy(sinks))
  theirs, _ = modeling_gpt_oss.eager_attention_forward(module, *tensors(qkv), triangle(T), 8**-0.5)
  ours = run("softmax(sink=True)", qkv, params={"per_head": {"sink": sinks}}, mask=mask(causal=True))
  agree("softmax", "transformers.gpt_oss.eager_attention_forward", ours, theirs)


@pytest.mark.parametrize("decoder", [False, True])
def test_t5_equals_t5_over_near_and_far_buckets(decoder):
  settings = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20}
  config = transformers.T5Config(d_model=D, d_kv=8, num_heads=N, attn_implementation="eager", **settings)
  config.is_decoder = decoder
  layer = ready(modeling_t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0), "o")
  x = normal(5, 1, 50, D)
  theirs = layer(torch.from_numpy(x), mask=triangle(50) if decoder else None)[0].detach()
  table = layer.relative_attention_bias.weight.detach().numpy().T
  text = f"t5(buckets=8, max_distance=20, bidirectional={not decoder})"
  qkv = split(x, layer.q, layer.k, layer.v, count=N)
  ours = run(text, qkv, params={"per_head": {"bias": table}}, mask=mask(causal=decoder))
  agree("t5", "transformers.T5Attention", flat(ours), theirs)


@pytest.mark.parametrize("count", [4, 6])
def test_alibi_equals_mpt(count):
  config = transformers.MptConfig(d_model=8 * count, n_heads=count, max_seq_len=T)
  layer, x = ready(modeling_mpt.MptAttention(config, layer_idx=0), "out_proj"), normal(6, 2, T, 8 * count)
  bias = modeling_mpt.build_mpt_alibi_tensor(count, T)
  later = torch.ones(T, T, dtype=torch.bool).triu(1)[None, None]
  theirs = layer(torch.from_numpy(x), bias, attention_mask=later)[0].detach()
  qkv = Heads(*(projected(x, weight, None, count) for weight in layer.Wqkv.weight.detach().chunk(3)))
  agree("alibi", "transformers.MptAttention", flat(run("alibi", qkv, mask=mask(causal=True))), theirs)


def test_relative_equals_seamless():
  config = transformers.SeamlessM4Tv2Config(
    hidden_size=D,
    speech_encoder_attention_heads=N,
    left_max_position_embeddings=3,
    right_max_position_embeddings=3,
    position_embeddings_type="relative_key",
    attn_implementation="eager",
  )
  layer = ready(modeling_seamless_m4t_v2.SeamlessM4Tv2ConformerSelfAttention(config), "linear_out")
  x, params = normal(7, 2, T, D), {"keys": layer.distance_embedding.weight.detach().numpy(), "values": np.zeros((7, 8))}
  theirs = layer(torch.from_numpy(x))[0].detach()
  ours = run("relative(clip=3)", split(x, layer.linear_q, layer.linear_k, layer.linear_v, count=N), params=params)
  agree("relative", "transformers.SeamlessM4Tv2ConformerSelfAttention", flat(ours), theirs)


def test_cosine_equals_swin_v2():
  config = transformers.Swinv2Config(qkv_bias=True)
  layer = ready(modeling_swinv2.Swinv2SelfAttention(config, D, N, 4))
  layer.logit_scale.data.fill_(np.log(7.0))
  layer.continuous_position_bias_mlp[2].weight.data.zero_()
  x = normal(8, 2, 16, D)
  theirs = layer(torch.from_numpy(x))[0].detach()
  ours = run("cosine", split(x, layer.query, layer.key, layer.value, count=N), params={"scale": np.float32(7.0)})
  agree("cosine", "transformers.Swinv2SelfAttention", flat(ours), theirs)


def test_differential_equals_diffllama():
  config = transformers.DiffLlamaConfig(
    hidden_size=D, num_attention_heads=4, num_key_value_heads=4, rms_norm_eps=1e-5, attn_implementation="eager"
  )
  layer, x = ready(modeling_diffllama.DiffLlamaAttention(config, layer_idx=2), "o_proj"), normal(9, 2, T, D)
  still = torch.ones(1, T, 8), torch.zeros(1, T, 8)
  theirs = layer(torch.from_numpy(x), still, attention_mask=triangle(T))[0].detach()
  halves = [
    np.concatenate(np.split(array, 2, axis=2), axis=3)
    for array in split(x, layer.q_proj, layer.k_proj, layer.v_proj, count=N)
  ]
  names = {"query1": "lambda_q1", "key1": "lambda_k1", "query2": "lambda_q2", "key2": "lambda_k2"}
  params = {ours: getattr(layer, theirs).detach().numpy() for ours, theirs in names.items()}
  ours = run(f"differential(initial={layer.lambda_init})", Heads(*halves), params=params, mask=mask(causal=True))
  agree("differential", "transformers.DiffLlamaAttention", flat(ours), theirs)


def test_disentangled_equals_deberta_v2_within_the_largest_distance():
  config = transformers.DebertaV2Config(
    hidden_size=D,
    num_attention_heads=N,
    relative_attention=True,
    max_relative_positions=T,
    pos_att_type=["c2p", "p2c"],
    share_att_key=False,
  )
  layer, x = ready(modeling_deberta_v2.DisentangledSelfAttention(config)), normal(10, 2, T, D)
  table = normal(11, 2 * T, D)
  theirs = layer(torch.from_numpy(x), torch.ones(2, 1, T, T), rel_embeddings=torch.from_numpy(table))[0].detach()
  keys, queries = (
    np.moveaxis(projected(table[None], projection.weight.detach(), projection.bias.detach(), N)[0], 1, 0)
    for projection in (layer.pos_key_proj, layer.pos_query_proj)
  )
  mirrored = queries[:, -np.arange(2 * T)]
  qkv = split(x, layer.query_proj, layer.key_proj, layer.value_proj, count=N)
  params = {"per_head": {"keys": keys, "queries": mirrored}}
  ours = run(f"disentangled(max_distance={T})", qkv, params=params)
  agree("disentangled", "transformers.DebertaV2DisentangledSelfAttention", flat(ours), theirs)
