package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
)

// sleepyEnv is an environment that is asleep, and takes a while to wake.
type sleepyEnv struct {
	bridge.Environment
	mu     sync.Mutex
	byHand bool // put to sleep by somebody
	asleep bool
	err    error
	calls  []string
}

func (e *sleepyEnv) Wake(ctx context.Context, asked bool, why string) (bool, error) {
	time.Sleep(time.Second) // of a bubble
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, fmt.Sprint(asked, " ", why))
	if e.err != nil || !e.asleep || e.byHand && !asked {
		return false, e.err
	}
	e.asleep = false
	return true, nil
}

func sleepySession(env *sleepyEnv) (s *Session, told *[]string) {
	told = new([]string)
	s = &Session{keep: &keeper{}, envReady: make(chan struct{}), conn: bridge.New(bridge.Options{}), debug: newDebugging(nil)}
	var opened bridge.Environment = env
	s.env.Store(&opened)
	s.life, s.die = context.WithCancel(context.Background())
	s.cfg.Logger = slog.New(slog.DiscardHandler)
	s.cfg.Emit = func(e api.Event) {
		switch e := e.(type) {
		case *api.EnvironmentEvent:
			*told = append(*told, e.State+": "+e.Reason)
		case *api.ProblemEvent:
			*told = append(*told, "problem: "+e.Problem.Message)
		}
	}
	close(s.envReady)
	return s, told
}

// What a janitor put to sleep is woken by its agent that comes back; what somebody scaled to zero only by a request. Those
// that come while it wakes wait for the one that is under way.
func TestWake(t *testing.T) {
	asleep := &api.Problem{Code: api.CodeAsleep, Message: "it was scaled to zero"}
	synctest.Test(t, func(t *testing.T) {
		env := &sleepyEnv{asleep: true}
		s, told := sleepySession(env)
		s.connState(false, asleep)
		if got := strings.Join(*told, "; "); got != "waking: its agent came back" {
			t.Errorf("its agent came back: %s", got)
		}
		env.asleep, env.byHand, *told = true, true, nil
		s.connState(false, asleep)
		if got := strings.Join(*told, "; "); got != "lost: asleep (it was scaled to zero)" && got != "lost: "+asleep.Error() {
			t.Errorf("scaled to zero by hand: %s", got)
		}
		env.calls, *told = nil, nil
		var wg sync.WaitGroup
		woken := 0
		var mu sync.Mutex
		for range 5 {
			wg.Go(func() {
				if s.wake(true, "a request") {
					mu.Lock()
					woken++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(env.calls) != 1 || woken != 5 || strings.Join(*told, "; ") != "waking: a request" || s.uses.take() != "a request" {
			t.Errorf("%q, %d, %q", env.calls, woken, *told)
		}
		// A request waits for what is being woken longer than for a connection that is lost, and is told why it waited.
		start := time.Now()
		s.away(errors.New("its image cannot be pulled"))
		_, err := s.dialPort(t.Context(), 80)
		if took := time.Since(start); took < wakeWait || err == nil || !strings.Contains(err.Error(), "its image cannot be pulled") {
			t.Errorf("after %v: %v", took, err)
		}
		s.away(nil)
		start = time.Now()
		if _, err := s.dialPort(t.Context(), 80); err == nil || time.Since(start) > tunnelWait+5*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		env.err, env.asleep, *told = &api.Problem{Code: "forbidden", Message: "you may not patch"}, true, nil
		if s.wake(true, "a request") || strings.Join(*told, "; ") != "problem: wake the environment: you may not patch" {
			t.Errorf("%q", *told)
		}
	})
}

// The phase is "waking" from then until the connection is up, whatever is waited for.
func TestWakingPhase(t *testing.T) {
	s := newState(api.Service{}, time.Now())
	tell := func(state, reason string) (api.Phase, string) {
		s.apply(&api.EnvironmentEvent{State: state, Reason: reason}, time.Now())
		svc := s.service()
		return svc.Phase, svc.Detail
	}
	tell("connected", "")
	tell("lost", "it was scaled to zero")
	if p, d := tell("waking", "a request"); p != api.PhaseWaking || d != "a request" {
		t.Errorf("%s: %s", p, d)
	}
	if p, d := tell("connecting", "waiting for pod x"); p != api.PhaseWaking || d != "waiting for pod x" || len(s.service().Problems) != 0 {
		t.Errorf("%s: %s, %v", p, d, s.service().Problems)
	}
	if p, _ := tell("connected", ""); p == api.PhaseWaking {
		t.Error("it wakes for ever")
	}
	tell("waking", "a request")
	if p, d := tell("lost", "no image"); p != api.PhaseLost || d != "no image" {
		t.Errorf("%s: %s", p, d)
	}
}

// A request that cannot be passed on is answered with why, as its protocol has it, on a page's own host name without.
func TestRefuseConn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	tun := newTunnels(nil, func(context.Context, int) (net.Conn, error) {
		return nil, &api.Problem{Code: "x", Message: "its image cannot be pulled", Hint: "mend it"}
	})
	defer tun.wait()
	defer cancel()
	port, err := tun.open(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("127.0.0.1:%d", port)
	ask := func(host, contentType string, h2 bool) (*http.Response, string) {
		t.Helper()
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(!h2)
		tr.Protocols.SetUnencryptedHTTP2(h2)
		defer tr.CloseIdleConnections()
		q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+at+"/x", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		q.Host = host
		q.Header.Set("Content-Type", contentType)
		resp, err := tr.RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b)
	}
	const why = "fairlead: its image cannot be pulled (mend it)"
	for _, h2 := range []bool{false, true} {
		if resp, body := ask(at, "text/plain", h2); resp.StatusCode != http.StatusServiceUnavailable || strings.TrimSpace(body) != why {
			t.Errorf("h2 %v: %s %q", h2, resp.Status, body)
		}
	}
	if resp, body := ask("rebound.example", "text/plain", false); resp.StatusCode != http.StatusServiceUnavailable || strings.Contains(body, "image") {
		t.Errorf("another host: %s %q", resp.Status, body)
	}
	if resp, _ := ask(at, "application/grpc", true); resp.Header.Get("Grpc-Status") != "14" || resp.Header.Get("Grpc-Message") != why {
		t.Errorf("gRPC: %v", resp.Header)
	}
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "SSH-2.0-x\r\n")
	if b, _ := bufio.NewReader(c).ReadString(0); b != "" {
		t.Errorf("what is no HTTP was answered: %q", b)
	}
}
