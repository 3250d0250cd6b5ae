package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/server/callsite"
	"fairlead.dev/syncer/build"
)

// Calls says how what a service calls is judged.
type Calls struct {
	// Mode is what becomes of a call that is not granted; api.CallsOff and empty: nobody looks.
	Mode api.CallMode
	// Follow tells what is granted, now and at every change, until ctx ends; an error is told as a problem, and what was told
	// before goes on to hold. Nil: nothing is governed.
	Follow func(ctx context.Context, tell func(Granted, error))
	// Link is the address of the page where access to a callee is asked for, without authority. Form is such a page's too, for the
	// user of this machine alone: it signs in, once. Both may be nil.
	Link func(callee, environment string) string
	Form func(r api.FormRequest, environment string) (string, error)
	// Folder is where a callee's source is on this machine, or empty; may be nil.
	Folder func(callee string) string
}

// Granted says whether a callee is in the registry, and which patterns of methods (api.Granted) a service may call of it. policy is
// what the registry says of new callers, in a few words for a person, as "billing asks for a review (team payments)", and where it says
// that, as far as there is a file of it on this machine.
type Granted func(callee string) (governed bool, patterns []string, policy api.Place)

// caller is a bridge.Environment that knows the addresses of its service's dependencies.
type caller interface {
	// Routes are the ports of dependencies whose calls can be judged, as they are known now.
	Routes() []api.OutboundRoute
}

// calls is what one session knows of what its service calls. Its goroutines are followGrants, followCalls and locate, which end
// with Run.
type calls struct {
	s     *Session
	cfg   Calls
	again chan struct{} // what the pod is told is to be told again
	look  chan struct{} // places are to be found

	pushing sync.Mutex

	mu      sync.Mutex
	listen  map[string]string   // loopback addresses of dependencies on this machine, by name
	target  map[string]string   // where those lead to, of those that can be used
	told    []api.OutboundRoute // the environment's, that the pod was told last
	granted Granted
	seen    map[api.Call]api.Seen // those that were not simply allowed
	places  map[api.Call]callsite.Result
	stacks  map[api.Call][]callsite.Frame // where the service said that it met with a refusal (refusal.go)
	stale   api.Generation                // the last one whose source was edited since
	warm    bool                          // the finder is to read beforehand
	edits   uint64                        // counts edits: what was found before one is found again

	wrong  map[string][]*api.Problem // why calls are not judged as they should be: by "registry", "pod" and "process", each of which clears its own
	finder *callsite.Finder          // locate's and edited's; nil until it is first needed
	finds  *build.Builder            // that it was made with
}

// newCalls prepares it; names are the dependencies that are called by addresses of this machine, and known the ports that they
// had before.
func newCalls(s *Session, cfg Calls, names []string, known map[string]int) (*calls, error) {
	c := &calls{s: s, cfg: cfg, again: make(chan struct{}, 1), look: make(chan struct{}, 1), listen: map[string]string{}, target: map[string]string{},
		seen: map[api.Call]api.Seen{}, wrong: map[string][]*api.Problem{}, places: map[api.Call]callsite.Result{}, stacks: map[api.Call][]callsite.Frame{}}
	if !c.on() {
		return c, nil
	}
	for _, n := range names {
		port := known[n]
		if port == 0 {
			var err error
			if port, err = FreePort(); err != nil {
				return nil, err
			}
		}
		c.listen[n] = fmt.Sprintf("127.0.0.1:%d", port)
	}
	return c, nil
}

// routes are what the environment knows of its service's dependencies, where it does.
func (c *calls) routes() []api.OutboundRoute {
	if env, ok := c.s.opened().(caller); ok {
		return env.Routes()
	}
	return nil
}

// looked tells the pod where the environment's dependencies are by now, if that has changed.
func (c *calls) looked() {
	if !c.on() {
		return
	}
	now := c.routes()
	same := func(a, b api.OutboundRoute) bool { return a.Callee == b.Callee && a.Target == b.Target }
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.EqualFunc(now, c.told, same) {
		wakeUp(c.again)
	}
}

// callees are the names of all dependencies whose calls can be judged.
func (c *calls) callees() []string {
	var out []string
	for _, r := range c.routes() {
		out = append(out, r.Callee)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.AppendSeq(out, maps.Keys(c.listen))
}

func (c *calls) on() bool { return c.cfg.Mode != "" && c.cfg.Mode != api.CallsOff && !c.s.cfg.Joined }

// address is where the service calls a dependency that is at addr: the gate's, where there is one.
func (c *calls) address(name, addr string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.listen[name]; l != "" && addr != "" {
		return l
	}
	return addr
}

// moved takes over where a dependency is now, and says whether the service has to know.
func (c *calls) moved(name, addr string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listen[name] == "" {
		return true
	}
	if addr != "" && c.target[name] != addr {
		c.target[name] = addr
		wakeUp(c.again)
	}
	return false
}

// ports are the gate's on this machine, for the record.
func (c *calls) ports() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]int{}
	for n, l := range c.listen {
		if a, err := net.ResolveTCPAddr("tcp", l); err == nil {
			out[n] = a.Port
		}
	}
	return out
}

