package outbound

import (
	"strings"

	"fairlead.dev/api"
)

const (
	maxMethod   = 300 // bytes of what is kept of a method
	maxSegments = 12
)

// identify names what a request calls, in the form of api.Call.Method.
func identify(callee, method, path, contentType string) api.Call {
	if strings.HasPrefix(contentType, "application/grpc") && isProcedure(path) {
		return api.Call{Callee: callee, Protocol: api.CallGRPC, Method: path}
	}
	if len(method) > 20 {
		method = method[:20]
	}
	return api.Call{Callee: callee, Protocol: api.CallHTTP, Method: method + " " + pattern(path)}
}

// isProcedure says whether a path is /package.Service/Method (gRPC's "Path" of PROTOCOL-HTTP2.md, for names of protobuf).
func isProcedure(path string) bool {
	service, method, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !ok || path[0] != '/' || service == "" || method == "" || len(path) > maxMethod {
		return false
	}
	for _, s := range []string{strings.ReplaceAll(service, ".", ""), method} {
		for i := range len(s) {
			if c := s[i]; c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
	}
	return true
}

// pattern is a path with "*" in the place of what looks like an identifier, so that a thousand orders are one route.
func pattern(path string) string {
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		path = path[:i]
	}
	if path == "" || path == "*" {
		return "/"
	}
	var b strings.Builder
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if i > 0 {
			b.WriteByte('/')
		}
		if i > maxSegments || b.Len()+len(p) > maxMethod {
			b.WriteString("**")
			break
		}
		if isIdentifier(p) {
			p = "*"
		}
		b.WriteString(p)
	}
	return b.String()
}

// isIdentifier: names of routes are words, with a version's digit here and there. Numbers, UUIDs, hashes, escaped texts and
// addresses are none.
func isIdentifier(s string) bool {
	digits, hex, letters := 0, 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits++
			hex++
		case c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F':
			hex++
			letters++
		case c >= 'g' && c <= 'z' || c >= 'G' && c <= 'Z':
			letters++
		case c == '-' || c == '_' || c == '.' || c == '~' || c == ':':
		default: // "@", "%", "=", ",", bytes beyond ASCII
			return true
		}
	}
	switch {
	case len(s) > 64:
		return true
	case digits > 0 && letters == 0:
		return true
	case digits > 0 && hex >= 8 && hex == digits+letters: // hexadecimal throughout
		return true
	}
	return digits >= 4 // "ord_81723", "2026-11-26T10"; "v1", "oauth2", "x509" are names
}

// coarse is a method of which only the first part of the path is told.
func coarse(method string) string {
	verb, path, ok := strings.Cut(method, " /")
	if !ok {
		return "" // gRPC: names of a protocol, which nobody makes by the thousand
	}
	first, _, _ := strings.Cut(path, "/")
	if len(first) > 40 {
		first = "*"
	}
	return verb + " /" + first + "/**"
}
