package endpoint

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is as much of an OpenAPI 3 document as says what can be called.
type document struct {
	OpenAPI string              `json:"openapi" yaml:"openapi"`
	Paths   map[string]pathItem `json:"paths" yaml:"paths"`
	Servers []struct {
		URL string `json:"url" yaml:"url"`
	} `json:"servers" yaml:"servers"`
}

type pathItem struct {
	Get     *operation `json:"get" yaml:"get"`
	Put     *operation `json:"put" yaml:"put"`
	Post    *operation `json:"post" yaml:"post"`
	Delete  *operation `json:"delete" yaml:"delete"`
	Options *operation `json:"options" yaml:"options"`
	Head    *operation `json:"head" yaml:"head"`
	Patch   *operation `json:"patch" yaml:"patch"`
	Trace   *operation `json:"trace" yaml:"trace"`
}

type operation struct {
	Summary     string `json:"summary" yaml:"summary"`
	Description string `json:"description" yaml:"description"`
}

// parseOpenAPI reads a document, JSON or YAML.
func parseOpenAPI(src []byte, isJSON bool) ([]Endpoint, error) {
	var d document
	var err error
	if isJSON {
		err = json.Unmarshal(src, &d)
	} else {
		err = yaml.Unmarshal(src, &d)
	}
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(d.OpenAPI, "3.") {
		return nil, fmt.Errorf("it says openapi: %q, and version 3 is read", short(d.OpenAPI))
	}
	prefix := ""
	if len(d.Servers) > 0 {
		// "https://{region}.example.com/v2": what is templated in front of the path does not matter.
		if u, err := url.Parse(strings.NewReplacer("{", "", "}", "").Replace(d.Servers[0].URL)); err == nil {
			prefix = strings.TrimSuffix(u.Path, "/")
		}
	}
	if prefix != "" && !strings.HasPrefix(prefix, "/") {
		prefix = "/" + prefix
	}
	var out []Endpoint
	for path, item := range d.Paths {
		if !strings.HasPrefix(path, "/") {
			continue // an extension
		}
		for verb, op := range map[string]*operation{"GET": item.Get, "PUT": item.Put, "POST": item.Post, "DELETE": item.Delete, "OPTIONS": item.Options, "HEAD": item.Head, "PATCH": item.Patch, "TRACE": item.Trace} {
			if op == nil {
				continue
			}
			text := op.Summary
			if text == "" {
				text = op.Description
			}
			if m := verb + " " + pattern(prefix+path); goodMethod(m) {
				out = append(out, Endpoint{Method: m, Description: text, Sources: []Source{OpenAPI}})
			}
		}
	}
	return Merge(out), nil
}

// pattern is a templated path as calls are seen: what is a parameter, or has one in it, is "*".
func pattern(path string) string {
	path, _, _ = strings.Cut(path, "?")
	path, _, _ = strings.Cut(path, "#")
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.Contains(s, "{") {
			segments[i] = "*"
		}
	}
	return strings.Join(segments, "/")
}
