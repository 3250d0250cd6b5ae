package outbound

import (
	"net/url"
	"strings"
)

// answer is the part of an answer that says whether somebody beyond the gate has refused the call.
type answer struct {
	status      string // HTTP's
	grpcStatus  string
	grpcMessage string
	server      string
	linkerd     string // l5d-proxy-error
	length      string
	// rbac: the body is "RBAC: access denied", where that was read.
	rbac   bool
	judged bool
}

// rbacBody is all that Envoy says, and so Istio (source/extensions/filters/http/rbac/rbac_filter.cc: "RBAC: access denied").
const rbacBody = "RBAC: access denied"

// refusedBy says who has refused a call: a mesh, grpc-go's authz, or the callee itself; empty where nobody did.
func (a answer) refusedBy(callee string) string {
	grpc := a.grpcStatus == "7" // PERMISSION_DENIED
	if !grpc && a.status != "403" {
		return ""
	}
	msg, err := url.PathUnescape(a.grpcMessage)
	if err != nil {
		msg = a.grpcMessage
	}
	envoy := strings.Contains(a.server, "envoy")
	switch {
	case a.linkerd != "", grpc && strings.HasPrefix(msg, "unauthorized request on route"), grpc && strings.HasPrefix(msg, "unauthorized connection on"):
		return "linkerd"
	case msg == rbacBody || a.rbac || envoy && a.status == "403" && a.length == "19":
		if strings.Contains(a.server, "istio") {
			return "istio"
		}
		return "envoy"
	case grpc && msg == "authz: unauthorized RPC request rejected": // google.golang.org/grpc/authz
		return "grpc-go authz"
	}
	return callee
}
