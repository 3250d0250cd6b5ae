package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/test/freeport"
)

// The test's executable is also the process that runs an engine.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ENGINE_TEST_RUN"); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := Run(ctx, dir, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const patience = 90 * time.Second

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	end, again := time.NewTimer(patience), time.NewTicker(50*time.Millisecond)
	defer end.Stop()
	defer again.Stop()
	for err := f(); err != nil; err = f() {
		select {
		case <-end.C:
			t.Fatalf("%s: %v", what, err)
		case <-again.C:
		}
	}
}

// bed is one engine's folder and the process that runs it.
type bed struct {
	kind, dir string
	env       []string
	port      int
	cmd       *exec.Cmd
}

// newBed skips where the engine is not installed, which in CI is an error. Debian has Redis's server without its service in
// redis-tools, by another name.
func newBed(t *testing.T, kind string) *bed {
	t.Helper()
	path := os.Getenv("PATH")
	if _, err := exec.LookPath("redis-server"); err != nil {
		if other, err := exec.LookPath("redis-check-rdb"); err == nil {
			d := t.TempDir()
			if err := os.Symlink(other, filepath.Join(d, "redis-server")); err != nil {
				t.Fatal(err)
			}
			path = d + ":" + path
		}
	}
	b := &bed{kind: kind, dir: filepath.Join(t.TempDir(), "engine"), env: []string{"PATH=" + path}}
	if _, err := Installed(kind, b.env); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	port, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	b.port = port
	t.Cleanup(func() {
		for _, pid := range b.pids() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if log, _ := os.ReadFile(filepath.Join(filepath.Dir(b.dir), "log")); t.Failed() {
			t.Logf("it wrote:\n%s", log)
		}
	})
	return b
}

func (b *bed) addr() string { return "127.0.0.1:" + strconv.Itoa(b.port) }

