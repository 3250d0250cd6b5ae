package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/server/journal"
)

// The codes of the agent's own problems.
const (
	CodeNoService  = "no-service"    // nothing of that name is under edit
	CodeInUse      = "agent-in-use"  // the agent holds sessions
	CodeLeaving    = "agent-leaving" // the agent is just ending
	CodeBadRequest = "bad-request"
)

// AgentConfig is what an Agent is made of; main fills it.
type AgentConfig struct {
	Version string
	// Prepare finds what a request means: settings, the main package, the environment's name. It makes nothing yet. Its
	// error is what the front end is told.
	Prepare func(ctx context.Context, r api.RunRequest) (Plan, error)
	// Join finds the environment that a request means to follow; Config.Joined of its plan is set.
	Join func(ctx context.Context, r api.JoinRequest) (Plan, error)
	// DAP is the path of the socket that ServeDAP's connections come by; empty without.
	DAP string
	// Idle is how long the agent stays with nothing to do, Grace how long what a front end holds stays when it went
	// without a word; zero is a minute.
	Idle, Grace time.Duration
	Logger      *slog.Logger
	// Others looks after the user's environments that have no session; nil without. DueFile remembers what of them was told.
	Others  Others
	DueFile string

	newSession func(Config) (runner, error) // for tests
}

// Plan is what a request means.
type Plan struct {
	// Config is the session's; Emit is filled in.
	Config Config
	// Why says how the main package was found.
	Why string
	// Dependencies are brought about before the service starts: on this machine, where nobody else does.
	Dependencies []Dependency
	// Shape is what else the request asks for, by its name for people. A running session that differs in it is joined as
	// it is, and the answer names the difference.
	Shape map[string]string
}

// runner is a Session.
type runner interface {
	Run(ctx context.Context) error
	Keep(bool)
	keepUntil(context.Context, time.Time) (bool, error)
	keptUntil() time.Time
	Saved(paths []string)
	Wanted(why string)
	Discard()
	CancelBuild()
	CancelTransfer()
	Restart()
	Debug(by, onSave string) (*Claim, error)
	choose(api.DebugChoice) error
	debugTest(ctx context.Context, r api.DebugTest) (api.TaskStarted, error)
	dialTask(ctx context.Context, id string) (net.Conn, error)
	dialCore(ctx context.Context, path string) (net.Conn, api.DebugStart, error)
	switchDependency(ctx context.Context, r api.DependencyRequest) error
	// callAddress is where the service calls a dependency that is at addr; dependencyMoved takes over where one is now, and says
	// whether the service has to be started again for it.
	callAddress(name, addr string) string
	dependencyMoved(name, addr string) bool
	observed(ctx context.Context) ([]api.Seen, error)
	form(r api.FormRequest) (string, error)
	reviewed(r api.ReviewRef) error
	lastReview() *api.ReviewRef
}

// Agent holds the sessions of one user: front ends ask for them, hold them and are told of them. Its goroutines, all ended
// when Run returns: the listeners' servers with one for each request, one a session (which has its own), two for each
// attachment, and one that looks for environments that are due.
//
// A session lives as long as somebody holds it: a client is attached, or was until less than AgentConfig.Grace ago, or an
// environment that somebody holds needs it (dependency.go). A client that left on purpose holds nothing any more. A session
// that is kept until a time lives that long without. The agent ends when it has had nothing to do for AgentConfig.Idle.
type Agent struct {
	cfg     AgentConfig
	info    api.Agent
	token   string // of the journals on TCP
	tcp     string // its address; empty without
	wg      sync.WaitGroup
	leaving chan struct{} // closed when the agent is to end

	mu       sync.Mutex
	ending   bool
	why      string // it ends
	sessions map[string]*held
	ended    map[string]*journal.Journal // of sessions that ended less than Grace ago
	clients  map[string]*client
	attached map[*attachment]bool
	busy     int // requests under way
	due      dues
	idle     *time.Timer
}

