#!/usr/bin/env python3
"""Prints how `ctxtune prepare` splits a directory, from the definition of the split alone.

One line a record, `train` or `val`, a tab, and the record's key as a JSON string: train
first, by ascending rank, then validation, by descending rank. These are the first and the
last column of OUT/keys.tsv:

    scripts/split.py DIR --rejects OUT/rejects.jsonl > expected
    tail -n +2 OUT/keys.tsv | cut -f 1,4 | diff - expected

A key is the path relative to DIR, in bytes. Its rank is the first 16 bytes of
SHA-256("SEED:" + key). Of N records the first floor(N * (1 - ratio)) by rank train. With
--group-by, groups are ranked by their own keys in the same way, and the cut is the boundary
between groups nearest to that number; within a side the order is still by record.

Only Python's standard library; records are read only where the options need their content.
Exit codes: 0 printed, 1 unreadable, 2 wrong usage, 3 an empty side or an unusable record.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import sys
import warnings
from fractions import Fraction


class Unusable(Exception):
    """A split that cannot be printed, and why."""


def record_keys(directory, exclude):
    """The keys of all records: regular *.json files and links to such, at any depth.

    Hidden names are passed over. Linked directories and directories named *.json are not
    entered, nor is `exclude`.
    """

    def fail(error):
        raise error

    base = os.fsencode(directory)
    skipped = exclude and os.path.realpath(os.fsencode(exclude))
    for path, below, names in os.walk(base, onerror=fail, followlinks=False):
        below[:] = [
            name
            for name in below
            if not is_hidden(name)
            and not name.endswith(b".json")
            and os.path.realpath(os.path.join(path, name)) != skipped
        ]
        for name in names:
            file = os.path.join(path, name)
            if not is_hidden(name) and name.endswith(b".json") and os.path.isfile(file):
                yield os.path.relpath(file, base).replace(os.fsencode(os.sep), b"/")


def is_hidden(name):
    """Whether a name below the directory is hidden, or the one that macOS adds to archives."""
    return name.startswith(b".") or name == b"__MACOSX"


def rejected_keys(path):
    with open(path, encoding="utf-8", newline="\n") as lines:
        keys = [json.loads(line)["key"] for line in lines]
    return {key.encode("utf-8", "surrogateescape") for key in keys}


def read_record(directory, key):
    try:
        with open(os.path.join(os.fsencode(directory), key), encoding="utf-8-sig") as source:
            record = json.load(source)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{key_text(key)} is not usable (see --rejects): {error}") from None
    if not isinstance(record, dict):
        raise Unusable(f"{key_text(key)} is not usable (see --rejects): no JSON object")
    return record


def group_key(record, group_by):
    """The compact JSON text of what the record's group has in common, in UTF-8."""
    if group_by == "agents":
        value = sorted(set(record["socialized_context"]["agents_names"]))
    elif group_by == "story":
        value = story_text(record["story"])
    else:
        value = record[group_by]
        if not isinstance(value, str):
            raise TypeError(f"{group_by} is not a string")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def story_text(story):
    if isinstance(story, str):
        if story.lstrip()[:1] not in ("[", "("):
            return story
        story = ast.literal_eval(story)
    return " ".join(story)


def rank(seed, key):
    return hashlib.sha256(b"%d:%b" % (seed, key)).digest()[:16], key


def split(keys, seed, ratio):
    """The keys of both sides, both by ascending rank."""
    ranked = sorted(keys, key=lambda key: rank(seed, key))
    train = train_count(len(ranked), ratio)
    return ranked[:train], ranked[train:]


def split_groups(groups, seed, ratio):
    """The same for a dictionary from group key to record keys."""
    exact = train_count(sum(map(len, groups.values())), ratio)
    ranked = sorted(groups, key=lambda group: rank(seed, group))
    sizes = [0]
    for group in ranked:
        sizes.append(sizes[-1] + len(groups[group]))
    # The first of equally near boundaries has the smaller train side.
    cut = min(range(len(sizes)), key=lambda at: abs(sizes[at] - exact))
    train, _ = split([key for group in ranked[:cut] for key in groups[group]], seed, Fraction(0))
    val, _ = split([key for group in ranked[cut:] for key in groups[group]], seed, Fraction(0))
    return train, val


def train_count(records, ratio):
    return records * (ratio.denominator - ratio.numerator) // ratio.denominator


def key_text(key):
    """The key as a JSON string; bytes that are not UTF-8 become escapes of lone surrogates."""
    text = json.dumps(key.decode("utf-8", "surrogateescape"), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def val_ratio(text):
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?|\.[0-9]+", text):
        raise argparse.ArgumentTypeError(f"`{text}` is no decimal number")
    if Fraction(text) >= 1:
        raise argparse.ArgumentTypeError(f"{text} is not below 1")
    return Fraction(text)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("directory", metavar="DIR", help="directory of records, read recursively")
    add("--seed", type=int, default=42, metavar="N", help="the seed of the ranks (default: 42)")
    add("--val-ratio", type=val_ratio, default="0.1", metavar="R",
        help="part of the records that validate, a decimal number (default: 0.1)")
    add("--group-by", metavar="story|agents|FIELD",
        help="keep records with the same story, the same agents, or the same top-level string FIELD on one side")
    add("--limit", type=int, metavar="N", help="print only the first N training records")
    add("--rejects", metavar="FILE", help="leave out the keys in this rejects.jsonl")
    add("--exclude", metavar="OUT", help="an output directory inside DIR, which is not read")
    add("--only-correct", action="store_true", help="leave out records whose is_correct is false")
    return parser.parse_args()


def print_split(arguments):
    rejects = rejected_keys(arguments.rejects) if arguments.rejects else set()
    keys, groups = [], {}
    for key in set(record_keys(arguments.directory, arguments.exclude)) - rejects:
        if arguments.only_correct or arguments.group_by:
            record = read_record(arguments.directory, key)
            if arguments.only_correct and record.get("is_correct") is False:
                continue
        if arguments.group_by:
            try:
                group = group_key(record, arguments.group_by)
            except (KeyError, TypeError, ValueError, SyntaxError) as error:
                raise Unusable(f"{key_text(key)} has no group (see --rejects): {error!r}") from None
            groups.setdefault(group, []).append(key)
        keys.append(key)
    if arguments.group_by:
        train, val = split_groups(groups, arguments.seed, arguments.val_ratio)
    else:
        train, val = split(keys, arguments.seed, arguments.val_ratio)
    if not train or (arguments.val_ratio and not val):
        raise Unusable(f"of {len(keys)} records {len(train)} would train, {len(val)} validate")
    train = train[: arguments.limit]
    lines = [f"train\t{key_text(key)}\n" for key in train]
    lines += [f"val\t{key_text(key)}\n" for key in reversed(val)]
    sys.stdout.buffer.write("".join(lines).encode())


def main():
    warnings.simplefilter("ignore")  # Python's opinion on the escapes in a story.
    sys.set_int_max_str_digits(0)
    sys.setrecursionlimit(20_000)  # Records may nest 1024 levels deep.
    try:
        print_split(parse_arguments())
    except Unusable as reason:
        print(f"split.py: {reason}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"split.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
