package endpoint

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"fairlead.dev/platform/registry"
)

const protoFile = `// Copyright.
syntax = "proto3";
package billing . v1; // package words;
import "other.proto"; option go_package = "x;y";
/* service Commented { rpc No (A) returns (B); } */
message Charge { string service = 1; message rpc { int32 a = 1; } oneof x { string y = 2 [(opt) = "}"]; } }
// Billing is
// a service.
service Billing {
  option (a.b) = { c: "service Fake { rpc No(A) returns (B); }" };
  // License of nothing.

  // Charge takes money.
  // And says so.
  rpc Charge (Charge) returns (stream google.protobuf.Empty) { option (google.api.http) = { post: "/v1/{a=b/*}" additional_bindings { get: '/v2' } }; }
  rpc Refund(stream .billing.v1.Charge) returns (B); /** Refunds. */ rpc
   Cancel ( A ) returns ( B ) {} ;
}
enum E { rpc = 0; }
extend google.protobuf.MethodOptions { string service = 1; }
service Empty {}
service Second { rpc One (A) returns (B) {`

func TestProto(t *testing.T) {
	want := only(Proto, "/billing.v1.Billing/Charge", "/billing.v1.Billing/Refund", "/billing.v1.Billing/Cancel", "/billing.v1.Second/One")
	want[0].Description = "Charge takes money. And says so."
	want[2].Description = "Refunds."
	got := parseProto(protoFile)
	for i := range got {
		got[i].Description = describe(got[i].Description)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := parseProto(`service A { rpc B (C) returns (D); }`); len(got) != 1 || got[0].Method != "/A/B" {
		t.Errorf("without a package: %v", got)
	}
	// The fixture's, which protoc reads too.
	b, err := os.ReadFile("../../test/fixture/market/api/market.proto")
	if err != nil {
		t.Fatal(err)
	}
	if got := parseProto(string(b)); len(got) != strings.Count(string(b), "\n  rpc ") || len(got) == 0 {
		t.Errorf("of the fixture: %v", got)
	}
}

func TestOpenAPI(t *testing.T) {
	const doc = `openapi: 3.1.0
servers: [{url: "https://{region}.example.com/api/"}]
paths:
  /v1/charges:
    get: {summary: All charges}
    post: {description: "Takes money.\n\nLong words."}
    parameters: [{name: a, in: query}]
  /v1/charges/{id}/lines/{line}.json:
    delete: {}
  /v1/charges/{id}:cancel?x={y}:
    post: {summary: Cancel}
  x-internal: {get: {}}
  "/bad path": {get: {}}
`
	want := only(OpenAPI, "DELETE /api/v1/charges/*/lines/*", "GET /api/v1/charges", "POST /api/v1/charges", "POST /api/v1/charges/*")
	want[1].Description, want[2].Description, want[3].Description = "All charges", "Takes money.", "Cancel"
	got, err := parseOpenAPI([]byte(doc), false)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	got, err = parseOpenAPI([]byte(`{"openapi":"3.0.3","paths":{"/":{"get":{}}}}`), true)
	if err != nil || len(got) != 1 || got[0].Method != "GET /" {
		t.Errorf("JSON: %v %v", got, err)
	}
	for _, bad := range []string{"", "openapi: 2.0", "swagger: '2.0'", "a: [", "paths: 1", "a: &a [*a, *a]"} {
		if got, err := parseOpenAPI([]byte(bad), false); err == nil || len(got) > 0 {
			t.Errorf("%q: %v %v", bad, got, err)
		}
	}
}

func TestFolder(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set, err := proto.Marshal(billing())
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "api/billing.proto"), []byte("package billing.v1; service Billing { rpc Charge(A) returns (B); }"))
	write(filepath.Join(dir, "api/billing.binpb"), set)
	write(filepath.Join(dir, "docs/openapi.yaml"), []byte("openapi: 3.0.0\npaths: {/v1/a: {get: {}}}"))
	write(filepath.Join(dir, "openapi-broken.json"), []byte("{"))
	write(filepath.Join(dir, "huge.proto"), []byte(strings.Repeat(" ", maxRead+1)))
	for _, d := range []string{"vendor", "node_modules", ".git", "testdata", "_out"} {
		write(filepath.Join(dir, d, "a.proto"), []byte("service Elsewhere { rpc A(B) returns (C); }"))
	}
	write(filepath.Join(outside, "a.proto"), []byte("service Outside { rpc A(B) returns (C); }"))
	for link, to := range map[string]string{"link.proto": filepath.Join(outside, "a.proto"), "linked": outside} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	want := []Endpoint{
		{"/billing.v1.Billing/Charge", "Charge takes money. And says so.", []Source{Descriptor, Proto}},
		{"/billing.v1.Billing/Refund", "", []Source{Descriptor}},
		{"/billing.v1.Invoices/Watch", "", []Source{Descriptor}},
		{"/billing.v1.Unserved/Nothing", "", []Source{Descriptor}},
		{"GET /v1/a", "", []Source{OpenAPI}},
	}
	got, err := Folder(t.Context(), dir)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if err == nil || !strings.Contains(err.Error(), "openapi-broken.json: ") || !strings.Contains(err.Error(), "huge.proto: ") {
		t.Errorf("what cannot be read: %v", err)
	}
	// And with what the registry says, in one list.
	f := Finder{Where: func(string) Place { return Place{Folder: dir} }}
	s := registry.Service{Name: "billing", Endpoints: []registry.Endpoint{{Method: "GET /v1/a", Description: "as the file says"}, {Method: "GET /v1/b"}}}
	all := f.Of(t.Context(), s)
	if len(all) != 6 || !cmp.Equal(all[4], Endpoint{"GET /v1/a", "as the file says", []Source{Registry, OpenAPI}}) {
		t.Errorf("%+v", all)
	}
	if err := os.RemoveAll(filepath.Join(dir, "api")); err != nil {
		t.Fatal(err)
	}
	if again := f.Of(t.Context(), s); len(again) != 6 {
		t.Errorf("it was looked for again at once: %+v", again)
	}
}

