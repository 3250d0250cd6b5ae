package portal

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"fairlead.dev/api"
)

// Code makes a one-time code for the local user. It is used up by one sign-in, and old after ten minutes.
func (p *Portal) Code() string { return p.codes.add(p.now(), false) }

// SignInURL is an address that signs in and goes on to a path of the portal. The code is in the fragment, which no browser sends and
// no log has. It must not be a process's argument, which others on the machine can read: see OpeningFile. An editor may show it at
// another address that leads here: the code is good there too.
func (p *Portal) SignInURL(path string) string {
	u := *p.url
	// The path it goes on to is one word: editors decode and encode addresses on their way, and a query within a query is then another.
	u.Path, u.Fragment = "/sign-in/to/"+base64.RawURLEncoding.EncodeToString([]byte(localPath(path))), p.codes.add(p.now(), true)
	return u.String()
}

var opening = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>Fairlead</title>
<form method="post" action="{{.Action}}"><input type="hidden" name="code" value="{{.Code}}"><input type="hidden" name="to" value="{{.To}}">
<button autofocus>Open the portal</button></form><script>document.forms[0].submit()</script></html>
`))

// OpeningFile writes a page into dir that signs in and goes on to a path of the portal, for a browser to be started with: arguments
// of processes are everybody's to read, and a file of mode 0600 is not. It works without JavaScript too, by a click. The
// caller removes the file.
func (p *Portal) OpeningFile(dir, path string) (string, error) {
	var b bytes.Buffer
	if err := opening.Execute(&b, struct{ Action, Code, To string }{p.url.String() + "/sign-in", p.Code(), localPath(path)}); err != nil {
		return "", err
	}
	name := filepath.Join(dir, "fairlead-open-"+rand.Text()[:10]+".html")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("write the page that opens the portal: %w", err)
	}
	if _, err = f.Write(b.Bytes()); err == nil {
		err = f.Close()
	} else {
		f.Close()
	}
	if err != nil {
		os.Remove(name)
		return "", fmt.Errorf("write the page that opens the portal: %w", err)
	}
	return name, nil
}

// signedIn asks who it is first.
func (p *Portal) signedIn(next func(http.ResponseWriter, *http.Request, session)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, _, ok := p.session(r)
		if ok {
			next(w, r, s)
			return
		}
		to := localPath(r.URL.RequestURI())
		if r.Header.Get("Sec-Fetch-Site") == "cross-site" && !framed(r) {
			// Followed from another site, the strict cookie stays at home. From our own page it comes along.
			p.hop(w, r, to)
			return
		}
		p.askWho(w, r, http.StatusUnauthorized, to, "")
	}
}

// hop goes on to a path by a page, where a redirect would be a part of another site's navigation.
func (p *Portal) hop(w http.ResponseWriter, r *http.Request, to string) {
	to = relative(r, to)
	w.Header().Set("Refresh", "0; url="+to)
	p.draw(w, r, http.StatusOK, "hop", page{Title: "One moment", Data: to})
}

type signInPage struct {
	Local bool
	To    string
	Error string
	Start string // where a provider is asked
}

func (p *Portal) askWho(w http.ResponseWriter, r *http.Request, status int, to, problem string) {
	d := signInPage{Local: p.o.Local != nil, To: to, Error: problem}
	title := "Sign in"
	if problem != "" {
		title = "Error: " + title
	}
	if !d.Local {
		d.Start = relative(r, "/sign-in/start?"+url.Values{"to": {to}}.Encode())
	}
	p.draw(w, r, status, "sign-in", page{Title: title, Data: d})
}

func (p *Portal) signIn(w http.ResponseWriter, r *http.Request) {
	to := r.URL.Query().Get("to")
	if word := r.PathValue("to"); word != "" {
		b, err := base64.RawURLEncoding.DecodeString(word)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		to = string(b)
	}
	p.askWho(w, r, http.StatusOK, localPath(to), "")
}

// exchange takes a one-time code for a session.
func (p *Portal) exchange(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		p.refuse(w, r, http.StatusBadRequest, &api.Problem{Code: "bad-request", Message: "the form cannot be read", Hint: "open the portal again"})
		return
	}
	to := localPath(r.PostForm.Get("to"))
	code := strings.ToUpper(strings.TrimSpace(r.PostForm.Get("code")))
	host := strings.ToLower(r.Host)
	if len(code) > 64 || !p.codes.take(code, p.now(), !p.hosts[host]) {
		p.askWho(w, r, http.StatusUnauthorized, to, "That code is not valid: it was used already, is older than ten minutes, or has a typing error. Each code works once; get a new one where you got this one.")
		return
	}
	key, _ := p.sessions.add(*p.o.Local, host, p.now())
	p.setCookie(w, r, key)
	p.hop(w, r, to)
}

func (p *Portal) signOut(w http.ResponseWriter, r *http.Request) {
	s, key, ok := p.session(r)
	if ok {
		if r.ParseForm() != nil || !equal(s.csrf, r.PostForm.Get("csrf")) {
			p.refuseForged(w, r)
			return
		}
		p.sessions.remove(key)
	}
	for _, framed := range []bool{false, true} {
		http.SetCookie(w, &http.Cookie{Name: p.cookieName(framed), Path: "/", MaxAge: -1, HttpOnly: true, Secure: p.url.Scheme == "https" || framed, SameSite: http.SameSiteStrictMode})
	}
	see(w, r, "/sign-in")
}

func (p *Portal) refuseForged(w http.ResponseWriter, r *http.Request) {
	p.refuse(w, r, http.StatusForbidden, &api.Problem{Code: "forged", Message: "this form is not of your session", Hint: "open it again, and send it from there"})
}
