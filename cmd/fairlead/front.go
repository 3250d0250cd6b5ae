package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/server/client"
)

// endLimit is how long the end of a run is waited for: the environment's removal, which has a limit of its own.
const endLimit = 75 * time.Second

// front is one `fairlead run`, or `fairlead join`: it asks the agent for an environment, shows the journal, and lets go of it at the end.
// Its goroutine is the attachment's.
type front struct {
	c    *client.Client
	name string // as the agent knows us
	show renderer

	mu    sync.Mutex
	known map[string]*api.Service // as they are now, the ended ones too
	news  chan struct{}           // closed and replaced at each change
}

// runService is `fairlead run`.
func runService(ctx context.Context, o runOptions) error {
	dir, err := absDir(o.dir)
	if err != nil {
		return err
	}
	if _, err := loadSettings(dir, "", o); err != nil { // what is used wrongly needs no agent to be told
		return err
	}
	fr, err := newFront(fmt.Sprintf("fairlead run (pid %d)", os.Getpid()), o.show)
	if err != nil {
		return err
	}
	req := api.RunRequest{Dir: dir, Main: o.main, Args: o.args, On: o.place.on, Kubeconfig: o.place.kubeconfig, Context: o.place.context, Namespace: o.place.namespace,
		Registry: o.place.registry, Env: environment(), Keep: o.keep, TakeOver: o.takeOver, Fresh: o.fresh, Shared: o.shared}
	return fr.attached(ctx, dir, func(ctx context.Context) (api.RunAnswer, error) { return fr.c.Run(ctx, req) })
}

func newFront(name string, show renderer) (*front, error) {
	f, err := findFolders()
	if err != nil {
		return nil, err
	}
	c, err := newClient(f, name, true)
	if err != nil {
		return nil, err
	}
	return &front{c: c, name: name, show: show, known: map[string]*api.Service{}, news: make(chan struct{})}, nil
}

// attached is the life of a front end: ask asks the agent for what it is about, again where the agent was lost. dir is the
// folder that places are shown in.
func (f *front) attached(ctx context.Context, dir string, ask func(context.Context) (api.RunAnswer, error)) error {
	// The attachment outlasts ctx: what is done at an interrupt is still to be seen.
	actx, detach := context.WithCancel(context.WithoutCancel(ctx))
	attached := make(chan error, 1)
	go func() { attached <- f.c.Attach(actx, f.update) }()
	err := f.run(ctx, dir, ask)
	detach()
	if aerr := <-attached; err == nil && ctx.Err() == nil && !errors.Is(aerr, context.Canceled) {
		err = aerr
	}
	return err
}

// update keeps what the agent says of its services.
func (f *front) update(u client.Update) {
	if d := u.Due; d != nil {
		becomes := map[string]string{"sleep": "is put to sleep", "delete": "is deleted"}[d.Then]
		f.say("nobody uses the environment %s of %s (namespace %s): it %s at %s; fairlead env keep %s --for 1d keeps it", d.Name, d.Service, d.Namespace, becomes, d.At.Local().Format(time.DateTime), d.Name)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case u.Lost != nil, u.Agent != nil:
		clear(f.known)
	case u.Service != nil:
		f.known[u.Service.Name] = u.Service
	default:
		return
	}
	close(f.news)
	f.news = make(chan struct{})
}

// service waits a little for what the agent says of a service.
func (f *front) service(name string, is func(*api.Service) bool) *api.Service {
	t := time.NewTimer(5 * time.Second)
	defer t.Stop()
	for {
		f.mu.Lock()
		s, news := f.known[name], f.news
		f.mu.Unlock()
		if s != nil && is(s) {
			return s
		}
		select {
		case <-news:
		case <-t.C:
			return nil
		}
	}
}