func wakeUp(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is going to look anyway
	}
}

// outbound is what the pod is to be told now.
func (c *calls) outbound() api.Outbound {
	info := c.s.keep.get().Environment
	o := api.Outbound{Caller: c.s.cfg.Spec.Service, Environment: info.Name, Mode: c.cfg.Mode}
	routes := c.routes()
	o.Routes = slices.Clone(routes)
	c.mu.Lock()
	c.told = routes
	for _, n := range slices.Sorted(maps.Keys(c.listen)) {
		if t := c.target[n]; t != "" {
			o.Routes = append(o.Routes, api.OutboundRoute{Callee: n, Listen: c.listen[n], Target: t})
		}
	}
	granted := c.granted
	c.mu.Unlock()
	for i := range o.Routes {
		r := &o.Routes[i]
		if granted != nil {
			r.Governed, r.Grants, _ = granted(r.Callee)
		}
		if c.cfg.Link != nil && r.Governed {
			r.Link = c.cfg.Link(r.Callee, o.Environment)
		}
	}
	return o
}

// push tells the pod. A port that is taken by now is another one, and the service is started again with that.
func (c *calls) push(ctx context.Context) error {
	c.pushing.Lock() // the pod takes the last for the newest
	defer c.pushing.Unlock()
	o := c.outbound()
	_, err := c.s.conn.Outbound(ctx, o)
	var p *api.Problem
	if errors.As(err, &p) && p.Code == api.CodeCallsUnseen && c.anotherPort() {
		if _, err = c.s.conn.Outbound(ctx, c.outbound()); err == nil {
			c.s.keep.change(func(r *Record) { r.Gates = c.ports() })
			c.s.Restart()
		}
	}
	return err
}

// anotherPort takes other ports of this machine, and says whether there were any: the pod does not say which one was taken.
func (c *calls) anotherPort() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := false
	for n, l := range c.listen {
		if port, err := FreePort(); err == nil {
			if c.listen[n] = fmt.Sprintf("127.0.0.1:%d", port); c.listen[n] != l {
				changed = true
			}
		}
	}
	return changed
}

const (
	// pushLimit bounds how long a pod is waited for to take over what is granted, before the service is started.
	pushLimit = 10 * time.Second
)

// followCalls tells the pod whenever there is something new.
func (c *calls) followCalls(ctx context.Context) {
	if !c.on() {
		return
	}
	if _, err := c.s.environment(ctx); err != nil {
		return
	}
	for {
		select {
		case <-c.again:
		case <-ctx.Done():
			return
		}
		if err := c.push(ctx); ctx.Err() == nil {
			c.stands("pod", err)
		}
	}
}

// stands tells that calls are not judged as they should be, for as long as that is so; nil: they are.
func (c *calls) stands(who string, err error) {
	var ps []*api.Problem
	if err != nil {
		ps = api.Problems(err, api.CodeCallsUnseen)
	}
	c.mu.Lock()
	before := c.wrong[who]
	c.wrong[who] = ps
	c.mu.Unlock()
	if len(before)+len(ps) == 0 {
		return
	}
	for _, p := range ps {
		p.Owner, p.Severity = keyCalls, api.SeverityWarning
		if !slices.ContainsFunc(before, func(o *api.Problem) bool { return o.Message == p.Message }) {
			c.s.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: c.s.keep.get().Generation}, Problem: *p})
		}
	}
	c.tell()
}

// unseen takes over why a process's calls are not seen, which its pod has told; nil: it is another process now.
func (c *calls) unseen(p *api.Problem) {
	c.mu.Lock()
	had := len(c.wrong["process"]) > 0
	c.wrong["process"] = nil
	if p != nil {
		c.wrong["process"] = []*api.Problem{p}
	}
	c.mu.Unlock()
	if had || p != nil {
		c.tell()
	}
}

// has says whether anything is called that could be judged; the environment is there.
func (c *calls) has() bool {
	return len(c.callees()) > 0
}

// connected tells a pod that has just been connected, before anything is started in it.
func (c *calls) connected() {
	if !c.on() || !c.has() {
		return
	}
	ctx, cancel := context.WithTimeout(c.s.life, pushLimit)
	defer cancel()
	if err := c.push(ctx); c.s.life.Err() == nil {
		c.stands("pod", err)
	}
}