// held is a session and who holds it.
type held struct {
	name    string
	plan    Plan
	session runner
	journal *journal.Journal
	cancel  context.CancelFunc
	done    chan struct{} // closed when the session has ended and is forgotten
	err     error         // why, once done is closed

	needs *needs // nil without dependencies here

	// Under the agent's lock.
	state   *state
	news    chan struct{}     // closed, and made anew, at every change
	holders map[string]bool   // client IDs
	claims  map[string]*Claim // the debug session, by its client's ID
	keep    bool
	ending  bool
	// keepUntil is how long it lives without a holder, keepTimer waits for that.
	keepUntil time.Time
	keepTimer *time.Timer
}

// client is a front end.
type client struct {
	id, name string
	attached int
	grace    *time.Timer // runs while it is not attached and holds something
}

// attachment is one websocket of a client. Updates are put into the channel under the agent's lock; one that does not
// take them is cut off, and gets everything anew when it comes back.
type attachment struct {
	client  string
	asks    bool            // it can ask the user, and not only show
	updates chan api.Update // closed when the agent ends
	slow    chan struct{}   // closed when it is to be cut off
}

const (
	attachmentQueue = 4096
	// journalBytes is what the log lines of one service may take: a hundred thousand of the usual length. The collector
	// needs as much again.
	journalBytes = 32 << 20
)

// NewAgent makes an agent.
func NewAgent(cfg AgentConfig) *Agent {
	cfg.Idle, cfg.Grace = cmp.Or(cfg.Idle, time.Minute), cmp.Or(cfg.Grace, time.Minute)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.newSession == nil {
		cfg.newSession = func(c Config) (runner, error) { return NewSession(c) }
	}
	var t [32]byte
	rand.Read(t[:])
	a := &Agent{cfg: cfg, info: api.Agent{Version: cfg.Version, PID: os.Getpid(), Started: time.Now(), DAP: cfg.DAP}, token: hex.EncodeToString(t[:]),
		leaving: make(chan struct{}), sessions: map[string]*held{}, ended: map[string]*journal.Journal{}, clients: map[string]*client{}, attached: map[*attachment]bool{}}
	a.due = dues{file: cfg.DueFile, look: make(chan struct{}, 1)}
	a.loadDue()
	return a
}

// Run serves front ends until ctx ends, one asks for the end, or there was nothing to do for a while. unix is the private
// socket: whoever can connect is the user. tcp, which may be nil, is a loopback listener for journals alone. Run closes
// both, and ends every session as if its last holder had left.
func (a *Agent) Run(ctx context.Context, unix, tcp net.Listener) error {
	log := slog.NewLogLogger(a.cfg.Logger.Handler(), slog.LevelDebug)
	// Requests that wait (journals, attachments) end by the journal's and the attachment's end, so their context is not ctx.
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	newServer := func(h http.Handler) *http.Server {
		return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10, ErrorLog: log, BaseContext: func(net.Listener) context.Context { return base }}
	}
	servers := []*http.Server{newServer(a.handler())}
	failed := make(chan error, 2)
	serve := func(s *http.Server, ln net.Listener) {
		a.wg.Go(func() {
			if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				failed <- err
			}
		})
	}
	if tcp != nil {
		a.tcp = tcp.Addr().String()
		servers = append(servers, newServer(a.count(journal.Loopback(a.token, a.journal))))
		serve(servers[1], tcp)
	}
	serve(servers[0], unix)
	dctx, stopDue := context.WithCancel(base)
	defer stopDue()
	if a.cfg.Others != nil {
		a.wg.Go(func() { a.watchDue(dctx) })
	}
	a.mu.Lock()
	a.touch()
	a.mu.Unlock()
	a.cfg.Logger.Info("the agent is there", "version", a.cfg.Version, "pid", a.info.PID)

	var err error
	select {
	case <-ctx.Done():
	case <-a.leaving:
	case err = <-failed:
	}
	stopDue()
	a.end("the agent was stopped")
	unix.Close() // from now on front ends start another agent, which waits for this one's end
	a.mu.Lock()
	var all []*held
	for _, h := range a.sessions {
		all = append(all, h)
	}
	why := a.why
	a.mu.Unlock()
	for _, h := range all {
		a.endSession(h, why)
	}
	for _, h := range all {
		<-h.done
	}
	a.mu.Lock()
	for at := range a.attached {
		close(at.updates)
		delete(a.attached, at)
	}
	for _, c := range a.clients {
		c.stopGrace()
	}
	if a.idle != nil {
		a.idle.Stop()
	}
	a.mu.Unlock()
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for _, s := range servers {
		s.Shutdown(sctx)
	}
	left := make(chan struct{})
	go func() { a.wg.Wait(); close(left) }()
	select {
	case <-left:
	case <-sctx.Done(): // readers that do not read
		stop()
		for _, s := range servers {
			s.Close()
		}
		<-left
	}
	a.cfg.Logger.Info("the agent leaves", "why", why)
	return err
}

