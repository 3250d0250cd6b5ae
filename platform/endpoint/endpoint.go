// Package endpoint finds what can be called of a service: by gRPC server reflection, in descriptors, .proto files and OpenAPI
// documents of its folder, and in its file of the registry. It knows neither forms nor who may call what.
//
// Everything that it reads is somebody else's: all of it is bounded in size, number and time, and what cannot be read is a
// problem beside what could.
package endpoint

import (
	"slices"
	"strings"

	"fairlead.dev/platform/registry"
)

// Source is where an endpoint was found.
type Source string

const (
	Reflection Source = "reflection" // the running service said so
	Descriptor Source = "descriptor" // a FileDescriptorSet
	Proto      Source = "proto"      // a .proto file
	OpenAPI    Source = "openapi"
	Registry   Source = "registry" // its file there
)

// Endpoint is one method of a service; see api.Call.Method for its form.
type Endpoint struct {
	Method      string
	Description string
	Sources     []Source
}

const (
	maxEndpoints   = 2000
	maxDescription = 300
)

// OfFile are the endpoints that a service's file lists.
func OfFile(s registry.Service) []Endpoint {
	var out []Endpoint
	for _, e := range s.Endpoints {
		out = append(out, Endpoint{Method: e.Method, Description: e.Description, Sources: []Source{Registry}})
	}
	return Merge(out)
}

// Merge puts lists together: each method once, with all its sources and the first description, in order.
func Merge(lists ...[]Endpoint) []Endpoint {
	m := map[string]*Endpoint{}
	for _, l := range lists {
		for _, e := range l {
			got := m[e.Method]
			if got == nil {
				if len(m) == maxEndpoints {
					continue
				}
				got = &Endpoint{Method: e.Method}
				m[e.Method] = got
			}
			if got.Description == "" {
				got.Description = describe(e.Description)
			}
			for _, s := range e.Sources {
				if !slices.Contains(got.Sources, s) {
					got.Sources = append(got.Sources, s)
				}
			}
		}
	}
	var out []Endpoint
	for _, e := range m {
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b Endpoint) int { return strings.Compare(a.Method, b.Method) })
	return out
}

// describe is the first paragraph of a comment, on one line.
func describe(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n")), "\n\n")
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "")), " ")
	if r := []rune(s); len(r) > maxDescription {
		s = string(r[:maxDescription]) + "..."
	}
	return s
}
