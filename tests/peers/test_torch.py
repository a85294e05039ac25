"""Variants against PyTorch's own attention."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra peers")

from agreement import agree
from exchange import Heads, heads, mask, normal, projected, run
from layers import tensors
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

SDPA = "torch.nn.functional.scaled_dot_product_attention"
FLEX = "torch.nn.attention.flex_attention"


def array(tensor):
  return tensor.detach().transpose(1, 2).numpy()


@pytest.mark.parametrize("sizes", [{"V": 5}, {"K": 2}, {"S": 9, "K": 1}])
def test_softmax_equals_scaled_dot_product_attention(sizes):
  qkv = heads(1, **sizes)
  theirs = scaled_dot_product_attention(*tensors(qkv), enable_gqa="K" in sizes)
  agree("softmax", SDPA, run("softmax", qkv), array(theirs))


def test_softmax_with_mask_scale_and_bias_equals_scaled_dot_product_attention():
  qkv, bias = heads(2), normal(3, 2, 4, 12, 12)
  causal = scaled_dot_product_attention(*tensors(qkv), is_causal=True, scale=0.7)
  agree("softmax", SDPA, run("softmax(scale=0.7)", qkv, mask=mask(causal=True)), array(causal))
  biased = scaled_dot_product_attention(*tensors(qkv), attn_mask=torch.from_numpy(bias))
  agree("softmax", SDPA, run("softmax", qkv, bias=bias), array(biased))


def test_a_row_without_keys_is_zero_in_both():
  qkv = heads(4)
  readable = np.random.default_rng(5).random((2, 4, 12, 12)) < 0.6
  readable[:, :, 3] = False
  theirs = scaled_dot_product_attention(*tensors(qkv), attn_mask=torch.from_numpy(readable))
  ours = run("softmax", qkv, mask=mask(explicit=readable))
  assert not ours[:, 3].any()
  agree("softmax", SDPA, ours, array(theirs))


def test_softmax_equals_multihead_attention_with_padding():
  layer = torch.nn.MultiheadAttention(32, 4, batch_first=True, bias=True)
  x, valid = normal(6, 2, 12, 32), np.arange(12)[None] < np.array([[12], [7]])
  torch.nn.init.normal_(layer.in_proj_bias)
  layer.out_proj = torch.nn.Identity()
  layer.out_proj.weight, layer.out_proj.bias = torch.eye(32), torch.zeros(32)
  inputs = [torch.from_numpy(x)] * 3
  theirs, _ = layer(*inputs, key_padding_mask=torch.from_numpy(~valid), need_weights=True)
  pieces = zip(layer.in_proj_weight.detach().chunk(3), layer.in_proj_bias.detach().chunk(3), strict=True)
  qkv = Heads(*(projected(x, weight, bias, 4) for weight, bias in pieces))
  ours = run("softmax", qkv, mask=mask(kv_valid=valid)).reshape(2, 12, 32)
  agree("softmax", "torch.nn.MultiheadAttention", ours, theirs.detach().numpy())


def test_alibi_equals_flex_attention_with_a_linear_penalty():
  qkv = heads(7, N=8)
  slopes = torch.tensor([2.0**-n for n in range(1, 9)])

  def penalty(score, b, n, i, j):
    return score - slopes[n] * (i - j).abs()

  agree("alibi", FLEX, run("alibi", qkv), array(flex_attention(*tensors(qkv), score_mod=penalty)))


def test_soft_cap_equals_flex_attention_with_a_tanh():
  qkv = heads(8, K=2)

  def capped(score, b, n, i, j):
    return 1.5 * torch.tanh(score / 1.5)

  theirs = flex_attention(*tensors(qkv), score_mod=capped, enable_gqa=True)
  agree("softmax", FLEX, run("softmax(soft_cap=1.5)", qkv), array(theirs))


PATTERNS = {
  "local": ("local(window=5)", lambda i, j: (i - j).abs() < 5),
  "block_local": ("block_local(block=5)", lambda i, j: i // 5 == j // 5),
  "dilated": ("dilated(window=3, dilation=2)", lambda i, j: ((i - j).abs() < 6) & ((i - j) % 2 == 0)),
  "sparse_strided": ("sparse_strided(stride=4)", lambda i, j: ((i - j).abs() < 4) | ((i - j) % 4 == 0)),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_equal_flex_attention_with_a_mask(name):
  text, readable = PATTERNS[name]
  qkv = heads(9, B=1, T=21)
  block_mask = create_block_mask(lambda b, n, i, j: readable(i, j), None, None, 21, 21, device="cpu")
  agree(name, FLEX, run(text, qkv), array(flex_attention(*tensors(qkv), block_mask=block_mask)))


def test_bilinear_equals_a_bilinear_layer_under_a_softmax():
  qkv, kernel = heads(10, B=1), normal(11, 4, 8, 8, scale=0.5)
  q, k, _ = tensors(qkv)
  pairs = [rows.reshape(-1, 8) for rows in torch.broadcast_tensors(q[0, :, :, None], k[0, :, None])]
  scores = torch.stack(
    [
      torch.nn.functional.bilinear(*(rows.reshape(4, -1, 8)[n] for rows in pairs), torch.from_numpy(kernel[n : n + 1]))
      for n in range(4)
    ]
  )
  weights = torch.softmax(scores.reshape(1, 4, 12, 12), dim=-1)
  ours = run("bilinear", qkv, params={"per_head": {"kernel": kernel}})
  agree("bilinear", "torch.nn.functional.bilinear", ours, array(weights @ tensors(qkv)[2]))
