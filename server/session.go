package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/server/crash"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/build"
	"fairlead.dev/syncer/watch"
)

// Config is what a Session is made of; main fills it.
type Config struct {
	// Spec names the environment; its Token is filled in from the record.
	Spec bridge.Spec
	// Open makes or finds the environment.
	Open func(ctx context.Context, spec bridge.Spec, progress bridge.Progress) (bridge.Environment, error)
	// Record is kept with the environment's; Environment, Kubeconfig and Dir are set.
	Record  Record
	Records Records
	// Service is what is built, and how.
	Service build.Service
	Build   build.Config
	// Target is built for until the environment says what it is.
	Target api.Target
	// Process is what the settings and the command line say; what they leave out comes from the environment.
	Process api.Process
	Folders []syncer.Folder
	// Reload reads the settings again after one of SettingsFiles changed; may be nil. Problems leave things as they are.
	Reload        func() (Reloaded, []*api.Problem)
	SettingsFiles []string
	// Lease is what the environment is opened with.
	Lease Lease
	// Ignored says which changes of files are nobody's business; may be nil.
	Ignored func(path string) bool
	// Rest is how long after a save the watcher waits for more of it; 0 is its measured default.
	Rest time.Duration
	// TakeOver puts another agent out; Keep leaves the environment when the session ends.
	TakeOver, Keep bool
	// Emit is told everything, in order, one call at a time.
	Emit   func(api.Event)
	Logger *slog.Logger

	// Joined: the environment is Owner's. The session follows it: it does not attach to the pod, builds and ships nothing, and
	// leaves everything as it is at its end. Service only names it.
	Joined bool
	Owner  string
	// Command is a shell command that is run in place of a service that is built; empty without. Service then only names it.
	Command string

	// Calls says how what the service calls is judged.
	Calls Calls

	// neighbours are the dependencies that the service calls by addresses of this machine.
	neighbours []string
	// expand puts the addresses of dependencies into an argument or a variable's value; may be nil.
	expand func(string) string
	// note is told the steps of state.go that are no events, in order with Emit; may be nil.
	note func(step any)
}

// Reloaded is what changed settings may change in a session that runs.
type Reloaded struct {
	Process api.Process
	Build   build.Config
	Lease   Lease
}

// logFollower is a bridge.Environment in which more runs than the service. FollowLogs tells what the other containers write
// until ctx ends; its error is a warning: the lines are not to be had.
type logFollower interface {
	FollowLogs(ctx context.Context, emit func(*api.LogEvent)) error
}

// depender is a bridge.Environment that knows what its service depends on.
type depender interface {
	Dependencies(ctx context.Context) ([]api.Dependency, error)
}

// Session is one service under edit. Its goroutines, all ended when Run returns: the opening of the environment, the
// connection, the followers of the pod's events, of the other containers' lines and of the dependencies, those of calls.go, the
// switches of dependencies, the renewal of the lease, the watcher and the loop, and the tunnels' connections.
type Session struct {
	cfg    Config
	keep   *keeper
	conn   *bridge.Conn
	loop   *syncer.Loop
	tun    *tunnels
	builds *builds
	debug  *debugging
	calls  *calls
	uses   uses
	waking waking
	life   context.Context // ends with Run: of what a connection's change or a front end leads to
	die    context.CancelFunc

	emitMu sync.Mutex

	watching chan struct{} // closed when no edit goes unnoticed any more
	envReady chan struct{} // closed when env is there
	env      atomic.Pointer[bridge.Environment]
	up       atomic.Bool // the connection is
	switches switches
	stopping atomic.Bool // it is being removed
	kept     atomic.Bool // it stays when the session ends
	// discarded: it goes when the session ends, whatever was said of keeping it
	discarded atomic.Bool
	watcher   atomic.Pointer[watch.Watcher]
	crashes   crash.Parser // of the pod's goroutine

	leases chan Lease // the last change of it, for followLease

	mu    sync.Mutex
	lease Lease
	proc  api.Process // what the settings say now
	saved map[api.Generation]time.Time
	ready map[api.Generation]string // the URL that was told
	again map[api.Generation]bool   // it was ready before, under a former supervisor
}

