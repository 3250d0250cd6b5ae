package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"fairlead.dev/api"
)

// rawCodec carries bytes as they are: what is tested is the transport.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(b)
	return nil
}
func (rawCodec) Name() string { return "raw" }

func init() { encoding.RegisterCodec(rawCodec{}) }

// callee is a real gRPC server with all kinds of methods.
type callee struct{ ended chan error }

func (c *callee) handle(_ any, s grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(s)
	var in []byte
	switch method {
	case "/shop.v1.Billing/Charge", "/shop.v1.Billing/Refund":
		if err := s.RecvMsg(&in); err != nil {
			return err
		}
		md, _ := metadata.FromIncomingContext(s.Context())
		deadline, ok := s.Context().Deadline()
		s.SetHeader(metadata.Pairs("had", strings.Join(md.Get("x-note"), ","), "deadline", fmt.Sprint(ok && time.Until(deadline) < time.Hour)))
		s.SetTrailer(metadata.Pairs("left", fmt.Sprint(len(in)), "data-bin", "\x00\xff"))
		return s.SendMsg(&in)
	case "/shop.v1.Billing/Wait":
		<-s.Context().Done()
		c.ended <- s.Context().Err()
		return s.Context().Err()
	case "/shop.v1.Billing/Forbidden":
		return status.Error(codes.PermissionDenied, "not for you")
	case "/shop.v1.Billing/Mesh":
		return status.Error(codes.PermissionDenied, "RBAC: access denied")
	case "/shop.v1.Billing/Authz":
		return status.Error(codes.PermissionDenied, "authz: unauthorized RPC request rejected")
	}
	for n := 0; ; n++ { // the streams: each message comes back
		switch err := s.RecvMsg(&in); {
		case errors.Is(err, io.EOF):
			s.SetTrailer(metadata.Pairs("count", fmt.Sprint(n)))
			return nil
		case err != nil:
			return err
		}
		if err := s.SendMsg(&in); err != nil {
			return err
		}
	}
}

func newCallee(t testing.TB) (*callee, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &callee{ended: make(chan error, 1)}
	srv := grpc.NewServer(grpc.UnknownServiceHandler(c.handle), grpc.ForceServerCodec(rawCodec{}), grpc.MaxRecvMsgSize(64<<20))
	go srv.Serve(ln)
	t.Cleanup(srv.Stop)
	return c, ln.Addr().String()
}

// bed is a gate before one callee.
type bed struct {
	*Gate
	addr string
	mu   sync.Mutex
	told []api.Seen
}

func (b *bed) reports() []api.Seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.told)
}

func (b *bed) set(t testing.TB, target string, mode api.CallMode, grants ...string) {
	t.Helper()
	o, err := b.Set(api.Outbound{Caller: "orders", Environment: "orders-main", Mode: mode,
		Routes: []api.OutboundRoute{{Callee: "billing", Listen: "127.0.0.1:0", Target: target, Governed: true, Grants: grants, Link: "http://127.0.0.1:7/request?caller=orders&callee=billing"}}})
	if err != nil {
		t.Fatal(err)
	}
	b.addr = o.Routes[0].Listen
}

func newBed(t testing.TB, target string, mode api.CallMode, grants ...string) *bed {
	t.Helper()
	b := &bed{}
	b.Gate = New(func(s api.Seen) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.told = append(b.told, s)
	})
	t.Cleanup(b.Close)
	b.set(t, target, mode, grants...)
	return b
}

func dialGRPC(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{}), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

const charge, refund = "/shop.v1.Billing/Charge", "/shop.v1.Billing/Refund"

