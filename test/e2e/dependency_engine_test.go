package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"fairlead.dev/api"
)

// counting is a service that counts its requests in PostgreSQL, MariaDB and Redis, with the credentials of its DSNs. The SQL goes
// through the databases' own clients: a driver would have to be fetched.
const counting = `package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

func run(env []string, args ...string) string {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func redis() string {
	u, err := url.Parse(os.Getenv("REDIS_URL"))
	if err != nil {
		return err.Error()
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	pw, _ := u.User.Password()
	fmt.Fprintf(c, "AUTH %s\r\nINCR n\r\n", pw)
	in := bufio.NewReader(c)
	in.ReadString('\n')
	s, err := in.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.Trim(s, ":\r\n")
}

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "NAME %s;", version)
		if os.Getenv("DATABASE_URL") != "" {
			fmt.Fprintf(w, "pg=%s;", run(nil, "psql", "-XAtqd", os.Getenv("DATABASE_URL"), "-c", "INSERT INTO visits DEFAULT VALUES", "-c", "SELECT count(*) FROM visits"))
		}
		if m := regexp.MustCompile("(.*):(.*)@tcp\\((.*):(.*)\\)/(.*)").FindStringSubmatch(os.Getenv("SQL_DSN")); m != nil {
			fmt.Fprintf(w, "sql=%s;", run([]string{"MYSQL_PWD=" + m[2]}, "mariadb", "--no-defaults", "-NBu", m[1], "-h", m[3], "-P", m[4], m[5], "-e", "CREATE TABLE IF NOT EXISTS v (n int); INSERT INTO v VALUES (1); SELECT count(*) FROM v"))
		}
		if os.Getenv("REDIS_URL") != "" {
			fmt.Fprintf(w, "redis=%s;", redis())
		}
	})
	panic(http.ListenAndServe(":"+os.Args[2], nil))
}
`