// NewSession prepares a session.
func NewSession(cfg Config) (*Session, error) {
	rec, err := cfg.Records.Load(cfg.Spec.Name)
	if err != nil {
		return nil, err
	}
	old := rec
	rec = cfg.Record
	rec.Version, rec.Token, rec.Ports, rec.Main, rec.Generation, rec.Since = old.Version, old.Token, old.Ports, old.Main, old.Generation, old.Since
	rec.Gates = old.Gates
	rec.KeepUntil = old.KeepUntil
	rec.Agent, rec.PID = fmt.Sprintf("%s (pid %d)", cfg.Spec.Owner, os.Getpid()), os.Getpid()
	cfg.Spec.Token = rec.Token
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Session{cfg: cfg, proc: cfg.Process, lease: cfg.Lease, leases: make(chan Lease, 1), keep: &keeper{recs: cfg.Records, rec: rec}, watching: make(chan struct{}), envReady: make(chan struct{}),
		saved: map[api.Generation]time.Time{}, ready: map[api.Generation]string{}, again: map[api.Generation]bool{}}
	s.kept.Store(cfg.Keep)
	s.switches = switches{asked: make(chan switchRequest, 1), over: make(chan struct{}), news: make(chan struct{}, 1)}
	name, token := rec.Agent, rec.Token
	if cfg.Joined {
		name, token = "", "" // who attaches is who ships, and whose the token is
	}
	s.conn = bridge.New(bridge.Options{Dial: s.dial, Token: token, Name: name, TakeOver: cfg.TakeOver, Keep: cfg.Keep, OnState: s.connState})
	s.builds = &builds{svc: cfg.Service, cfg: cfg.Build, command: cfg.Command, out: filepath.Join(cfg.Records.Folder(cfg.Spec.Name), fmt.Sprintf("out-%d", os.Getpid()))}
	s.debug = newDebugging(s)
	if s.calls, err = newCalls(s, cfg.Calls, cfg.neighbours, rec.Gates); err != nil {
		return nil, err
	}
	s.keep.rec.Gates = s.calls.ports()
	s.loop = syncer.New(syncer.Config{
		Pod: s.conn, Folders: cfg.Folders, Process: s.process, Name: cfg.Service.Name,
		Build: func(ctx context.Context, linked func(string, int64)) (syncer.Built, []*api.Problem, error) {
			return s.builds.build(ctx, s.target(), s.debug.wantSymbols(), linked)
		},
		Dir: filepath.Join(cfg.Records.Folder(cfg.Spec.Name), "base"), Emit: s.emit, Shipping: s.shipping,
		Building: func(g api.Generation) { s.debug.building(g); s.note(building{g}) }, Hold: s.debug.hold,
	})
	s.loop.Number(rec.Generation)
	s.tun = newTunnels(maps.Clone(rec.Ports), s.dialPort)
	s.life, s.die = context.WithCancel(context.Background())
	return s, nil
}

func (s *Session) emit(e api.Event) {
	s.emitMu.Lock()
	if h := e.Head(); h.Time.IsZero() {
		h.Time = time.Now()
	}
	s.cfg.Emit(e)
	s.emitMu.Unlock()
	s.debug.event(e)
}

// note tells a step that is no event.
func (s *Session) note(step any) {
	if s.cfg.note == nil {
		return
	}
	s.emitMu.Lock()
	defer s.emitMu.Unlock()
	s.cfg.note(step)
}

// Keep says whether the environment stays when the session ends.
func (s *Session) Keep(keep bool) {
	if s.kept.Swap(keep) != keep {
		s.conn.SetKeep(keep)
	}
}

// Discard makes the environment go with the session, whatever was said of keeping it.
func (s *Session) Discard() {
	s.discarded.Store(true)
	s.kept.Store(false)
}

