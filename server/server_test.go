package server

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

func TestEnvironmentName(t *testing.T) {
	label := regexp.MustCompile(`^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$`)
	seen := map[string]string{}
	for _, c := range [][4]string{
		{"shop", "/src/shop", "ada@laptop", "local"},
		{"shop", "/src/shop", "ada@laptop", "kubernetes"},
		{"shop", "/src/other", "ada@laptop", "local"},
		{"shop", "/src/shop", "bob@laptop", "local"},
		{"Order_Service.v2", "/x", `CORP\Ada Lovelace@host`, "local"},
		{strings.Repeat("long", 20), "/x", strings.Repeat("user", 9) + "@h", "local"},
		{"ünï", "/x", "@", "local"},
	} {
		n := EnvironmentName(c[0], c[1], c[2], c[3])
		if !label.MatchString(n) {
			t.Errorf("%q: %q is no label that a provider may append to", c, n)
		}
		if other, dup := seen[n]; dup {
			t.Errorf("%q has the name of %q", c, other)
		}
		seen[n] = strings.Join(c[:], " ")
		if again := EnvironmentName(c[0], c[1], c[2], c[3]); again != n {
			t.Errorf("%q, then %q", n, again)
		}
	}
}

func TestRecords(t *testing.T) {
	r := Records{Dir: filepath.Join(t.TempDir(), "env")}
	rec, err := r.Load("shop-1")
	if err != nil || len(rec.Token) != 64 {
		t.Fatalf("%+v %v", rec, err)
	}
	rec.Environment = api.Environment{Name: "shop-1", Service: "shop", Provider: "local"}
	rec.Ports[8080] = 34567
	if err := r.Save(rec); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(r.Dir, "shop-1", "record.json"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("the token can be read by others: %v %v", fi.Mode(), err)
	}
	back, err := r.Load("shop-1")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(rec, back); d != "" {
		t.Fatal(d)
	}
	if all := r.All(); len(all) != 1 {
		t.Fatalf("%+v", all)
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "shop-1", "record.json"), []byte(`{"version":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Load("shop-1"); err == nil {
		t.Fatal("a record without a token was taken")
	}
}

// A tunnel answers on loopback only, on the port it had before where that is free, and keeps half-closed connections.
func TestTunnels(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	before, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	had := before.Addr().(*net.TCPAddr).Port
	before.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var asked []int
	tun := newTunnels(map[int]int{80: had, 81: taken.Addr().(*net.TCPAddr).Port}, func(ctx context.Context, port int) (net.Conn, error) {
		asked = append(asked, port)
		var d net.Dialer
		return d.DialContext(ctx, "tcp", echo.Addr().String())
	})
	if n, err := tun.open(ctx, 80); err != nil || n != had {
		t.Fatalf("port %d %v, want %d", n, err, had)
	}
	if n, err := tun.open(ctx, 80); err != nil || n != had {
		t.Fatalf("again: %d %v", n, err)
	}
	n, err := tun.open(ctx, 81)
	if err != nil || n == taken.Addr().(*net.TCPAddr).Port {
		t.Fatalf("%d %v", n, err)
	}
	c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: had})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "through and back"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len("through and back"))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "through and back" {
		t.Fatalf("%q %v", b, err)
	}
	cancel()
	tun.wait()
	if _, err := c.Read(b); err == nil {
		t.Fatal("the connection outlives its tunnel")
	}
	if len(asked) != 1 || asked[0] != 80 {
		t.Fatalf("asked for %v", asked)
	}
}
