package engine

import (
	"bufio"
	"context"
	"encoding/binary"
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

	"fairlead.dev/api"
)

type postgreSQL struct{}

// SIGTERM would wait for every client to leave (PostgreSQL, "Shutting Down the Server").
func (postgreSQL) end() syscall.Signal { return syscall.SIGINT }

func (k postgreSQL) make(ctx context.Context, r *running, to string) error {
	data, pw := filepath.Join(to, "data"), filepath.Join(to, "password")
	secret := random()
	if err := os.WriteFile(pw, []byte(secret+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the administrator's password: %w", err)
	}
	// The host is a pattern: port and database vary, the user does not. It is also the local socket's.
	if err := os.WriteFile(filepath.Join(to, "pgpass"), []byte("*:*:*:"+admin+":"+secret+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the administrator's password: %w", err)
	}
	// Local connections are trusted: their socket is in a folder that only we can enter, and is there only now.
	args := []string{r.bin.Init, "--pgdata=" + data, "--username=" + admin, "--pwfile=" + pw, "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"}
	if !r.spec.Lasting {
		args = append(args, "--no-sync")
	}
	if err := r.tool(ctx, nil, "", nil, args...); err != nil {
		return fmt.Errorf("make the data: %w", err)
	}
	// A socket's path has 107 bytes at most (unix(7)), and the state folder may be deep. The server's is relative to its data.
	serve := []string{r.bin.Server, "-D", data, "-c", "listen_addresses=", "-c", "unix_socket_directories=..", "-p", "1", "-c", "fsync=off"}
	if r.spec.Lasting {
		serve = serve[:len(serve)-2]
	}
	return r.within(ctx, serve, filepath.Join(to, ".s.PGSQL.1"), func() error {
		here := fmt.Sprintf("/proc/%d/cwd/%s", os.Getpid(), to)
		l := r.spec.Login.WithDefaults(PostgreSQL)
		if err := k.sql(ctx, r.bin, here, "1", filepath.Join(to, "pgpass"), strings.NewReader(k.statements(l))); err != nil {
			return fmt.Errorf("make role and database: %w", err)
		}
		if r.spec.Seed == "" {
			return nil
		}
		// In the file's folder, where \i finds what is beside it.
		cmd := exec.CommandContext(ctx, r.bin.Client, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--host="+here, "--port=1", "--username="+l.User, "--dbname="+l.Database, "--file="+r.spec.Seed)
		if err := finish(cmd, nil, filepath.Dir(r.spec.Seed), nil); err != nil {
			return seedFailed(r.spec, err)
		}
		return nil
	})
}

// seedFailed is what is said of a seed that could not be loaded. Its data is not kept.
func seedFailed(s Spec, err error) error {
	why := err.Error()
	var t *toolError
	if errors.As(err, &t) && t.last != "" {
		why = t.last
	}
	return &api.Problem{Code: "seed-failed", Message: fmt.Sprintf("%s was not loaded: %s", filepath.Base(s.Seed), why), Hint: "correct the file, and run again: nothing of it was kept"}
}

func (postgreSQL) check(*running, string) error { return nil } // the version has been matched

func (postgreSQL) clean(data string) {
	// We have the lock, which every process of a former server holds: the process that this names is a stranger.
	os.Remove(filepath.Join(data, "postmaster.pid"))
}

func (postgreSQL) command(r *running, data string) []string {
	args := []string{r.bin.Server, "-D", data, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-p", strconv.Itoa(r.spec.Port)}
	if !r.spec.Lasting {
		args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off")
	}
	return args
}

// answers begins a session, as pg_isready does: a server that asks for a password, or says why it does not, takes clients; one
// that starts or ends says 57P03 (PostgreSQL, "Message Formats", "Error Codes").
func (postgreSQL) answers(c net.Conn) error {
	body := binary.BigEndian.AppendUint32(nil, 3<<16)
	body = append(body, "user\x00"+admin+"\x00database\x00postgres\x00\x00"...)
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)); err != nil {
		return err
	}
	in := bufio.NewReader(c)
	var head [5]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > 64<<10 {
		return errors.New("it is no PostgreSQL")
	}
	switch head[0] {
	case 'R':
		return nil
	case 'E':
		text := make([]byte, n-4)
		if _, err := io.ReadFull(in, text); err != nil {
			return err
		}
		fields := map[byte]string{}
		for f := range strings.SplitSeq(string(text), "\x00") {
			if f != "" {
				fields[f[0]] = f[1:]
			}
		}
		if fields['C'] == "57P03" {
			return errors.New(fields['M'])
		}
		return nil
	}
	return errors.New("it is no PostgreSQL")
}

func (k postgreSQL) admit(ctx context.Context, b Binaries, dir, addr string, l Login) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	return k.sql(ctx, b, host, port, filepath.Join(dir, "db", "pgpass"), strings.NewReader(k.statements(l)))
}

// sql runs statements as the administrator. They may have passwords in them, so neither the server nor psql repeats them.
func (postgreSQL) sql(ctx context.Context, b Binaries, host, port, passfile string, in io.Reader) error {
	cmd := exec.CommandContext(ctx, b.Client, "--no-psqlrc", "--quiet", "--tuples-only", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=terse",
		"--host="+host, "--port="+port, "--username="+admin, "--dbname=postgres", "--no-password")
	return finish(cmd, in, "", []string{"PGPASSFILE=" + passfile, "PGCONNECT_TIMEOUT=5", "PGOPTIONS=-c log_statement=none -c log_min_error_statement=panic -c log_min_duration_statement=-1"})
}

// statements make a role and its database where they are not there yet. The role owns the database and is no superuser, unless
// it has the superuser's usual name.
func (postgreSQL) statements(l Login) string {
	lit := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	id := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
	once := func(make, from, column, name string) string {
		return fmt.Sprintf("SELECT %s WHERE NOT EXISTS (SELECT FROM %s WHERE %s = %s) \\gexec\n", lit(make), from, column, lit(name))
	}
	attributes := "LOGIN"
	if l.User == "postgres" {
		attributes = "SUPERUSER LOGIN"
	}
	return "SET standard_conforming_strings = on;\n" +
		once("CREATE ROLE "+id(l.User), "pg_roles", "rolname", l.User) +
		fmt.Sprintf("ALTER ROLE %s %s PASSWORD %s;\n", id(l.User), attributes, lit(l.Password)) +
		once("CREATE DATABASE "+id(l.Database)+" OWNER "+id(l.User), "pg_database", "datname", l.Database)
}
