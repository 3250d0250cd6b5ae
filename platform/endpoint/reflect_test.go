package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// billing is a descriptor as protoc makes one: services of two files, the second of which nobody serves.
func billing() *descriptorpb.FileDescriptorSet {
	method := func(name string) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{Name: proto.String(name), InputType: proto.String(".billing.v1.Money"), OutputType: proto.String(".billing.v1.Money"), ServerStreaming: proto.Bool(name == "Watch")}
	}
	return &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		{Name: proto.String("billing/v1/money.proto"), Package: proto.String("billing.v1"), Syntax: proto.String("proto3"),
			MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Money")}},
			Service:     []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Unserved"), Method: []*descriptorpb.MethodDescriptorProto{method("Nothing")}}}},
		{Name: proto.String("billing/v1/billing.proto"), Package: proto.String("billing.v1"), Syntax: proto.String("proto3"), Dependency: []string{"billing/v1/money.proto"},
			Service: []*descriptorpb.ServiceDescriptorProto{
				{Name: proto.String("Billing"), Method: []*descriptorpb.MethodDescriptorProto{method("Charge"), method("Refund")}},
				{Name: proto.String("Invoices"), Method: []*descriptorpb.MethodDescriptorProto{method("Watch")}}},
			SourceCodeInfo: &descriptorpb.SourceCodeInfo{Location: []*descriptorpb.SourceCodeInfo_Location{
				{Path: []int32{6, 0, 2, 0}, Span: []int32{1, 2, 3}, LeadingComments: proto.String(" Charge takes money.\n And says so.\n\n More.\n")}}}},
	}}
}

// serve starts a real gRPC server and returns its address.
func serve(t *testing.T, with func(*grpc.Server, reflection.ServerOptions), opts ...grpc.ServerOption) string {
	t.Helper()
	files, err := protodesc.NewFiles(billing())
	if err != nil {
		t.Fatal(err)
	}
	both := new(protoregistry.Files)
	for _, f := range []*protoregistry.Files{files, protoregistry.GlobalFiles} {
		f.RangeFiles(func(fd protoreflect.FileDescriptor) bool { return both.RegisterFile(fd) == nil })
	}
	s := grpc.NewServer(opts...)
	for _, name := range []string{"billing.v1.Billing", "billing.v1.Invoices"} {
		s.RegisterService(&grpc.ServiceDesc{ServiceName: name, HandlerType: (*any)(nil)}, struct{}{})
	}
	healthpb.RegisterHealthServer(s, health.NewServer())
	with(s, reflection.ServerOptions{Services: s, DescriptorResolver: both})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }() // ends with Stop
	t.Cleanup(func() { s.Stop(); <-done })
	return ln.Addr().String()
}

func to(addr string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", addr) }
}

func only(s Source, methods ...string) []Endpoint {
	var out []Endpoint
	for _, m := range methods {
		out = append(out, Endpoint{Method: m, Sources: []Source{s}})
	}
	return out
}

func TestReflect(t *testing.T) {
	want := only(Reflection, "/billing.v1.Billing/Charge", "/billing.v1.Billing/Refund", "/billing.v1.Invoices/Watch", "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List", "/grpc.health.v1.Health/Watch")
	want[0].Description = "Charge takes money. And says so."
	v1 := func(s *grpc.Server, o reflection.ServerOptions) {
		reflectionv1.RegisterServerReflectionServer(s, reflection.NewServerV1(o))
	}
	for name, with := range map[string]func(*grpc.Server, reflection.ServerOptions){
		"v1": v1,
		"v1alpha": func(s *grpc.Server, o reflection.ServerOptions) {
			reflectionv1alpha.RegisterServerReflectionServer(s, reflection.NewServer(o))
		},
	} {
		got, err := Reflect(t.Context(), "localhost", to(serve(t, with)), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}

	// With TLS.
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	pool := x509.NewCertPool()
	pool.AddCert(cert.Certificate())
	addr := serve(t, v1, grpc.Creds(credentials.NewServerTLSFromCert(&cert.TLS.Certificates[0])))
	got, err := Reflect(t.Context(), "localhost", to(addr), &tls.Config{RootCAs: pool, ServerName: "example.com"})
	if err != nil || len(got) != len(want) {
		t.Errorf("with TLS: %v, %v", got, err)
	}
	if _, err := Reflect(t.Context(), "localhost", to(addr), &tls.Config{ServerName: "example.com"}); err == nil {
		t.Error("another authority's certificate was taken")
	}
}

func TestReflectRefused(t *testing.T) {
	if _, err := Reflect(t.Context(), "localhost", to(serve(t, func(*grpc.Server, reflection.ServerOptions) {})), nil); !errors.Is(err, errNoReflection) {
		t.Errorf("a server without it: %v", err)
	}
	h2c := func(h http.HandlerFunc) string {
		s := httptest.NewUnstartedServer(h)
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Config.Protocols.SetHTTP1(true)
		s.Start()
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	// A service that speaks HTTP/1 only, behind a proxy that speaks both.
	h1 := func() string {
		behind := httptest.NewServer(http.NotFoundHandler())
		t.Cleanup(behind.Close)
		to, err := url.Parse(behind.URL)
		if err != nil {
			t.Fatal(err)
		}
		return h2c(httputil.NewSingleHostReverseProxy(to).ServeHTTP)
	}
	grpcAnswer := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			_, _ = w.Write([]byte(body))
		}
	}
	held := make(chan struct{})
	defer close(held)
	for name, c := range map[string]struct{ addr, want string }{
		"a page":           {h2c(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("hello")) }), "does not offer"},
		"not found":        {h2c(http.NotFound), "does not offer"},
		"an HTTP/1 server": {h1(), "does not offer"},
		"nothing":          {h2c(grpcAnswer("")), "EOF"},
		"a huge message":   {h2c(grpcAnswer("\x00\x7f\xff\xff\xff")), "is not read"},
		"compressed":       {h2c(grpcAnswer("\x01\x00\x00\x00\x01a")), "compressed 1"},
		"no message":       {h2c(grpcAnswer("\x00\x00\x00\x00\x03\xff\xff\xff")), "gRPC reflection"},
		"cut off":          {h2c(grpcAnswer("\x00\x00\x00\x00\x09ab")), "EOF"},
		"an error":         {h2c(grpcAnswer("\x00\x00\x00\x00\x07\x3a\x05\x12\x03bad")), `it answered "bad"`},
		"nobody is there":  {"127.0.0.1:1", "refused"},
		"no answer at all": {h2c(func(http.ResponseWriter, *http.Request) { <-held }), "deadline"},
		"another protocol": {silent(t), "gRPC reflection"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if name == "no answer at all" {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		}
		if got, err := Reflect(ctx, "localhost", to(c.addr), nil); err == nil || !strings.Contains(err.Error(), c.want) || len(got) != 0 {
			t.Errorf("%s: %v, %v; want %q", name, got, err, c.want)
		}
		cancel()
	}
}

// silent is a server that speaks first, as MySQL's does.
func silent(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("J\x00\x00\x00\n5.7.1\x00 who are you, and what do you want of this database?\x00\x00\x00\x00"))
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}
