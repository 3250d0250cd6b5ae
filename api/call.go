package api

import "strings"

// CallMode says what becomes of a call that the registry has not granted.
type CallMode string

const (
	CallsEnforce CallMode = "enforce" // it is refused, and told
	CallsWarn    CallMode = "warn"    // it is let through, and told
	CallsOff     CallMode = "off"     // nobody looks
)

// CallProtocol is what a call was seen to speak.
type CallProtocol string

const (
	CallGRPC   CallProtocol = "grpc"
	CallHTTP   CallProtocol = "http"
	CallOpaque CallProtocol = "opaque" // TLS of the service's own, or another protocol: what is called is not seen
)

// CallVerdict is what became of a call.
type CallVerdict string

const (
	CallAllowed CallVerdict = "allowed"
	CallWarned  CallVerdict = "warned"  // not granted, and let through
	CallDenied  CallVerdict = "denied"  // not granted, and refused before it left
	CallRefused CallVerdict = "refused" // the callee, or the mesh before it, refused it; the answer was passed on unchanged
)

// Call is one thing that a service calls of another.
type Call struct {
	Callee   string       `json:"callee"` // the dependency's name
	Protocol CallProtocol `json:"protocol"`
	// Method is "/billing.v1.Billing/Charge" of gRPC, "POST /v1/charges" of HTTP, where what looks like an identifier is "*" as in
	// "GET /v1/charges/*"; empty where it is not seen.
	Method string `json:"method,omitempty"`
}

// Seen is a call as an environment has seen it so far.
type Seen struct {
	Call
	Verdict CallVerdict `json:"verdict"` // of the last one
	Count   uint64      `json:"count"`
	// By says who refused it where that was not the gate, as "istio", "linkerd", "grpc-go authz" or "billing".
	By string `json:"by,omitempty"`
}

// Outbound is what a pod is to do with its service's calls. It is sent whole, and takes the place of the one before at once.
type Outbound struct {
	Caller      string          `json:"caller"`
	Environment string          `json:"environment"`
	Mode        CallMode        `json:"mode"`
	Routes      []OutboundRoute `json:"routes"`
}

// OutboundRoute is one port of a dependency.
type OutboundRoute struct {
	Callee string `json:"callee"`
	// Listen is a loopback address with its port; port 0 takes a free one, and the answer says which.
	Listen string `json:"listen"`
	Target string `json:"target"` // host:port of the dependency itself
	// Redirect: the service connects to Target, an IP address, and is led to Listen without its knowledge.
	Redirect bool `json:"redirect,omitempty"`
	// Governed: the callee is in the registry, so that what is not granted is refused. What nobody has registered is let through.
	Governed bool     `json:"governed,omitempty"`
	Grants   []string `json:"grants,omitempty"` // patterns of methods; see Granted
	// Link is where access is asked for. It has no authority in it.
	Link string `json:"link,omitempty"`
}

// Granted says whether one of the patterns allows a method. A pattern is a method in which "*" stands for one segment of the
// path, and a last "**" for any number of them, none included; "*" alone allows everything, also what is not seen.
func Granted(patterns []string, method string) bool {
	for _, p := range patterns {
		if p == "*" || method != "" && matches(p, method) {
			return true
		}
	}
	return false
}

func matches(pattern, method string) bool {
	ps, ms := strings.Split(pattern, "/"), strings.Split(method, "/")
	for i, p := range ps {
		if p == "**" && i == len(ps)-1 && i > 0 {
			return true
		}
		if i >= len(ms) || p != ms[i] && (p != "*" || i == 0) {
			return false
		}
	}
	return len(ps) == len(ms)
}
