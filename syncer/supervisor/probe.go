package supervisor

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"time"

	"fairlead.dev/api"
)

// Probe answers a kubelet's probe. Liveness and startup are the supervisor's own: a service that is being edited may
// crash or stand at a breakpoint, and a restart of its container would help nobody. Readiness is the service's while it
// runs; while it is being swapped or debugged the answer is yes, since requests through the tunnel are held and not refused.
func (s *Supervisor) Probe(ctx context.Context, p api.Probe) error {
	if p.Kind != "readiness" {
		return nil
	}
	s.mu.Lock()
	st, reason, held := s.state, s.reason, s.heldLocked()
	s.mu.Unlock()
	if held { // it may stand, and a probe must not be what stops at the developer's breakpoint
		return nil
	}
	switch st {
	case api.StateEmpty, api.StateStopping, api.StateStarting:
		return nil
	case api.StateExited, api.StateFailed:
		return errors.New(reason)
	}
	if p.Timeout <= 0 {
		p.Timeout = time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	switch {
	case p.HTTP != "":
		return s.probeHTTP(ctx, p)
	case p.TCP != "":
		c, err := s.gate.dialService(ctx, strings.TrimPrefix(p.TCP, ":"))
		if err != nil {
			return err
		}
		return c.Close()
	case p.GRPC != "":
		return s.probeGRPC(ctx, p.GRPC)
	case len(p.Exec) > 0:
		return s.probeExec(ctx, p.Exec)
	}
	return nil
}

// probeHTTP asks as the kubelet would: redirects to the same host are not followed here, and 200-399 is a yes
// (Kubernetes documentation, "Define a liveness HTTP request").
func (s *Supervisor) probeHTTP(ctx context.Context, p api.Probe) error {
	port, path, _ := strings.Cut(strings.TrimPrefix(p.HTTP, ":"), "/")
	scheme := "http"
	if strings.EqualFold(p.Scheme, "https") {
		scheme = "https"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://127.0.0.1:"+port+"/"+path, nil)
	if err != nil {
		return err
	}
	r.Host = p.Host
	t := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return s.gate.dialService(ctx, port) },
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // as the kubelet does: it probes an address, not a name
	}
	resp, err := t.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 10<<10))
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe: %s", resp.Status)
	}
	return nil
}

// probeGRPC calls grpc.health.v1.Health/Check over h2c: one message of one string field, answered by one of one enum
// field, SERVING being 1 (GRPC Health Checking Protocol). Written out, because a gRPC client would be a third of the
// pod's executable.
func (s *Supervisor) probeGRPC(ctx context.Context, target string) error {
	port, service, _ := strings.Cut(strings.TrimPrefix(target, ":"), "/")
	if len(service) > 127 {
		return errors.New("gRPC probe: the service's name is too long")
	}
	var msg []byte
	if service != "" {
		msg = append([]byte{0x0a, byte(len(service))}, service...)
	}
	frame := append([]byte{0, 0, 0, 0, byte(len(msg))}, msg...)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:"+port+"/grpc.health.v1.Health/Check", bytes.NewReader(frame))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.gate.dialService(ctx, port) },
		Protocols:   new(http.Protocols),
	}
	defer t.CloseIdleConnections()
	t.Protocols.SetUnencryptedHTTP2(true)
	resp, err := t.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return err
	}
	if !bytes.Equal(body, []byte{0, 0, 0, 0, 2, 0x08, 1}) {
		return fmt.Errorf("gRPC probe: not serving (HTTP %d, grpc-status %q)", resp.StatusCode, resp.Trailer.Get("Grpc-Status"))
	}
	return nil
}

func (s *Supervisor) probeExec(ctx context.Context, args []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	wait, err := s.startKnown(cmd, s.spawn.start, false)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	if err := wait(); err != nil {
		return fmt.Errorf("exec probe: %w: %.200s", err, out.String())
	}
	return nil
}
