"""Turns queries into a script for psql that times them, and its output into JSON lines.

    times.py QUERIES.jsonl FOLDER REPEAT TIMEOUT      # writes FOLDER/times.sql
    times.py --read                                   # reads what psql wrote
"""

import json
import pathlib
import re
import sys

# In front of a query's name; no result begins with it.
QUERY = "\u0001"
# SQLSTATE of a query that was cancelled.
CANCELLED = "57014"


def write(queries, folder, repeat, timeout):
    lines = [f"SET statement_timeout = '{timeout}s';", "\\timing on"]
    for line in pathlib.Path(queries).read_text().splitlines():
        query = json.loads(line)
        # One line per query, so that its result and its time follow on each other; a failed one is not repeated.
        sql = " ".join(query["sql"].split()).rstrip("; ")
        lines.append(f"\\echo {QUERY}{query['id']}")
        once = [f"{sql};", "\\echo state :SQLSTATE"]
        lines += once + ["\\if :ERROR", "\\else"] + once * (int(repeat) - 1) + ["\\endif"]
    (pathlib.Path(folder) / "times.sql").write_text("\n".join(lines) + "\n")


def read(text):
    for part in text.split(QUERY)[1:]:
        name, *lines = part.splitlines()
        measured = {"id": name, "seconds": [], "answer": None, "timeout": False, "error": None}
        rows, seconds, failure = [], None, None
        for line in lines:
            if time := re.fullmatch(r"Time: ([0-9.]+) ms.*", line):
                seconds = float(time.group(1)) / 1e3
            elif state := re.fullmatch(r"state (\w+)", line):
                if state.group(1) == CANCELLED:
                    measured["timeout"] = True
                elif state.group(1) != "00000":
                    measured["error"] = failure or state.group(1)
                else:
                    measured["seconds"].append(seconds)
                    one = len(rows) == 1 and re.fullmatch(r"-?[0-9.]+", rows[0])
                    measured["answer"] = float(rows[0]) if one else None
                rows = []
            elif "ERROR:" in line:
                failure = line.split("ERROR:", 1)[1].strip()
            else:
                rows.append(line)
        print(json.dumps(measured))


if sys.argv[1:] == ["--read"]:
    read(sys.stdin.read())
elif len(sys.argv) == 5:
    write(*sys.argv[1:])
else:
    sys.exit(__doc__)
