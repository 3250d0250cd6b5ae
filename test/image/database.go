package image

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Redis pushes an image of the real Redis that is installed here. Debian has it as one program of several names.
func Redis(ctx context.Context, registry string) (string, error) {
	path, err := exec.LookPath("redis-check-rdb")
	if err != nil {
		return "", fmt.Errorf("Redis: %w", ErrNotInstalled)
	}
	f := Files{}
	if err := f.AddProgram(path); err != nil {
		return "", err
	}
	f["/bin/redis-server"] = f[path]
	delete(f, path)
	return f.Push(ctx, registry, "test/redis", Config{Entrypoint: []string{"/bin/redis-server", "--protected-mode", "no", "--save", "", "--dir", "/tmp"}, User: "65532"})
}

// postgresStart does what the usual image does: a new data folder gets the database of the environment's variables.
const postgresStart = `#!/bin/sh
set -e
B=$(echo /usr/lib/postgresql/*/bin)
if [ ! -s /data/pg/PG_VERSION ]; then
  echo "$POSTGRES_PASSWORD" > /tmp/pw
  $B/initdb -D /data/pg -U "$POSTGRES_USER" --pwfile=/tmp/pw --auth=password --no-locale --no-sync
  echo "host all all all password" >> /data/pg/pg_hba.conf
  echo "CREATE DATABASE $POSTGRES_DB;" | $B/postgres --single -j -D /data/pg postgres
fi
exec $B/postgres -D /data/pg -h '*' -k /tmp -c fsync=off
`

// Postgres pushes an image of the real PostgreSQL that is installed here. Its data is in /data, and it is set up by
// POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB.
func Postgres(ctx context.Context, registry string) (string, error) {
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(bins) == 0 {
		return "", fmt.Errorf("PostgreSQL: %w", ErrNotInstalled)
	}
	dir := filepath.Dir(bins[len(bins)-1])
	version := filepath.Base(filepath.Dir(dir))
	f := Files{"/start": []byte(postgresStart), "/etc/passwd": []byte("postgres:x:70:70::/tmp:/bin/sh\n")}
	for _, p := range []string{filepath.Join(dir, "postgres"), filepath.Join(dir, "initdb"), "/bin/dash"} {
		if err := f.AddProgram(p); err != nil {
			return "", err
		}
	}
	f["/bin/sh"] = f["/bin/dash"]
	for _, l := range []string{"dict_snowball.so", "plpgsql.so"} {
		if err := f.Add(filepath.Join(filepath.Dir(dir), "lib", l)); err != nil {
			return "", err
		}
	}
	for _, d := range []string{"/usr/share/postgresql/" + version, "/usr/share/zoneinfo/Etc"} {
		if err := f.AddFolder(d); err != nil {
			return "", err
		}
	}
	return f.Push(ctx, registry, "test/postgres", Config{Entrypoint: []string{"/bin/sh", "/start"}, User: "70", Env: []string{"PATH=/bin"}})
}

// mariadbStart does what the usual image does: a new data folder gets the database and the user of the environment's
// variables. The server reads one statement a line.
const mariadbStart = `#!/bin/sh
set -e
umask 077
if [ ! -d /data/db/mysql ]; then
  mkdir -p /data/db
  { echo "CREATE DATABASE mysql;"; echo "USE mysql;"; cat /usr/share/mysql/mysql_system_tables.sql /usr/share/mysql/mysql_system_tables_data.sql; } |
    mariadbd --no-defaults --bootstrap --datadir=/data/db --tmpdir=/tmp --innodb-buffer-pool-size=16M --innodb-log-file-size=4M
fi
cat > /tmp/init.sql <<SQL
CREATE DATABASE IF NOT EXISTS $MARIADB_DATABASE;
CREATE USER IF NOT EXISTS '$MARIADB_USER'@'%' IDENTIFIED BY '$MARIADB_PASSWORD';
GRANT ALL ON $MARIADB_DATABASE.* TO '$MARIADB_USER'@'%';
SQL
exec mariadbd --no-defaults --datadir=/data/db --tmpdir=/tmp --socket=/tmp/mariadb.sock --pid-file=/tmp/mariadb.pid --bind-address=0.0.0.0 \
  --skip-name-resolve --performance-schema=off --innodb-buffer-pool-size=16M --innodb-log-file-size=4M --innodb-flush-log-at-trx-commit=0 --init-file=/tmp/init.sql
`

// MariaDB pushes an image of the real MariaDB that is installed here. Its data is in /data, and it is set up by
// MARIADB_USER, MARIADB_PASSWORD and MARIADB_DATABASE.
func MariaDB(ctx context.Context, registry string) (string, error) {
	server, err := exec.LookPath("mariadbd")
	if err != nil {
		return "", fmt.Errorf("MariaDB: %w", ErrNotInstalled)
	}
	f := Files{"/start": []byte(mariadbStart), "/etc/passwd": []byte("mysql:x:999:999::/tmp:/bin/sh\n")}
	for _, p := range []string{server, "/bin/dash", "/bin/cat", "/bin/mkdir"} {
		if err := f.AddProgram(p); err != nil {
			return "", err
		}
	}
	f["/bin/sh"], f["/bin/mariadbd"] = f["/bin/dash"], f[server]
	delete(f, server)
	for _, n := range []string{"mysql_system_tables.sql", "mysql_system_tables_data.sql", "english/errmsg.sys", "charsets/Index.xml"} {
		if err := f.Add("/usr/share/mysql/" + n); err != nil {
			return "", err
		}
	}
	return f.Push(ctx, registry, "test/mariadb", Config{Entrypoint: []string{"/bin/sh", "/start"}, User: "999", Env: []string{"PATH=/bin"}})
}
