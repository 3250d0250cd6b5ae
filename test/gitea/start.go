//go:build unix

package gitea

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.dev/test/freeport"
)

// Server is a Gitea that runs, until the test ends.
type Server struct {
	URL   string // without a slash at its end
	SSH   string // its own ssh server, as ssh://git@127.0.0.1:2222
	Token string // of the administrator

	exe, home, user string
	as              *syscall.Credential
}

// Admin is the administrator's name.
const Admin = "keeper"

// Start starts a Gitea with nothing in it. Without the program the test is skipped, or fails under CI=true.
func Start(t testing.TB) *Server {
	t.Helper()
	dir := os.Getenv(Variable)
	if dir == "" {
		if src, err := source(); err == nil {
			if d, err := folder(src); err == nil && whole(d) {
				dir = d
			}
		}
	}
	if dir == "" || !whole(dir) {
		const why = "Gitea is not built (go run ./test/run -only gitea makes it)"
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	home, err := os.MkdirTemp("", "gitea-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	s := &Server{exe: filepath.Join(dir, "gitea"), home: home}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	name := me.Username
	if os.Geteuid() == 0 {
		u, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32) // 0 is refused below, by Gitea
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		s.as, name = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, u.Username
		if err := os.Chown(home, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	s.user = name
	port := freeport.Get(t)
	s.URL = "http://127.0.0.1:" + port
	ssh := freeport.Get(t)
	s.SSH = "ssh://git@127.0.0.1:" + ssh
	// Made here, since its own would be RSA of 4,096 bits, which takes seconds.
	hostKey := filepath.Join(home, "host_key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", hostKey).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	ini := fmt.Sprintf(`APP_NAME = Test
RUN_USER = %s
RUN_MODE = prod
WORK_PATH = %s
[server]
PROTOCOL = http
HTTP_ADDR = 127.0.0.1
HTTP_PORT = %s
ROOT_URL = %s/
STATIC_ROOT_PATH = %s
OFFLINE_MODE = true
START_SSH_SERVER = true
BUILTIN_SSH_SERVER_USER = git
SSH_LISTEN_HOST = 127.0.0.1
SSH_LISTEN_PORT = %s
SSH_DOMAIN = 127.0.0.1
SSH_PORT = %s
SSH_SERVER_HOST_KEYS = %s
[database]
DB_TYPE = sqlite3
SQLITE_TIMEOUT = 60000
PATH = %s
[security]
INSTALL_LOCK = true
SECRET_KEY = only-for-tests
INTERNAL_TOKEN = eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJuYmYiOjE1MDI4NDQ3NTd9.only-for-tests
[service]
DISABLE_REGISTRATION = true
[log]
MODE = console
LEVEL = Warn
[cron]
ENABLED = false
[indexer]
ISSUE_INDEXER_TYPE = db
[webhook]
ALLOWED_HOST_LIST = loopback
[repository]
DEFAULT_BRANCH = main
`, name, home, port, s.URL, filepath.Join(dir, "static"), ssh, ssh, hostKey, filepath.Join(home, "gitea.db"))
	if err := os.WriteFile(filepath.Join(home, "app.ini"), []byte(ini), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"app.ini", "host_key", "host_key.pub"} {
		if s.as == nil {
			break
		}
		if err := os.Chown(filepath.Join(home, f), int(s.as.Uid), int(s.as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	s.run(t, "migrate")
	s.run(t, "admin", "user", "create", "--admin", "--username", Admin, "--email", Admin+"@example.com", "--random-password", "--must-change-password=false")
	s.Token = s.token(t, Admin)

	web := s.command(context.Background(), "web")
	var log bytes.Buffer
	web.Stdout, web.Stderr = &log, &log
	if err := web.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- web.Wait() }()
	t.Cleanup(func() {
		_ = web.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = web.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("Gitea's log:\n%s", tail(log.Bytes()))
		}
	})
	deadline := time.After(2 * time.Minute)
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		res, err := http.Get(s.URL + "/api/v1/version")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return s
			}
		}
		select {
		case <-tick.C:
		case err := <-ended:
			ended <- err
			t.Fatalf("Gitea ended: %v", err)
		case <-deadline:
			t.Fatalf("Gitea does not answer: %v", err)
		}
	}
}

func (s *Server) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.exe, append(args, "--config", filepath.Join(s.home, "app.ini"), "--work-path", s.home)...)
	cmd.Dir = s.home
	cmd.Env = []string{"HOME=" + s.home, "PATH=" + os.Getenv("PATH"), "USER=" + s.user}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	return cmd
}

func (s *Server) run(t testing.TB, args ...string) string {
	t.Helper()
	cmd := s.command(t.Context(), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gitea %s: %v\n%s\n%s", strings.Join(args, " "), err, tail(out), tail(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out))
}

func (s *Server) token(t testing.TB, name string) string {
	t.Helper()
	return s.Scoped(t, name, "all")
}

// Scoped makes a token of a user's with these scopes only, such as "write:repository,read:user".
func (s *Server) Scoped(t testing.TB, name, scopes string) string {
	t.Helper()
	out := s.run(t, "admin", "user", "generate-access-token", "--username", name, "--token-name", "test "+scopes, "--scopes", scopes, "--raw")
	lines := strings.Split(out, "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// User makes a user, and returns a token of hers.
func (s *Server) User(t testing.TB, name string) string {
	t.Helper()
	s.run(t, "admin", "user", "create", "--username", name, "--email", name+"@example.com", "--random-password", "--must-change-password=false")
	return s.token(t, name)
}

// Repo makes an empty private repository of a user's, and returns the URL that git clones it from.
func (s *Server) Repo(t testing.TB, owner, name string) string {
	t.Helper()
	s.API(t, s.Token, http.MethodPost, "/admin/users/"+owner+"/repos", map[string]any{"name": name, "private": true}, nil)
	return s.URL + "/" + owner + "/" + name + ".git"
}

// Filled waits until Gitea has taken in what was pushed first to a repository, as owner/name: until then it has no pull requests (404).
func (s *Server) Filled(t testing.TB, path string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		var repo struct{ Empty bool }
		if s.API(t, s.Token, http.MethodGet, "/repos/"+path, nil, &repo); !repo.Empty {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s stays empty", path)
		}
	}
}

// API calls /api/v1, and fails the test on any answer but a good one.
func (s *Server) API(t testing.TB, token, method, path string, body, into any) {
	t.Helper()
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/api/v1"+path, send)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "token "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s\n%s", method, path, res.Status, b)
	}
	if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatalf("%s %s: %v\n%s", method, path, err, b)
		}
	}
}