// followGrants takes over what the registry says.
func (c *calls) followGrants(ctx context.Context) {
	if !c.on() || c.cfg.Follow == nil {
		return
	}
	c.mu.Lock()
	none := len(c.listen) == 0
	c.mu.Unlock()
	if none {
		if _, err := c.s.environment(ctx); err != nil || !c.has() {
			return // nothing is called that could be judged: there is no need of a registry
		}
	}
	c.cfg.Follow(ctx, func(g Granted, err error) {
		if ctx.Err() == nil {
			c.stands("registry", err)
		}
		if g == nil {
			return
		}
		c.mu.Lock()
		c.granted = g
		// What was refused and is granted now is no problem any more, before it is called again.
		for call := range c.seen {
			if governed, patterns, _ := g(call.Callee); !governed || api.Granted(patterns, call.Method) {
				if c.seen[call].Verdict != api.CallRefused {
					delete(c.seen, call)
				}
			}
		}
		c.mu.Unlock()
		wakeUp(c.again)
		c.tell()
	})
}

// event takes what the pod tells of a call.
func (c *calls) event(e *api.CallEvent) {
	c.mu.Lock()
	_, had := c.seen[e.Call]
	if e.Verdict == api.CallAllowed {
		delete(c.seen, e.Call)
	} else {
		c.seen[e.Call] = e.Seen
	}
	_, found := c.places[e.Call]
	c.mu.Unlock()
	if e.Verdict != api.CallAllowed && !found {
		wakeUp(c.look)
	}
	if e.Verdict != api.CallAllowed || had {
		c.tell()
	}
}

// edited makes places be looked for again: lines have moved. No files: any may have changed.
func (c *calls) edited(files []string) {
	c.mu.Lock()
	c.edits++
	c.stale = c.s.keep.get().Generation
	clear(c.stacks)
	maps.DeleteFunc(c.places, func(call api.Call, _ callsite.Result) bool {
		_, stands := c.seen[call]
		return !stands // the others are shown where they were until they are found again
	})
	stands := len(c.seen) > 0
	if len(files) == 0 {
		c.finder = nil
	} else if c.finder != nil {
		c.finder.Invalidate(files)
	}
	c.mu.Unlock()
	if stands {
		wakeUp(c.look)
	}
}