func (b *bed) start(t *testing.T, s Spec) {
	t.Helper()
	s.Name, s.Kind, s.Port = "db", b.kind, b.port
	if err := Write(b.dir, s); err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(filepath.Join(filepath.Dir(b.dir), "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	b.cmd = exec.Command(os.Args[0])
	b.cmd.Env = append(os.Environ(), append(b.env, "ENGINE_TEST_RUN="+b.dir)...)
	b.cmd.Stdout, b.cmd.Stderr = out, out
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// pids are the processes of the engine, and the one that runs it.
func (b *bed) pids() []int {
	var out []int
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range all {
		if env, _ := os.ReadFile(f); bytes.Contains(env, []byte("ENGINE_TEST_RUN="+b.dir)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			out = append(out, pid)
		}
	}
	return out
}

// server is the engine's own first process.
func (b *bed) server(t *testing.T) int {
	t.Helper()
	for _, pid := range b.pids() {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]); len(f) > 1 && string(f[1]) == strconv.Itoa(b.cmd.Process.Pid) {
			return pid
		}
	}
	t.Fatal("the engine has no process")
	return 0
}

func (b *bed) ready(t *testing.T, logins ...Login) {
	t.Helper()
	eventually(t, "ready", func() error { return Ready(t.Context(), b.dir, b.env, b.addr(), logins) })
}

// end ends it by SIGTERM, and sees that nothing is left.
func (b *bed) end(t *testing.T) {
	t.Helper()
	b.cmd.Process.Signal(syscall.SIGTERM)
	if err := b.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if pids := b.pids(); len(pids) > 0 {
		t.Errorf("processes are left: %v", pids)
	}
}

// ask does something as a service would, and returns the answer.
func (b *bed) ask(t *testing.T, l Login, query string) (string, error) {
	t.Helper()
	bin, err := Installed(b.kind, b.env)
	if err != nil {
		t.Fatal(err)
	}
	var cmd *exec.Cmd
	switch b.kind {
	case PostgreSQL:
		cmd = exec.Command(bin.Client, "-XAtq", "-h", "127.0.0.1", "-p", strconv.Itoa(b.port), "-U", l.User, "-d", l.Database, "-c", query)
		cmd.Env = []string{"PGPASSWORD=" + l.Password}
	case MySQL:
		conf := filepath.Join(t.TempDir(), "my.cnf")
		if err := os.WriteFile(conf, []byte("[client]\nuser="+l.User+"\npassword=\""+strings.ReplaceAll(l.Password, `\`, `\\`)+"\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command(bin.Client, "--defaults-file="+conf, "-h127.0.0.1", "-P"+strconv.Itoa(b.port), "-N", "-B", "-e", query, l.Database)
	case Redis:
		c, err := net.Dial("tcp", b.addr())
		if err != nil {
			return "", err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		r := newRedisConn(c)
		if l.Password != "" {
			args := []string{"AUTH", l.User, l.Password}
			if l.User == "" {
				args = []string{"AUTH", l.Password}
			}
			if _, err := r.do(args...); err != nil {
				return "", err
			}
		}
		v, err := r.do(strings.Fields(query)...)
		return fmt.Sprint(v), err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// clients says nil once a client's connection to the engine is open.
func (b *bed) clients(t *testing.T) error {
	t.Helper()
	tcp, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(tcp)) { // proc_pid_net(5): 01 is ESTABLISHED
		if f := strings.Fields(line); len(f) > 3 && f[1] == fmt.Sprintf("0100007F:%04X", b.port) && f[3] == "01" {
			return nil
		}
	}
	return errors.New("there is none")
}

// what is said to each engine.
var cases = []struct {
	kind              string
	login, other      Login
	seed, wrong, says string // a seed's file, one that fails, and what that says
	seeded, put, got  string
	usurp             string // what no ordinary role may do
	hang              string // what keeps a client waiting
	seedFile          string
}{
	{kind: PostgreSQL, login: Login{"shop", `p'w"\ d`, "orders"}, other: Login{"billing", "x", "bills"},
		seed: "CREATE TABLE t (n int);\nCOPY t FROM stdin;\n7\n\\.\n", wrong: "CREATE TABLE t (n int);\nINSERT INTO nothing VALUES (1);\n", says: `relation "nothing" does not exist`,
		seeded: "SELECT n FROM t WHERE n = 7", put: "INSERT INTO t VALUES (8)", got: "SELECT n FROM t WHERE n = 8", usurp: "CREATE ROLE evil SUPERUSER", hang: "SELECT pg_sleep(600)", seedFile: "seed.sql"},
	{kind: MySQL, login: Login{"shop", `p'w\\ d`, "orders_1"}, other: Login{"billing", "x", "bills"},
		seed: "CREATE TABLE t (n int);\nINSERT INTO t VALUES (7);\n", wrong: "CREATE TABLE t (n int);\nINSERT INTO nothing VALUES (1);\n", says: "nothing' doesn't exist",
		seeded: "SELECT n FROM t WHERE n = 7", put: "INSERT INTO t VALUES (8)", got: "SELECT n FROM t WHERE n = 8", usurp: "CREATE DATABASE evil", hang: "SELECT SLEEP(600)", seedFile: "seed.sql"},
	{kind: Redis, login: Login{Password: `p'w"d`}, other: Login{User: "billing", Password: "x"},
		seed: "# a comment\nSET n \"7\"\n\n", wrong: "SET n 7\nNONSENSE\n", says: "line 2: ERR unknown command",
		seeded: "GET n", put: "SET m 8", got: "GET m", hang: "BLPOP nothing 0", seedFile: "seed.redis"},
}

// The whole life of each engine, on its real binaries: filled from its seed once, with the credentials that the service has, and
// another's beside it; after kill -9 of the engine, and of the process that runs it, the data is there; it ends in order.
func TestRun(t *testing.T) {
	for _, c := range cases {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, c.kind)
			s := Spec{Lasting: true, Login: c.login, Seed: filepath.Join(t.TempDir(), c.seedFile)}
			if err := os.WriteFile(s.Seed, []byte(c.wrong), 0o600); err != nil {
				t.Fatal(err)
			}
			b.start(t, s)
			if err := b.cmd.Wait(); err == nil || !strings.Contains(Trouble(b.dir), c.says) || HasData(b.dir) {
				t.Fatalf("a wrong seed: %v, %q, data %v", err, Trouble(b.dir), HasData(b.dir))
			}
			if err := os.WriteFile(s.Seed, []byte(c.seed), 0o600); err != nil {
				t.Fatal(err)
			}

			// Killed while it is made, at a moment that is not the same twice, it is made by the next.
			b.start(t, s)
			eventually(t, "making begins", func() error {
				if _, err := os.Stat(filepath.Join(b.dir, "db.new", "data")); err != nil && !HasData(b.dir) {
					return err
				}
				return nil
			})
			b.cmd.Process.Kill()
			b.cmd.Wait()
			b.start(t, s)
			b.ready(t, c.login)
			if Trouble(b.dir) != "" {
				t.Errorf("trouble that is over: %s", Trouble(b.dir))
			}
			if got, err := b.ask(t, c.login, c.seeded); err != nil || got != "7" {
				t.Fatalf("the seed: %q, %v", got, err)
			}
			bad := c.login
			bad.Password = "guess"
			if got, err := b.ask(t, bad, c.seeded); err == nil {
				t.Errorf("a wrong password is let in: %s", got)
			}
			if c.usurp != "" {
				if got, err := b.ask(t, c.login, c.usurp); err == nil {
					t.Errorf("the role may do anything: %s", got)
				}
			}
			if _, err := b.ask(t, c.login, c.put); err != nil {
				t.Fatal(err)
			}

			b.ready(t, c.login, c.other) // while it runs
			probe := "SELECT 1"
			if c.kind == Redis {
				probe = "ECHO 1"
			}
			if got, err := b.ask(t, c.other, probe); err != nil || got != "1" {
				t.Errorf("a second service is not let in: %q, %v", got, err)
			}
			for _, pid := range b.pids() {
				args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				if bytes.Contains(args, []byte(c.login.Password)) {
					t.Errorf("a password is an argument: %q", args)
				}
			}
			was := b.server(t)
			syscall.Kill(was, syscall.SIGKILL)
			eventually(t, "another server", func() error {
				if slices.Contains(b.pids(), was) {
					return errors.New("it is not gone yet")
				}
				return nil
			})
			// Nobody lets the service in again: it only connects anew.
			eventually(t, "the data after kill -9 of the engine", func() error {
				if got, err := b.ask(t, c.login, c.got); err != nil || got != "8" {
					return fmt.Errorf("%q, %w", got, err)
				}
				return nil
			})

			was = b.server(t)
			b.cmd.Process.Kill()
			b.cmd.Wait()
			if c.kind == PostgreSQL { // the one of kill -9 of everything, with a process number that is a stranger's by now
				eventually(t, "the end of the engine", func() error {
					if Runs(b.dir) {
						return errors.New("it runs")
					}
					return nil
				})
				pidfile := fmt.Sprintf("%d\n%s\n1\n%d\n\n127.0.0.1\n", os.Getpid(), filepath.Join(b.dir, "db", "data"), b.port)
				if err := os.WriteFile(filepath.Join(b.dir, "db", "data", "postmaster.pid"), []byte(pidfile), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(s.Seed, []byte(c.wrong), 0o600); err != nil { // it is not loaded again
				t.Fatal(err)
			}
			b.start(t, s) // while the other may still end
			eventually(t, "the end of the engine before", func() error {
				if slices.Contains(b.pids(), was) {
					return errors.New("it runs")
				}
				return nil
			})
			b.ready(t, c.login, c.other)
			if got, err := b.ask(t, c.login, c.got); err != nil || got != "8" {
				t.Errorf("after kill -9 of what runs it: %q, %v", got, err)
			}
			var p *api.Problem
			if err := Reset(b.dir); !errors.As(err, &p) || p.Code != "engine-runs" {
				t.Errorf("it was reset while it ran: %v", err)
			}
			hung := make(chan error, 1) // a client that does not leave by itself
			go func() { _, err := b.ask(t, c.login, c.hang); hung <- err }()
			eventually(t, "a client that waits", func() error { return b.clients(t) })
			b.end(t)
			if err := <-hung; err == nil {
				t.Error("the client was answered")
			}
			if err := Reset(b.dir); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(b.dir); err == nil {
				t.Error("its folder is left")
			}
		})
	}
}
