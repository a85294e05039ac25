"""Which variants agree with which outside implementation, within what, and where conventions differ.

`python -m tests.peers.agreement` prints the table as Markdown.
"""

from typing import NamedTuple

import numpy as np

TOLERANCE = 1e-5  # largest difference over the largest magnitude of the peer's output, in float32
DIFFERENCES: dict[tuple[str, str], float] = {}  # what this run has seen, by variant and peer

VERSIONS = {
  "entmax": "1.3",
  "fla": "0.6.0",
  "jax": "0.10.2",
  "keras": "3.15.1",
  "linformer": "0.2.3",
  "local_attention": "1.11.2",
  "performer_pytorch": "1.1.4",
  "torch": "2.15.0",
  "transformers": "5.23.0",
  "x_transformers": "2.31.10",
}


class Peer(NamedTuple):
  """An outside implementation and what had to be converted for it; "" is nothing but the order of axes."""

  name: str
  conventions: str = ""

  @property
  def version(self):
    """The release that was tested."""
    return VERSIONS[self.name.partition(".")[0]]


SDPA = "torch.nn.functional.scaled_dot_product_attention"
FLEX = "torch.nn.attention.flex_attention"
ATTEND = "x_transformers.attend.Attend"
LONGFORMER = "transformers.LongformerSelfAttention"
RULE = "the pattern is a rule on positions written in the test; the engine is theirs"
UNIT = "keys are brought to length 1 before the call, without the 1e-6 under the root"

