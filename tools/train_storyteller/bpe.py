"""Byte-level BPE, the GPT-2 way: trained, encoded and decoded in plain Python.

The pre-tokeniser is exactly GPT-2's expression, so that a reader of the GGUF file that knows
`tokenizer.ggml.pre = gpt-2` cuts the text the same way.  Only the `regex` module (Debian:
python3-regex) is needed, because the standard `re` knows no \\p{L}.
"""
import collections
import heapq

import regex

PIECE = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

BOS, SYSTEM, USER, ASSISTANT, END = SPECIAL = [
    "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def byte_alphabet():
    """GPT-2 writes every byte as a printable character; this is its table, byte -> character."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {b: chr(b) for b in plain}
    spare = 0x100
    for b in range(256):
        if b not in table:
            table[b] = chr(spare)
            spare += 1
    return table


BYTE_TO_CHAR = byte_alphabet()
CHAR_TO_BYTE = {c: b for b, c in BYTE_TO_CHAR.items()}


def spell(piece):
    return "".join(BYTE_TO_CHAR[b] for b in piece.encode())


def learn_merges(text, count):
    """The `count` best merges of `text`, most frequent pair first.

    Works on distinct words with their counts and keeps, for every pair, where it occurs, so that
    one merge touches only the words that hold it.  The heap may hold stale entries; an entry is
    believed only when its count is still the pair's count.  Ties go to the alphabetically first
    pair, which makes the result independent of the order of dictionaries.
    """
    words = collections.Counter(spell(p) for p in PIECE.findall(text))
    spelled = [(list(w), n) for w, n in sorted(words.items())]
    counts, where = collections.Counter(), collections.defaultdict(set)
    for i, (symbols, n) in enumerate(spelled):
        for pair in zip(symbols, symbols[1:]):
            counts[pair] += n
            where[pair].add(i)
    heap = [(-n, pair) for pair, n in counts.items()]
    heapq.heapify(heap)
    merges = []
    while len(merges) < count and heap:
        n, best = heapq.heappop(heap)
        if -n != counts[best] or n == 0:
            continue
        merges.append(best)
        changed = set()
        for i in where.pop(best):
            symbols, times = spelled[i]
            for pair in zip(symbols, symbols[1:]):
                counts[pair] -= times
                changed.add(pair)
            joined = merge_pair(symbols, best)
            for pair in zip(joined, joined[1:]):
                counts[pair] += times
                where[pair].add(i)
                changed.add(pair)
            spelled[i] = (joined, times)
        for pair in changed:
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
    return merges


def merge_pair(symbols, pair):
    out, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


class Tokenizer:
    """Ids: the 256 bytes in GPT-2's order, then the merges by rank, then the special tokens."""

    def __init__(self, merges):
        self.merges = [tuple(m) for m in merges]
        self.tokens = sorted(CHAR_TO_BYTE) + [a + b for a, b in self.merges] + SPECIAL
        self.id = {t: i for i, t in enumerate(self.tokens)}
        self.rank = {m: i for i, m in enumerate(self.merges)}
        self.special = {s: self.id[s] for s in SPECIAL}
        self.split = regex.compile("(" + "|".join(map(regex.escape, SPECIAL)) + ")")
        self.cache = {}

    def piece_ids(self, piece):
        ids = self.cache.get(piece)
        if ids is None:
            symbols = list(spell(piece))
            while len(symbols) > 1:
                best = min(zip(symbols, symbols[1:]), key=lambda p: self.rank.get(p, 1 << 30))
                if best not in self.rank:
                    break
                symbols = merge_pair(symbols, best)
            ids = self.cache[piece] = [self.id[s] for s in symbols]
        return ids

    def encode(self, text):
        """Plain text: a special token's name in it is only text."""
        return [i for piece in PIECE.findall(text) for i in self.piece_ids(piece)]

    def encode_rendered(self, text):
        """A rendered chat template: the special tokens' names become their ids."""
        out = []
        for part in self.split.split(text):
            out += [self.special[part]] if part in self.special else self.encode(part)
        return out

    def decode_bytes(self, ids):
        out = b""
        for i in ids:
            token = self.tokens[i]
            out += b"" if token in self.special else bytes(CHAR_TO_BYTE[c] for c in token)
        return out

    def decode(self, ids):
        return self.decode_bytes(ids).decode("utf-8", "replace")
