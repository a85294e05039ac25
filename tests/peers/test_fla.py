"""Recurrences and linear attention against the naive forms of flash-linear-attention, which need no accelerator."""

import pytest

torch = pytest.importorskip("torch", reason="needs the extra peers")
pytest.importorskip("fla", reason="needs the extra peers")

from agreement import agree
from exchange import heads, mask, normal, run
from fla.ops.attn.naive import naive_parallel_attn
from fla.ops.based.naive import naive_parallel_based
from fla.ops.delta_rule.naive import delta_rule_recurrence
from fla.ops.forgetting_attn.naive import naive_forgetting_attn
from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule
from fla.ops.gla.naive import naive_recurrent_gla
from fla.ops.linear_attn.naive import naive_recurrent_linear_attn
from fla.ops.retention.naive import naive_retention
from fla.ops.stickbreaking_attn.naive import naive_stickbreaking_attn
from torch.nn.functional import elu, logsigmoid, normalize, softplus

CAUSAL = {"mask": mask(causal=True)}
T, D = 20, 6


def tensors(*arrays):
  return [torch.from_numpy(array) for array in arrays]


def heads_first(*arrays):
  return [tensor.transpose(1, 2) for tensor in tensors(*arrays)]


def gate(params, x):
  """A linear map of the layer's input, in torch."""
  kernel, bias = tensors(params["kernel"], params["bias"])
  return torch.einsum("btd,d...->bt...", torch.from_numpy(x), kernel) + bias


def drawn(seed, *shape):
  return {"kernel": normal(seed, D, *shape), "bias": normal(seed + 1, *shape)}


def test_linear_equals_recurrent_linear_attention():
  qkv = heads(1, T=T)
  q, k, v = tensors(*qkv)
  theirs, _ = naive_recurrent_linear_attn(elu(q) + 1, elu(k) + 1, v, normalize=True)
  agree("linear", "fla.ops.linear_attn.naive_recurrent_linear_attn", run("linear(chunk=8)", qkv, **CAUSAL), theirs)


def test_taylor_equals_based():
  qkv = heads(2, T=T)
  theirs = naive_parallel_based(*heads_first(*qkv)).transpose(1, 2)
  agree("taylor", "fla.ops.based.naive_parallel_based", run("taylor(chunk=8)", qkv, **CAUSAL), theirs)


def test_retention_equals_naive_retention():
  qkv = heads(3, T=T, V=5)
  theirs = naive_retention(*heads_first(*qkv)).transpose(1, 2)
  agree("retention", "fla.ops.retention.naive_retention", run("retention(chunk=8)", qkv, **CAUSAL), theirs)


def test_gated_linear_equals_naive_gla():
  qkv, x, params = heads(4, T=T, V=5), normal(5, 2, T, D), drawn(6, 4, 8)
  theirs, _ = naive_recurrent_gla(*tensors(qkv.q, qkv.k), torch.from_numpy(qkv.v), logsigmoid(gate(params, x)) / 16)
  ours = run("gated_linear(chunk=8)", qkv, params=params, x=x, **CAUSAL)
  agree("gated_linear", "fla.ops.gla.naive_recurrent_gla", ours, theirs)


def test_delta_rule_equals_its_recurrence():
  qkv, x, params = heads(7, T=T, V=5), normal(8, 2, T, D), drawn(9, 4)
  q, k, v = heads_first(*qkv)
  beta = gate(params, x).sigmoid().transpose(1, 2)
  theirs, _ = delta_rule_recurrence(q, normalize(k, dim=-1), v, beta)
  ours = run("delta_rule(chunk=8)", qkv, params=params, x=x, **CAUSAL)
  agree("delta_rule", "fla.ops.delta_rule.delta_rule_recurrence", ours, theirs.transpose(1, 2))


def test_gated_delta_equals_its_recurrence():
  qkv, x, rate = heads(10, T=T, V=5), normal(11, 2, T, D), normal(12, 4)
  decay, write = drawn(13, 4), drawn(15, 4)
  g = -torch.from_numpy(rate).exp() * softplus(gate(decay, x))
  q, k, v = tensors(*qkv)
  theirs, _ = naive_recurrent_gated_delta_rule(q, normalize(k, dim=-1), v, gate(write, x).sigmoid(), g)
  ours = run("gated_delta(chunk=8)", qkv, params={"decay": decay | {"rate": rate}, "write": write}, x=x, **CAUSAL)
  agree("gated_delta", "fla.ops.gated_delta_rule.naive_recurrent_gated_delta_rule", ours, theirs)


@pytest.mark.parametrize("window", [None, 6])
def test_forgetting_equals_naive_forgetting_attention(window):
  qkv, x, params = heads(17, T=T, K=2), normal(18, 2, T, D), drawn(19, 2)
  g = logsigmoid(gate(params, x)).repeat_interleave(2, dim=2)
  theirs = naive_forgetting_attn(*tensors(*qkv), g, window_size=window)
  ours = run("fox", qkv, params=params, x=x, mask=mask(causal=True, window=window))
  agree("fox", "fla.ops.forgetting_attn.naive_forgetting_attn", ours, theirs)


@pytest.mark.parametrize("attend_current", [False, True])
def test_stick_breaking_equals_naive_stick_breaking(attend_current):
  qkv = heads(21, T=T, K=2)
  theirs, _ = naive_stickbreaking_attn(*tensors(*qkv), attend_current=attend_current)
  ours = run(f"stick_breaking(attend_current={attend_current})", qkv, **CAUSAL)
  agree("stick_breaking", "fla.ops.stickbreaking_attn.naive_stickbreaking_attn", ours, theirs)


def test_sinks_and_windows_equal_naive_attention():
  qkv, sinks = heads(22, T=T, K=2, V=5), normal(23, 4)
  theirs, _ = naive_parallel_attn(*tensors(*qkv), window_size=6, sink_bias=torch.from_numpy(sinks))
  ours = run("softmax(sink=True)", qkv, params={"per_head": {"sink": sinks}}, mask=mask(causal=True, window=6))
  agree("softmax", "fla.ops.attn.naive_parallel_attn", ours, theirs)
  plain, _ = naive_parallel_attn(*tensors(*qkv), window_size=6)
  agree("local", "fla.ops.attn.naive_parallel_attn", run("local(window=6)", qkv, **CAUSAL), plain)
