package portal

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"path"
	"strings"
	"sync"

	"fairlead.dev/api"
	"fairlead.dev/platform/registry"
)

//go:embed page/*.html
var pageFiles embed.FS

//go:embed static/*
var staticFiles embed.FS

// pages are the templates, each with the frame around it. They are parsed when the first page is drawn: most processes draw none.
var pages = sync.OnceValue(func() map[string]*template.Template {
	m := map[string]*template.Template{}
	frame := template.Must(template.New("").Funcs(template.FuncMap{"join": strings.Join}).ParseFS(pageFiles, "page/frame.html"))
	entries, err := pageFiles.ReadDir("page")
	if err != nil {
		panic(err) // embedded
	}
	for _, e := range entries {
		m[strings.TrimSuffix(e.Name(), ".html")] = template.Must(template.Must(frame.Clone()).ParseFS(pageFiles, path.Join("page", e.Name())))
	}
	return m
})

// page is what the frame around every page needs.
type page struct {
	Root  string // relative, of the portal's first page; draw sets it
	Title string
	User  registry.Author
	CSRF  string
	Data  any
	Stale string // why what is shown may be old
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// rootOf leads from a request's path to the portal's first page. Addresses in pages are relative, since an editor in a browser
// shows a port of its machine under a path of its own (code-server's /proxy/PORT/), which is gone when a request comes here.
func rootOf(r *http.Request) string {
	if depth := strings.Count(r.URL.EscapedPath(), "/") - 1; depth > 0 {
		return strings.Repeat("../", depth)
	}
	return "./"
}

// relative leads from a request's path to a path of the portal.
func relative(r *http.Request, path string) string { return rootOf(r) + strings.TrimPrefix(path, "/") }

// see answers with 303 to a path of the portal.
func see(w http.ResponseWriter, r *http.Request, path string) {
	w.Header().Set("Location", relative(r, path)) // http.Redirect would make it absolute
	w.WriteHeader(http.StatusSeeOther)
}

// draw renders first: a template that fails is no half page.
func (p *Portal) draw(w http.ResponseWriter, r *http.Request, status int, name string, d page) {
	d.Root = rootOf(r)
	var b bytes.Buffer
	if err := pages()[name].ExecuteTemplate(&b, "frame", d); err != nil {
		p.log.Error("portal: draw a page", "page", name, "error", err)
		http.Error(w, "the page could not be drawn: this is a fault of the portal's", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// static serves the style and the script.
func static(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	types := map[string]string{"portal.css": "text/css; charset=utf-8", "portal.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"}
	b, err := staticFiles.ReadFile("static/" + name)
	if err != nil || types[name] == "" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", types[name])
	_, _ = w.Write(b)
}

// problemJSON is RFC 9457's, with our code and hint.
type problemJSON struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Hint   string `json:"hint,omitempty"`
}

// refuse answers with a problem: a page for a browser, JSON for a program.
func (p *Portal) refuse(w http.ResponseWriter, r *http.Request, status int, pr *api.Problem) {
	if strings.HasPrefix(r.URL.Path, "/v1/") {
		b, err := json.Marshal(problemJSON{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: pr.Message, Code: pr.Code, Hint: pr.Hint})
		if err != nil {
			panic(err) // strings only
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_, _ = w.Write(append(b, '\n'))
		return
	}
	var d page
	if s, _, ok := p.session(r); ok {
		d.User, d.CSRF = s.user, s.csrf
	}
	d.Title, d.Data = "Error: "+pr.Message, pr
	p.draw(w, r, status, "problem", d)
}

// fail answers with what the registry said.
func (p *Portal) fail(w http.ResponseWriter, r *http.Request, err error, status int) {
	var pr *api.Problem
	if !errors.As(err, &pr) {
		p.log.Error("portal: a request failed", "path", r.URL.Path, "error", err)
		pr = &api.Problem{Code: "registry", Message: "the registry could not be used: " + err.Error(), Hint: "try again; if it stays so, the portal's log says more"}
	}
	switch pr.Code {
	case "registry-changed":
		status = http.StatusConflict
	case "registry-request", "registry-author":
		status = http.StatusUnprocessableEntity
	}
	p.refuse(w, r, status, pr)
}

type serviceRow struct {
	registry.Service
	Callers int
}

func (p *Portal) services(w http.ResponseWriter, r *http.Request, s session) {
	snap, stale := p.snapshot(r.Context())
	if snap == nil {
		p.fail(w, r, stale, http.StatusBadGateway)
		return
	}
	callers := map[string]int{}
	for _, sv := range snap.Services {
		for _, g := range sv.Calls {
			callers[g.Service]++
		}
	}
	var rows []serviceRow
	for _, n := range names(snap) {
		rows = append(rows, serviceRow{*snap.Services[n], callers[n]})
	}
	p.draw(w, r, http.StatusOK, "services", page{Title: "Services", User: s.user, CSRF: s.csrf, Data: struct {
		Services []serviceRow
		Problems []*api.Problem
	}{rows, snap.Problems}, Stale: words(stale)})
}

type callerRow struct {
	Name  string
	Grant registry.Grant
}

type servicePage struct {
	registry.Service
	Review  bool
	Members []string
	Rows    []row
	Callers []callerRow
}

func (p *Portal) service(w http.ResponseWriter, r *http.Request, s session) {
	snap, stale := p.snapshot(r.Context())
	if snap == nil {
		p.fail(w, r, stale, http.StatusBadGateway)
		return
	}
	sv, ok := serviceOf(snap, r.PathValue("name"))
	if !ok {
		p.refuse(w, r, http.StatusNotFound, &api.Problem{Code: "no-such-service", Message: "the registry has no service of that name", Hint: "a service is in it when it has a file services/NAME.yaml"})
		return
	}
	d := servicePage{Service: sv, Review: sv.Access == registry.AccessReview}
	if t := snap.Teams[sv.Team]; t != nil {
		d.Members = t.Members
	}
	_, d.Rows = p.rows(r.Context(), sv, ask{Callee: sv.Name}, nil)
	for _, n := range snap.Callers(sv.Name) {
		d.Callers = append(d.Callers, callerRow{n, grantOf(snap, n, sv.Name)})
	}
	p.draw(w, r, http.StatusOK, "service", page{Title: sv.Name, User: s.user, CSRF: s.csrf, Data: d, Stale: words(stale)})
}
