"""Latent, low-rank, recurrent and Fourier variants against Hugging Face transformers.

Where a module would hand over to a kernel, its own form in torch is unwrapped.
"""

import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra peers")
transformers = pytest.importorskip("transformers", reason="needs the extra peers")

from agreement import agree
from exchange import Heads, heads, mask, normal, run
from layers import flat, ready, split, triangle
from torch.nn.functional import softplus
from transformers.models.deepseek_v3 import modeling_deepseek_v3
from transformers.models.fnet import modeling_fnet
from transformers.models.mamba2 import modeling_mamba2
from transformers.models.nystromformer import modeling_nystromformer
from transformers.models.qwen3_next import modeling_qwen3_next
from transformers.models.xlnet import modeling_xlnet

from attention_lab.attention.base import Dims

D, N, T = 32, 4, 16


def test_fourier_equals_fnet():
  layer = modeling_fnet.FNetBasicFourierTransform(transformers.FNetConfig(hidden_size=D))
  x = normal(1, 2, T, D)
  agree("fourier", "transformers.FNetBasicFourierTransform", run("fourier", None, x=x), layer(torch.from_numpy(x))[0])


def test_nystrom_equals_nystromformer():
  config = transformers.NystromformerConfig(
    hidden_size=D, num_attention_heads=N, num_landmarks=4, segment_means_seq_len=T
  )
  layer, x = ready(modeling_nystromformer.NystromformerSelfAttention(config)), normal(2, 2, T, D, scale=0.4)
  layer.init_option, layer.conv_kernel_size = "exact", None
  theirs = layer(torch.from_numpy(x))[0].detach()
  ours = run("nystrom(landmarks=4)", split(x, layer.query, layer.key, layer.value, count=N))
  agree("nystrom", "transformers.NystromformerSelfAttention", flat(ours), theirs)


@pytest.mark.parametrize("query_rank", [0, 12])
def test_mla_equals_deepseek_v3(query_rank):
  H, V, R, C = 8, 6, 4, 10
  config = transformers.DeepseekV3Config(
    hidden_size=D,
    num_attention_heads=N,
    num_key_value_heads=N,
    q_lora_rank=query_rank or None,
    kv_lora_rank=C,
    qk_rope_head_dim=R,
    qk_nope_head_dim=H,
    v_head_dim=V,
    rope_interleave=False,
    attn_implementation="eager",
  )
  layer, x = ready(modeling_deepseek_v3.DeepseekV3Attention(config, 0), "o_proj"), normal(3, 2, T, D)
  norms = [layer.kv_a_layernorm, *([layer.q_a_layernorm] if query_rank else [])]
  for norm in norms:
    norm.weight.data.fill_(1.0)
  turns = modeling_deepseek_v3.DeepseekV3RotaryEmbedding(config)(torch.from_numpy(x), torch.arange(T)[None])
  theirs = layer(torch.from_numpy(x), turns, triangle(T))[0].detach()
  down, both = layer.kv_a_proj_with_mqa.weight.detach().numpy().T, layer.kv_b_proj.weight.detach().numpy()
  both = both.reshape(N, H + V, C).swapaxes(1, 2)
  query = (layer.q_b_proj if query_rank else layer.q_proj).weight.detach().numpy()
  query = query.reshape(N, H + R, -1).swapaxes(1, 2)
  params = {"down": down[:, :C], "rope": down[:, C:]}
  params |= {"query": layer.q_a_proj.weight.detach().numpy().T} if query_rank else {}
  params["per_head"] = {"query": query, "keys": both[..., :H], "values": both[..., H:]}
  dims = Dims(D, N, N, H, V, T)
  text = f"mla(kv_rank={C}, query_rank={query_rank}, rope={R})"
  ours = run(text, None, params=params, dims=dims, x=x, mask=mask(causal=True))
  agree("mla", "transformers.DeepseekV3Attention", flat(ours), theirs)


@pytest.mark.parametrize("form", ["torch_recurrent_gated_delta_rule", "torch_chunk_gated_delta_rule"])
def test_gated_delta_equals_qwen3_next(form):
  qkv, x, rate = heads(4, T=T, V=5), normal(5, 2, T, 6), normal(6, N)
  qkv = qkv._replace(q=qkv.q / np.sqrt(np.sum(qkv.q**2, axis=-1, keepdims=True) + 1e-6))
  decay, write = ({"kernel": normal(seed, 6, N), "bias": normal(seed + 1, N)} for seed in (7, 9))
  step, beta = (torch.from_numpy(x @ linear["kernel"] + linear["bias"]) for linear in (decay, write))
  g = -torch.from_numpy(rate).exp() * softplus(step)
  q, k, v = (torch.from_numpy(array) for array in qkv)
  naive = inspect.unwrap(getattr(modeling_qwen3_next, form))
  theirs, _ = naive(q, k, v, g, beta.sigmoid(), use_qk_l2norm_in_kernel=True)
  params = {"decay": decay | {"rate": rate}, "write": write}
  ours = run("gated_delta(chunk=8)", qkv, params=params, x=x, mask=mask(causal=True))
  agree("gated_delta", f"transformers.qwen3_next.{form}", ours, theirs)


def test_ssd_equals_mamba2():
  qkv, x = heads(11, T=T, V=5), normal(12, 2, T, 6)
  params = {"kernel": normal(13, 6, N), "bias": normal(14, N), "rate": normal(15, N)}
  step = torch.from_numpy(x @ params["kernel"])
  q, k, v = (torch.from_numpy(array) for array in qkv)
  rate = -torch.from_numpy(params["rate"]).exp()
  bias = torch.from_numpy(params["bias"])
  naive = inspect.unwrap(modeling_mamba2.mamba2_chunk_scan)
  theirs = naive(v, step, rate, k, q, chunk_size=5, dt_bias=bias, dt_softplus=True)
  ours = run("ssd(chunk=8)", qkv, params=params, x=x, mask=mask(causal=True))
  agree("ssd", "transformers.mamba2.mamba2_chunk_scan", ours * 8**0.5, theirs)


@pytest.mark.parametrize("causal", [False, True])
def test_transformer_xl_equals_xlnet(causal):
  config = transformers.XLNetConfig(vocab_size=8, d_model=D, n_layer=1, n_head=N, d_inner=8, dropout=0.0)
  model = modeling_xlnet.XLNetModel(config)
  layer, x = ready(modeling_xlnet.XLNetRelativeAttention(config)), normal(16, 2, T, D)
  codes = model.relative_positional_encoding(T, T)
  r = torch.einsum("ibh,hnd->ibnd", codes.expand(-1, 2, -1), layer.r)
  qkv = Heads(*(np.einsum("bth,hnd->btnd", x, weight.detach().numpy()) for weight in (layer.q, layer.k, layer.v)))
  q, k, v = (torch.from_numpy(array).transpose(0, 1) for array in qkv)
  hidden = torch.ones(T, T).triu(1)[:, :, None, None].expand(-1, -1, 2, N) * float(causal)
  theirs = layer.rel_attn_core(q, k, v, r, attn_mask=hidden.contiguous()).detach().transpose(0, 1)
  weights = {"content": layer.r_w_bias, "position": layer.r_r_bias, "kernel": layer.r.transpose(0, 1)}
  params = {"per_head": {name: tensor.detach().numpy() for name, tensor in weights.items()}}
  ours = run("transformer_xl", qkv, params=params, mask=mask(causal=causal))
  agree("transformer_xl", "transformers.XLNetRelativeAttention", ours, theirs)
