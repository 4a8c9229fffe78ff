"""Runs queries over a session's Parquet files in DuckDB.

Reads {"tables": {name: {"files": [path], "columns": [[name, type]]}}, "queries": [{"sql", "parameters"}]} from standard
input and writes a list of rows (objects) for each query to standard output. A table without files is empty.
"""

import json
import sys

import duckdb

job = json.load(sys.stdin)
connection = duckdb.connect()


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


for name, table in job["tables"].items():
    if table["files"]:
        files = ", ".join(quoted(path) for path in table["files"])
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{files}], union_by_name = true)")
    else:
        columns = ", ".join(f'"{column}" {kind}' for column, kind in table["columns"])
        connection.execute(f"CREATE TABLE {name} ({columns})")

answers = []
for query in job["queries"]:
    cursor = connection.execute(query["sql"], query["parameters"] or None)
    names = [column[0] for column in cursor.description]
    answers.append([dict(zip(names, row)) for row in cursor.fetchall()])
json.dump(answers, sys.stdout)
