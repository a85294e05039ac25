r"""Long sequences: trains an encoder, a decoder or a baseline on ListOps, bytes, pixels or pairs of passages.

On a laptop, ListOps of 128 to 512 tokens, which is generated (25 minutes of processor time; accuracy 0.33; a
rule that reads nothing but the first token has 0.345):
  python -m experiments.long_range --config.data.name=listops --config.model.width=64 --config.steps=2500 \
    --config.evaluate_every=500 --config.checkpoint.select=best --workdir=runs/listops
One GPU, ListOps of the published length:
  python -m experiments.long_range --config.data.length=1999 --config.data.shortest=501 --config.model.layers=6 \
    --config.model.width=512 --config.model.heads=8 --config.model.dtype=bfloat16 --config.steps=5000 \
    --workdir=runs/listops
A pod, bytes of reviews with linear attention, the same command on every host:
  python -m experiments.long_range --coordinator=auto --config.data.name=imdb_bytes --config.data.length=4096 \
    --attention=linear --config.batch=512 --workdir=/shared/runs/bytes
"""

from attention_lab import cli
from attention_lab.tasks import long_range
from attention_lab.workflows import training

CONFIG = cli.define_config(long_range.Config())


def main() -> None:
  training.run(long_range, CONFIG.value)


if __name__ == "__main__":
  cli.run(main, CONFIG)
