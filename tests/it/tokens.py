"""What other people's tokenizers make of random texts.

Writes into the directory that is the first argument: `llama.json` (made of Meta's `tokenizer.model`), `qwen.json` and
`gpt2.json` (trained here on the texts, with those models' splits), and `counts.jsonl`: a text a line with the tokens
that each oracle has. The second argument is the number of texts. Prints the path of Meta's file.
"""

import importlib.util
import json
import pathlib
import random
import sys
import unicodedata

import tiktoken
import tokenizers
from tiktoken.load import load_tiktoken_bpe
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, trainers

LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA.replace("{1,3}", "")

# Blanks, contractions, special tokens spelled out, letters of Unicode 13 to 17 and unassigned ones, marks, emoji.
PARTS = (
    list(" \t\r\n\x0b\x0c\x1c\x1f\x85\xa0\u180e\u2003\u2028\u3000\u200b")
    + ["  ", "\n\n", " \n", "\r\n", "'s", "'LL", "'d", "'\u017f", "'", "''", "<|endoftext|>", "<|eot_id|>", "<think>"]
    + ["\u0870", "\u08c8", "\u1c89", "\u2c2f", "\ua7c0", "\U000105c0", "\U00010d4a", "\U0001df00", "\U0001e4d0"]
    + ["\u0378", "\U0003ff00", "\U0001faea", "\U0001f600", "e\u0301", "\u0301", "\u200d", "\ufe0f", "\U0001d400"]
    + ["socialized", " perceives", "Hegel", "{\"", "\"},", "</", "日本", "नमस्ते", "Straße", "été", "½", "²", "٣", "Ⅷ"]
)


def texts(count):
    randomness = random.Random(16)

    def part():
        kind = randomness.random()
        if kind < 0.5:
            return randomness.choice(PARTS)
        if kind < 0.7:
            return "".join(randomness.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ", k=randomness.randint(1, 9)))
        if kind < 0.8:
            return "".join(randomness.choices("0123456789", k=randomness.randint(1, 7)))
        if kind < 0.9:
            return "".join(randomness.choices("!\"#$%&()*+,-./:;<=>?@[]^_`{|}~", k=randomness.randint(1, 4)))
        code = randomness.randrange(0x80, 0x30000)
        return " " if 0xD800 <= code < 0xE000 else chr(code)

    for number in range(count):
        text = "".join(part() for _ in range(randomness.randint(0, 30)))
        yield text + " " * (number % 4 == 0) + "\n" * (number % 8 == 0)
    # Pieces that are joined with a heap.
    yield "ab" * 400 + "=" * 300 + "日" * 100


def hugging_face(ranks):
    """The tokenizer.json of Llama 3: all pairs of tokens that are one together."""
    to_unicode = {byte: letter for byte, letter in zip(BYTES, map(chr, SHOWN))}
    written = {token: "".join(to_unicode[byte] for byte in token) for token in ranks}
    merges = []
    for token, rank in ranks.items():
        halves = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [(ranks[left], ranks[right], left, right) for left, right in halves if left in ranks and right in ranks]
        merges += [(rank, *pair) for pair in sorted(known)]
    merges.sort(key=lambda merge: merge[:3])
    vocab = {written[token]: rank for token, rank in ranks.items()}
    pairs = [(written[left], written[right]) for *_, left, right in merges]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, pairs, ignore_merges=True))
    tokenizer.pre_tokenizer = split(LLAMA)
    tokenizer.add_special_tokens([AddedToken("<|eot_id|>", special=True)])
    return tokenizer


SEEN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
HIDDEN = [byte for byte in range(0x100) if byte not in SEEN]
BYTES = SEEN + HIDDEN
SHOWN = SEEN + [0x100 + number for number in range(len(HIDDEN))]


def split(pattern):
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), level])


def trained(samples, pre_tokenizer, normalizer=None):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        samples, trainers.BpeTrainer(vocab_size=3000, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def main(directory, count):
    directory = pathlib.Path(directory)
    package = pathlib.Path(importlib.util.find_spec("llama_models").submodule_search_locations[0])
    model = package / "llama3" / "tokenizer.model"
    ranks = load_tiktoken_bpe(str(model))
    meta = tiktoken.Encoding("llama3", pat_str=LLAMA, mergeable_ranks=ranks, special_tokens={})
    samples = list(texts(count))
    # Not composed there: a token that marks make is then no result of merges alone.
    qwen = trained(samples, split(QWEN))
    qwen.normalizer = normalizers.NFC()
    qwen.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    gpt2 = trained(samples, pre_tokenizers.ByteLevel(add_prefix_space=False))
    oracles = {"llama": hugging_face(ranks), "qwen": qwen, "gpt2": gpt2}
    for name, oracle in oracles.items():
        oracle.save(str(directory / f"{name}.json"))
        oracle.encode_special_tokens = True
    with open(directory / "counts.jsonl", "w") as counts:
        for text in samples:
            found = {name: len(oracle.encode(text).ids) for name, oracle in oracles.items()}
            found["meta"] = len(meta.encode_ordinary(text))
            # Python's tables are older than theirs: what is assigned to it they agree about.
            found["is_assigned"] = all(unicodedata.category(character) != "Cn" for character in text)
            counts.write(json.dumps({"text": text, **found}) + "\n")
    print(model)


main(sys.argv[1], int(sys.argv[2]))
