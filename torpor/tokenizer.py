"""The tokenizer of an exported model: the words of a text as the model's token ids.

`tokenizer.json` takes 25 ms and 8 MB to open, nearly all of it for the vocabulary. For WordPiece the export therefore
writes a compact form beside it, after checking that both agree: `tokenizer.compact.json` is everything but the
vocabulary, which the tokenizers library opens at once, and `tokenizer.vocab` with `tokenizer.index` are the words and
a hash table over them, which are memory-mapped and shared by all replicas. It opens in half a millisecond.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torpor.errors import ModelNotFound

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from torpor.onnx import StoredModel

WHOLE = "tokenizer.json"
COMPACT = "tokenizer.compact.json"
WORDS = "tokenizer.vocab"  # all words in the order of their ids, UTF-8, without separators
INDEX = "tokenizer.index"  # uint32: number of slots, the slots (id + 1, or 0), then where each word begins, and the end
REMEMBERED = 10_000  # words of past texts kept with their pieces; forgotten together when there are more


class TextEncoder(Protocol):
    """What a service needs of a tokenizer: ids with the special tokens, cut to `max_tokens`, not padded."""

    pad_id: int

    def encode(self, text: str) -> list[int]: ...

    def encode_pair(self, one: str, other: str) -> tuple[list[int], list[int]]:
        """Two texts as one row: its ids, and which text each token is of (BERT's token types).

        Where both do not fit, the longer one is cut first, and both alike once they are equally long.
        """
        ...


def open_tokenizer(model: StoredModel | str | os.PathLike[str], max_tokens: int) -> TextEncoder:
    """Opens a model's tokenizer, in the compact form where the artifact has one.

    Raises ModelNotFound when the artifact has no tokenizer.
    """
    folder = Path(model if isinstance(model, str | os.PathLike) else model.path)
    if (folder / COMPACT).exists():
        return CompactEncoder(folder, max_tokens)
    return WholeEncoder(folder, max_tokens)


class WholeEncoder:
    """The tokenizers library's own, from tokenizer.json."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        from tokenizers import Tokenizer

        if not (folder / WHOLE).exists():
            raise ModelNotFound(
                f"{folder} holds no {WHOLE}.\nExport the model again from a source that has a fast tokenizer."
            )
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(folder / WHOLE))
        self.pad_id = int((self.tokenizer.padding or {}).get("pad_id", 0))
        # Some tokenizer.json carry a fixed padding (MiniLM: 128 tokens), which makes a short text cost a long one.
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length=max_tokens)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids

    def encode_pair(self, one: str, other: str) -> tuple[list[int], list[int]]:
        found = self.tokenizer.encode(one, other)
        return found.ids, found.type_ids