// Saved tells of files that an editor has just written. Those that the session does not follow are nobody's business.
func (s *Session) Saved(paths []string) {
	w := s.watcher.Load()
	if w == nil {
		return // the first build has not begun, and reads them anyway
	}
	var ours []string
	for _, p := range paths {
		if p = filepath.Clean(p); filepath.IsAbs(p) && s.relevant(p) {
			ours = append(ours, p)
		}
	}
	if len(ours) > 0 {
		w.Notify(ours...)
	}
}

// CancelBuild and CancelTransfer break off what is under way; what ran goes on running until the next save.
func (s *Session) CancelBuild()    { s.loop.CancelBuild() }
func (s *Session) CancelTransfer() { s.loop.CancelTransfer() }

// Restart starts the service again, with what it is started with now.
func (s *Session) Restart() { s.loop.Changed(syncer.Change{Files: true, Saved: time.Now()}) }

func (s *Session) tell(state, reason string) {
	info := s.keep.get().Environment
	s.emit(&api.EnvironmentEvent{Header: api.Header{Type: api.KindEnvironment, Generation: s.keep.get().Generation}, Environment: info, State: state, Reason: reason})
}

// Run makes the environment, builds, ships, and follows saves until ctx ends. It returns nil when ctx ended, and what
// makes going on impossible otherwise: no environment, or one that another agent took over.
func (s *Session) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer s.tun.wait()
	context.AfterFunc(ctx, s.die)
	fail := func(err error) {
		if err != nil && ctx.Err() == nil {
			cancel(err)
		}
	}
	s.tell("finding", "")
	wg.Go(func() { fail(s.openEnvironment(ctx)) })
	wg.Go(func() { fail(ended(ctx, s.conn.Run(ctx))) })
	wg.Go(func() { s.follow(ctx) })
	wg.Go(func() { s.followOthers(ctx) })
	wg.Go(func() { s.followDependencies(ctx) })
	wg.Go(func() { s.renew(ctx) })
	wg.Go(func() { s.followLease(ctx) })
	wg.Go(func() { s.followSwitches(ctx) })
	wg.Go(func() { s.calls.followGrants(ctx) })
	wg.Go(func() { s.calls.followCalls(ctx) })
	wg.Go(func() { s.calls.locate(ctx) })
	if !s.cfg.Joined {
		wg.Go(func() { fail(ended(ctx, s.watch(ctx))) })
		wg.Go(func() {
			select {
			case <-s.watching:
				s.loop.Run(ctx)
			case <-ctx.Done():
			}
		})
	}
	<-ctx.Done()
	s.debug.over()
	wg.Wait() // nobody builds, ships or writes the record any more while close removes them
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if s.cfg.Joined {
		return s.leave(err)
	}
	return errors.Join(err, s.close(err))
}

// ended is what a part's end means for the session: nothing when the session is ending.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Session) openEnvironment(ctx context.Context) error {
	env, err := s.cfg.Open(ctx, s.cfg.Spec, s.progress)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		var wrote interface{ LogLines() []*api.LogEvent } // what the containers said that did not come up
		if errors.As(err, &wrote) {
			for _, l := range wrote.LogLines() {
				s.emit(l)
			}
		}
		return err
	}
	if err := s.keep.change(func(r *Record) { r.Environment = env.Info() }); err != nil {
		return err
	}
	s.env.Store(&env)
	close(s.envReady)
	if env.Target() != s.cfg.Target {
		s.loop.Changed(syncer.Change{Build: true, Saved: time.Now()})
	}
	return nil
}

// progress tells what the provider is doing: it makes the environment, waits for it to be back, or removes it.
func (s *Session) progress(msg string) {
	state := "creating"
	select {
	case <-s.envReady:
		state = "connecting"
	default:
	}
	if s.stopping.Load() {
		state = "stopping"
	}
	s.tell(state, msg)
}