// end makes Run end.
func (a *Agent) end(why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.endLocked(why)
}

func (a *Agent) endLocked(why string) {
	if !a.ending {
		a.ending, a.why = true, why
		close(a.leaving)
	}
}

// touch begins the idle time anew, if the agent has nothing to do.
func (a *Agent) touch() {
	if a.idle != nil {
		a.idle.Stop()
	}
	if a.ending || a.busy > 0 || len(a.clients) > 0 || len(a.sessions) > 0 {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(a.cfg.Idle, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.idle == t && a.busy == 0 && len(a.clients) == 0 && len(a.sessions) == 0 {
			a.endLocked("nothing to do")
		}
	})
	a.idle = t
}

// run finds or begins the session that a request means.
func (a *Agent) run(ctx context.Context, r api.RunRequest) (api.RunAnswer, error) {
	if r.Path != "" {
		a.place(&r)
	}
	plan, err := a.cfg.Prepare(ctx, r)
	if err != nil {
		return api.RunAnswer{}, err
	}
	return a.enter(ctx, plan, r.Client, r.Keep)
}

// enter finds or begins the session of a plan, and makes the client hold it.
func (a *Agent) enter(ctx context.Context, plan Plan, client string, keepIt bool) (api.RunAnswer, error) {
	name := plan.Config.Spec.Name
	for {
		a.mu.Lock()
		h := a.sessions[name]
		switch {
		case ctx.Err() != nil: // who asked has gone
			a.mu.Unlock()
			return api.RunAnswer{}, ctx.Err()
		case a.ending:
			a.mu.Unlock()
			return api.RunAnswer{}, leavingProblem()
		case h != nil && h.ending: // its environment must be gone before the next one is made
			a.mu.Unlock()
			select {
			case <-h.done:
			case <-ctx.Done():
			}
			continue
		}
		ans := api.RunAnswer{Name: name, Service: plan.Config.Spec.Service, Why: plan.Why}
		var err error
		switch {
		case h == nil:
			h, err = a.begin(plan, keepIt)
		case plan.Config.Joined && h.state.svc.Namespace != plan.Config.Record.Environment.Namespace:
			err = &api.Problem{Code: "name-taken", Message: fmt.Sprintf("another environment %s is open here already", name), Hint: "stop that one first"}
		default:
			ans.Joined, ans.After = true, h.journal.Last()
			if d := difference(h.plan, plan); d != "" {
				ans.Why += "; " + d
			}
		}
		if err != nil {
			a.mu.Unlock()
			return ans, err
		}
		a.hold(h, client)
		keep := keepIt && !h.keep
		h.keep = h.keep || keepIt
		a.changed(h)
		a.mu.Unlock()
		if keep && ans.Joined {
			h.session.Keep(true)
		}
		if ans.Joined { // how that goes is told by events
			a.wg.Go(func() { h.session.Wanted("it was asked for again") })
		}
		return ans, nil
	}
}

// place finds the folder and the main package that a path means: the terminal and every editor are to mean one
// environment.
func (a *Agent) place(r *api.RunRequest) {
	dir := r.Path
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		dir = filepath.Dir(dir)
	}
	r.Path, r.Dir = "", dir
	runs := false
	a.mu.Lock()
	for _, h := range a.sessions {
		if h.plan.Config.Service.Dir == dir && !h.ending {
			r.Dir, runs = h.plan.Config.Record.Dir, true
		}
	}
	a.mu.Unlock()
	for d := dir; !runs && d != filepath.Dir(d); d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			r.Dir = d
			break
		}
	}
	if rel, err := filepath.Rel(r.Dir, dir); err == nil && rel != "." {
		r.Main = filepath.ToSlash(rel)
		if !strings.HasPrefix(r.Main, "../") {
			r.Main = "./" + r.Main
		}
	}
}

