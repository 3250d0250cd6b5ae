// Package authz proves the policy that the registry is exported to for grpc-go by grpc-go's own interceptor. It is a module of its
// own, so that the project does not depend on gRPC.
package authz

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/authz"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"fairlead.dev/platform/export"
	"fairlead.dev/platform/registry"
)

// A real client and a real server by mutual TLS, whose certificates are named as a mesh names them.
func TestPolicy(t *testing.T) {
	s := &registry.Snapshot{Revision: "0123", Services: map[string]*registry.Service{}}
	grant := func(caller string, methods ...string) {
		s.Services[caller] = &registry.Service{Name: caller, Calls: []registry.Grant{{Service: "billing", Methods: methods}}}
	}
	s.Services["billing"] = &registry.Service{Name: "billing"}
	grant("checkout", "/billing.v1.Billing/Charge", "POST /v1/charges")
	grant("orders", "/billing.v1.Billing/*")
	grant("probe", "/*/Check")
	grant("admin.tools", "*")
	grant("web", "GET /v1/charges") // nothing of gRPC: the rule must not become one of everything
	address, ca := serve(t, policy(t, s, "billing"))
	lonely, lonelyCA := serve(t, policy(t, s, "web")) // nobody calls it
	for _, c := range []struct {
		who, method string
		allowed     bool
	}{
		{"ns/shop/sa/checkout", "/billing.v1.Billing/Charge", true},
		{"ns/shop/sa/checkout", "/billing.v1.Billing/Refund", false},
		{"ns/other/sa/checkout", "/billing.v1.Billing/Charge", false},
		{"ns/shop/sa/orders", "/billing.v1.Billing/Refund", true},
		{"ns/shop/sa/orders", "/billing.v1.BillingAdmin/Refund", false},
		{"ns/shop/sa/probe", "/grpc.health.v1.Health/Check", true},
		{"ns/shop/sa/probe", "/grpc.health.v1.Health/Watch", false},
		{"ns/tools/sa/admin", "/anything.At/All", true},
		{"ns/shop/sa/web", "/billing.v1.Billing/Charge", false},
		{"ns/shop/sa/unknown", "/billing.v1.Billing/Charge", false},
	} {
		// The server has no such service, which it says only where the policy lets the call through.
		want := codes.PermissionDenied
		if c.allowed {
			want = codes.Unimplemented
		}
		if got := call(t, address, ca, c.who, c.method); got != want {
			t.Errorf("%s calls %s: %v, want %v", c.who, c.method, got, want)
		}
	}
	if got := call(t, lonely, lonelyCA, "ns/tools/sa/admin", "/web.Web/Get"); got != codes.PermissionDenied {
		t.Errorf("a call of what nobody may call: %v", got)
	}
}

func policy(t *testing.T, s *registry.Snapshot, service string) string {
	t.Helper()
	docs, err := export.Export(s, "grpc", export.Options{Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		if d.Service == service {
			return string(d.Text)
		}
	}
	t.Fatalf("no policy of %s", service)
	return ""
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (a *authority) issue(t *testing.T, id string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse("spiffe://cluster.local/" + id)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	signer, signerKey := a.cert, a.key
	if signer == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		signer, signerKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, signer, &key.PublicKey, signerKey)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert == nil {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		a.key = key
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func serve(t *testing.T, policy string) (string, *authority) {
	t.Helper()
	a := &authority{}
	a.issue(t, "ca")
	check, err := authz.NewStatic(policy)
	if err != nil {
		t.Fatalf("grpc-go refuses the policy: %v\n%s", err, policy)
	}
	srv := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{a.issue(t, "ns/shop/sa/billing")}, ClientCAs: a.pool(), ClientAuth: tls.RequireAndVerifyClientCert})),
		grpc.ChainUnaryInterceptor(check.UnaryInterceptor), grpc.ChainStreamInterceptor(check.StreamInterceptor),
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return status.Error(codes.Unimplemented, "let through") }))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), a
}

func call(t *testing.T, address string, a *authority, who, method string) codes.Code {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{a.issue(t, who)}, RootCAs: a.pool()})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return status.Code(conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{}))
}