// environment waits until there is one.
func (s *Session) environment(ctx context.Context) (bridge.Environment, error) {
	select {
	case <-s.envReady:
		return s.opened(), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// opened is the environment, once envReady is closed. A switch of a dependency replaces it.
func (s *Session) opened() bridge.Environment { return *s.env.Load() }

func (s *Session) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	if _, err := s.environment(ctx); err != nil {
		return nil, err
	}
	if err := s.switches.wait(ctx); err != nil { // the service starts once its dependencies are there
		return nil, err
	}
	return s.opened().Dial(ctx)
}

// close ends what the session had begun: the environment goes too, unless it is kept or somebody else's by now.
func (s *Session) close(why error) error {
	os.RemoveAll(s.builds.out)
	select {
	case <-s.envReady:
	default:
		os.Remove(s.cfg.Records.Folder(s.cfg.Spec.Name)) // if nothing else is in it
		return nil
	}
	env := s.opened()
	defer env.Close()
	var p *api.Problem
	if errors.As(why, &p) && (p.Code == api.CodeTakenOver || p.Code == api.CodeHeld || p.Code == api.CodeUnauthorized || p.Code == api.CodeGone) {
		return nil
	}
	s.keep.change(func(r *Record) { r.Agent, r.PID, r.URL = "", 0, "" })
	if s.kept.Load() {
		return nil
	}
	if stays, err := s.stays(env); err != nil || stays {
		return err
	}
	s.stopping.Store(true)
	s.tell("stopping", "")
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := env.Delete(ctx); err != nil {
		return err
	}
	s.tell("deleted", "")
	return s.cfg.Records.Remove(s.cfg.Spec.Name)
}

func (s *Session) connState(connected bool, err error) {
	switch {
	case connected:
		s.up.Store(true)
		s.away(nil)
		if !s.cfg.Joined { // a session that follows has built nothing
			s.sweep()
		}
		if err := s.keep.change(func(r *Record) { r.Environment = s.opened().Info() }); err != nil { // the pod may be another one
			s.cfg.Logger.Warn("the record was not written", "err", err)
		}
		s.tell("connected", "") // before anything that the pod tells
		s.calls.connected()
		s.loop.Resync()
		s.debug.resume()
	case err != nil:
		s.up.Store(false)
		s.away(err)
		if s.switches.busy() {
			s.progress("the pod is being replaced")
			return
		}
		var p *api.Problem
		known := errors.As(err, &p)
		if known && p.Code == api.CodeAsleep && s.wake(false, "its agent came back") {
			return
		}
		why := err.Error()
		if known && p.Hint != "" {
			why += "; " + p.Hint
		}
		s.tell("lost", why)
	}
}

// sweep removes what agents left that were killed: this one holds the environment now, so theirs are nobody's.
func (s *Session) sweep() {
	old, _ := filepath.Glob(filepath.Join(s.cfg.Records.Folder(s.cfg.Spec.Name), "out-*"))
	for _, dir := range old {
		if dir != s.builds.out {
			os.RemoveAll(dir)
		}
	}
}

// reload takes changed settings over, if they are right.
func (s *Session) reload() bool {
	now, problems := s.cfg.Reload()
	wrong := false
	s.note(settingsRead{problems})
	for _, pr := range problems {
		wrong = wrong || isError(pr)
		pr.Owner = keySettings
		s.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: s.keep.get().Generation}, Problem: *pr})
	}
	if wrong {
		return false
	}
	s.mu.Lock()
	s.proc = now.Process
	s.mu.Unlock()
	s.builds.configure(now.Build)
	s.setLease(now.Lease)
	return true
}

// process is how the service is started: the command line and fairlead.yaml first, then the staging Deployment.
func (s *Session) process() api.Process {
	s.mu.Lock()
	p := s.proc
	s.mu.Unlock()
	p.Debug = s.debug.start()
	select {
	case <-s.envReady:
	default:
		return p
	}
	found := s.opened().Process()
	if p.Args == nil {
		p.Args = found.Args
	}
	if p.Dir == "" {
		p.Dir = found.Dir
	}
	if p.Port == 0 {
		p.Port = found.Port
	}
	p.Env = append(append([]string{}, found.Env...), p.Env...)
	if s.cfg.expand != nil {
		p.Args = slices.Clone(p.Args)
		for _, texts := range [][]string{p.Args, p.Env} {
			for i := range texts {
				texts[i] = s.cfg.expand(texts[i])
			}
		}
	}
	return p
}