func leavingProblem() error {
	return &api.Problem{Code: CodeLeaving, Message: "the agent is just ending", Hint: "run again"}
}

// difference says what the plan of a request has otherwise than the running session's, which it joins.
func difference(running, asked Plan) string {
	var names []string
	for k, v := range asked.Shape {
		if running.Shape[k] != v {
			names = append(names, k)
		}
	}
	if wishesText(running.Config.Spec.Dependencies) != wishesText(asked.Config.Spec.Dependencies) && !asked.Config.Joined {
		names = append(names, "list of dependencies")
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return "it runs with another " + strings.Join(names, ", another ") + " already; stop it first to change that"
}

// begin starts a session, with the lock held.
func (a *Agent) begin(plan Plan, keep bool) (*held, error) {
	name := plan.Config.Spec.Name
	h := &held{name: name, plan: plan, news: make(chan struct{}), journal: journal.New(journal.Options{LogBytes: journalBytes}), done: make(chan struct{}), holders: map[string]bool{}, claims: map[string]*Claim{}, keep: keep}
	cfg := plan.Config
	cfg.Emit = func(e api.Event) { a.event(h, e) }
	cfg.note = func(step any) { a.step(h, step) }
	h.state = newState(api.Service{Environment: cfg.Record.Environment, Dir: cfg.Record.Dir, Package: cfg.Service.Dir, Module: cfg.Service.ModuleDir, Keep: keep, Joined: cfg.Joined, Owner: cfg.Owner}, time.Now())
	if len(plan.Dependencies) > 0 {
		h.needs = newNeeds(name, plan.Dependencies)
		h.state.svc.Dependencies = h.needs.list()
		open := cfg.Open
		cfg.expand = func(text string) string { return h.needs.expand(text, h.session.callAddress) }
		for _, d := range plan.Dependencies {
			if d.Check == nil { // a database's protocol is not judged
				cfg.neighbours = append(cfg.neighbours, d.Name)
			}
		}
		cfg.Open = func(ctx context.Context, spec bridge.Spec, progress bridge.Progress) (bridge.Environment, error) {
			if err := a.require(ctx, h, progress); err != nil {
				return nil, err
			}
			return open(ctx, spec, progress)
		}
	}
	s, err := a.cfg.newSession(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.session, h.cancel = s, cancel
	h.keepUntil = s.keptUntil()
	h.state.svc.Review = s.lastReview()
	a.sessions[name] = h
	delete(a.ended, name)
	a.wg.Go(func() {
		defer cancel()
		err := s.Run(ctx)
		if err != nil {
			a.cfg.Logger.Info("a session failed", "name", name, "err", err)
		}
		a.over(h, err)
	})
	a.cfg.Logger.Info("a session begins", "name", name, "dir", cfg.Record.Dir)
	return h, nil
}

// over forgets a session that has ended. Its journal can be read for a while: who asked for the session may not have
// opened it yet.
func (a *Agent) over(h *held, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h.ending, h.err = true, err
	if h.keepTimer != nil {
		h.keepTimer.Stop()
	}
	h.state.apply(over{err}, time.Now())
	a.changed(h)
	h.journal.Close()
	delete(a.sessions, h.name)
	a.ended[h.name] = h.journal
	time.AfterFunc(a.cfg.Grace, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.ended[h.name] == h.journal {
			delete(a.ended, h.name)
		}
	})
	if c := a.clients[holderPrefix+h.name]; c != nil {
		a.release(c, h.name+" has ended")
	}
	for id := range h.holders {
		if c := a.clients[id]; c != nil && c.attached == 0 && !a.holds(id) {
			a.forget(c)
		}
	}
	a.touch()
	close(h.done)
}

// event takes what a session tells.
func (a *Agent) event(h *held, e api.Event) {
	h.journal.Append(e)
	if _, ok := e.(*api.LogEvent); ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.attached) > 0 {
		if b, err := json.Marshal(e); err == nil {
			a.broadcast(api.Update{Name: h.name, Event: b})
		}
	}
	a.apply(h, e)
}

func (a *Agent) step(h *held, step any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s, ok := step.(switched); ok { // what the next request is compared with
		h.plan.Config.Spec.Dependencies = s.wishes
	}
	a.apply(h, step)
}