func good(t *testing.T, found []Endpoint) {
	for _, e := range found {
		if !goodMethod(e.Method) || len(e.Sources) == 0 {
			t.Errorf("%+v", e)
		}
	}
}

func FuzzProto(f *testing.F) {
	f.Add(protoFile)
	f.Add("service A { rpc B } } /* \"\\")
	f.Fuzz(func(t *testing.T, src string) { good(t, parseProto(src)) })
}

func FuzzOpenAPI(f *testing.F) {
	f.Add([]byte("openapi: 3.0.0\nservers: [{url: /a}]\npaths: {'/{b}': {get: {}}}"), false)
	f.Add([]byte(`{"openapi":"3.0.0","paths":{"/":null}}`), true)
	f.Fuzz(func(t *testing.T, src []byte, isJSON bool) {
		found, _ := parseOpenAPI(src, isJSON) // an error is an answer too
		good(t, found)
	})
}

func FuzzDescriptors(f *testing.F) {
	b, err := proto.Marshal(billing())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0x3a, 5})
	f.Fuzz(func(t *testing.T, src []byte) {
		found, _ := parseDescriptors(src) // an error is an answer too
		good(t, found)
		_ = eachField(src, func(protowire.Number, []byte) error { return nil })
	})
}

// One form waits for what is slow no longer than it may, has what was found until then, and the next one looks again. A service is
// asked by its own address: a proxy before it refuses other names.
func TestFinderIsBounded(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.proto"), []byte("package a.v1; service A { rpc B(C) returns (C); }"), 0o600); err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	asked := make(chan string, 8)
	slow := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- r.Host
		select {
		case <-end:
		case <-r.Context().Done():
		}
	}))
	slow.Config.Protocols = new(http.Protocols)
	slow.Config.Protocols.SetUnencryptedHTTP2(true)
	slow.Start()
	defer slow.Close()
	defer close(end)
	running := serve(t, func(s *grpc.Server, o reflection.ServerOptions) {
		reflectionv1.RegisterServerReflectionServer(s, reflection.NewServerV1(o))
	})
	at := Place{Folder: dir, Address: slow.Listener.Addr().String()}
	f := Finder{Where: func(name string) Place {
		if name != "billing" {
			return Place{}
		}
		return at
	}, Limit: 300 * time.Millisecond}
	s := registry.Service{Name: "billing"}
	for range 2 {
		if got := f.Of(t.Context(), s); len(got) != 1 || got[0].Method != "/a.v1.A/B" {
			t.Errorf("found %+v", got)
		}
		if host := <-asked; host != at.Address {
			t.Errorf("it was asked by the name %q", host)
		}
	}
	f.Limit, at.Address = 0, running // it is elsewhere now
	if got := f.Of(t.Context(), s); len(got) < 4 || got[0].Method != "/a.v1.A/B" {
		t.Errorf("found %+v", got)
	}
	if got := f.Of(t.Context(), registry.Service{Name: "other"}); len(got) != 0 {
		t.Errorf("found of another service: %+v", got)
	}
}
