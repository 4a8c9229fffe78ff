"""Times hud-analyze and DuckDB on the same SQL and files: `analyze.py JOB`, a line of JSON for each measurement.

JOB: {"analyze": program, "session": folder, "queries": folder, "start": ns, "end": ns, "rounds": n}
"""

import glob
import json
import os
import re
import resource
import subprocess
import sys
import time

import duckdb

MS = 1_000_000
job = json.loads(sys.argv[1])
session, start, end = job["session"], job["start"], job["end"]


def parameters(name, first, last):
    values = {"from": first, "to": last, "task": None, "thread": None, "lines": False, "threshold": 10 * MS, "asleep": MS}
    # The condition of hud-analyze's planner, by which the CTEs marked as materialized read few events.
    values["few"] = name == "hotspots" or last - first <= 1_000_000_000
    sql = open(os.path.join(job["queries"], name + ".sql")).read()
    body = "\n".join(line for line in sql.splitlines() if not line.startswith("--"))
    wanted = set(re.findall(r"\$(\w+)", body))
    return sql, {key: value for key, value in values.items() if key in wanted}


def database():
    db = duckdb.connect()
    for folder in sorted(glob.glob(os.path.join(session, "*"))):
        table, files = os.path.basename(folder), sorted(glob.glob(os.path.join(folder, "*.parquet")))
        if files:
            db.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet({files!r})")
    return db


db = database()


def by_duckdb(name, first, last):
    sql, values = parameters(name, first, last)
    began = time.perf_counter()
    rows = db.execute(sql, values).fetchall()
    return time.perf_counter() - began, len(rows)


def by_hud(name, first, last, whole):
    window = [] if whole else ["--from", f"+{(first - start) / 1e9:.9f}s", "--to", f"+{(last - start) / 1e9:.9f}s"]
    command = [job["analyze"], name.replace("_", "-"), session, "--format", "ndjson", *window]
    began = time.perf_counter()
    done = subprocess.Popen(command, stdout=subprocess.PIPE)
    first_byte = done.stdout.read(1)
    to_first = time.perf_counter() - began
    rows = first_byte.count(b"\n") + done.stdout.read().count(b"\n")
    _, status, usage = os.wait4(done.pid, 0)
    took = time.perf_counter() - began
    if status != 0:
        sys.exit(f"{command} ended with {status}")
    return took, rows, usage.ru_maxrss / 1024, to_first


class Opened:
    """The session, opened in hud's SQL shell, as in DuckDB: only the query is measured."""

    def __init__(self):
        command = [job["analyze"], "sql", session, "--format", "ndjson"]
        self.shell = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def query(self, sql):
        began = time.perf_counter()
        self.shell.stdin.write(f"{sql};\n\\echo done\n".encode())
        self.shell.stdin.flush()
        rows = 0
        for line in self.shell.stdout:
            if line == b"done\n":
                return time.perf_counter() - began, rows
            rows += 1
        sys.exit(f"{sql} ended with {self.shell.wait()}")

    def view(self, name, first, last):
        return self.query(f"SELECT * FROM {name}({first}, {last})")


opened = Opened()
opened.query("SELECT count(*) FROM polls")
middle = start + (end - start) // 2
for name in ["hotspots", "blocking", "workers", "wake_latency"]:
    for what, (first, last, whole) in {
        "all": (start, end, True),
        "second": (middle, middle + 1_000_000_000, False),
    }.items():
        pairs = []
        for _ in range(job["rounds"]):
            took, rows, megabytes, to_first = by_hud(name, first, last, whole)
            alone, _ = opened.view(name, first, last)
            theirs, their_rows = by_duckdb(name, first, last)
            pairs.append((took, alone, theirs, megabytes, to_first))
            if rows != their_rows and whole:
                print(json.dumps({"note": f"{name}: {rows} rows by hud, {their_rows} by DuckDB"}), file=sys.stderr)
        print(json.dumps({"view": name, "what": what, "pairs": pairs, "rows": rows}), flush=True)