func (a *Agent) apply(h *held, step any) {
	if h.state.apply(step, time.Now()) {
		a.changed(h)
	}
}

// changed tells what a service is like now.
func (a *Agent) changed(h *held) {
	h.state.svc.Clients = a.names(h)
	h.state.svc.Keep, h.state.svc.KeepUntil = h.keep, h.state.kept
	if h.keepUntil.After(h.state.kept) {
		h.state.svc.KeepUntil = h.keepUntil
	}
	close(h.news)
	h.news = make(chan struct{})
	if len(a.attached) > 0 {
		a.broadcast(api.Update{Service: h.state.service()})
	}
}

func (a *Agent) names(h *held) []string {
	names := []string{}
	for id := range h.holders {
		if c := a.clients[id]; c != nil {
			names = append(names, c.name)
		}
	}
	slices.Sort(names)
	return names
}

func (a *Agent) broadcast(u api.Update) {
	for at := range a.attached {
		a.send(at, u)
	}
}

func (a *Agent) send(at *attachment, u api.Update) {
	select {
	case at.updates <- u:
	default:
		close(at.slow)
		delete(a.attached, at)
	}
}

// attach makes a client present. What there is comes first.
func (a *Agent) attach(id, name string, asks bool) (*attachment, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ending {
		return nil, leavingProblem()
	}
	c := a.client(id)
	c.name = cmp.Or(name, c.name)
	c.attached++
	c.stopGrace()
	at := &attachment{client: id, asks: asks, updates: make(chan api.Update, attachmentQueue+len(a.sessions)), slow: make(chan struct{})}
	info := a.info
	a.send(at, api.Update{Agent: &info})
	for _, n := range a.sortedNames() {
		h := a.sessions[n]
		if h.holders[id] {
			a.changed(h) // with the client's name
		}
		a.send(at, api.Update{Service: h.state.service()})
	}
	a.send(at, api.Update{Synced: true})
	a.attached[at] = true
	select {
	case a.due.look <- struct{}{}:
	default:
	}
	a.touch()
	return at, nil
}

func (a *Agent) sortedNames() []string {
	var names []string
	for n := range a.sessions {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// detach ends an attachment. A client that left on purpose lets go of everything; another may come back.
func (a *Agent) detach(at *attachment, onPurpose bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.attached, at)
	c := a.clients[at.client]
	if c == nil {
		return
	}
	if c.attached--; c.attached > 0 {
		return
	}
	if onPurpose || !a.holds(c.id) {
		a.release(c, c.name+" left")
		return
	}
	a.cfg.Logger.Info("a front end was lost", "name", c.name, "grace", a.cfg.Grace)
	a.waitFor(c)
}

// client returns the client of an ID; one that is new is waited for, since it may ask before it attaches.
func (a *Agent) client(id string) *client {
	c := a.clients[id]
	if c == nil {
		c = &client{id: id, name: "somebody"}
		a.clients[id] = c
	}
	return c
}

// waitFor gives a client that is not attached its time to come back.
func (a *Agent) waitFor(c *client) {
	c.stopGrace()
	var t *time.Timer
	t = time.AfterFunc(a.cfg.Grace, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if c.grace == t && c.attached == 0 {
			a.release(c, c.name+" was lost, and did not come back")
		}
	})
	c.grace = t
}

func (c *client) stopGrace() {
	if c.grace != nil {
		c.grace.Stop()
		c.grace = nil
	}
}

func (a *Agent) holds(id string) bool {
	for _, h := range a.sessions {
		if h.holders[id] {
			return true
		}
	}
	return false
}

// hold makes a client hold a session.
func (a *Agent) hold(h *held, id string) {
	c := a.client(id)
	h.holders[id] = true
	if c.attached == 0 {
		a.waitFor(c)
	}
}

// release forgets a client and all that it holds.
func (a *Agent) release(c *client, why string) {
	for _, h := range a.sessions {
		if h.holders[c.id] {
			a.letGo(h, c.id, why)
		}
	}
	a.forget(c)
}

func (a *Agent) forget(c *client) {
	c.stopGrace()
	delete(a.clients, c.id)
	a.touch()
}

