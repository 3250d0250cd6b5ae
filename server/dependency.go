package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/server/journal"
)

// Dependency is what a service on this machine calls: a session of the same agent, held by the service's environment as by
// a front end. A shared one is the session that a front end would get for it too; a fresh one is the environment's own.
type Dependency struct {
	api.Dependency
	// Plan finds what is to run; its error is told, and the environment goes on without.
	Plan func(ctx context.Context) (Plan, error)
	// Ready is a path that answers with a status below 400 once it can be used; empty: it can when it listens.
	Ready string
	// Check says nil once what listens at addr can be used, else why it cannot yet; a Problem, where somebody has to do
	// something about it. What has one is called at its own port and not by a tunnel: it speaks no HTTP, is never swapped, and
	// its clients' connections outlive the agent. Nil for a service.
	Check func(ctx context.Context, addr string) error
	// Trouble is why it ended by itself, in its own words, or empty; nil for a service.
	Trouble func() string
}

// needs is what one session knows of its dependencies.
type needs struct {
	mu     sync.Mutex
	all    []Dependency
	addr   map[string]string // host:port by name, of those that can be used
	news   chan struct{}     // there is something new; for require
	waits  map[string]bool   // sessions that it waits for; under the agent's lock
	client string            // the holder that it is
}

func newNeeds(name string, all []Dependency) *needs {
	return &needs{all: all, addr: map[string]string{}, news: make(chan struct{}, 1), waits: map[string]bool{}, client: holderPrefix + name}
}

// holderPrefix begins the client ID of an environment that holds others. A front end's has no colon (http.go).
const holderPrefix = "environment:"

// list is what is known of them now.
func (n *needs) list() []api.Dependency {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]api.Dependency, len(n.all))
	for i, d := range n.all {
		out[i] = d.Dependency
	}
	return out
}

// set changes one, and says whether there is something new, and whether its address is another than it was.
func (n *needs) set(i int, health api.DependencyHealth, detail, addr string) (news, moved bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := &n.all[i].Dependency
	if addr != "" {
		moved = n.addr[d.Name] != "" && n.addr[d.Name] != addr
		n.addr[d.Name] = addr
	}
	if d.Health == health && d.Detail == detail {
		return false, moved
	}
	d.Health, d.Detail = health, detail
	select {
	case n.news <- struct{}{}:
	default: // there is something new already
	}
	return true, moved
}

// reference is {{NAME}}, {{NAME.host}} or {{NAME.port}} in an argument or a variable's value.
var reference = regexp.MustCompile(`\{\{ *([a-z0-9]([-a-z0-9.]*[a-z0-9])?) *\}\}`)

// Expand puts addresses into a text: {{billing}} becomes "127.0.0.1:40123" where addr knows "billing". What addr does not
// know stays as it is.
func Expand(s string, addr func(name string) string) string {
	return reference.ReplaceAllStringFunc(s, func(m string) string {
		name := reference.FindStringSubmatch(m)[1]
		if a := addr(name); a != "" {
			return a
		}
		for _, part := range []string{".host", ".port"} {
			base, ok := strings.CutSuffix(name, part)
			a := addr(base)
			if i := strings.LastIndexByte(a, ':'); ok && i >= 0 {
				if part == ".host" {
					return a[:i]
				}
				return a[i+1:]
			}
		}
		return m
	})
}

// expand is Expand with the addresses by which the service calls its dependencies: called makes them of where these are.
func (n *needs) expand(s string, called func(name, addr string) string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return Expand(s, func(name string) string { return called(name, n.addr[name]) })
}

