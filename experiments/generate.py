"""Generates text from a trained language model, several prompts of unequal length at once.

On a laptop:
  python -m experiments.generate --workdir=runs/docs --prompt='The statement' --prompt='A function' --tokens=100
The likeliest continuation, and a cut-off distribution:
  python -m experiments.generate --workdir=runs/docs --prompt='The' --greedy
  python -m experiments.generate --workdir=runs/docs --prompt='The' --temperature=0.8 --top_k=40 --top_p=0.95 --seed=1
"""

from absl import flags

from attention_lab import cli

WORKDIR = flags.DEFINE_string("workdir", "", "Folder of a language_modeling run.")
PROMPT = flags.DEFINE_multi_string("prompt", ["The"], "Text to go on from; repeat the flag for a batch.")
TOKENS = flags.DEFINE_integer("tokens", 64, "Tokens to add to each prompt, or fewer if its text ends.", lower_bound=1)
GREEDY = flags.DEFINE_bool("greedy", False, "Always the likeliest token.")
TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "Divides the logits; below 1 is more certain.")
TOP_K = flags.DEFINE_integer("top_k", 0, "Only the k likeliest tokens; 0 = all.")
TOP_P = flags.DEFINE_float("top_p", 1.0, "Only the likeliest tokens that together have this probability.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the draws.")
TRUST = flags.DEFINE_list("trust", [], "Packages of your own that the run's attention spec may import.")


def main() -> None:
  import dataclasses
  import pathlib
  import sys

  import jax

  from attention_lab.data.tokenizer import Tokenizer
  from attention_lab.models.generate import Sampling, generate
  from attention_lab.train import restored

  sampling = Sampling(GREEDY.value, TEMPERATURE.value, TOP_K.value, TOP_P.value)  # values out of range are refused
  run = restored.restore(WORKDIR.value, trust=TRUST.value)
  if run.task.name != "language_modeling" or len(run.seeds) > 1:
    raise ValueError(f"--workdir={WORKDIR.value} holds {run.task.name}: give the folder of one language_modeling run")
  tokenizer = Tokenizer.load(pathlib.Path(WORKDIR.value) / "tokenizer.json")
  prompts = [tokenizer.encode(prompt) for prompt in PROMPT.value]
  end = -1 if tokenizer.lines else tokenizer.end_of_text  # of words in lines it is the line's end, and no text's
  sampling = dataclasses.replace(sampling, stop=end)
  drawn = generate(run.task.model, run.params, prompts, TOKENS.value, sampling, jax.random.key(SEED.value))
  for prompt, tokens in zip(PROMPT.value, drawn, strict=True):
    print(f"--- {prompt}\n{prompt}{tokenizer.decode(tokens)}")
    if tokens[-1] == end:
      print(f"'{prompt}': the text ends after {len(tokens) - 1} of {TOKENS.value} tokens", file=sys.stderr)


if __name__ == "__main__":
  cli.run(main)