// letGo ends a session whose last holder goes.
func (a *Agent) letGo(h *held, id, why string) {
	delete(h.holders, id)
	if len(h.holders) == 0 {
		a.letGoWhenDue(h, why)
		return
	}
	a.changed(h)
	a.sweep(why)
}

// endSession ends a session; its environment goes unless it is kept.
func (a *Agent) endSession(h *held, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.endLockedSession(h, why)
}

func (a *Agent) endLockedSession(h *held, why string) {
	if h.ending {
		return
	}
	h.ending = true
	a.apply(h, leaving{why})
	h.cancel()
}

// find returns a session that is not over.
func (a *Agent) find(name string) (*held, error) {
	if h := a.sessions[name]; h != nil {
		return h, nil
	}
	return nil, &api.Problem{Code: CodeNoService, Message: fmt.Sprintf("no service %q is under edit", name), Hint: "fairlead status lists what there is"}
}

// stop ends a session whoever holds it, and removes its environment also when it is kept.
func (a *Agent) stop(name, why string) (*held, error) {
	a.mu.Lock()
	h, err := a.find(name)
	if err != nil {
		a.mu.Unlock()
		return nil, err
	}
	h.keep = false
	s := h.session
	ending := h.ending
	a.mu.Unlock()
	s.Discard()
	if !ending {
		a.endSession(h, why)
	}
	return h, nil
}

// leave makes a client hold a session no more.
func (a *Agent) leave(name, id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, err := a.find(name)
	if err != nil {
		return err
	}
	if h.holders[id] {
		a.letGo(h, id, a.client(id).name+" left")
	}
	if c := a.clients[id]; c != nil && c.attached == 0 && !a.holds(id) {
		a.forget(c)
	}
	return nil
}

// cancelWhat breaks off what is under way.
func (a *Agent) cancelWhat(name, what string) error {
	a.mu.Lock()
	h, err := a.find(name)
	a.mu.Unlock()
	if err != nil {
		return err
	}
	switch what {
	case "environment":
		_, err := a.stop(name, "it was canceled")
		return err
	case "build":
		h.session.CancelBuild()
	case "transfer":
		h.session.CancelTransfer()
	default:
		return badRequest(`what must be "environment", "build" or "transfer"`)
	}
	return nil
}

// saved tells every session of files that were just written.
func (a *Agent) saved(paths []string) error {
	for _, p := range paths {
		if !filepath.IsAbs(p) {
			return badRequest(fmt.Sprintf("%q is no absolute path", p))
		}
	}
	a.mu.Lock()
	var all []runner
	for _, h := range a.sessions {
		all = append(all, h.session)
	}
	a.mu.Unlock()
	for _, s := range all {
		s.Saved(paths)
	}
	return nil
}

// shutdown makes the agent leave, if it holds nothing or must.
func (a *Agent) shutdown(force bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !force && len(a.sessions) > 0 {
		return &api.Problem{Code: CodeInUse, Message: "the agent holds " + strings.Join(a.sortedNames(), ", "),
			Hint: "fairlead stop ends them; fairlead agent stop --force ends them and the agent"}
	}
	a.endLocked("the agent was stopped")
	return nil
}

// services lists what there is.
func (a *Agent) services() []api.Service {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := []api.Service{}
	for _, n := range a.sortedNames() {
		out = append(out, *a.sessions[n].state.service())
	}
	return out
}

// journal finds a session's; that of one that ended just now too.
func (a *Agent) journal(name string) *journal.Journal {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.sessions[name]; h != nil {
		return h.journal
	}
	return a.ended[name]
}

// access says where a journal is read by TCP.
func (a *Agent) access(name string) (api.JournalAccess, error) {
	a.mu.Lock()
	_, err := a.find(name)
	a.mu.Unlock()
	if err != nil {
		return api.JournalAccess{}, err
	}
	if a.tcp == "" {
		return api.JournalAccess{}, &api.Problem{Code: "no-tcp", Message: "the agent could open no port on 127.0.0.1", Hint: "see its log, agent.log in Fairlead's state folder"}
	}
	return api.JournalAccess{URL: "ws://" + a.tcp + "/v1/services/" + name + "/journal", Token: a.token}, nil
}

func badRequest(msg string) error {
	return &api.Problem{Code: CodeBadRequest, Message: msg, Hint: "this is a bug of the front end; please report it"}
}