func (s *Session) target() api.Target {
	select {
	case <-s.envReady:
		return s.opened().Target()
	default:
		return s.cfg.Target
	}
}

func (s *Session) shipping(g api.Generation, saved time.Time) {
	s.mu.Lock()
	s.saved[g] = saved
	for old := range s.saved {
		if old+16 < g {
			delete(s.saved, old)
			delete(s.ready, old)
			delete(s.again, old)
		}
	}
	s.mu.Unlock()
	s.note(shipping{g})
	s.uses.note("a save")
	if err := s.keep.change(func(r *Record) { r.Generation = g }); err != nil {
		s.cfg.Logger.Warn("the record was not written", "err", err)
	}
}

// follow tells the pod's events, from where it stopped, through every loss of the connection.
func (s *Session) follow(ctx context.Context) {
	var epoch string
	var after uint64
	var behind uint64 // what is not newer was standing already
	for ctx.Err() == nil {
		st, err := s.conn.Status(ctx)
		if err != nil {
			if pause(ctx, 50*time.Millisecond) != nil {
				return
			}
			continue
		}
		switch {
		case s.cfg.Joined && epoch != st.Epoch:
			if epoch != "" {
				s.anew()
			}
			epoch, after = st.Epoch, 0
			behind = st.Seq
			s.standing(ctx, &st)
		case epoch == "" && s.opened().Info().Resumed:
			epoch, after = st.Epoch, st.Seq // what an earlier agent has shown is not shown again
		case epoch != st.Epoch:
			if epoch != "" {
				s.anew()
			}
			epoch, after = st.Epoch, 0
		}
		s.conn.Events(ctx, epoch, after, func(e api.Event) error {
			after = e.Head().Seq
			if _, isLog := e.(*api.LogEvent); isLog || after > behind {
				s.podEvent(ctx, e)
			}
			return nil
		})
	}
}

// followOthers tells what the environment's other containers write.
func (s *Session) followOthers(ctx context.Context) {
	env, err := s.environment(ctx)
	if err != nil {
		return
	}
	f, ok := env.(logFollower)
	if !ok {
		return
	}
	err = f.FollowLogs(ctx, func(l *api.LogEvent) {
		l.Generation = s.keep.get().Generation
		s.emit(l)
	})
	if err == nil || ctx.Err() != nil {
		return
	}
	for _, p := range api.Problems(err, "logs") {
		p.Owner, p.Severity = keyEnvironment, api.SeverityWarning
		s.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: s.keep.get().Generation}, Problem: *p})
	}
}

// dependenciesEvery is how often an environment is asked for its dependencies. It costs a handful of lists.
const dependenciesEvery = time.Minute

// followDependencies tells what the service depends on, and how it is, where the environment knows.
func (s *Session) followDependencies(ctx context.Context) {
	if _, err := s.environment(ctx); err != nil {
		return
	}
	for {
		d, ok := s.opened().(depender)
		if !ok {
			return
		}
		all, err := d.Dependencies(ctx)
		switch {
		case err == nil:
			s.note(depends{all})
			s.calls.looked()
		case ctx.Err() == nil: // the cluster is away, which the connection tells, or it may not be asked, which the opening told
			s.cfg.Logger.Debug("look for the dependencies", "err", err)
		}
		t := time.NewTimer(dependenciesEvery)
		select {
		case <-t.C:
		case <-s.switches.news:
		case <-ctx.Done():
		}
		if t.Stop(); ctx.Err() != nil {
			return
		}
	}
}

