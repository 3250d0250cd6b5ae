package engine

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fairlead.dev/api"
)

// redis is Redis, or Valkey.
type redis struct{}

func (redis) end() syscall.Signal { return syscall.SIGTERM }

// random is a password that needs no quoting anywhere.
func random() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (k redis) make(ctx context.Context, r *running, to string) error {
	data := filepath.Join(to, "data")
	secret := random()
	sum := sha256.Sum256([]byte(secret))
	err := os.Mkdir(data, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "password"), []byte(secret), 0o600)
	}
	if err == nil {
		// "default" is who comes without a name. Until a service says how it comes, nobody does.
		err = os.WriteFile(filepath.Join(data, "users.acl"), fmt.Appendf(nil, "user default off\nuser %s on #%x allkeys allchannels allcommands\n", admin, sum), 0o600)
	}
	if err == nil && strings.HasSuffix(r.spec.Seed, ".rdb") {
		err = copyFile(filepath.Join(data, "dump.rdb"), r.spec.Seed)
	}
	if err != nil {
		return fmt.Errorf("make the data: %w", err)
	}
	if r.spec.Seed == "" {
		return nil
	}
	serve := append(k.options(r, data), "--port", "0", "--unixsocket", "../s", "--save", "", "--appendonly", "no")
	err = r.within(ctx, serve, filepath.Join(to, "s"), func() error {
		c, err := k.login(ctx, "unix", filepath.Join(to, "s"), secret)
		if err != nil {
			return err
		}
		defer c.Close()
		if !strings.HasSuffix(r.spec.Seed, ".rdb") {
			if err := c.load(r.spec.Seed); err != nil {
				return seedFailed(r.spec, err)
			}
		}
		if !r.spec.Lasting {
			_, err := c.do("SAVE")
			return err
		}
		// The file that is appended to begins with what is there.
		if _, err := c.do("CONFIG", "SET", "appendonly", "yes"); err != nil {
			return err
		}
		for {
			info, err := c.do("INFO", "persistence")
			if err != nil {
				return err
			}
			text, _ := info.(string)
			if strings.Contains(text, "aof_rewrite_in_progress:0") && strings.Contains(text, "aof_rewrite_scheduled:0") {
				if !strings.Contains(text, "aof_last_bgrewrite_status:ok") {
					return errors.New("the data was not written; see its log")
				}
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	var p *api.Problem
	if errors.As(err, &p) && p.Code == "engine-failed" { // it refused the file
		return seedFailed(r.spec, errors.New(p.Message))
	}
	return err
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (redis) check(*running, string) error { return nil } // it says itself what it cannot read

func (redis) clean(string) {}

func (redis) options(r *running, data string) []string {
	args := []string{r.bin.Server, "--bind", "127.0.0.1", "--dir", data, "--aclfile", "users.acl", "--daemonize", "no", "--databases", "16"}
	if compare(r.bin.Version, "7") >= 0 {
		// Its title would be written over its environment, by which a supervisor finds what one that was killed has left.
		args = append(args, "--set-proc-title", "no")
	}
	return args
}

func (k redis) command(r *running, data string) []string {
	args := append(k.options(r, data), "--port", strconv.Itoa(r.spec.Port))
	if r.spec.Lasting {
		return append(args, "--appendonly", "yes") // at most a second is lost when it is killed
	}
	return append(args, "--save", "", "--appendonly", "no")
}

// answers asks for a PONG. To be told that one has to log in is an answer too; to be told that data is read is none yet.
func (redis) answers(nc net.Conn) error {
	c := newRedisConn(nc)
	_, err := c.do("PING")
	var e redisError
	if errors.As(err, &e) && (strings.HasPrefix(string(e), "NOAUTH") || strings.HasPrefix(string(e), "NOPERM")) {
		return nil
	}
	return err
}

func (k redis) login(ctx context.Context, network, addr, secret string) (*redisConn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := newRedisConn(nc)
	if _, err := c.do("AUTH", admin, secret); err != nil {
		nc.Close()
		return nil, fmt.Errorf("log in: %w", err)
	}
	return c, nil
}

// admit lets a user in with a password of those that it has, or "default" without one. Who comes without a password and who
// comes with one cannot both be "default".
func (k redis) admit(ctx context.Context, _ Binaries, dir, addr string, l Login) error {
	secret, err := os.ReadFile(filepath.Join(dir, "db", "password"))
	if err != nil {
		return err
	}
	c, err := k.login(ctx, "tcp", addr, string(secret))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	user := l.User
	if user == "" {
		user = "default"
	}
	flags, passwords, err := c.user(user)
	if err != nil {
		return err
	}
	isOn, open := slices.Contains(flags, "on"), slices.Contains(flags, "nopass")
	sum := sha256.Sum256([]byte(l.Password))
	rule := ">" + l.Password
	switch {
	case isOn && open && l.Password == "", isOn && !open && l.Password != "" && slices.Contains(passwords, hex.EncodeToString(sum[:])):
		return nil
	case isOn && open != (l.Password == ""):
		return &api.Problem{Code: "no-login", Message: "one service logs in with a password, and another without", Hint: "write the same in both, or make the dependency fresh"}
	case l.Password == "":
		rule = "nopass"
	}
	if _, err := c.do("ACL", "SETUSER", user, "on", rule, "allkeys", "allchannels", "allcommands"); err != nil {
		return err
	}
	_, err = c.do("ACL", "SAVE") // it is let in again after a restart
	return err
}

// redisConn speaks RESP2 (Redis, "Redis serialization protocol specification").
type redisConn struct {
	net.Conn
	in *bufio.Reader
}

func newRedisConn(c net.Conn) *redisConn { return &redisConn{Conn: c, in: bufio.NewReader(c)} }

// redisError is what the server refuses with.
type redisError string

func (e redisError) Error() string { return string(e) }

func (c *redisConn) do(args ...string) (any, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c.Conn, b.String()); err != nil {
		return nil, err
	}
	return c.reply(4)
}

// reply reads one value: a text, a number's digits, a list, or nil. Lists are nested at most so deep.
func (c *redisConn) reply(depth int) (any, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil || len(line) < 3 || line[len(line)-2] != '\r' {
		return nil, errors.Join(err, errors.New("it is no Redis"))
	}
	text := string(line[1 : len(line)-2])
	switch line[0] {
	case '+', ':':
		return text, nil
	case '-':
		return nil, redisError(text)
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < -1 || n > 64<<20 {
		return nil, errors.New("it is no Redis")
	}
	switch {
	case n == -1:
		return nil, nil
	case line[0] == '$':
		b := make([]byte, n+2)
		if _, err := io.ReadFull(c.in, b); err != nil {
			return nil, err
		}
		return string(b[:n]), nil
	case line[0] == '*' && depth > 0 && n < 4096:
		list := make([]any, n)
		for i := range list {
			if list[i], err = c.reply(depth - 1); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	return nil, errors.New("it is no Redis")
}

// user is what a user has; nothing where there is none.
func (c *redisConn) user(name string) (flags, passwords []string, err error) {
	v, err := c.do("ACL", "GETUSER", name)
	if err != nil {
		return nil, nil, err
	}
	list, _ := v.([]any)
	for i := 0; i+1 < len(list); i += 2 {
		var texts []string
		values, _ := list[i+1].([]any)
		for _, t := range values {
			s, _ := t.(string)
			texts = append(texts, s)
		}
		switch list[i] {
		case "flags":
			flags = texts
		case "passwords":
			passwords = texts
		}
	}
	return flags, passwords, nil
}

// load sends a file of commands, one a line, as redis-cli reads them.
func (c *redisConn) load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<10) // the server's own bound of an inline command
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if _, err := io.WriteString(c.Conn, line+"\r\n"); err != nil {
			return err
		}
		if _, err := c.reply(8); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return lines.Err()
}
