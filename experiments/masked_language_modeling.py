r"""Masked language modelling: pre-trains an encoder as BERT, to be fine-tuned by --config.pretrained.

On a laptop (27 minutes of processor time: 4.05 nats per hidden token, of unigrams 6.60; then a minute: with 2,000
labels of SST-2 accuracy 0.747, from scratch 0.696):
  python -m experiments.masked_language_modeling --config.data.name=imdb_reviews --config.data.dir=DIR --huge_pages \
    --config.model.width=128 --config.batch=64 --config.steps=3500 --config.optimizer.learning_rate=1e-3 \
    --workdir=runs/bert
  python -m experiments.text_classification --config.data.name=sst2 --config.data.dir=DIR --config.data.limit=2000 \
    --config.pretrained=runs/bert --config.data.length=64 --config.model.dropout=0.3 --config.batch=32 \
    --config.steps=600 --config.evaluate_every=60 --config.checkpoint.select=best \
    --config.optimizer.learning_rate=1e-3 --config.optimizer.weight_decay=0.1 --workdir=runs/sst2
One GPU, the published base size:
  python -m experiments.masked_language_modeling --config.data.path=books/ --config.model.layers=12 \
    --config.model.width=768 --config.model.heads=12 --config.model.dtype=bfloat16 --config.model.norm_place=post \
    --config.model.positions=learned --config.data.length=512 --config.data.vocabulary=30000 --config.batch=256 \
    --config.steps=100000 --config.optimizer.learning_rate=1e-4 --workdir=runs/bert
A pod, the same command on every host:
  python -m experiments.masked_language_modeling --coordinator=auto --config.data.path=/shared/books \
    --config.batch=4096 --workdir=/shared/runs/bert
"""

from attention_lab import cli
from attention_lab.tasks import masked_language_modeling
from attention_lab.workflows import training

CONFIG = cli.define_config(masked_language_modeling.Config())


def main() -> None:
  training.run(masked_language_modeling, CONFIG.value)


if __name__ == "__main__":
  cli.run(main, CONFIG)