// anew makes what was ready be told again: another supervisor runs it now.
func (s *Session) anew() {
	s.crashes = crash.Parser{}
	s.note(anew{})
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := range s.ready {
		s.again[g] = true
	}
	clear(s.ready)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Session) podEvent(ctx context.Context, e api.Event) {
	s.emit(e)
	switch e := e.(type) {
	case *api.LogEvent:
		if e.Stream == "stderr" {
			s.crash(e.Generation, s.crashes.Line(e.Text))
		}
		s.calls.logged(e)
	case *api.ProcessEvent:
		if s.cfg.Joined { // the numbers are its owner's
			s.keep.change(func(r *Record) { r.Generation = e.Generation })
		}
		if e.State == api.StateStarting {
			s.calls.unseen(nil)
		}
		if e.State == api.StateExited || e.State == api.StateStarting {
			s.crash(e.Generation, s.crashes.End())
		}
	case *api.ListeningEvent:
		s.listening(ctx, e)
	case *api.ProblemEvent:
		if e.Code == api.CodeCallsUnseen {
			s.calls.unseen(&e.Problem)
		}
	case *api.CallEvent:
		s.calls.event(e)
	}
}

// crash tells of a panic or fatal error that the service wrote.
func (s *Session) crash(g api.Generation, c *crash.Crash) {
	if c == nil || s.cfg.Joined { // its source is its owner's
		return
	}
	s.calls.crashed(g, c)
	mods := map[string]string{s.cfg.Service.Module: s.cfg.Service.ModuleDir}
	for _, m := range s.cfg.Service.Modules {
		mods[m.Path] = m.Dir
	}
	p := c.Problem(crash.Source{Modules: mods})
	s.note(crashed{p})
	s.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: g}, Problem: *p})
}

// moveMain lets the tunnel of the main port go along where the service has another one at each start. It returns the port
// that has no tunnel any more, or 0.
func (s *Session) moveMain(ports []api.Port) int {
	old := s.keep.get().Main
	if old == 0 || slices.ContainsFunc(ports, func(p api.Port) bool { return p.Port == old }) {
		return 0
	}
	for _, p := range ports {
		if p.Main && s.tun.move(old, p.Port) {
			return old
		}
	}
	return 0
}

// listening opens the tunnels to the service's ports, and tells that the generation answers.
func (s *Session) listening(ctx context.Context, l *api.ListeningEvent) {
	url, main := "", 0
	ports := []api.Forward{}
	moved := s.moveMain(l.Ports)
	for _, p := range l.Ports {
		n, err := s.tun.open(ctx, p.Port)
		if err != nil {
			s.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: l.Generation},
				Problem: api.Problem{Code: "no-local-port", Owner: keyEnvironment, Message: err.Error(), Hint: "close what uses up this machine's ports"}})
			continue
		}
		f := api.Forward{Port: p.Port, Local: n, URL: fmt.Sprintf("http://127.0.0.1:%d", n), Main: p.Main}
		if ports = append(ports, f); p.Main {
			url, main = f.URL, p.Port
		}
	}
	s.note(forwards{ports})
	s.mu.Lock()
	told, was := s.ready[l.Generation]
	news := !was || told != url
	s.ready[l.Generation] = url
	saved := s.saved[l.Generation]
	if s.again[l.Generation] { // no save led to it
		saved = time.Time{}
	}
	s.mu.Unlock()
	if !news {
		return
	}
	var ms int64
	if !saved.IsZero() {
		ms = l.Time.Sub(saved).Milliseconds()
		if st := time.Since(saved).Milliseconds(); ms < 0 || ms > st { // the pod's clock is not ours
			ms = st
		}
	}
	s.keep.change(func(r *Record) {
		r.URL, r.Main = url, main
		delete(r.Ports, moved)
		for k, v := range s.tun.known() {
			r.Ports[k] = v
		}
	})
	s.calls.live()
	s.emit(&api.ReadyEvent{Header: api.Header{Type: api.KindReady, Generation: l.Generation}, URL: url, MS: ms})
}
