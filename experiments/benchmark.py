r"""Times attention variants side by side: forward, training step and decoding, with memory and crossovers.

On a laptop (--seconds bounds each pair of mode and length, 60 by default; compiling comes on top):
  python -m experiments.benchmark
Beside what PyTorch and JAX offer (needs the extra [peers]):
  python -m experiments.benchmark --attention='softmax;local(window=256)' --peers=torch_sdpa,torch_flex,jax_dpa
One GPU:
  python -m experiments.benchmark --lengths=1024,4096,16384,65536 --dtype=bfloat16 --matmul=8192 --peers=jax_cudnn
A pod, on one of its hosts: the benchmark uses one device.
  python -m experiments.benchmark --dtype=bfloat16 --batch=8

Writes rows.jsonl, report.md, report.html and the pictures into the workdir. Started again, it goes on where it was. A
variant that cannot do something becomes a row that says why, and so does one that does not fit into memory.
"""

import os

from absl import flags

from attention_lab import cli, interrupts
from attention_lab import huge_pages as pages

ATTENTION = flags.DEFINE_string("attention", "softmax;local(window=256);linear", "Variants, separated by ';'.")
LENGTHS = flags.DEFINE_string("lengths", "256,512,1024,2048,4096", "Lengths T = S, separated by commas.")
MODE = flags.DEFINE_string("mode", "forward,train,decode", "forward, train (with backward), decode (one token).")
DTYPE = flags.DEFINE_string("dtype", "float32", "float32 or bfloat16, of q, k, v and the layer's input.")
BATCH = flags.DEFINE_integer("batch", 1, "Examples, B.")
HEADS = flags.DEFINE_integer("heads", 8, "Query heads, N.")
KV_HEADS = flags.DEFINE_integer("kv_heads", 0, "Key and value heads, K; 0 = heads.")
HEAD_WIDTH = flags.DEFINE_integer("head_width", 64, "Width of a head, H.")
CAUSAL = flags.DEFINE_bool("causal", True, "Causal mask in forward and train; decoding is always causal.")
WINDOW = flags.DEFINE_integer("window", 0, "The mask of forward and train keeps to |i − j| < window; 0 = no window.")
ROUNDS = flags.DEFINE_integer("rounds", 20, "Rounds at each mode and length, at most.")
SECONDS = flags.DEFINE_float("seconds", 60.0, "Seconds of rounds at each mode and length; at least 3 rounds are run.")
BASELINE = flags.DEFINE_string("baseline", "", "The variant or peer that ratios are to; empty = the first variant.")
PEERS = flags.DEFINE_string("peers", "", "torch_sdpa, torch_flex, jax_dpa; on a GPU also jax_cudnn, tokamax.")
MEMORY = flags.DEFINE_float("memory", 0.0, "GiB that a program may take; 0 = what is available.")
MATMUL = flags.DEFINE_integer("matmul", 2048, "Rows and columns of the matrix product that stands for the peak.")
EXPLAIN = flags.DEFINE_bool("explain", False, "Say what ran, what the compiler made of it, and what was not used.")
HUGE_PAGES = flags.DEFINE_bool(
  "huge_pages", False, "Memory in huge pages that stay (Linux with glibc; not with torch)."
)
WORKDIR = flags.DEFINE_string("workdir", "runs/benchmark", "Folder of rows and report.")


def main() -> int:
  interrupts.explain(lambda: f"finished rows are kept in {WORKDIR.value}: the same command goes on")
  if HUGE_PAGES.value and "torch" not in PEERS.value:  # with it the settings are refused below
    pages.enable()
  if "torch" in PEERS.value:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # on a GPU, leave torch some memory
  from attention_lab.benchmark import report, run, settings
  from attention_lab.results import benchmark_rows

  wanted = settings.Settings(
    attention=settings.specs(ATTENTION.value),
    lengths=settings.split("lengths", LENGTHS.value, int),
    modes=settings.split("mode", MODE.value),
    dtype=DTYPE.value,
    batch=BATCH.value,
    heads=HEADS.value,
    kv_heads=KV_HEADS.value,
    head_width=HEAD_WIDTH.value,
    causal=CAUSAL.value,
    window=WINDOW.value,
    rounds=ROUNDS.value,
    seconds=SECONDS.value,
    baseline=BASELINE.value,
    peers=settings.split("peers", PEERS.value),
    memory=MEMORY.value,
    huge_pages=HUGE_PAGES.value,
    matmul=MATMUL.value,
  )
  failed = run.execute(wanted, WORKDIR.value, lambda line: print(line, flush=True), EXPLAIN.value)
  if EXPLAIN.value:
    mark = run.stamp(wanted)["digest"]
    rows = [
      row
      for row in benchmark_rows.current(benchmark_rows.read(f"{WORKDIR.value}/{benchmark_rows.FILE}").rows)
      if row["digest"] == mark
    ]
    for listing in report.explanations(rows):
      print("\n".join([listing.title, *(f"  {line}" for line in listing.lines)]))
  print(f"report: {WORKDIR.value}/report.html")
  return 1 if failed else 0


if __name__ == "__main__":
  cli.run(main)