class CompactEncoder:
    """WordPiece over a memory-mapped vocabulary; the library normalises the text and splits it into words.

    A text that spells out a special token, such as "[MASK]", goes to the whole tokenizer, opened at the first one.
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        from tokenizers import Tokenizer

        facts: dict[str, Any] = json.loads((folder / COMPACT).read_bytes())
        shell: Tokenizer = Tokenizer.from_str(json.dumps(facts["shell"]))
        self.normalizer, self.pre_tokenizer = shell.normalizer, shell.pre_tokenizer
        self.folder = folder
        self.max_tokens = max_tokens
        self.pad_id: int = facts["pad_id"]
        self.head: list[int] = facts["head"]  # what the post-processor puts around a text: [CLS] ... [SEP]
        self.tail: list[int] = facts["tail"]
        # Likewise around and between two texts: tokens and their types. None in artifacts that were made without.
        self.pair: dict[str, Any] | None = facts.get("pair")
        self.special: list[str] = facts["special"]
        self.prefix: str = facts["prefix"]  # of a piece that goes on with a word
        self.unknown = (int(facts["unknown"]),)
        self.longest_word: int = facts["longest_word"]  # in characters; a longer one is unknown
        self.longest_piece: int = facts["longest_piece"]
        self.vocabulary = Vocabulary(folder)
        self.remembered: dict[str, tuple[int, ...]] = {}
        self.whole: WholeEncoder | None = None

    def encode(self, text: str) -> list[int]:
        if self.spells_special(text):
            return self.opened_whole().encode(text)
        return [*self.head, *self.words(text, self.max_tokens - len(self.head) - len(self.tail)), *self.tail]

    def encode_pair(self, one: str, other: str) -> tuple[list[int], list[int]]:
        if self.pair is None or self.spells_special(one) or self.spells_special(other):
            return self.opened_whole().encode_pair(one, other)
        (head, between, tail), (first, second) = self.pair["around"], self.pair["texts"]
        room = self.max_tokens - sum(len(ids) for ids, _ in self.pair["around"])
        words, others = self.words(one), self.words(other)  # whole: which of the two is the longer one counts
        kept, others_kept = cut(len(words), len(others), room)
        del words[kept:], others[others_kept:]
        ids = [*head[0], *words, *between[0], *others, *tail[0]]
        return ids, [*head[1], *[first] * len(words), *between[1], *[second] * len(others), *tail[1]]

    def spells_special(self, text: str) -> bool:
        return any(token in text for token in self.special)

    def opened_whole(self) -> WholeEncoder:
        self.whole = self.whole or WholeEncoder(self.folder, self.max_tokens)
        return self.whole

    def words(self, text: str, room: int = sys.maxsize) -> list[int]:
        """The ids of a text's words, `room` of them at most."""
        ids: list[int] = []
        for word, _ in self.pre_tokenizer.pre_tokenize_str(self.normalizer.normalize_str(text)):
            ids += self.pieces(word)
            if len(ids) >= room:
                del ids[room:]
                break
        return ids

    def pieces(self, word: str) -> tuple[int, ...]:
        """The ids of one word."""
        found = self.remembered.get(word)
        if found is None:
            if len(self.remembered) >= REMEMBERED:
                self.remembered.clear()
            found = self.remembered[word] = self.split(word)
        return found

    def split(self, word: str) -> tuple[int, ...]:
        """Greedy, longest piece first; a word with a rest that no piece matches is unknown as a whole."""
        if len(word) > self.longest_word:
            return self.unknown
        ids: list[int] = []
        start = 0
        while start < len(word):
            for end in range(min(len(word), start + self.longest_piece), start, -1):
                piece = word[start:end] if start == 0 else self.prefix + word[start:end]
                number = self.vocabulary.find(piece.encode())
                if number is not None:
                    ids.append(number)
                    start = end
                    break
            else:
                return self.unknown
        return tuple(ids)


def cut(one: int, other: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts are kept: "longest first", as the tokenizers library counts it."""
    if one + other <= room:
        return one, other
    if one > other:
        kept, shorter = cut(other, one, room)
        return shorter, kept
    if one + max(one, room - one) <= room:
        return one, room - one
    return room // 2, room // 2 + room % 2


class Vocabulary:
    """Words and their ids, read in place: nothing is parsed or copied at opening."""

    def __init__(self, folder: Path) -> None:
        self.words = _mapped(folder / WORDS)
        numbers = memoryview(_mapped(folder / INDEX)).cast("I")
        self.mask = numbers[0] - 1  # the number of slots is a power of two
        self.slots = numbers[1 : 1 + numbers[0]]
        self.offsets = numbers[1 + numbers[0] :]

    def find(self, word: bytes) -> int | None:
        """The id of a word; linear probing from its CRC, as `models/tokenizer.py` has filled the table."""
        slot = zlib.crc32(word) & self.mask
        while number := self.slots[slot]:
            if self.words[self.offsets[number - 1] : self.offsets[number]] == word:
                return number - 1
            slot = (slot + 1) & self.mask
        return None


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as content:
        return mmap.mmap(content.fileno(), 0, prot=mmap.PROT_READ)