// require brings a session's dependencies about, and returns when all of them can be used. One that fails is waited for: the
// save that mends it goes on. It follows them until ctx ends.
func (a *Agent) require(ctx context.Context, h *held, progress func(string)) error {
	n := h.needs
	ready := make([]chan struct{}, len(n.all))
	var wg sync.WaitGroup
	for i := range n.all {
		ready[i] = make(chan struct{})
		wg.Go(func() { a.follow(ctx, h, i, sync.OnceFunc(func() { close(ready[i]) })) })
	}
	a.wg.Go(wg.Wait)
	said := ""
	for i := range ready {
		for waiting := true; waiting; {
			select {
			case <-ready[i]:
				waiting = false
				continue
			default:
			}
			if d := n.list()[i]; d.Health != api.HealthReady {
				if now := "waiting for " + d.Name + ": " + cmp.Or(d.Detail, "it is looked for"); now != said {
					said = now
					progress(said)
				}
			}
			select {
			case <-ready[i]:
				waiting = false
			case <-n.news:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// follow begins or joins one dependency's session, holds it, and tells how it is until ctx ends. One that somebody stops is
// begun again: it is wanted. ready is called once it can be used, or is not to be waited for.
func (a *Agent) follow(ctx context.Context, h *held, i int, ready func()) {
	defer ready()
	tell := func(health api.DependencyHealth, detail, addr string) {
		news, moved := h.needs.set(i, health, detail, addr)
		if news {
			all := h.needs.list()
			a.step(h, depends{all})
			if health == api.HealthFailed {
				a.event(h, &api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Time: time.Now()}, Problem: *dependencyFailed(all[i])})
			}
		}
		if addr != "" && h.session.dependencyMoved(h.needs.all[i].Name, addr) && moved {
			h.session.Restart() // it has the former address
		}
	}
	d := h.needs.all[i]
	tell(api.HealthStarting, "it is looked for", "")
	for wait := rejoinAfter; ; wait = min(2*wait, rejoinMost) {
		plan, err := d.Plan(ctx)
		var on *held
		if err == nil && ctx.Err() == nil {
			on, err = a.holdFor(ctx, h, plan)
		}
		if ctx.Err() != nil || errors.Is(err, context.Canceled) {
			return
		}
		if err != nil {
			ready() // no save mends it: nobody waits
			tell(api.HealthFailed, oneLine(err.Error()), "")
			return
		}
		if a.accompany(ctx, h, on, d, tell, ready) {
			wait = rejoinAfter
		}
		if pause(ctx, wait) != nil {
			return
		}
	}
}

const (
	// rejoinAfter is when a dependency that was stopped is begun again. One that does not come up is tried ever more rarely.
	rejoinAfter = 500 * time.Millisecond
	rejoinMost  = 30 * time.Second
	// problemEvery is how often one is asked again that somebody has to do something about.
	problemEvery = 2 * time.Second
)

// accompany tells how a dependency's session is until it is gone, and says whether it could be used.
func (a *Agent) accompany(ctx context.Context, h, on *held, d Dependency, tell func(api.DependencyHealth, string, string), ready func()) (used bool) {
	defer a.waited(h, on.name)
	revive := time.Duration(0)
	for {
		a.mu.Lock()
		svc, news, gone, leaving := on.state.service(), on.news, on.ending, h.ending
		loop := !used && a.waitsFor(on, h, map[string]bool{})
		a.mu.Unlock()
		addr := d.address(on, svc)
		var check, dead <-chan time.Time
		switch {
		case leaving:
			return used
		case gone:
			tell(api.HealthFailed, "it was stopped: "+cmp.Or(svc.Detail, "by somebody"), "")
			return used
		case addr != "" && svc.Phase != api.PhaseFailed && svc.Phase != api.PhaseDown:
			if !used {
				if err := d.usable(ctx, addr); err != nil {
					var p *api.Problem
					if errors.As(err, &p) {
						ready() // no save mends it
						tell(api.HealthFailed, oneLine(err.Error()), addr)
						check = time.After(problemEvery)
					} else {
						tell(api.HealthStarting, oneLine(err.Error()), addr)
						check = time.After(readyEvery)
					}
					break
				}
			}
			used, revive = true, 0
			a.waited(h, on.name)
			tell(api.HealthReady, "", addr)
			ready()
		case svc.Phase == api.PhaseDown && d.Check != nil:
			ready()
			tell(api.HealthFailed, oneLine(cmp.Or(d.Trouble(), trouble(svc))), "")
			used = false
			revive = min(max(2*revive, problemEvery), rejoinMost)
			dead = time.After(revive)
		case svc.Phase == api.PhaseDown:
			tell(api.HealthFailed, trouble(svc)+lastWords(on.journal), "")
		case svc.Phase == api.PhaseFailed || svc.Phase == api.PhaseLost:
			tell(api.HealthFailed, trouble(svc), "")
		default:
			tell(api.HealthStarting, string(svc.Phase), "")
		}
		if loop {
			a.waited(h, on.name)
			ready() // each waits for the other: whoever comes second does not
		}
		select {
		case <-news:
		case <-check:
		case <-dead: // nobody saves it
			on.session.Restart()
		case <-ctx.Done():
			return used
		}
	}
}

// address is where a dependency is called; empty while that is not known.
func (d *Dependency) address(on *held, svc *api.Service) string {
	if d.Check != nil {
		if svc.Process != api.StateStarting && svc.Process != api.StateRunning {
			return ""
		}
		return "127.0.0.1:" + strconv.Itoa(on.plan.Config.Process.Port)
	}
	for _, p := range svc.Ports {
		if p.Main {
			return "127.0.0.1:" + strconv.Itoa(p.Local)
		}
	}
	return ""
}

// usable says nil once a dependency can be used.
func (d *Dependency) usable(ctx context.Context, addr string) error {
	switch {
	case d.Check != nil:
		return d.Check(ctx, addr)
	case !answers(ctx, "http://"+addr, d.Ready):
		return errors.New("it does not answer at " + d.Ready + " yet")
	}
	return nil
}

// dependencyFailed is what is said of a dependency that cannot be used.
func dependencyFailed(d api.Dependency) *api.Problem {
	return &api.Problem{Code: "dependency-failed", Owner: keyNeeds, Severity: api.SeverityWarning, Message: d.Name + " cannot be used: " + d.Detail,
		Hint: "fairlead deps tells how the environment has it"}
}

// readyEvery is how often a dependency that listens is asked whether it can be used.
const readyEvery = 100 * time.Millisecond

// answers says whether a path answers with a status below 400. Without a path, that something listens is enough.
func answers(ctx context.Context, base, path string) bool {
	if path == "" {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode < 400
}

// trouble is why a service does not run, in a few words.
func trouble(svc *api.Service) string {
	for _, p := range svc.Problems {
		if p.Severity != api.SeverityWarning {
			return p.Error()
		}
	}
	return cmp.Or(svc.Detail, string(svc.Phase))
}

// lastWords is the last line that a service wrote, in what follows why it ended. Its crash, which is told as a problem, says more.
func lastWords(j *journal.Journal) string {
	now, cancel := context.WithCancel(context.Background())
	cancel() // it waits for nothing
	all, err := j.Read(now, j.Last()-min(j.Last(), lastEntries), true, lastEntries)
	if err != nil {
		return ""
	}
	for _, e := range slices.Backward(all) {
		switch ev := e.Event.(type) {
		case *api.ProblemEvent:
			return ""
		case *api.LogEvent:
			if text := cmp.Or(strings.TrimSpace(e.Line.Message), strings.TrimSpace(ev.Text)); text != "" && ev.Process == "" {
				return ": " + oneLine(text)
			}
		}
	}
	return ""
}

// lastEntries is how far back lastWords looks: beyond what is told of an end.
const lastEntries = 20

// holdFor begins or joins the session of a plan on behalf of another.
func (a *Agent) holdFor(ctx context.Context, h *held, plan Plan) (*held, error) {
	for {
		a.mu.Lock()
		on := a.sessions[plan.Config.Spec.Name]
		switch {
		case ctx.Err() != nil || h.ending:
			a.mu.Unlock()
			return nil, cmp.Or(ctx.Err(), context.Canceled)
		case a.ending:
			a.mu.Unlock()
			return nil, leavingProblem()
		case on == h:
			a.mu.Unlock()
			return nil, errors.New("it is the service itself")
		case on != nil && on.ending:
			a.mu.Unlock()
			select {
			case <-on.done:
			case <-ctx.Done():
			}
			continue
		}
		var err error
		if on == nil {
			on, err = a.begin(plan, false)
		}
		if err == nil {
			c := a.client(h.needs.client)
			c.name, c.attached = h.plan.Config.Spec.Service+" ("+h.name+")", 1
			c.stopGrace()
			on.holders[c.id] = true
			h.needs.waits[on.name] = true
			a.changed(on)
		}
		a.mu.Unlock()
		return on, err
	}
}

// waited ends the wait of one session for another.
func (a *Agent) waited(h *held, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(h.needs.waits, name)
}

// waitsFor says, under the lock, whether one session waits for another, directly or through others.
func (a *Agent) waitsFor(h, other *held, seen map[string]bool) bool {
	if h.needs == nil || seen[h.name] {
		return false
	}
	seen[h.name] = true
	for name := range h.needs.waits {
		if name == other.name {
			return true
		}
		if next := a.sessions[name]; next != nil && a.waitsFor(next, other, seen) {
			return true
		}
	}
	return false
}

// wanted says, under the lock, whether a front end holds a session, itself or by way of environments that need it. Two that
// need each other hold each other, which is no reason to stay; one that is kept until a time is.
func (a *Agent) wanted(h *held, seen map[string]bool) bool {
	if seen[h.name] {
		return false
	}
	seen[h.name] = true
	for id := range h.holders {
		name, ok := strings.CutPrefix(id, holderPrefix)
		if !ok {
			return true
		}
		if by := a.sessions[name]; by != nil && !by.ending && (time.Now().Before(by.keepUntil) || a.wanted(by, seen)) {
			return true
		}
	}
	return false
}

// sweep ends, under the lock, the sessions that nobody wants any more. One that was never held waits for who asked for it.
func (a *Agent) sweep(why string) {
	for _, name := range slices.Sorted(maps.Keys(a.sessions)) {
		h := a.sessions[name]
		if h != nil && !h.ending && len(h.holders) > 0 && !a.wanted(h, map[string]bool{}) {
			a.letGoWhenDue(h, why)
		}
	}
}

// CopyName is the name of an environment's own copy of another: a DNS label that is the same for the same two.
func CopyName(service, name, of string) string {
	return EnvironmentName(service, name, of, "copy")
}

// commandScript is a shell script that is built in place of a service: a command that is declared is started, followed and
// ended as a service is.
func commandScript(command string) []byte {
	return fmt.Appendf(nil, "#!/bin/sh\n%s\n", command)
}