PEERS: dict[str, tuple[Peer, ...]] = {
  "additive": (Peer("keras.layers.AdditiveAttention", "one layer for each head; tanh(q + k) times its scale"),),
  "alibi": (
    Peer("transformers.MptAttention", "their penalty is linear in the key alone: equal under a causal mask"),
    Peer(FLEX, "the penalty is a score_mod written in the test"),
  ),
  "bigbird": (
    Peer(
      "transformers.BigBirdBlockSparseAttention",
      "theirs makes the last block global too and draws blocks for each head: both put into `blocks`, head by head; "
      "in training mode, for in evaluation theirs reads block 0 once more for each random block",
    ),
  ),
  "bilinear": (Peer("torch.nn.functional.bilinear", "softmax and values around it by torch"),),
  "block_local": (
    Peer("transformers.masking_utils", "Llama 4's chunked mask under SDPA; causal"),
    Peer(FLEX, RULE),
  ),
  "cope": (Peer("x_transformers.CoPE"),),
  "cosine": (
    Peer("transformers.Swinv2SelfAttention", "its bias off; log of the scale; no 1e-6 under the root"),
    Peer("x_transformers.Attention", "no 1e-6 under the root; the scale is not learned"),
  ),
  "delta_rule": (Peer("fla.ops.delta_rule.delta_rule_recurrence", f"{UNIT}; β computed before the call"),),
  "differential": (
    Peer(
      "transformers.DiffLlamaAttention",
      "head n of ours is their heads n and n + N/2 side by side, values too; rotation off; λ₀ from the layer's index; "
      "norm with ε 1e-5",
    ),
  ),
  "dilated": (
    Peer(LONGFORMER, "theirs run on each residue class of positions; theirs counts one side without the own position"),
    Peer(FLEX, RULE),
  ),
  "disentangled": (
    Peer(
      "transformers.DebertaV2DisentangledSelfAttention",
      "theirs reads the position's query at δ(i − j), where equation 4 has δ(j − i): its table is mirrored, and only "
      "distances below max_distance are compared; buckets off",
    ),
  ),
  "entmax": (Peer("entmax.entmax15", "logits scaled by 1/√H before the call"),),
  "fourier": (Peer("transformers.FNetBasicFourierTransform"),),
  "fox": (Peer("fla.ops.forgetting_attn.naive_forgetting_attn", "a gate for each query head: ours repeated"),),
  "gated_delta": (
    Peer("fla.ops.gated_delta_rule.naive_recurrent_gated_delta_rule", f"{UNIT}; α and β computed before the call"),
    Peer(
      "transformers.qwen3_next.torch_recurrent_gated_delta_rule", "queries of length 1 too; α and β before the call"
    ),
    Peer("transformers.qwen3_next.torch_chunk_gated_delta_rule", "queries of length 1 too; α and β before the call"),
  ),
  "gated_linear": (Peer("fla.ops.gla.naive_recurrent_gla", "decays computed before the call"),),
  "induced_set": (Peer(SDPA, "called twice: to the latents and from them"),),
  "linear": (
    Peer("fla.ops.linear_attn.naive_recurrent_linear_attn", "φ = elu + 1 before the call; 1e-10 in the divisor"),
  ),
  "linformer": (Peer("linformer.LinformerSelfAttention"),),
  "local": (
    Peer("jax.nn.dot_product_attention", "a window of (W − 1, W − 1) tokens on either side"),
    Peer(LONGFORMER, "attention_window = 2(W − 1)"),
    Peer("transformers.masking_utils", "Mistral's sliding window under SDPA; causal"),
    Peer("fla.ops.attn.naive_parallel_attn", "causal"),
    Peer("local_attention.LocalAttention", "window_size = W − 1 with exact_windowsize; rotation off"),
    Peer(FLEX, RULE),
  ),
  "long_convolution": (Peer("torch.nn.functional.conv1d", "filter through softshrink, reversed; one group a head"),),
  "long_t5_tglobal": (
    Peer(
      "transformers.LongT5TransientGlobalAttention",
      "the norm of its summaries replaced by a division by the block's length; biases 0; scale 1; W = radius + 1",
    ),
  ),
  "longformer": (Peer(LONGFORMER, "attention_window = 2(W − 1); its global projections set equal to the local ones"),),
  "lsh": (
    Peer(
      "transformers.LSHSelfAttention",
      "run on each bucket of its own hash, for theirs cuts sorted buckets into chunks; one round, for theirs counts a "
      "key once for each round that finds it; scale 1",
    ),
  ),
  "memory_compressed": (Peer(SDPA, "over torch.nn.functional.avg_pool1d of keys and values"),),
  "mla": (
    Peer("transformers.DeepseekV3Attention", "rope_interleave=False, as ours pairs halves; gains of both norms 1"),
  ),
  "nystrom": (
    Peer(
      "transformers.NystromformerSelfAttention",
      "no convolution; the inverse starts from each head's own norm (init_option), not from the batch's largest",
    ),
  ),
  "performer": (
    Peer("performer_pytorch", "its ε of 1e-4 on the features set to 0; its largest exponent over all keys cancels"),
  ),
  "persistent": (Peer("x_transformers.Attention"),),
  "quantized": (Peer(SDPA, "of rows through torch.fake_quantize_per_channel_affine"),),
  "relative": (Peer("transformers.SeamlessM4Tv2ConformerSelfAttention", "it has no table of values: ours is 0"),),
  "relu": (Peer("performer_pytorch", "generalized_kernel with its ε of 1e-3 set to 0"),),
  "retention": (Peer("fla.ops.retention.naive_retention"),),
  "shared_qk": (Peer(SDPA, "keys are the queries"),),
  "sigmoid": (Peer(ATTEND, "−log(length) is given as its bias"),),
  "softmax": (
    Peer(SDPA, "masks, scale, grouped heads, bias; rows without keys are zeros in both"),
    Peer("jax.nn.dot_product_attention"),
    Peer("torch.nn.MultiheadAttention"),
    Peer("transformers.BertSelfAttention"),
    Peer("transformers.gemma2.eager_attention_forward", "soft cap"),
    Peer("transformers.gpt_oss.eager_attention_forward", "sinks"),
    Peer("fla.ops.attn.naive_parallel_attn", "sinks and a window"),
    Peer(ATTEND, "soft cap and sinks"),
    Peer(FLEX, "the soft cap is a score_mod written in the test"),
  ),
  "sparse_strided": (Peer(FLEX, RULE),),
  "sparsemax": (Peer("entmax.sparsemax", "logits scaled by 1/√H before the call"),),
  "ssd": (Peer("transformers.mamba2.mamba2_chunk_scan", "not scaled by 1/√H; D left out; a group for each head"),),
  "stick_breaking": (Peer("fla.ops.stickbreaking_attn.naive_stickbreaking_attn"),),
  "swin": (Peer("transformers.SwinLayer", "norms, MLP and residual off; its relative bias is given as bias="),),
  "t5": (Peer("transformers.T5Attention", "its table is transposed"),),
  "talking_heads": (Peer(ATTEND, "it adds the mixed logits to the unmixed: ours = 1 + theirs, transposed"),),
  "taylor": (Peer("fla.ops.based.naive_parallel_based", "1e-6 in the divisor"),),
  "top_k": (Peer(ATTEND),),
  "transformer_xl": (
    Peer("transformers.XLNetRelativeAttention", "segments off; transformers no longer holds Transformer-XL itself"),
  ),
}


def agree(variant, peer, ours, theirs):
  """Fails unless the outputs are equal within TOLERANCE; the pair must stand in PEERS."""
  assert peer in [row.name for row in PEERS[variant]], f"{peer} is not a peer of {variant}"
  ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
  assert ours.shape == theirs.shape
  largest = np.abs(theirs).max()
  difference = np.abs(ours - theirs).max() / largest
  DIFFERENCES[variant, peer] = max(difference, DIFFERENCES.get((variant, peer), 0.0))
  assert largest > 0.01
  assert difference <= TOLERANCE


def markdown():
  """One row for each variant and peer."""
  rows = ["| variant | outside implementation | version | where conventions differ |", "|---|---|---|---|"]
  for variant, peers in sorted(PEERS.items()):
    rows += [f"| `{variant}` | `{peer.name}` | {peer.version} | {peer.conventions} |" for peer in peers]
  return "\n".join(rows)


if __name__ == "__main__":
  print(markdown())
