# Sourced: starts PostgreSQL in a folder of its own, without network, and removes it at the end. As root the server runs as the
# user named in $PGRUNUSER (postgres). Afterwards $folder is that folder, and `sql` runs psql.
#
#   start_server [OPTION ...]            # further options of the server, such as "-c work_mem=256MB"
#   load_database DATABASE               # tables with primary keys and an index per foreign key, then VACUUM ANALYZE

start_server() {
    bin=${PGBIN:-$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)}
    [ -x "$bin/initdb" ] || { echo "no PostgreSQL: install it, or name its folder of programs in PGBIN" >&2; exit 1; }
    folder=$(mktemp -d)
    as=()
    if [ "$(id -u)" = 0 ]; then
        local user=${PGRUNUSER:-postgres}
        chown "$user" "$folder"
        as=(runuser -u "$user" --)
    fi
    trap stop_server EXIT
    # Bytes decide the order of strings, as in DataFusion and DuckDB.
    "${as[@]}" "$bin/initdb" -D "$folder/data" -U postgres -A trust --locale=C --encoding=UTF8 >&2
    "${as[@]}" "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -w \
        -o "-c listen_addresses='' -k $folder -c fsync=off -c max_wal_size=4GB $*" start >&2
}

stop_server() {
    "${as[@]}" "$bin/pg_ctl" -D "$folder/data" -m immediate stop >&2 || true
    rm -rf "$folder"
}

sql() { "$bin/psql" -X -q -h "$folder" -U postgres "$@"; }

load_database() {
    mkdir -p "$folder/load"
    python3 "$here/load.py" "$1" "$folder/load" >&2
    (cd "$folder/load" && sql -v ON_ERROR_STOP=1 -f load.sql >&2)
}
