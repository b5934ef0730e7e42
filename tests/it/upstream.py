#!/usr/bin/env python3
"""Holds the examples in OUT against what Python makes of the same records.

    upstream.py CORPUS OUT USER_TEXT

The layout is the one of the published training code: two messages. The user's is the text
in the file USER_TEXT, its `{story}` replaced by the story; the assistant's is the context
with observations and actions as lists, as `json.dumps(context, indent=2)` writes it.
Prints how many examples it compared; exits 1 at the first that differs. Standard library
only, and nothing of the product's.
"""

import ast
import json
import os
import sys


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def story_of(record):
    story = record["story"]
    if isinstance(story, str) and story.lstrip()[:1] in ("[", "("):
        story = ast.literal_eval(story)
    return story if isinstance(story, str) else " ".join(story)


def listed(texts):
    if isinstance(texts, dict):
        return [f"{agent}: {text}" for agent, text in texts.items()]
    parts = (item.split(":", 1) for item in texts)
    return [f"{agent.strip()}: {text.strip()}" for agent, text in parts]


def context_of(record):
    context = record["socialized_context"]
    steps = [
        {
            "timestep": str(step.get("timestep", index)),
            "state": step["state"],
            "observations": listed(step["observations"]),
            "actions": listed(step["actions"]),
        }
        for index, step in enumerate(context["socialized_context"])
    ]
    return {"agents_names": context["agents_names"], "socialized_context": steps}


def expected_line(record, user_text):
    messages = [
        {"role": "user", "content": user_text.replace("{story}", story_of(record))},
        {"role": "assistant", "content": json.dumps(context_of(record), indent=2)},
    ]
    return json.dumps({"messages": messages}, ensure_ascii=False, separators=(",", ":"))


def main():
    corpus, out, user_text = sys.argv[1:]
    user_text = read(user_text)
    shards, compared = {}, 0
    for row in read(os.path.join(out, "keys.tsv")).split("\n")[1:-1]:
        _, number, shard, key = row.split("\t")
        if shard not in shards:
            shards[shard] = read(os.path.join(out, shard)).split("\n")
        line = shards[shard][int(number) - 1]
        expected = expected_line(json.loads(read(os.path.join(corpus, json.loads(key)))), user_text)
        if line != expected:
            at = len(os.path.commonprefix([line, expected]))
            near = slice(max(0, at - 60), at + 60)
            print(f"{key} at {at}: {line[near]!r}, expected {expected[near]!r}")
            return 1
        compared += 1
    print(compared)
    return 0


if __name__ == "__main__":
    sys.exit(main())