// Everything that gRPC has arrives at both ends as if there were no gate: metadata, deadlines, trailers, binary ones too,
// large messages, all kinds of streams, cancellation.
func TestGRPCPasses(t *testing.T) {
	c, target := newCallee(t)
	b := newBed(t, target, api.CallsEnforce, "/shop.v1.Billing/*")
	for _, where := range []struct{ name, addr string }{{"direct", target}, {"through", b.addr}} {
		t.Run(where.name, func(t *testing.T) {
			cc := dialGRPC(t, where.addr)
			for _, n := range []int{0, 1, 16 << 10, 70_000, 5 << 20} {
				ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-note", strings.Repeat("n", 40_000)), time.Minute)
				in := bytes.Repeat([]byte{'x'}, n)
				var out []byte
				var header, trailer metadata.MD
				if err := cc.Invoke(ctx, charge, &in, &out, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil || !bytes.Equal(in, out) {
					t.Fatalf("%d bytes: %d came back, %v", n, len(out), err)
				}
				cancel()
				if len(header.Get("had")[0]) != 40_000 || header.Get("deadline")[0] != "true" || trailer.Get("left")[0] != fmt.Sprint(n) || trailer.Get("data-bin")[0] != "\x00\xff" {
					t.Errorf("headers %.80v, trailers %v", header, trailer)
				}
			}
			s, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/shop.v1.Billing/Both")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 200 {
				in, out := bytes.Repeat([]byte{byte(i)}, i*500), []byte(nil)
				if err := s.SendMsg(&in); err != nil {
					t.Fatal(err)
				}
				if err := s.RecvMsg(&out); err != nil || !bytes.Equal(in, out) {
					t.Fatal(err, len(out))
				}
			}
			s.CloseSend()
			var out []byte
			if err := s.RecvMsg(&out); !errors.Is(err, io.EOF) || s.Trailer().Get("count")[0] != "200" {
				t.Errorf("%v, %v", err, s.Trailer())
			}
			ctx, cancel := context.WithCancel(t.Context())
			if s, err = cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/shop.v1.Billing/Wait"); err != nil {
				t.Fatal(err)
			}
			in := []byte("x")
			if err := s.SendMsg(&in); err != nil {
				t.Fatal(err)
			}
			cancel()
			if err := <-c.ended; !errors.Is(err, context.Canceled) {
				t.Errorf("the callee heard %v", err)
			}
		})
	}
	var methods []string
	for _, s := range b.Calls() {
		if s.Protocol != api.CallGRPC || s.Verdict != api.CallAllowed || s.Callee != "billing" {
			t.Errorf("%+v", s)
		}
		methods = append(methods, fmt.Sprint(s.Method, " ", s.Count))
	}
	if diff := cmp.Diff([]string{"/shop.v1.Billing/Both 1", charge + " 5", "/shop.v1.Billing/Wait 1"}, methods); diff != "" {
		t.Error(diff)
	}
}

// A refusal alone says everything, to a person and to a program; a grant holds from the next call on, on the same connection.
func TestGRPCDenied(t *testing.T) {
	_, target := newCallee(t)
	b := newBed(t, target, api.CallsEnforce, charge)
	cc := dialGRPC(t, b.addr)
	in, out := []byte("x"), []byte(nil)
	if err := cc.Invoke(t.Context(), charge, &in, &out); err != nil {
		t.Fatal(err)
	}
	link := "http://127.0.0.1:7/request?caller=orders&callee=billing&method=%2Fshop.v1.Billing%2FRefund"
	err := cc.Invoke(t.Context(), refund, &in, &out)
	st := status.Convert(err)
	if want := "orders may not call " + refund + " of billing yet (environment orders-main): request access at " + link; st.Code() != codes.PermissionDenied || st.Message() != want {
		t.Fatalf("%v, want %q", st, want)
	}
	if len(st.Details()) != 2 {
		t.Fatalf("details %v", st.Details())
	}
	info, _ := st.Details()[0].(*errdetails.ErrorInfo)
	help, _ := st.Details()[1].(*errdetails.Help)
	if info.GetReason() != Reason || info.GetDomain() != Domain || help.GetLinks()[0].GetUrl() != link {
		t.Errorf("info %v, help %v", info, help)
	}
	if diff := cmp.Diff(map[string]string{"caller": "orders", "callee": "billing", "method": refund, "environment": "orders-main"}, info.GetMetadata()); diff != "" {
		t.Error(diff)
	}
	// A stream whose client goes on sending: far more than a window, and the connection has it back.
	for range 3 {
		s, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/shop.v1.Billing/Both")
		if err != nil {
			t.Fatal(err)
		}
		big := make([]byte, 60_000)
		for range 10 {
			if err = s.SendMsg(&big); err != nil {
				break
			}
		}
		if err := s.RecvMsg(&out); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a stream: %v", err)
		}
	}
	big := make([]byte, 1<<20)
	if err := cc.Invoke(t.Context(), charge, &big, &out); err != nil || len(out) != len(big) {
		t.Errorf("after refused streams: %v", err)
	}
	was := b.addr
	b.set(t, target, api.CallsEnforce, charge, refund)
	if b.addr != was {
		t.Errorf("the address was %s and is %s", was, b.addr)
	}
	if err := cc.Invoke(t.Context(), refund, &in, &out); err != nil {
		t.Errorf("granted: %v", err)
	}
	b.set(t, target, api.CallsWarn)
	if err := cc.Invoke(t.Context(), refund, &in, &out); err != nil {
		t.Errorf("only warned: %v", err)
	}
	var told []string
	for _, s := range b.reports() {
		told = append(told, fmt.Sprintf("%s %s", s.Method[len("/shop.v1.Billing/"):], s.Verdict))
	}
	want := []string{"Charge allowed", "Refund denied", "Both denied", "Refund allowed", "Refund warned"}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
}