// run asks, shows, and ends: with the session, or with ctx.
func (f *front) run(ctx context.Context, dir string, ask func(context.Context) (api.RunAnswer, error)) error {
	ans, err := ask(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	f.introduce(ans, dir)
	agent, err := f.c.Agent(ctx)
	if err != nil && ctx.Err() == nil {
		return err
	}
	// Reading goes on after ctx: the session's end is shown.
	jctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	asked := make(chan error, 1)
	watching := context.AfterFunc(ctx, func() { asked <- f.end(jctx, stop, ans.Name) })
	defer watching()

	restarted := time.Time{}
	pos := position{after: ans.After}
	for {
		err := f.c.Journal(jctx, ans.Name, pos.after, true, func(e api.Entry) error { f.entry(&pos, e); return nil })
		if ctx.Err() != nil {
			if aerr := <-asked; aerr != nil {
				return aerr
			}
			if jctx.Err() != nil { // others go on with it
				return nil
			}
		}
		if over(err) {
			return f.ended(ctx, ans.Name)
		}
		if jctx.Err() != nil {
			return nil
		}
		if ctx.Err() != nil {
			return &api.Problem{Code: "agent-lost", Message: "the agent ended before it had removed the environment", Hint: "fairlead stop removes it"}
		}
		if now, aerr := f.c.Agent(ctx); aerr == nil && now.PID == agent.PID && now.Started.Equal(agent.Started) {
			continue // only this reading broke off: it was slow
		}
		if time.Since(restarted) < time.Minute && !restarted.IsZero() {
			return &api.Problem{Code: "agent-lost", Message: "the agent was lost twice within a minute", Hint: "see agent.log in Fairlead's state folder"}
		}
		restarted = time.Now()
		f.say("the agent was lost (pid %d): %s; starting it again", agent.PID, why(err))
		again, err := ask(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		ans, pos = again, position{after: again.After}
		if agent, err = f.c.Agent(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// over says whether a reading ended because the session did.
func over(err error) bool {
	var p *api.Problem
	return err == nil || errors.As(err, &p) && p.Code == "no-service"
}

func why(err error) string {
	var p *api.Problem
	if errors.As(err, &p) {
		return clean(p.Message)
	}
	return clean(err.Error())
}

// position is how far a journal was shown.
type position struct {
	after   uint64
	dropped uint64 // lines that are to be told with the next one
}

func (f *front) entry(pos *position, e api.Entry) {
	pos.after = e.Seq
	pos.dropped += e.Dropped
	if l, ok := e.Event.(*api.LogEvent); ok && pos.dropped > 0 {
		l.Dropped += pos.dropped
		pos.dropped = 0
	}
	f.show.show(e.Event)
}

// introduce says what the request led to.
func (f *front) introduce(ans api.RunAnswer, dir string) {
	if t, ok := f.show.(*textRenderer); ok {
		t.service, t.dir = ans.Service, dir
	}
	f.say("%s: %s", ans.Service, ans.Why)
	if !ans.Joined {
		return
	}
	s := f.service(ans.Name, func(*api.Service) bool { return true })
	if s == nil {
		return
	}
	env := s.Environment
	env.Resumed = true
	now := time.Now()
	if s.Phase != api.PhaseOpening {
		f.show.show(&api.EnvironmentEvent{Header: api.Header{Type: api.KindEnvironment, Generation: s.Generation, Time: now}, Environment: env, State: "connected"})
	}
	others := slices.DeleteFunc(slices.Clone(s.Clients), func(name string) bool { return name == f.name })
	f.say("joined: it runs already, held by %s", strings.Join(others, ", "))
	if s.URL != "" && s.Process == api.StateRunning {
		f.show.show(&api.ReadyEvent{Header: api.Header{Type: api.KindReady, Generation: s.Generation, Time: now}, URL: s.URL})
	}
}

// say tells a person.
func (f *front) say(format string, args ...any) {
	if t, ok := f.show.(*textRenderer); ok {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.say("%s", clean(fmt.Sprintf(format, args...)))
	}
}

// end is what an interrupt does: this run holds the environment no more, which ends it unless an editor or another run
// does. stop ends the reading where the environment goes on without us.
func (f *front) end(ctx context.Context, stop context.CancelFunc, name string) error {
	tctx, cancel := context.WithTimeout(ctx, endLimit)
	context.AfterFunc(tctx, func() { // whatever happens, an end comes
		if tctx.Err() == context.DeadlineExceeded {
			stop()
		}
	})
	_ = cancel // the timer ends with ctx
	if err := f.c.Leave(tctx, name); err != nil && !over(err) {
		stop()
		return err
	}
	all, err := f.c.Services(tctx)
	if err != nil {
		stop()
		return err
	}
	for _, s := range all {
		if s.Name == name && s.Phase != api.PhaseStopping {
			f.say("left: %s goes on with it", strings.Join(s.Clients, ", "))
			stop()
		}
	}
	return nil
}

// ended says why the session is over.
func (f *front) ended(ctx context.Context, name string) error {
	s := f.service(name, func(s *api.Service) bool { return s.Phase == api.PhaseEnded })
	if s == nil {
		if ctx.Err() != nil {
			return nil
		}
		return &api.Problem{Code: "agent-lost", Message: "the agent has ended", Hint: "run again: it goes on where it was"}
	}
	var errs []error
	for _, p := range s.Problems {
		if p.Owner != "environment" {
			continue
		}
		if j, ok := f.show.(*jsonRenderer); ok {
			j.show(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: s.Generation, Time: time.Now()}, Problem: p})
		}
		errs = append(errs, &p)
	}
	if len(errs) > 0 || ctx.Err() != nil {
		return errors.Join(errs...)
	}
	p := &api.Problem{Code: api.CodeGone, Message: "the environment is gone: " + s.Detail, Hint: "fairlead run makes a new one"}
	if s.Joined {
		p.Message, p.Hint = "the environment is followed no longer: "+s.Detail, "fairlead join follows it again"
	}
	if j, ok := f.show.(*jsonRenderer); ok {
		j.show(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: s.Generation, Time: time.Now()}, Problem: *p})
	}
	return p
}
