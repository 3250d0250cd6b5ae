package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// mariaDB is the engine "mysql": it speaks MySQL's protocol.
type mariaDB struct{}

func (mariaDB) end() syscall.Signal { return syscall.SIGTERM }

// options are of every server. Names are not resolved: root@localhost would be let in by TCP.
func (mariaDB) options(r *running, data string) []string {
	abs, _ := filepath.Abs(data) // the working directory is absolute
	args := []string{r.bin.Server, "--no-defaults", "--datadir=" + abs, "--skip-name-resolve", "--skip-log-bin", "--character-set-server=utf8mb4", "--pid-file=server.pid"}
	if !r.spec.Lasting {
		args = append(args, "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0")
	}
	return args
}

func (k mariaDB) make(ctx context.Context, r *running, to string) error {
	data := filepath.Join(to, "data")
	abs, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	if err := r.tool(ctx, nil, "", nil, r.bin.Init, "--no-defaults", "--datadir="+abs, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"); err != nil {
		return fmt.Errorf("make the data: %w", err)
	}
	secret := random()
	config := filepath.Join(to, "admin.cnf")
	if err := os.WriteFile(config, []byte("[client]\nuser="+admin+"\npassword="+secret+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the administrator's password: %w", err)
	}
	// root has no password yet: the socket is in a folder that only we can enter. Its path is relative to the data, as it may
	// have 107 bytes at most (unix(7)).
	serve := append(k.options(r, data), "--skip-networking", "--socket=../s")
	return r.within(ctx, serve, filepath.Join(to, "s"), func() error {
		socket := fmt.Sprintf("/proc/%d/cwd/%s/s", os.Getpid(), to)
		asRoot := func(dir string, in io.Reader, more ...string) error {
			args := append([]string{"--no-defaults", "--protocol=socket", "--socket=" + socket, "--user=root", "--default-character-set=utf8mb4"}, more...)
			return quiet(finish(exec.CommandContext(ctx, r.bin.Client, args...), in, dir, nil))
		}
		l := r.spec.Login
		if err := asRoot("", strings.NewReader(k.statements(l))); err != nil {
			return fmt.Errorf("make user and database: %w", err)
		}
		if r.spec.Seed != "" {
			f, err := os.Open(r.spec.Seed)
			if err != nil {
				return seedFailed(r.spec, err)
			}
			defer f.Close()
			if err := asRoot(filepath.Dir(r.spec.Seed), f, "--database="+l.Database); err != nil {
				return seedFailed(r.spec, err)
			}
		}
		// root goes last. What it made is everybody's: MariaDB's tables have no owner.
		err := asRoot("", strings.NewReader(fmt.Sprintf("CREATE USER %s@'%%' IDENTIFIED BY %s; GRANT ALL ON *.* TO %[1]s@'%%' WITH GRANT OPTION; DROP USER root@localhost;", admin, k.literal(secret))))
		if err != nil {
			return fmt.Errorf("make the administrator: %w", err)
		}
		return nil
	})
}

func (mariaDB) check(*running, string) error { return nil } // a newer server takes older data; an older one says so itself

func (mariaDB) clean(string) {}

func (k mariaDB) command(r *running, data string) []string {
	return append(k.options(r, data), "--bind-address=127.0.0.1", "--port="+strconv.Itoa(r.spec.Port), "--socket=server.sock")
}

// answers reads the server's greeting: protocol version 10, or an error (MySQL, "Protocol::Handshake").
func (mariaDB) answers(c net.Conn) error {
	in := bufio.NewReader(c)
	var head [5]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return err
	}
	switch n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16; {
	case head[4] == 10 && n > 10 && n < 4096:
		return nil
	case head[4] == 0xff && n > 3 && n < 4096:
		text := make([]byte, n-1)
		if _, err := io.ReadFull(in, text); err != nil {
			return err
		}
		return errors.New(strings.ToValidUTF8(string(text[2:]), "?"))
	}
	return errors.New("it is no MariaDB")
}

func (k mariaDB) admit(ctx context.Context, b Binaries, dir, addr string, l Login) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, b.Client, "--defaults-file="+filepath.Join(dir, "db", "admin.cnf"), "--protocol=tcp", "--host="+host, "--port="+port, "--connect-timeout=5")
	return quiet(finish(cmd, strings.NewReader(k.statements(l)), "", nil))
}

// quiet leaves out the statement that the client repeats before its error: there may be a password in it.
func quiet(err error) error {
	var t *toolError
	if errors.As(err, &t) {
		if i := strings.Index(t.last, "ERROR "); i >= 0 {
			t.last = t.last[i:]
		}
	}
	return err
}

// literal quotes a text, under the empty sql_mode that statements set.
func (mariaDB) literal(s string) string {
	return fmt.Sprintf("'%s'", strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `'`, `''`))
}

// statements make a user and its database where they are not there yet. The user may do everything with that database, and
// with everything where it has the administrator's usual name.
func (k mariaDB) statements(l Login) string {
	id := func(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }
	user := k.literal(l.User) + "@'%'"
	grant := "GRANT ALL ON " + strings.NewReplacer("_", `\_`, "%", `\%`).Replace(id(l.Database)) + ".* TO " + user // there _ and % are patterns
	if l.User == "root" {
		grant = "GRANT ALL ON *.* TO " + user + " WITH GRANT OPTION"
	}
	return fmt.Sprintf("SET SESSION sql_mode = '';\nCREATE DATABASE IF NOT EXISTS %s;\nCREATE USER IF NOT EXISTS %s;\nALTER USER %[2]s IDENTIFIED BY %s;\n%s;\n", id(l.Database), user, k.literal(l.Password), grant)
}