// What others refuse is told too, and reaches the caller as they said it.
func TestGRPCRefusedBeyond(t *testing.T) {
	_, target := newCallee(t)
	b := newBed(t, target, api.CallsEnforce, "*")
	cc := dialGRPC(t, b.addr)
	for method, by := range map[string]string{"Forbidden": "billing", "Mesh": "envoy", "Authz": "grpc-go authz"} {
		in, out := []byte("x"), []byte(nil)
		direct := dialGRPC(t, target).Invoke(t.Context(), "/shop.v1.Billing/"+method, &in, &out)
		got := cc.Invoke(t.Context(), "/shop.v1.Billing/"+method, &in, &out)
		if got == nil || got.Error() != direct.Error() {
			t.Errorf("%s: %v, and directly %v", method, got, direct)
		}
		i := slices.IndexFunc(b.Calls(), func(s api.Seen) bool { return strings.HasSuffix(s.Method, method) })
		if s := b.Calls()[i]; s.Verdict != api.CallRefused || s.By != by {
			t.Errorf("%+v, want refused by %s", s, by)
		}
	}
}

// Many calls at once on one connection, some of them refused, mix nothing up.
func TestGRPCConcurrent(t *testing.T) {
	_, target := newCallee(t)
	b := newBed(t, target, api.CallsEnforce, charge)
	cc := dialGRPC(t, b.addr)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for j := range 50 {
				in, out := []byte(fmt.Sprint(i, " ", strings.Repeat("y", j*300))), []byte(nil)
				if j%3 == 0 {
					if err := cc.Invoke(t.Context(), refund, &in, &out); status.Code(err) != codes.PermissionDenied {
						t.Errorf("refund: %v", err)
					}
				} else if err := cc.Invoke(t.Context(), charge, &in, &out); err != nil || !bytes.Equal(in, out) {
					t.Errorf("charge: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got := b.Calls(); len(got) != 2 || got[0].Count != 20*33 || got[1].Count != 20*17 {
		t.Errorf("%+v", got)
	}
}

func benchUnary(b *testing.B, addr string) {
	cc := dialGRPC(b, addr)
	in, out := make([]byte, 200), []byte(nil)
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		start := time.Now()
		if err := cc.Invoke(b.Context(), charge, &in, &out); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "us-median")
}

func benchStream(b *testing.B, addr string) {
	cc := dialGRPC(b, addr)
	s, err := cc.NewStream(b.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/shop.v1.Billing/Both")
	if err != nil {
		b.Fatal(err)
	}
	in := make([]byte, 32<<10)
	b.SetBytes(2 * int64(len(in)))
	done := make(chan error, 1)
	go func() {
		var out []byte
		for {
			if err := s.RecvMsg(&out); err != nil {
				done <- err
				return
			}
		}
	}()
	for b.Loop() {
		if err := s.SendMsg(&in); err != nil {
			b.Fatal(err)
		}
	}
	s.CloseSend()
	if err := <-done; !errors.Is(err, io.EOF) {
		b.Fatal(err)
	}
}

// newCopier passes bytes to target with what the kernel has for it (io.Copy is splice(2) there): no proxy does less.
func newCopier(t testing.TB, target string) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
			u, err := net.Dial("tcp", target)
			if err != nil {
				c.Close()
				continue
			}
			for _, d := range [][2]net.Conn{{c, u}, {u, c}} {
				go func() {
					io.Copy(d[0], d[1])
					d[0].Close()
				}()
			}
		}
	}()
	return ln.Addr().String()
}

// BenchmarkGate is a call through the gate beside one without, and beside a proxy that does nothing: run it several times, since a
// machine has moods.
func BenchmarkGate(b *testing.B) {
	_, target := newCallee(b)
	g := newBed(b, target, api.CallsEnforce, "/shop.v1.Billing/*")
	plain := newCopier(b, target)
	b.Run("unary/direct", func(b *testing.B) { benchUnary(b, target) })
	b.Run("unary/copy", func(b *testing.B) { benchUnary(b, plain) })
	b.Run("unary/gate", func(b *testing.B) { benchUnary(b, g.addr) })
	b.Run("stream/direct", func(b *testing.B) { benchStream(b, target) })
	b.Run("stream/copy", func(b *testing.B) { benchStream(b, plain) })
	b.Run("stream/gate", func(b *testing.B) { benchStream(b, g.addr) })
}
