package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// The policy of google.golang.org/grpc/authz. It refuses keys that it does not know, and JSON has no comments: what a reader has to
// know is in the name.
type grpcPolicy struct {
	Name       string     `json:"name"`
	AllowRules []grpcRule `json:"allow_rules"`
}

type grpcRule struct {
	Name    string      `json:"name"`
	Source  *grpcPeer   `json:"source,omitempty"`
	Request grpcRequest `json:"request"`
}

type grpcPeer struct {
	Principals []string `json:"principals"`
}

type grpcRequest struct {
	Paths []string `json:"paths,omitempty"`
}

// grpc writes the policy of one server. Principals are URIs of SPIFFE, as the meshes' certificates have them.
func grpc(c *callee) (document, error) {
	d := document{notes: c.notes}
	p := grpcPolicy{}
	for _, from := range c.callers {
		r := grpcRule{Name: from.service, Source: &grpcPeer{[]string{fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", c.opts.Domain, from.namespace, from.name)}}}
		for _, m := range from.patterns {
			switch {
			case m.all:
			case !m.grpc:
				d.notes = append(d.notes, fmt.Sprintf("LEFT OUT: %s may call %s, which is not gRPC.", from.service, m.text))
			default:
				path, ok := grpcPath(m)
				if !ok {
					d.notes = append(d.notes, fmt.Sprintf("LEFT OUT: %s may call %s, whose wildcards grpc-go has no way to say.", from.service, m.text))
					continue
				}
				r.Request.Paths = append(r.Request.Paths, path)
			}
		}
		if from.all() {
			r.Request.Paths = nil // every path
		} else if len(r.Request.Paths) == 0 {
			continue // a rule without paths would allow all
		}
		p.AllowRules = append(p.AllowRules, r)
	}
	if len(p.AllowRules) == 0 {
		// A policy has at least one rule. Every path begins with a slash, so this one allows nothing.
		p.AllowRules = []grpcRule{{Name: "nobody", Request: grpcRequest{Paths: []string{"nothing"}}}}
	}
	p.Name = strings.Join(append([]string{c.head}, d.notes...), " ")
	d.json = p
	return d, nil
}

// grpcPath is a pattern as exact, with a * at its end or at its beginning. A method has two segments, so a * for the last one and
// a ** are the same.
func grpcPath(p pattern) (string, bool) {
	s := p.segments
	switch {
	case p.rest && len(s) == 0, len(s) == 2 && s[0] == "*" && s[1] == "*", p.rest && len(s) == 1 && s[0] == "*":
		return "/*", true
	case len(s) == 2 && s[0] == "*":
		return "*/" + s[1], true
	case len(s) == 2 && s[1] == "*", p.rest && len(s) == 1:
		return "/" + s[0] + "/*", true
	case len(s) == 2 && !strings.HasPrefix(s[0], "*"): // with ** too, which stands for none here
		return "/" + s[0] + "/" + s[1], true
	}
	return "", false
}

func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}
