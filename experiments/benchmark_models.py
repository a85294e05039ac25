r"""Times whole models beside those that users have: training steps of a GPT and a ViT, generation, the start of a run.

On a laptop (--seconds bounds the rounds at each model and batch; compiling comes on top):
  python -m experiments.benchmark_models --attention='softmax;linear'
Beside Hugging Face transformers on PyTorch (needs the extra [peers]):
  python -m experiments.benchmark_models --model=gpt,vit,generate --peers=hf_eager,hf_compile --huge_pages
A first training step with an empty and with a filled cache of compiled programs:
  python -m experiments.benchmark_models --model=start

Each program lives in a process of its own; the processes take turns. Writes rows.jsonl, report.md, report.html,
figures and workers.log into the workdir; started again, it adds rows, and the report shows the newest of each model and
batch.
"""

from absl import flags

from attention_lab import cli, interrupts

MODEL = flags.DEFINE_string("model", "gpt", "gpt, vit, generate, start, separated by commas.")
ATTENTION = flags.DEFINE_string("attention", "softmax", "Variants, separated by ';'; each is a row.")
PEERS = flags.DEFINE_string("peers", "", "hf_eager, hf_compile: Hugging Face transformers, eager and compiled.")
LAYERS = flags.DEFINE_integer("layers", 0, "Layers, L; 0 = the model's (6, vit 12).")
WIDTH = flags.DEFINE_integer("width", 0, "Model width, D; 0 = the model's (256, vit 192).")
HEADS = flags.DEFINE_integer("heads", 0, "Heads, N; 0 = the model's (4, vit 3).")
LENGTH = flags.DEFINE_integer("length", 0, "Tokens of an example or of a prompt, T; 0 = 512; not of vit.")
VOCABULARY = flags.DEFINE_integer("vocabulary", 0, "Tokens that there are, V; 0 = 8192; not of vit.")
NEW_TOKENS = flags.DEFINE_integer("new_tokens", 0, "Tokens that generate adds to a prompt; 0 = 512.")
IMAGE = flags.DEFINE_integer("image", 0, "Side of an image of vit, pixels; 0 = 224.")
PATCH = flags.DEFINE_integer("patch", 0, "Side of a patch of vit, pixels; 0 = 16.")
CLASSES = flags.DEFINE_integer("classes", 0, "Classes of vit; 0 = 1000.")
BATCH = flags.DEFINE_string("batch", "", "Examples, B, separated by commas; empty = gpt 8, vit 16, generate 1,8.")
ROUNDS = flags.DEFINE_integer("rounds", 0, "Rounds at each model and batch, at most; 0 = 10, of start 3.")
SECONDS = flags.DEFINE_float("seconds", 600.0, "Seconds of rounds at each model and batch; at least 3 rounds are run.")
PAUSE = flags.DEFINE_float("pause", 0.3, "Seconds of rest before each run: PyTorch's threads spin after work.")
BASELINE = flags.DEFINE_string("baseline", "", "The row that ratios are to; empty = the first variant.")
MATMUL = flags.DEFINE_integer("matmul", 2048, "Rows and columns of the matrix product that stands for the peak.")
HUGE_PAGES = flags.DEFINE_bool("huge_pages", False, "Measure our programs a second time, with memory in huge pages.")
WORKDIR = flags.DEFINE_string("workdir", "runs/benchmark_models", "Folder of rows and report.")

SIZES = (LAYERS, WIDTH, HEADS, LENGTH, VOCABULARY, NEW_TOKENS, IMAGE, PATCH, CLASSES)


def main() -> int:
  interrupts.explain(lambda: f"finished rows are kept in {WORKDIR.value}: the same command goes on")
  from attention_lab.benchmark import settings as lists
  from attention_lab.benchmark.models import run, settings

  wanted = settings.Settings(
    models=lists.split("model", MODEL.value),
    attention=lists.specs(ATTENTION.value),
    peers=lists.split("peers", PEERS.value),
    sizes={flag.name: flag.value for flag in SIZES},
    batch=lists.split("batch", BATCH.value, int),
    rounds=ROUNDS.value,
    seconds=SECONDS.value,
    pause=PAUSE.value,
    matmul=MATMUL.value,
    huge_pages=HUGE_PAGES.value,
    baseline=BASELINE.value,
  )
  failed = run.execute(wanted, WORKDIR.value, lambda line: print(line, flush=True))
  print(f"report: {WORKDIR.value}/report.html")
  return 1 if failed else 0


if __name__ == "__main__":
  cli.run(main)
