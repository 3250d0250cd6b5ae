package outbound

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"fairlead.dev/api"
)

// Domain and Reason are those of the google.rpc.ErrorInfo of a refusal.
const (
	Domain = "fairlead.dev"
	Reason = "RPC_NOT_AUTHORIZED"
	// permissionDenied is gRPC's status code PERMISSION_DENIED.
	permissionDenied = 7
)

// denial is a call that was refused, in words.
type denial struct {
	rule *rule
	call api.Call
}

func (d denial) link() string {
	if d.rule.Link == "" {
		return ""
	}
	sep := "?"
	if strings.Contains(d.rule.Link, "?") {
		sep = "&"
	}
	return d.rule.Link + sep + "method=" + url.QueryEscape(d.call.Method)
}

// message is one line, and alone has all that a person needs.
func (d denial) message() string {
	m := fmt.Sprintf("%s may not call %s of %s yet (environment %s)", d.rule.caller, d.call.Method, d.call.Callee, d.rule.environment)
	if l := d.link(); l != "" {
		return m + ": request access at " + l
	}
	return m + ": ask its owners to grant it"
}

// fields are the parts of it by name, for programs.
func (d denial) fields() map[string]string {
	return map[string]string{"caller": d.rule.caller, "callee": d.call.Callee, "method": d.call.Method, "environment": d.rule.environment}
}

// problem is an RFC 9457 problem, with the parts as members of their own.
func (d denial) problem() []byte {
	p := map[string]string{"type": "https://fairlead.dev/problems/rpc-not-authorized", "title": "The call is not authorized", "detail": d.message()}
	for k, v := range d.fields() {
		p[k] = v
	}
	if l := d.link(); l != "" {
		p["link"] = l
	}
	out := map[string]any{"status": http.StatusForbidden}
	for k, v := range p {
		out[k] = v
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)                // a terminal shows it, where the link is to be clicked
	if err := e.Encode(out); err != nil { // texts only
		panic("encode problem: " + err.Error())
	}
	return b.Bytes()
}

// grpcStatus are the headers of a gRPC answer that is trailers only: grpc-message is percent-encoded, and the details are a
// google.rpc.Status (PROTOCOL-HTTP2.md, "Responses"; grpc-status-details-bin, base64 without padding).
func (d denial) grpcStatus() (message, details string) {
	msg := d.message()
	info := text(1, Reason)
	info = append(info, text(2, Domain)...)
	f := d.fields()
	for _, k := range []string{"caller", "callee", "method", "environment"} {
		info = append(info, bytesField(3, append(text(1, k), text(2, f[k])...))...)
	}
	st := append([]byte{1<<3 | 0, permissionDenied}, text(2, msg)...)
	st = append(st, bytesField(3, anyOf("google.rpc.ErrorInfo", info))...)
	if l := d.link(); l != "" {
		st = append(st, bytesField(3, anyOf("google.rpc.Help", bytesField(1, append(text(1, "Request access"), text(2, l)...))))...)
	}
	return percent(msg), base64.RawStdEncoding.EncodeToString(st)
}

// text, bytesField and anyOf write protobuf's wire format: a field number with wire type 2, a length, the bytes. Its own
// library would be a tenth of fairlead-pod.
func text(n byte, s string) []byte { return bytesField(n, []byte(s)) }

func bytesField(n byte, b []byte) []byte {
	out := []byte{n<<3 | 2}
	l := len(b)
	for ; l >= 0x80; l >>= 7 {
		out = append(out, byte(l)|0x80)
	}
	return append(append(out, byte(l)), b...)
}

func anyOf(name string, b []byte) []byte {
	return append(text(1, "type.googleapis.com/"+name), bytesField(2, b)...)
}

// percent encodes what is no printable ASCII, and the percent sign.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
