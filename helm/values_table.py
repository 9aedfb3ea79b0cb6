#!/usr/bin/env python3
"""Writes the table of values in the chart's README from the comments in values.yaml.

A comment that begins with "--" describes the key below it and all keys under that. `--check` writes nothing; it fails if
the README's table differs or if a value has no description.
"""

import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).parent / "gitorial-relay"
BEGIN, END = "<!-- values: made by helm/values_table.py -->\n", "<!-- end of values -->\n"
KEY = re.compile(r"^( *)([A-Za-z0-9-]+):")


def described(text):
    """The keys that have a description, as (path, description), in the order of the file."""
    found, path, comment = [], [], None
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("# --"):
            comment = [bare[4:].strip()]
        elif bare.startswith("#"):
            if comment is not None:
                comment.append(bare[1:].strip())
        elif match := KEY.match(line):
            depth = len(match[1]) // 2
            path = path[:depth] + [match[2]]
            if comment is not None:
                found.append((tuple(path), " ".join(comment)))
            comment = None
        else:
            comment = None
    return found


def leaves(values, path=()):
    """The paths of all values except non-empty maps."""
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from leaves(value, path + (key,))
    else:
        yield path


def at(values, path):
    """The value at a path."""
    for key in path:
        values = values[key]
    return values


def table(text):
    """The table, and the paths of values without a description."""
    values, rows = yaml.safe_load(text), described(text)
    known = {path for path, _ in rows}
    bare = [path for path in leaves(values) if not any(path[:end] in known for end in range(1, len(path) + 1))]
    lines = ["| value | default | description |", "| --- | --- | --- |"]
    for path, what in rows:
        default = json.dumps(at(values, path), ensure_ascii=False)
        cell = f"`{default}`" if len(default) <= 60 else "see values.yaml"
        lines.append(f"| `{'.'.join(path)}` | {cell} | {what.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n", bare


def page(readme, text):
    """The README with the current table, and the paths of values without a description."""
    rows, bare = table(text)
    before, rest = readme.split(BEGIN)
    return before + BEGIN + "\n" + rows + "\n" + END + rest.split(END)[1], bare


def main():
    """The command line."""
    readme, values = CHART / "README.md", CHART / "values.yaml"
    now = readme.read_text(encoding="utf-8")
    wanted, bare = page(now, values.read_text(encoding="utf-8"))
    if bare:
        sys.exit("no description in values.yaml: " + ", ".join(".".join(path) for path in bare))
    if "--check" in sys.argv[1:]:
        sys.exit(0 if now == wanted else "the README's table differs from values.yaml; run helm/values_table.py")
    readme.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