// engines makes a workspace whose services count in databases, on a machine that has them.
func engines(t *testing.T, p *place, entries map[string]string) workspace {
	t.Helper()
	path := os.Getenv("PATH")
	if _, err := exec.LookPath("redis-server"); err != nil { // Debian's redis-tools has it by another name
		other, err := exec.LookPath("redis-check-rdb")
		if err != nil {
			skip(t, "Redis is not installed: make install has it")
		}
		path = filepath.Join(p.m.root, "bin") + ":" + path
		if err := os.MkdirAll(filepath.Join(p.m.root, "bin"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(other, filepath.Join(p.m.root, "bin", "redis-server")); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range []string{"/usr/lib/postgresql/*/bin/postgres", "/usr/sbin/mariadbd"} {
		if found, _ := filepath.Glob(tool); len(found) == 0 {
			skip(t, tool+" is not installed: make install has it")
		}
	}
	p.m.env = append(p.m.env, "PATH="+path)
	w := newWorkspace(t, entries)
	for name := range entries {
		write(t, filepath.Join(w.service(name), "main.go"), strings.ReplaceAll(counting, "NAME", name))
	}
	write(t, filepath.Join(w.dir, "visits.sql"), "CREATE TABLE visits (at timestamptz DEFAULT now());\nCOPY visits FROM stdin;\n2026-01-01\n2026-01-02\n\\.\n")
	return w
}

// number is what a service said of one of its databases.
func number(t testing.TB, body, name string) int {
	t.Helper()
	m := regexp.MustCompile(name + `=(\d+);`).FindStringSubmatch(body)
	if m == nil {
		t.Fatalf("%q has no number of %s", body, name)
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// counts waits until the service has counted in each database.
func (a *agent) counts(t testing.TB, names ...string) (body string) {
	t.Helper()
	eventually(t, "counts of "+strings.Join(names, ", "), func() error {
		body = a.says(t)
		for _, n := range names {
			if !regexp.MustCompile(n + `=\d+;`).MatchString(body) {
				return fmt.Errorf("it says %q", body)
			}
		}
		return nil
	})
	return body
}

// engineProcesses are the first processes of the engines of a kind.
func (p *place) engineProcesses(name string) []int {
	return p.m.having(func(pid int) bool {
		return executable(pid) == name && executable(parent(pid)) == filepath.Base(fairlead)
	})
}

// controlState is what PostgreSQL's control file says of how its last server ended.
func controlState(t testing.TB, p *place) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pg_controldata")
	data, _ := filepath.Glob(filepath.Join(p.m.state, "fairlead/data/db-*/db/data"))
	if len(data) != 1 {
		t.Fatalf("data folders: %v", data)
	}
	cmd := exec.Command(found[len(found)-1], data[0])
	cmd.Env = []string{"LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := regexp.MustCompile(`Database cluster state: *(.*)`).FindSubmatch(out)
	return string(m[1])
}

// Databases by one word, or by the DSN that names them: shared ones are one for all and keep their data, a fresh one is the
// environment's own. They have the credentials that the DSNs say, outlive kill -9, and are ended in order.
func TestLocalEngines(t *testing.T) {
	p := newLocal(t)
	env := "    env: {DATABASE_URL: \"postgres://shop:s3cret@{{db}}/orders?sslmode=disable\"%s}\n    dependencies:\n      db: {seed: visits.sql%s}\n"
	w := engines(t, p, map[string]string{
		"front": fmt.Sprintf(env, ", SQL_DSN: \"shop:s3cret@tcp({{sql}})/orders\", REDIS_URL: \"redis://:s3cret@{{cache}}/0\"", "") + "      sql: {engine: mariadb}\n      cache: {engine: redis}\n",
		"back":  fmt.Sprintf(env, "", ""),
		"admin": fmt.Sprintf(env, "", ", mode: fresh"),
	})
	for name, want := range map[string]api.Dependency{"db": {Engine: "postgresql", Why: []string{"DATABASE_URL of fairlead.yaml"}}, "sql": {Engine: "mysql"}, "cache": {Engine: "redis"}} {
		if d := p.deps(t, w.service("front"))[name]; d.Engine != want.Engine || d.Workload == "" || want.Why != nil && !slices.Equal(d.Why, want.Why) {
			t.Errorf("%s: %+v", name, d)
		}
	}
	front := p.run(t, w.service("front"))
	body := front.counts(t, "pg", "sql", "redis")
	if number(t, body, "pg") != 3 {
		t.Errorf("it does not begin with the seed's two: %s", body)
	}
	back := p.run(t, w.service("back"))
	if body := back.counts(t, "pg"); number(t, body, "pg") <= 3 {
		t.Errorf("the shared one is another: %s", body)
	}
	admin := p.run(t, w.service("admin"))
	if body := admin.counts(t, "pg"); number(t, body, "pg") != 3 {
		t.Errorf("the fresh one is not its own: %s", body)
	}
	for _, pid := range append(p.m.agents(), p.m.processes()...) {
		if args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); bytes.Contains(args, []byte("s3cret")) && executable(pid) != "psql" { // the service's own
			t.Errorf("a password is an argument: %q", args)
		}
	}
	if s := p.m.fairlead(t, w.service("front"), "deps", "reset", "db"); s.code == 0 || !strings.Contains(s.stderr, "runs") {
		t.Errorf("data was removed below its engine: %+v", s)
	}
	admin.interrupt(t)
	back.interrupt(t)

	had := number(t, front.counts(t, "pg"), "pg")
	killed := one(t, "PostgreSQL", p.engineProcesses("postgres"))
	killWait(t, killed)
	eventually(t, "another PostgreSQL", func() error {
		if now := p.engineProcesses("postgres"); len(now) != 1 || now[0] == killed {
			return fmt.Errorf("processes %v", now)
		}
		return nil
	})
	if now := number(t, front.counts(t, "pg", "sql", "redis"), "pg"); now <= had {
		t.Errorf("after kill -9 of the engine %d, before %d", now, had)
	}
	front.skipAll()
	killWait(t, front.pid(t))
	front.wait(t, "connected", isEnv("connected"))
	front.counts(t, "pg", "sql", "redis")

	// One that is stopped is wanted all the same.
	killed = one(t, "PostgreSQL", p.engineProcesses("postgres"))
	p.m.ok(t, w.service("front"), "stop", p.engineEnvironment(t, "db"))
	eventually(t, "another PostgreSQL", func() error {
		if now := p.engineProcesses("postgres"); len(now) != 1 || now[0] == killed {
			return fmt.Errorf("processes %v", now)
		}
		return nil
	})
	had = number(t, front.counts(t, "pg"), "pg")
	front.interrupt(t)
	p.noProcesses(t)
	if s := controlState(t, p); s != "shut down" {
		t.Errorf("PostgreSQL was left %q", s)
	}

	// The data is kept; and with nobody left to ask, the engine ends in order all the same.
	again := p.run(t, w.service("back"))
	if now := number(t, again.counts(t, "pg"), "pg"); now <= had {
		t.Errorf("after a restart %d, before %d", now, had)
	}
	again.cmd.Process.Signal(syscall.SIGKILL)
	for _, pid := range p.m.agents() {
		killWait(t, pid)
	}
	p.noProcesses(t)
	if s := controlState(t, p); s != "shut down" {
		t.Errorf("without an agent PostgreSQL was left %q", s)
	}
	p.m.ok(t, w.service("front"), "stop", "--all")
	for _, name := range []string{"db", "sql", "cache"} {
		p.m.ok(t, w.service("front"), "deps", "reset", name)
	}
	p.wantNothing(t)
}

// engineEnvironment is the name of a shared engine's environment.
func (p *place) engineEnvironment(t testing.TB, name string) string {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(p.m.state, "fairlead/data", name+"-*"))
	if len(found) != 1 {
		t.Fatalf("folders of %s: %v", name, found)
	}
	return filepath.Base(found[0])
}

// noProcesses waits until nothing runs but agents.
func (p *place) noProcesses(t testing.TB) {
	t.Helper()
	eventually(t, "no process", func() error {
		if pids := p.m.processes(); len(pids) > 0 {
			return fmt.Errorf("processes %v: %s", pids, describe(pids))
		}
		return nil
	})
}

// A seed that fails is told with what is wrong in it; the service runs, and the database comes once it is mended. One that is not
// installed is told with the command that installs it.
func TestLocalEngineTrouble(t *testing.T) {
	p := newLocal(t)
	w := engines(t, p, map[string]string{
		"front": "    env: {DATABASE_URL: \"postgres://shop:s3cret@{{db}}/orders?sslmode=disable\"}\n    dependencies:\n      db: {seed: visits.sql, mode: fresh}\n      sql: {engine: mysql, user: shop, password: x, database: y}\n",
	})
	seed := filepath.Join(w.dir, "visits.sql")
	good, err := os.ReadFile(seed)
	if err != nil {
		t.Fatal(err)
	}
	write(t, seed, "SELECT * FROM nothing;\n")
	p.m.env = append(p.m.env, "FAIRLEAD_TEST_GRACE=1m")
	a := p.run(t, w.service("front"))
	a.says(t, "front v1")
	var failed api.Dependency
	eventually(t, "why there is no database", func() error {
		if failed = p.deps(t, w.service("front"))["db"]; failed.Health != api.HealthFailed {
			return fmt.Errorf("%+v", failed)
		}
		return nil
	})
	if !strings.Contains(failed.Detail, `visits.sql was not loaded`) || !strings.Contains(failed.Detail, `relation "nothing" does not exist`) {
		t.Errorf("it says %q", failed.Detail)
	}
	write(t, seed, string(good))
	eventually(t, "the mended seed", func() error {
		if d := p.deps(t, w.service("front"))["db"]; d.Health != api.HealthReady {
			return fmt.Errorf("%+v", d)
		}
		return nil
	})
	a.interrupt(t)
	p.m.ok(t, w.service("front"), "deps", "reset", "sql")
	p.wantNothing(t)
}
