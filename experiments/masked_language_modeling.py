r"""Masked language modelling: pre-trains an encoder as BERT, to be fine-tuned by --config.pretrained.

On a laptop:
  python -m experiments.masked_language_modeling --config.data.name=imdb_reviews --config.data.dir=DIR \
    --workdir=runs/bert
  python -m experiments.text_classification --config.data.name=sst2 --config.data.dir=DIR \
    --config.pretrained=runs/bert --workdir=runs/sst2
One GPU, the published base size:
  python -m experiments.masked_language_modeling --config.data.path=books/ --config.model.layers=12 \
    --config.model.width=768 --config.model.heads=12 --config.model.dtype=bfloat16 --config.model.norm_place=post \
    --config.model.positions=learned --config.data.length=512 --config.data.vocabulary=30000 --config.batch=256 \
    --config.steps=100000 --config.optimizer.learning_rate=1e-4 --workdir=runs/bert
A pod, the same command on every host:
  python -m experiments.masked_language_modeling --coordinator=auto --config.data.path=/shared/books \
    --config.batch=4096 --workdir=/shared/runs/bert
"""

from absl import flags

from attention_lab import cli
from attention_lab.tasks import masked_language_modeling
from experiments import training

CONFIG = cli.define_config(masked_language_modeling.Config())
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of checkpoints, tokenizer and logs; empty = keep nothing.")


def main() -> None:
  training.run(masked_language_modeling, CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
  cli.run(main, CONFIG)
