package authz

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fairlead.dev/api"
	"fairlead.dev/syncer/supervisor/outbound"
)

const billing = `syntax = "proto3";
package shop.v1;
message Money { int64 cents = 1; }
service Billing { rpc Charge(Money) returns (Money); }
`

// What grpcurl prints of a refused call names caller, callee, method, environment and link by itself. Its details it prints by their
// types, and reads them only where the callee's own descriptors have these.
func TestGrpcurl(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return status.Error(codes.Unimplemented, "let through") }))
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	defer func() { srv.Stop(); <-served }()
	g := outbound.New(func(api.Seen) {})
	defer g.Close()
	const link = "http://127.0.0.1:7/request?caller=orders&callee=billing"
	o, err := g.Set(api.Outbound{Caller: "orders", Environment: "orders-main", Mode: api.CallsEnforce,
		Routes: []api.OutboundRoute{{Callee: "billing", Listen: "127.0.0.1:0", Target: ln.Addr().String(), Governed: true, Link: link}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "billing.proto"), []byte(billing), 0o600); err != nil {
		t.Fatal(err)
	}
	// Without -proto it asks for reflection first, which is a call too, and refused in the same words.
	out, err := exec.CommandContext(t.Context(), "go", "tool", "grpcurl", "-plaintext", "-import-path", dir, "-proto", "billing.proto", "-d", `{"cents": 5}`, o.Routes[0].Listen, "shop.v1.Billing/Charge").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("%v\n%s", err, out)
	}
	text := strings.Join(strings.Fields(string(out)), " ")
	for _, part := range []string{"Code: PermissionDenied",
		"Message: orders may not call /shop.v1.Billing/Charge of billing yet (environment orders-main): request access at " + link + "&method=%2Fshop.v1.Billing%2FCharge",
		`"@type": "type.googleapis.com/google.rpc.ErrorInfo"`, `"@type": "type.googleapis.com/google.rpc.Help"`} {
		if !strings.Contains(text, part) {
			t.Errorf("grpcurl does not say %q:\n%s", part, out)
		}
	}
}