// locate finds the places of calls that were refused.
func (c *calls) locate(ctx context.Context) {
	if !c.on() || c.s.cfg.Command != "" {
		return
	}
	edits := uint64(0) // that the places are of
	for {
		select {
		case <-c.look:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		var want []callsite.Query
		for call := range c.seen {
			if _, ok := c.places[call]; call.Method != "" && (!ok || c.edits != edits) {
				q := callsite.Query{Call: call, Stack: c.stacks[call]}
				if l := c.listen[call.Callee]; l != "" {
					q.Addresses = []string{l}
				} else if strings.Contains(call.Callee, ".") { // another namespace's
					q.Addresses = []string{call.Callee, call.Callee + ".svc", call.Callee + ".svc.cluster.local"}
				}
				want = append(want, q)
			}
		}
		now, warm := c.edits, c.warm
		c.warm = false
		c.mu.Unlock()
		if len(want) == 0 {
			if warm {
				c.prepare(ctx)
			}
			continue
		}
		found, err := c.find(ctx, want)
		if err != nil { // the go command's: the build says it too
			if ctx.Err() == nil {
				c.s.cfg.Logger.Debug("find the lines of calls", "err", err)
			}
			continue
		}
		edits = now
		c.mu.Lock()
		for i, r := range found {
			c.places[want[i].Call] = r
		}
		c.mu.Unlock()
		c.tell()
	}
}

// live makes what a search needs be read beforehand, once the service runs: then nothing that is waited for is slower for it. It is
// worth that only where something can be refused.
func (c *calls) live() {
	if !c.on() {
		return
	}
	callees := c.callees()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range callees {
		if c.granted == nil || c.finder != nil {
			return
		}
		if governed, _, _ := c.granted(n); governed {
			c.warm = true
			wakeUp(c.look)
			return
		}
	}
}

// prepare is what live asks for.
func (c *calls) prepare(ctx context.Context) {
	f, err := c.finderNow(ctx)
	if err == nil {
		err = f.Warm(ctx)
	}
	if err != nil && ctx.Err() == nil {
		c.s.cfg.Logger.Debug("read the source for the lines of calls", "err", err)
	}
}

// find asks where calls are made.
func (c *calls) find(ctx context.Context, want []callsite.Query) ([]callsite.Result, error) {
	f, err := c.finderNow(ctx)
	if err != nil {
		return nil, err
	}
	return f.Find(ctx, want)
}

// finderNow is the finder of the builder that there is now.
func (c *calls) finderNow(ctx context.Context) (*callsite.Finder, error) {
	b, err := c.s.builds.builderFor(ctx, c.s.target())
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if c.finder == nil || c.finds != b {
		c.finder, c.finds = callsite.New(b), b
	}
	f := c.finder
	c.mu.Unlock()
	return f, nil
}

// tell makes the refused calls problems, all of them, beside what stands in the way of judging.
func (c *calls) tell() {
	c.mu.Lock()
	list := slices.SortedFunc(maps.Values(c.seen), func(a, b api.Seen) int {
		return strings.Compare(a.Callee+a.Method, b.Callee+b.Method)
	})
	var ps []*api.Problem
	for _, s := range list {
		ps = append(ps, c.problemLocked(s))
	}
	for _, who := range []string{"registry", "pod", "process"} {
		ps = append(ps, c.wrong[who]...)
	}
	c.mu.Unlock()
	c.s.note(callsSeen{ps})
}

func (c *calls) problemLocked(s api.Seen) *api.Problem {
	me, env := c.s.cfg.Spec.Service, c.s.keep.get().Environment.Name
	call := s.Call
	p := &api.Problem{Code: api.CodeNotGranted, Owner: keyCalls, Call: &call}
	switch s.Verdict {
	case api.CallDenied:
		p.Message = fmt.Sprintf("%s may not call %s of %s yet", me, s.Method, s.Callee)
	case api.CallWarned:
		p.Severity = api.SeverityWarning
		p.Message = fmt.Sprintf("%s calls %s of %s, which it has not been granted; it was let through", me, s.Method, s.Callee)
	default:
		p.Severity = api.SeverityWarning
		p.Message = fmt.Sprintf("%s refused %s %s", s.By, me, strings.TrimSpace(s.Method+" of "+s.Callee))
	}
	governed, policy := false, api.Place{}
	if c.granted != nil {
		governed, _, policy = c.granted(s.Callee)
	}
	if policy.Message != "" {
		p.Message += ": " + policy.Message
	}
	if policy.File != "" {
		defer func() { p.Related = append(p.Related, policy) }() // behind the lines of the call
	}
	p.Hint = "ask the owners of " + s.Callee + " to grant it"
	if c.cfg.Link != nil && governed {
		p.Link = c.cfg.Link(s.Callee, env)
		p.Hint = "request access; the form is filled in already"
	}
	found, ok := c.places[s.Call]
	if !ok {
		return p
	}
	at := found.Fallback
	if len(found.Places) > 0 {
		at = &found.Places[0]
		for _, o := range found.Places[1:] {
			p.Related = append(p.Related, api.Place{File: o.File, Line: o.Line, Column: o.Column, Message: "it may be called here too"})
		}
		p.Related = append(p.Related, at.Related...)
	} else {
		p.Hint += "; it stands here because no line was found: " + found.Reason
	}
	if at != nil {
		p.File, p.Line, p.Column, p.EndColumn = at.File, at.Line, at.Column, at.EndColumn
	}
	return p
}

func (s *Session) callAddress(name, addr string) string   { return s.calls.address(name, addr) }
func (s *Session) dependencyMoved(name, addr string) bool { return s.calls.moved(name, addr) }

// observed is what the pod has seen its service call.
func (s *Session) observed(ctx context.Context) ([]api.Seen, error) {
	if err := s.notYours("its owner can say what it calls"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, pushLimit)
	defer cancel()
	return s.conn.Calls(ctx)
}

func (a *Agent) observed(ctx context.Context, name string) ([]api.Seen, error) {
	a.mu.Lock()
	h, err := a.find(name)
	a.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return h.session.observed(ctx)
}

// form opens the page on which access is asked for.
func (s *Session) form(r api.FormRequest) (string, error) {
	if err := s.notYours("its owner asks for access"); err != nil {
		return "", err
	}
	if s.cfg.Calls.Form == nil {
		return "", &api.Problem{Code: "no-registry", Message: "there is no registry to ask", Hint: "set registry: in fairlead.yaml"}
	}
	return s.cfg.Calls.Form(r, s.cfg.Spec.Name)
}

func (a *Agent) serveForm(w http.ResponseWriter, r *http.Request) {
	var req api.FormRequest
	if !decode(w, r, &req) {
		return
	}
	if req.Callee == "" || len(req.Callee) > maxName || len(req.Methods) > 1000 {
		refuse(w, &api.Problem{Code: "bad-request", Message: "the callee is missing, or there are too many methods"})
		return
	}
	a.mu.Lock()
	h, err := a.find(r.PathValue("name"))
	a.mu.Unlock()
	if err != nil {
		refuse(w, err)
		return
	}
	url, err := h.session.form(req)
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, api.FormAnswer{URL: url})
}

func (a *Agent) serveCalls(w http.ResponseWriter, r *http.Request) {
	seen, err := a.observed(r.Context(), r.PathValue("name"))
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"calls": append([]api.Seen{}, seen...)})
}
