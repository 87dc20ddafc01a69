"""Writes a folder of Parquet files with a schema.json as CSV files and a load.sql for PostgreSQL."""

import json
import pathlib
import sys

import duckdb

TYPES = {
    "BOOLEAN": "boolean", "TINYINT": "smallint", "SMALLINT": "smallint", "INTEGER": "integer", "BIGINT": "bigint",
    "UTINYINT": "smallint", "USMALLINT": "integer", "UINTEGER": "bigint", "UBIGINT": "numeric", "HUGEINT": "numeric",
    "FLOAT": "real", "DOUBLE": "double precision", "VARCHAR": "text", "BLOB": "bytea", "DATE": "date", "TIME": "time",
}


def postgres_type(name):
    if name.startswith("TIMESTAMP"):
        return "timestamptz" if name.endswith("TIME ZONE") else "timestamp"
    if name.startswith("DECIMAL"):
        return name.replace("DECIMAL", "numeric")
    return TYPES[name]


def quote(name):
    return '"' + name.replace('"', '""') + '"'


def columns_of(names):
    return ", ".join(quote(name) for name in names)


def main(database, output):
    schema = json.loads((database / "schema.json").read_text())
    connection = duckdb.connect()
    script = []
    for table in schema["tables"]:
        source = f"read_parquet('{database / table['file']}')"
        columns = [(row[0], row[1]) for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
        parts = [f"{quote(name)} {postgres_type(kind)}" for name, kind in columns]
        if table.get("primary_key"):
            parts.append(f"PRIMARY KEY ({columns_of(table['primary_key'])})")
        script.append(f"CREATE TABLE {quote(table['name'])} ({', '.join(parts)});")
        file = f"{table['name']}.csv"
        connection.execute(f"COPY (SELECT * FROM {source}) TO '{output / file}' (FORMAT csv, HEADER false, NULLSTR '\\N')")
        script.append(f"\\copy {quote(table['name'])} FROM '{file}' WITH (FORMAT csv, NULL '\\N')")
    for key in schema.get("foreign_keys", []):
        script.append(f"CREATE INDEX ON {quote(key['table'])} ({columns_of(key['columns'])});")
    script.append("VACUUM ANALYZE;")
    (output / "load.sql").write_text("\n".join(script) + "\n")


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
