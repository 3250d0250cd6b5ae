package e2e

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
)

// register puts files into the registry that a machine has where none is set.
func (p *place) register(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	var r struct{ Remote string }
	if err := json.Unmarshal([]byte(p.m.ok(t, dir, "registry", "--json")), &r); err != nil {
		t.Fatal(err)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=Ann", "-c", "user.email=ann@example.com"}, args...)...)
		cmd.Dir = clone
		if args[0] == "clone" {
			cmd.Dir = dir
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	git("clone", "-q", r.Remote, clone)
	for name, text := range files {
		write(t, filepath.Join(clone, name), text)
	}
	git("add", "-A")
	git("commit", "-qm", "services")
	git("push", "-q", "origin", "HEAD")
}

// refusedCalls are the problems of refused calls that stand for an environment.
func (p *place) refusedCalls(t testing.TB, a *agent) []api.Problem {
	t.Helper()
	var out []api.Problem
	all, err := p.client("e2e-test").Services(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		for _, pr := range s.Problems {
			if pr.Code == api.CodeNotGranted {
				out = append(out, pr)
			}
		}
	}
	return out
}

// submit sends the form as it comes, as a browser would that was led to it, and returns the page that follows. offered, if
// given, is what the form has to tick; only the first of it is ticked.
func submit(t testing.TB, address string, offered ...string) string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Timeout: patience}
	var do func(method, to string, form url.Values) (*url.URL, string)
	do = func(method, to string, form url.Values) (*url.URL, string) {
		t.Helper()
		req, err := http.NewRequest(method, to, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		if form != nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", req.URL.Scheme+"://"+req.URL.Host)
			req.Header.Set("Sec-Fetch-Site", "same-origin")
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode >= 400 {
			t.Fatalf("%s %s: %s %v\n%s", method, to, resp.Status, err, b)
		}
		if _, next, ok := strings.Cut(resp.Header.Get("Refresh"), "url="); ok { // so that a strict cookie is sent
			to, err := resp.Request.URL.Parse(next)
			if err != nil {
				t.Fatal(err)
			}
			return do("GET", to.String(), nil)
		}
		return resp.Request.URL, string(b)
	}
	u, err := url.Parse(strings.TrimSpace(address))
	if err != nil {
		t.Fatal(err)
	}
	at, page := do("GET", u.String(), nil)
	to := regexp.MustCompile(`name="to" value="([^"]*)"`).FindStringSubmatch(page)
	if to == nil || u.Fragment == "" {
		t.Fatalf("no sign-in at %s:\n%s", u, page)
	}
	at, page = do("POST", at.ResolveReference(&url.URL{Path: "/sign-in"}).String(), url.Values{"code": {u.Fragment}, "to": {html.UnescapeString(to[1])}})
	_, page, _ = strings.Cut(page, `id="request"`) // before it is the way out
	form, all := url.Values{}, []string(nil)
	for _, in := range regexp.MustCompile(`<input[^>]*>`).FindAllString(page, -1) {
		attr := func(name string) string {
			if m := regexp.MustCompile(`\b` + name + `="([^"]*)"`).FindStringSubmatch(in); m != nil {
				return html.UnescapeString(m[1])
			}
			return ""
		}
		kind := attr("type")
		if attr("name") != "" && (kind != "checkbox" && kind != "radio" || regexp.MustCompile(`\bchecked\b`).MatchString(in)) {
			form.Add(attr("name"), attr("value"))
		}
		if attr("name") == "method" {
			all = append(all, attr("value"))
		}
	}
	if len(offered) > 0 && (!slices.Equal(all, offered) || !slices.Equal(form["method"], offered[:1])) {
		t.Errorf("the form offers %q and has ticked %q, want %q", all, form["method"], offered)
	}
	_, page = do("POST", at.ResolveReference(&url.URL{Path: "/request"}).String(), form)
	return page
}

// twice makes a call on two lines, and logs what becomes of the first.
const twice = `package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

func init() {
	log.SetFlags(log.Lshortfile)
	http.HandleFunc("/twice", func(w http.ResponseWriter, r *http.Request) {
		if resp, err := http.Get("http://" + os.Getenv("CALLS") + "/both"); err == nil { // first
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			log.Printf("it answered %s", text)
		}
	})
	http.HandleFunc("/never", func(w http.ResponseWriter, r *http.Request) { never() })
}

func never() {
	if resp, err := http.Get("http://" + os.Getenv("CALLS") + "/both"); err == nil {
		resp.Body.Close()
	}
}
`

// A call that is not granted says so itself, is marked on its line, and works once the form was sent as it came: no restart,
// and nothing to fill in.
func TestCallDenied(t *testing.T) {
	p := newLocal(t)
	w := newWorkspace(t, map[string]string{
		"orders":  "    env: {CALLS: \"{{billing}}\"}\n    dependencies: {billing: shared}\n",
		"billing": "    name: billing\n",
	})
	write(t, filepath.Join(w.service("billing"), "openapi.yaml"), "openapi: 3.0.0\npaths: {/alone: {get: {}}, /other: {get: {}}}\n")
	write(t, filepath.Join(w.service("orders"), "twice.go"), twice)
	p.register(t, w.dir, map[string]string{"services/billing.yaml": "version: 1\nname: billing\naccess: open\n"})
	a := p.run(t, w.service("orders"))
	body := a.says(t, `"title":"The call is not authorized"`, "orders may not call GET /alone of billing yet")
	link := regexp.MustCompile(`"link":"(http://127\.0\.0\.1:[0-9]+/request\?[^"]*)"`).FindStringSubmatch(body)
	if link == nil {
		t.Fatalf("no link: %s", body)
	}
	denied := time.Now()
	var pr api.Problem
	eventually(t, "the problem on its line", func() error {
		all := p.refusedCalls(t, a)
		if len(all) != 1 || all[0].Line == 0 {
			return fmt.Errorf("%+v", all)
		}
		pr = all[0]
		return nil
	})
	t.Logf("on its line after %s", time.Since(denied).Round(time.Millisecond))
	src, err := os.ReadFile(pr.File)
	if err != nil {
		t.Fatal(err)
	}
	if line := strings.Split(string(src), "\n")[pr.Line-1]; !strings.Contains(line, `http.Get("http://" + addr + "/alone")`) || pr.Call == nil || pr.Call.Method != "GET /alone" || !strings.HasPrefix(link[1], pr.Link) {
		t.Errorf("%+v is at %q, and the error has the link %s", pr, line, link[1])
	}
	// And what billing's owners decided is there to be looked at.
	related := pr.Related
	if len(related) == 0 {
		t.Fatalf("nothing is related: %+v", pr)
	}
	policy := related[len(related)-1]
	if text, err := os.ReadFile(policy.File); err != nil || !strings.HasPrefix(strings.Split(string(text), "\n")[policy.Line-1], "access: open") || policy.Message != "billing is open to whoever asks" {
		t.Errorf("the policy is at %+v: %v\n%s", policy, err, text)
	}
	observed := p.m.ok(t, w.service("orders"), "deps", "--observed")
	if !regexp.MustCompile(`billing +http +GET /alone +[0-9]+ +denied`).MatchString(observed) {
		t.Errorf("observed:\n%s", observed)
	}
	pid := process(t, body, "orders")
	// The link alone gives nothing away.
	if resp, err := http.Get(link[1]); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the link without a sign-in: %v %v", resp, err)
	}
	// What its folder says of billing is there to tick, beside what was refused.
	page := submit(t, p.m.ok(t, w.service("orders"), "access"), "GET /alone", "GET /other")
	granted := time.Now()
	if !strings.Contains(page, "GET /alone") {
		t.Errorf("the page that follows:\n%s", page)
	}
	if now := process(t, a.says(t, "billing v1"), "orders"); now != pid {
		t.Errorf("process %s was restarted as %s", pid, now)
	}
	t.Logf("the call works after %s", time.Since(granted).Round(time.Millisecond))
	eventually(t, "no problem", func() error {
		if all := p.refusedCalls(t, a); len(all) > 0 {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	// Two lines make the next one: what the service logs says which.
	if resp, err := http.Get(a.url(t) + "/twice"); err != nil {
		t.Error(err)
	} else {
		resp.Body.Close()
	}
	eventually(t, "the line that was logged", func() error {
		all := p.refusedCalls(t, a)
		if len(all) != 1 || len(all[0].Related) != 1 || filepath.Base(all[0].File) != "twice.go" || !strings.Contains(strings.Split(twice, "\n")[all[0].Line-1], "first") {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	var r struct {
		Services []struct {
			Name  string
			Calls []struct {
				Service string
				Methods []string
			}
		}
	}
	if err := json.Unmarshal([]byte(p.m.ok(t, w.dir, "registry", "--json")), &r); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, s := range r.Services {
		found = found || s.Name == "orders" && len(s.Calls) == 1 && s.Calls[0].Service == "billing" && strings.Join(s.Calls[0].Methods, " ") == "GET /alone"
	}
	if !found {
		t.Errorf("the registry: %+v", r.Services)
	}
	submit(t, p.m.ok(t, w.service("orders"), "access"))
	eventually(t, "no problem any more", func() error {
		if all := p.refusedCalls(t, a); len(all) > 0 {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	// A call that was just written.
	write(t, filepath.Join(w.service("orders"), "thrice.go"), strings.NewReplacer("/twice", "/thrice", "/both", "/third", "never", "seldom").Replace(twice))
	eventually(t, "the new call", func() error {
		if said, err := get(a.url(t) + "/thrice"); err != nil || said != "" { // what is unknown is answered by "/"
			return fmt.Errorf("%q %v", said, err)
		}
		return nil
	})
	denied = time.Now()
	eventually(t, "the new call's line", func() error {
		all := p.refusedCalls(t, a)
		i := slices.IndexFunc(all, func(p api.Problem) bool { return p.Call != nil && p.Call.Method == "GET /third" })
		if i < 0 || filepath.Base(all[i].File) != "thrice.go" {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	t.Logf("a new call is on its line after %s", time.Since(denied).Round(time.Millisecond))
}

// In a cluster it is the same, for a dependency under its own name at the port that the service listens on itself, shared or
// fresh: the service, its variables and its names are as they are in staging.
func TestCallDeniedInCluster(t *testing.T) {
	t.Parallel()
	p := newIsolated(t)
	s := newTiny(t, "v1")
	calling := strings.Replace(tiny, `	http.HandleFunc("/say",`, `	http.HandleFunc("/peer", func(w http.ResponseWriter, r *http.Request) {
		res, err := http.Get(os.Getenv("PEER_URL") + "env?name=HOSTNAME")
		if err != nil {
			fmt.Fprint(w, err)
			return
		}
		defer res.Body.Close()
		io.Copy(w, res.Body)
	})
	http.HandleFunc("/say",`, 1)
	write(t, filepath.Join(s.dir, "main.go"), calling)
	p.stage(t, p.c.push(t, s, "e2e/tiny"))
	peer := p.stagePeer(t)
	p.register(t, s.dir, map[string]string{"services/peer.yaml": "version: 1\nname: peer\naccess: open\n"})
	a := p.run(t, s.dir)
	a.live(t, "v1")
	ask := func(path string) string {
		t.Helper()
		got, err := get(a.url(t) + path)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	// Nobody has to wait for the registry's first word: until it is there, calls are let through.
	eventually(t, "the call to be refused", func() error {
		if got := ask("/peer"); !strings.Contains(got, "tiny may not call GET /env of peer yet") || !strings.Contains(got, `"link":"http://127.0.0.1:`) {
			return fmt.Errorf("it says %s", got)
		}
		return nil
	})
	eventually(t, "the problem on its line", func() error {
		all := p.refusedCalls(t, a)
		if len(all) != 1 || all[0].Line == 0 {
			return fmt.Errorf("%+v", all)
		}
		if line := strings.Split(calling, "\n")[all[0].Line-1]; !strings.Contains(line, `http.Get(os.Getenv("PEER_URL")`) {
			return fmt.Errorf("it is at %q", line)
		}
		return nil
	})
	pid := ask("/pid")
	submit(t, p.m.ok(t, s.dir, "access"))
	granted := time.Now()
	eventually(t, "the call to be answered", func() error {
		if got := ask("/peer"); got != peer.Name {
			return fmt.Errorf("it says %s", got)
		}
		return nil
	})
	t.Logf("the call works after %s", time.Since(granted).Round(time.Millisecond))
	if now := ask("/pid"); now != pid {
		t.Errorf("process %s was restarted as %s", pid, now)
	}
	p.m.ok(t, s.dir, slices.Concat([]string{"deps"}, p.args, []string{"--fresh", "peer"})...)
	a.live(t, "v1")
	if got := ask("/peer"); got == peer.Name || got == "" || strings.Contains(got, "authorized") {
		t.Errorf("the copy says %q", got)
	}
	if got := ask("/fetch?url=" + url.QueryEscape("http://peer:8090/args")); !strings.Contains(got, "tiny may not call GET /args of peer yet") {
		t.Errorf("a call of the copy that is not granted: %s", got)
	}
	observed := p.m.ok(t, s.dir, slices.Concat([]string{"deps"}, p.args, []string{"--observed"})...)
	for _, want := range []string{`peer +http +GET /env +[0-9]+ +allowed`, `peer +http +GET /args +[0-9]+ +denied`} {
		if !regexp.MustCompile(want).MatchString(observed) {
			t.Errorf("observed, want %s:\n%s", want, observed)
		}
	}
}
