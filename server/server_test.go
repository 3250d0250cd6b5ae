package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/build"
	"fairlead.dev/test/freeport"

	"github.com/google/go-cmp/cmp"
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
	for name, text := range map[string]string{"no token": `{"version":1}`, "short token": `{"version":1,"token":"0123456789abcdef"}`,
		"another version": `{"version":2,"token":"` + rec.Token + `"}`, "nonsense": `{"version":1,"token":`} {
		if err := os.WriteFile(filepath.Join(r.Dir, "shop-1", "record.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Load("shop-1"); err == nil {
			t.Errorf("%s: the record was taken", name)
		}
	}
}

// A service that has another port at each start keeps its address; one with fixed numbers keeps them apart.
func TestTunnelMoves(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var asked []int
	tun := newTunnels(map[int]int{40001: 0}, func(_ context.Context, port int) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, port)
		return nil, io.EOF
	})
	defer tun.wait()
	defer cancel()
	first, err := tun.open(ctx, 40002)
	if err != nil {
		t.Fatal(err)
	}
	if tun.move(40003, 40004) {
		t.Error("a port that is not known was moved")
	}
	if !tun.move(40002, 40005) {
		t.Fatal("not moved")
	}
	if n, err := tun.open(ctx, 40005); err != nil || n != first {
		t.Fatalf("%d %v, want %d", n, err, first)
	}
	c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: first})
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, c) // until it is closed: the far end cannot be reached
	mu.Lock()
	if len(asked) != 1 || asked[0] != 40005 {
		t.Errorf("dialled %v", asked)
	}
	mu.Unlock()
	if _, err := tun.open(ctx, 40006); err != nil {
		t.Fatal(err)
	}
	if tun.move(40005, 40006) {
		t.Error("moved onto a port that has a tunnel")
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
	had, _ := strconv.Atoi(freeport.Get(t))
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
	if n, err := tun.open(ctx, 82); err != nil || n < 1024 {
		t.Fatalf("a port of the system's: %d %v", n, err)
	}
	if runtime.GOOS == "linux" { // where all of 127.0.0.0/8 is there, and a port of all addresses would be taken here too
		other, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", had))
		if err != nil {
			t.Fatalf("it listens on more than 127.0.0.1: %v", err)
		}
		other.Close()
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
	ended := make(chan struct{})
	go func() { tun.wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("a connection goes on after its tunnel")
	}
	if _, err := c.Read(b); err == nil {
		t.Fatal("the connection outlives its tunnel")
	}
	if len(asked) != 1 || asked[0] != 80 {
		t.Fatalf("asked for %v", asked)
	}
}

// Which changed files are of a synced folder, and which are settings.
func TestWhatAFileIs(t *testing.T) {
	dir := t.TempDir()
	at := func(rel string) string { return filepath.Join(dir, filepath.FromSlash(rel)) }
	settings := []string{at("fairlead.yaml"), at("../user.yaml")}
	s := &Session{cfg: Config{SettingsFiles: settings, Reload: func() (Reloaded, []*api.Problem) { panic("not asked for") },
		Folders: []syncer.Folder{{Name: "a", Path: at("a")}, {Name: "b", Path: at("b"), Ignored: func(rel string, isDir bool) bool { return rel == "sub/no.tmp" }}}}}
	for rel, want := range map[string]bool{
		"a/x": true, "a/deep/x": true, "a/..x": true, "b/sub/x": true, "b/sub/no.tmp": false,
		"x": false, "ab": false, "c/x": false, "../a/x": false, "fairlead.yaml": false,
	} {
		if got := s.synced(at(rel)); got != want {
			t.Errorf("%s: synced %v", rel, got)
		}
	}
	for rel, want := range map[string]bool{"fairlead.yaml": true, "../user.yaml": true, "a/fairlead.yaml": false, "user.yaml": false} {
		if got := s.isSettings(at(rel)); got != want {
			t.Errorf("%s: settings %v", rel, got)
		}
	}
}

// What looks like source counts until it is known what the executable is made of, and while that is being asked anew.
func TestRelevantWhileUnknown(t *testing.T) {
	b := &builds{}
	check := func(when string, want bool) {
		t.Helper()
		for path, source := range map[string]bool{"/x/new/a.go": true, "/x/go.mod": true, "/x/go.work.sum": true, "/x/README.md": false, "/x/go": false} {
			if got := b.relevant(path); got != (source && want) {
				t.Errorf("%s: %s is relevant: %v", when, path, got)
			}
		}
	}
	check("before the first list", true)
	b.inputs.Store(&build.Inputs{})
	check("with a list that has none of them", false)
	b.stale.Store(true)
	check("while it is made anew", true)
}

// What killed agents built goes, what this one builds and what else is there stays.
func TestSweep(t *testing.T) {
	recs := Records{Dir: t.TempDir()}
	s := &Session{cfg: Config{Records: recs}, builds: &builds{out: filepath.Join(recs.Folder("shop-1"), "out-3")}}
	s.cfg.Spec.Name = "shop-1"
	for _, d := range []string{"out-1", "out-2", "out-3", "base"} {
		if err := os.MkdirAll(filepath.Join(recs.Folder("shop-1"), d, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.sweep()
	left, err := filepath.Glob(filepath.Join(recs.Folder("shop-1"), "*"))
	if err != nil || len(left) != 2 || filepath.Base(left[0]) != "base" || filepath.Base(left[1]) != "out-3" {
		t.Errorf("%v is left (%v)", left, err)
	}
}

// Settings that are wrong leave things as they are, and are told; a warning keeps nothing back.
func TestReload(t *testing.T) {
	var problems []*api.Problem
	var told []string
	lease := Lease{Sleep: time.Hour}
	s := &Session{keep: &keeper{}, builds: &builds{}, proc: api.Process{Port: 1}, debug: newDebugging(nil), leases: make(chan Lease, 1)}
	s.cfg = Config{Emit: func(e api.Event) { told = append(told, e.(*api.ProblemEvent).Code) },
		Reload: func() (Reloaded, []*api.Problem) {
			return Reloaded{Process: api.Process{Port: 2}, Lease: lease}, problems
		}}
	problems = []*api.Problem{{Code: "warned", Severity: api.SeverityWarning}, {Code: "wrong"}}
	if s.reload() || s.proc.Port != 1 {
		t.Errorf("wrong settings were taken over: %+v", s.proc)
	}
	problems = problems[:1]
	if !s.reload() || s.proc.Port != 2 {
		t.Errorf("settings with a warning were not taken over: %+v", s.proc)
	}
	if d := cmp.Diff([]string{"warned", "wrong", "warned"}, told); d != "" {
		t.Error(d)
	}
	// Of a lease that changes again before the first change is brought anywhere, only the last counts.
	lease.Delete = 2 * time.Hour
	s.reload()
	if got := <-s.leases; got != lease {
		t.Errorf("%+v", got)
	}
	if s.reload(); len(s.leases) != 0 {
		t.Error("the same lease is no change")
	}
}

// That a generation answers is told once, however often its ports are; again when its address is another, and when
// another supervisor runs it.
func TestReadyOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var ready []*api.ReadyEvent
	s := &Session{keep: &keeper{recs: Records{Dir: t.TempDir()}, rec: Record{Environment: api.Environment{Name: "shop-1"}, Ports: map[int]int{}}},
		saved: map[api.Generation]time.Time{3: time.Now().Add(-time.Second)}, ready: map[api.Generation]string{}, again: map[api.Generation]bool{},
		tun: newTunnels(nil, func(context.Context, int) (net.Conn, error) { return nil, io.EOF }), debug: newDebugging(nil), calls: &calls{}}
	defer s.tun.wait()
	defer cancel()
	s.cfg.Emit = func(e api.Event) {
		if r, ok := e.(*api.ReadyEvent); ok {
			ready = append(ready, r)
		}
	}
	listening := func(ports ...api.Port) {
		s.podEvent(ctx, &api.ListeningEvent{Header: api.Header{Type: api.KindListening, Generation: 3, Time: time.Now()}, Ports: ports})
	}
	want := func(when string, n int) {
		t.Helper()
		if len(ready) != n {
			t.Fatalf("%s: told %d times, want %d", when, len(ready), n)
		}
	}
	main := api.Port{Port: 40001, Main: true}
	listening(main)
	want("at first", 1)
	if r := ready[0]; !strings.HasPrefix(r.URL, "http://127.0.0.1:") || r.Generation != 3 || r.MS < 1000 {
		t.Errorf("%+v", r)
	}
	listening(main, api.Port{Port: 40002})
	want("with another port beside it", 1)
	listening(api.Port{Port: 40002, Main: true})
	want("with another main port", 2)
	s.anew()
	listening(api.Port{Port: 40002, Main: true})
	want("under another supervisor", 3)
	if r := ready[2]; r.MS != 0 {
		t.Errorf("no save led to it, it took %d ms", r.MS)
	}
}

// others is an environment with more containers than the service's.
type others struct {
	bridge.Environment
	lines []*api.LogEvent
	err   error
}

func (o others) FollowLogs(ctx context.Context, emit func(*api.LogEvent)) error {
	for _, l := range o.lines {
		emit(l)
	}
	return o.err
}

// The other containers' lines are told with the generation that is wanted; a right that is missing is one warning, which
// stands though the connection comes and goes.
func TestOtherContainers(t *testing.T) {
	line := func() *api.LogEvent {
		return &api.LogEvent{Header: api.Header{Type: api.KindLog, Time: time.Unix(5, 0)}, Stream: "stdout", Text: "hello", Process: "shop-1-a/proxy"}
	}
	var got []api.Event
	s := &Session{cfg: Config{Emit: func(e api.Event) { got = append(got, e) }}, keep: &keeper{rec: Record{Generation: 7}}, debug: newDebugging(nil), envReady: make(chan struct{})}
	var env bridge.Environment = others{lines: []*api.LogEvent{line()}, err: &api.Problem{Code: api.CodeNoLogs, Message: "you may not", Hint: "ask"}}
	s.env.Store(&env)
	close(s.envReady)
	s.followOthers(t.Context())
	if len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	want := line()
	want.Generation = 7
	if d := cmp.Diff(api.Event(want), got[0]); d != "" {
		t.Error(d)
	}
	p := got[1].(*api.ProblemEvent)
	if p.Code != api.CodeNoLogs || p.Severity != api.SeverityWarning || p.Owner != keyEnvironment || p.Generation != 7 {
		t.Errorf("%+v", p)
	}
	st := newState(api.Service{}, time.Unix(1, 0))
	for _, e := range []any{p, p, &api.EnvironmentEvent{State: "lost", Reason: "r"}, &api.EnvironmentEvent{State: "connected"}} {
		st.apply(e, time.Unix(2, 0))
	}
	if ps := st.service().Problems; len(ps) != 1 || ps[0].Code != api.CodeNoLogs || ps[0].Severity != api.SeverityWarning {
		t.Errorf("%+v", ps)
	}
	st.apply(over{}, time.Unix(3, 0))
	if ps := st.service().Problems; len(ps) != 0 {
		t.Errorf("it ended for %+v", ps)
	}

	// An environment that does not come up says why by its containers' words, before it fails.
	got = nil
	down := &notUp{&api.Problem{Code: "init-failed"}, []*api.LogEvent{line()}}
	s.cfg.Open = func(context.Context, bridge.Spec, bridge.Progress) (bridge.Environment, error) { return nil, down }
	if err := s.openEnvironment(t.Context()); err != error(down) || api.Problems(err, "x")[0].Code != "init-failed" {
		t.Errorf("%v", err)
	}
	if len(got) != 1 || got[0].(*api.LogEvent).Text != "hello" {
		t.Errorf("%+v", got)
	}
}

type notUp struct {
	error
	lines []*api.LogEvent
}

func (n *notUp) Unwrap() error             { return n.error }
func (n *notUp) LogLines() []*api.LogEvent { return n.lines }
