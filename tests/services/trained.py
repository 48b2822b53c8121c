"""Two small models that were really trained, each in seconds: a classifier and a cross-encoder over one toy language.

A topic has words of its own. The classifier tells the topic of a sentence; the cross-encoder tells whether a query and
a document are of one topic, also where they share no word.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.models.tiny import SPECIAL

TOPICS = {
    "delivery": ("parcel", "courier", "shipment", "package"),
    "account": ("password", "login", "username", "profile"),
    "payment": ("invoice", "refund", "bill", "charge"),
    "weather": ("rain", "storm", "sunshine", "snow"),
}
SENTENCES = ("where is my {}", "change the {} please", "the {} was late", "nobody told me that a {} would come")
MAX_TOKENS = 48
BATCH = 48


def sentence(rng: random.Random, topic: str) -> str:
    return rng.choice(SENTENCES).format(rng.choice(TOPICS[topic]))


def train_classifier(folder: Path) -> Path:
    """A Hugging Face folder with a classifier of TOPICS."""
    import transformers

    library: Any = transformers  # its classes are untyped
    folder.mkdir(parents=True)
    words = {word for each in SENTENCES for word in each.split()} - {"{}"}
    words |= {word for own in TOPICS.values() for word in own}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'"
    vocabulary = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *sorted(words - set(letters))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = library.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=MAX_TOKENS)
    topics = list(TOPICS)
    config = library.BertConfig(
        vocab_size=len(vocabulary), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=MAX_TOKENS, initializer_range=0.1, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, id2label=dict(enumerate(topics)),
        label2id={topic: number for number, topic in enumerate(topics)},
    )  # fmt: skip

    def batch(rng: random.Random) -> tuple[list[list[str]], list[float]]:
        wanted = [rng.randrange(len(topics)) for _ in range(BATCH)]
        return [[sentence(rng, topics[each]) for each in wanted]], [float(each) for each in wanted]

    return _train(lambda: library.BertForSequenceClassification(config), tokenizer, batch, folder, steps=60)


def train_reranker(folder: Path, classifier: Path) -> Path:
    """A Hugging Face folder with a cross-encoder on the body of the classifier, which knows the topics already."""
    import transformers

    library: Any = transformers
    folder.mkdir(parents=True)

    def fresh() -> Any:
        return library.BertForSequenceClassification.from_pretrained(
            classifier, num_labels=1, id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0}, ignore_mismatched_sizes=True
        )

    def batch(rng: random.Random) -> tuple[list[list[str]], list[float]]:
        topics = [rng.choice(list(TOPICS)) for _ in range(BATCH)]
        others = [topic if rng.random() < 0.4 else rng.choice(list(TOPICS)) for topic in topics]
        texts = [[sentence(rng, topic) for topic in each] for each in (topics, others)]
        return texts, [float(one == other) for one, other in zip(topics, others, strict=True)]

    return _train(fresh, library.AutoTokenizer.from_pretrained(classifier), batch, folder, steps=120)


def _train(make: Callable[[], Any], tokenizer: Any, batch: Any, folder: Path, steps: int) -> Path:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(3)
    rng = random.Random(3)
    model = make().train()
    descent = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        texts, wanted = batch(rng)
        logits = model(**tokenizer(*texts, padding=True, return_tensors="pt")).logits
        if logits.shape[1] > 1:
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(wanted).long())
        else:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], torch.tensor(wanted))
        descent.zero_grad()
        loss.backward()
        descent.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
