"""Turns queries into EXPLAIN statements for PostgreSQL, and the plans into JSON lines of "id" and "estimate"."""

import json
import pathlib
import sys


def queries(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines() if line.strip()]


def estimate(plan):
    """Rows that enter an ungrouped aggregate at the top, else rows of the result."""
    if plan["Node Type"] == "Aggregate" and plan.get("Strategy") == "Plain":
        plan = plan["Plans"][0]
    return plan["Plan Rows"]


if sys.argv[1] == "--read":
    decoder, text, at = json.JSONDecoder(), sys.stdin.read(), 0
    for query in queries(sys.argv[2]):
        while text[at].isspace():
            at += 1
        plan, at = decoder.raw_decode(text, at)
        print(json.dumps({"id": query["id"], "estimate": estimate(plan[0]["Plan"])}))
else:
    # Workers' rows are those of one worker: without them the counts are of the whole.
    lines = ["SET max_parallel_workers_per_gather = 0;"]
    lines += ["EXPLAIN (FORMAT JSON) " + query["sql"].rstrip(";") + ";" for query in queries(sys.argv[1])]
    (pathlib.Path(sys.argv[2]) / "explain.sql").write_text("\n".join(lines) + "\n")
